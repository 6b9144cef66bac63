package endpoint_test

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/endpoint/invariant"
	"github.com/hvlab/hvlab/endpoint/script"
	_ "github.com/hvlab/hvlab/internal/fixedseed" // the same draws in every run
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A play is a scenario that is made up while it runs.
type play struct {
	t      *rapid.T
	runner *script.Runner
	lines  strings.Builder
	used   []endpoint.Action // of devices, for answers that come twice
}

func newPlay(t *rapid.T, restoring bool) *play {
	p := &play{t: t, runner: script.NewRunner()}
	if restoring {
		p.runner.Prepare = func(w *script.World) { w.BeforeStep = func(w *script.World) { restoreBoth(t, w) } }
	}
	return p
}

// say runs one line of a scenario; input may be empty. What breaks a promise fails
// the test with the scenario that shows it.
func (p *play) say(line, input string) string {
	text := line + "\n"
	if input != "" {
		text += input + "\n"
	}
	p.lines.WriteString(text + "----\n\n")
	f, err := script.Parse(text + "----\n")
	require.NoError(p.t, err, text)
	trace, err := p.runner.Do(f.Blocks[0].Directive)
	if err != nil {
		p.t.Fatalf("%v\n%s\nThis scenario shows it; save it and play it with hvlab run:\n\n%s", err, trace, p.lines.String())
	}
	if host := p.runner.World.Host; host.Check() != nil {
		p.t.Fatalf("%v\nThis scenario shows it:\n\n%s", host.Check(), p.lines.String())
	}
	return trace
}

// draw says one of the choices, filled in with small random numbers: a "%" is a
// channel, an offer, a GPADL or a processor, of which there are few, so that they
// meet.
func (p *play) draw(label string, choices ...string) {
	line := rapid.SampledFrom(choices).Draw(p.t, label)
	for strings.Contains(line, "%") {
		line = strings.Replace(line, "%", fmt.Sprint(rapid.SampledFrom([]int{1, 1, 1, 1, 2, 2, 2, 3, 4, 0, 5}).Draw(p.t, "n")), 1)
	}
	if rapid.IntRange(0, 5).Draw(p.t, "stop") == 0 {
		line += " then=stop"
	}
	p.say(line, "")
}

// The world: every version, every kind of guest, features or none.
func (p *play) begin() {
	version := rapid.SampledFrom(vmbus.Versions()).Draw(p.t, "version")
	line := "world guest=" + version.String()
	for _, option := range []string{
		"profile=linux", "profile=freebsd", "vps=4", "parent=0x1000 child=0x2000", "grant=0xff features=0xff redirect-sint=7",
		"features=0x2f own-flags", "host-parent=0x3000 host-child=0x4000", "trusted", "raw", "answer-rescinded-opens", "reset-on-contact",
	} {
		if rapid.IntRange(0, 3).Draw(p.t, option) == 0 && !(option == "profile=freebsd" && strings.Contains(line, "linux")) {
			line += " " + option
		}
	}
	p.say(line, "")
	p.say("publish instance=00000001 monitor=10", "")
	p.say("publish instance=00000002", "")
	if rapid.Bool().Draw(p.t, "connected") {
		p.say("connect", "")
	}
}

// legal wishes; many are not at that moment, which is the caller's mistake and
// leaves everything as it was.
func (p *play) legal(*rapid.T) {
	p.draw("wish",
		"connect", "unload", "open channel=% pages=2", "open channel=% pages=20 vp=%", "open channel=% pages=2 reserved",
		"close channel=%", "close channel=%", "release channel=%", "modify channel=% vp=%", "pause", "resume", "remap parent=0x5000 child=0x6000",
		"dial service=port:1388 endpoint=port:%", "publish instance=0000000% monitor=5", "publish instance=0000000%",
		"publish instance=0000000% sub=1", "revoke offer=%", "revoke offer=%", "stop offer=%", "start offer=%", "reset",
		"publish-socket service=port:1388 endpoint=port:%", "lose direct=yes", "lose direct=no", "trust path=yes", "trust path=no",
		"device answer=manual", "device answer=auto", "slot is=busy", "slot is=free", "run", "usage")
}

// illegal messages of either side, with fields that may mean something.
func (p *play) illegal(*rapid.T) {
	p.draw("message",
		"send RequestOffers", "send Unload", "send Pause", "send Resume",
		"send OpenChannel channel_id=% open_id=% ring_buffer_gpadl=% downstream_page_offset=2",
		"send OpenChannel2 channel_id=% open_id=% ring_buffer_gpadl=% downstream_page_offset=2 event_flag=% connection_id=9 open_flags=1",
		"send CloseChannel channel_id=%", "send RelIDReleased channel_id=%", "send ModifyChannel channel_id=% target_vp=%",
		"send GPADLHeader channel_id=% gpadl_id=% range_buflen=40 range_count=1 words=(0x4000, 1, 2, 3, 4)",
		"send GPADLHeader channel_id=% gpadl_id=% range_buflen=40 range_count=1 words=(0x4000, 1)",
		"send GPADLHeader channel_id=% gpadl_id=% range_buflen=24 range_count=2 words=(0x4000, 1, 2)",
		"send GPADLBody gpadl_id=% words=(2, 3, 4)", "send GPADLBody gpadl_id=% words=(2)",
		"send GPADLTeardown channel_id=% gpadl_id=%",
		"send OpenReservedChannel channel_id=% target_vp=% target_sint=% ring_buffer_gpadl=% downstream_page_offset=2",
		"send CloseReservedChannel channel_id=% target_vp=%",
		"send TLConnectRequest endpoint_id=port:% service_id=port:1388", "send ModifyConnection parent_to_child_monitor_page=0x1000",
		"send InitiateContact version_requested=5.3", "send InitiateContact version_requested=2.4 trusted", "send InitiateContact version_requested=6.0",
		"send VersionResponse",

		"tell OfferChannel channel_id=%", "tell OfferChannel channel_id=% sub_channel_index=1", "tell RescindChannelOffer channel_id=%",
		"tell OpenResult channel_id=% open_id=%", "tell OpenResult channel_id=% open_id=% status=0x80000000",
		"tell GPADLCreated channel_id=% gpadl_id=0xe1e1%", "tell GPADLCreated channel_id=% gpadl_id=0xe1e1% status=1",
		"tell GPADLTorndown gpadl_id=0xe1e1%", "tell ModifyChannelResponse channel_id=%", "tell UnloadComplete", "tell AllOffersDelivered",
		"tell PauseResponse", "tell CloseReservedChannelResponse channel_id=%", "tell VersionResponse version_supported=1", "tell Unload",
	)
}

// dialed accepts or refuses a socket request, which may be overtaken by the end of
// its connection.
func (p *play) dialed(*rapid.T) {
	if p.runner.World.Dialed() > 0 {
		p.draw("dialed", "accept", "accept last", "refuse")
	}
}

// answer lets a manual device answer; then it answers the same again, which must
// change nothing (I-NO-STALE-ACTION).
func (p *play) answer(t *rapid.T) {
	w := p.runner.World
	asked := w.Asked()
	if len(asked) == 0 {
		return
	}
	p.used = append(p.used, asked[0])
	status := rapid.SampledFrom([]string{"", "", " status=0xc0000001"}).Draw(t, "status")
	p.say("answer"+status, "")
	before, err := w.Host.Save()
	if err != nil {
		return // an action was not taken
	}
	for _, a := range p.used {
		if tokenless(a) {
			continue
		}
		if waits(w, a) { // a manual device was asked anew
			continue
		}
		w.Answer(a, vmbus.StatusSuccess)
	}
	after, err := w.Host.Save()
	require.NoError(t, err, "an answer nobody waits for asks for nothing\n%s", p.lines.String())
	require.NoError(t, invariant.NoStaleAction(before, after), p.lines.String())
}

// tokenless reports whether an answer to a is told from others by the state alone.
func tokenless(a endpoint.Action) bool {
	switch a.(type) {
	case endpoint.SetupConnection, endpoint.ResetConnection:
		return true
	}
	return false
}

// waits reports whether w is waiting for the answer to a.
func waits(w *script.World, a endpoint.Action) bool {
	for _, b := range w.Asked() {
		if fmt.Sprintf("%T%v", a, a) == fmt.Sprintf("%T%v", b, b) {
			return true
		}
	}
	return false
}

// noise is bytes that nobody ever meant as a message.
func (p *play) noise(t *rapid.T) {
	b := rapid.SliceOfN(rapid.Byte(), 1, 60).Draw(t, "bytes")
	b[0] %= 31
	p.say(rapid.SampledFrom([]string{"post", "deliver"}).Draw(t, "to"), hex.EncodeToString(b))
}

// TestModel drives both cores with legal and illegal wishes, messages and answers
// in any order. After each step every promise of package invariant holds; at the
// end a reset leaves nothing behind.
func TestModel(t *testing.T) {
	for _, restoring := range []bool{false, true} {
		t.Run(fmt.Sprintf("restoring=%v", restoring), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				p := newPlay(t, restoring)
				p.begin()
				t.Repeat(map[string]func(*rapid.T){
					"legal": p.legal, "wish": p.legal, "illegal": p.illegal, "answer": p.answer, "noise": p.noise, "dialed": p.dialed,
				})
				p.end()
			})
		})
	}
}

// end resets the machine: L-RESET, I-NO-LEAK.
func (p *play) end() {
	p.say("slot is=free", "")
	p.say("lose direct=no", "")
	p.say("device answer=auto", "")
	for len(p.runner.World.Asked()) > 0 {
		p.say("answer", "")
	}
	p.say("reset", "")
	w := p.runner.World
	require.Equal(p.t, endpoint.HostDisconnected, w.Host.State(), "L-RESET\n%s", p.lines.String())
	_, ids, gpadls, operations, requests := w.Host.Usage()
	require.Zero(p.t, ids+gpadls+operations+requests, "I-NO-LEAK\n%s", p.lines.String())
}

// The same wishes and the same devices give the same run, ids included
// (I-DETERMINISTIC-IDS, P24).
func TestSameRun(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		order := rapid.Permutation([]int{1, 2, 3, 4, 5, 6, 7, 8}).Draw(t, "order")
		run := func(order []int) string {
			w := script.NewWorld()
			for _, i := range order {
				_, err := w.Host.Publish(offers.Offer{Key: offers.Key{Interface: vmbus.GUID{byte(i % 3)}, Instance: vmbus.GUID{byte(i)}}})
				require.NoError(t, err)
			}
			require.NoError(t, w.Guest.Connect())
			require.NoError(t, w.Run())
			return w.Trace()
		}
		require.NoError(t, invariant.SameRun(run(order), run([]int{1, 2, 3, 4, 5, 6, 7, 8})))
	})
}
