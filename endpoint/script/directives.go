package script

import (
	"encoding/hex"
	"slices"
	"strings"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
)

// A command is one directive a scenario can use.
type command struct {
	name  string
	usage string // its arguments
	help  string // one line
	do    func(*World, *args) error
}

// commands is what a scenario can say besides "world". "then=stop" after any of
// them leaves what is in flight in flight, "quiet" leaves the trace out.
var commands = []command{
	// The host and its devices.
	{"publish", "[interface=GUID] [instance=GUID] [sub=N] [flags=N] [order=N] [mmio=MIB] [mmio-optional=MIB] [not-dedicated] " +
		"[user=HEX] [pipe=bytes|messages] [pipe-flags=N] [monitor=LATENCY] [preset=ID]",
		"the host offers a device; offers are numbered from 1", (*World).publish},
	{"publish-socket", "service=GUID endpoint=GUID", "the host dials a service of the guest", (*World).publishSocket},
	{"revoke", "[offer=N]", "the host withdraws an offer", func(w *World, a *args) error {
		return w.Host.Revoke(endpoint.OfferID(num[uint64](a, "offer", 1)))
	}},
	{"accept", "[last]", "the host accepts the oldest (or the last) socket request", (*World).answerDial},
	{"refuse", "[last]", "the host refuses the oldest (or the last) socket request", (*World).answerDial},
	{"reset", "", "the virtual machine is reset", func(w *World, _ *args) error { w.Host.Reset(); return nil }},
	{"device", "answer=auto|manual", "devices answer at once, or wait for \"answer\"", func(w *World, a *args) error {
		w.Manual = a.word("answer", "auto", "auto", "manual") == "manual"
		return nil
	}},
	{"stop", "[offer=N]", "a device stops: nothing is asked of it", func(w *World, a *args) error {
		return w.Host.StopDevice(endpoint.OfferID(num[uint64](a, "offer", 1)))
	}},
	{"start", "[offer=N]", "a stopped device starts again", func(w *World, a *args) error {
		return w.Host.StartDevice(endpoint.OfferID(num[uint64](a, "offer", 1)))
	}},
	{"answer", "[status=N]", "a manual device answers its oldest request", (*World).answerOldest},

	// The guest and its drivers.
	{"connect", "", "the guest negotiates a version and asks for offers", func(w *World, _ *args) error { return w.Guest.Connect() }},
	{"unload", "", "the guest ends the connection", func(w *World, _ *args) error { return w.Guest.Unload() }},
	{"dial", "service=GUID endpoint=GUID", "the guest dials a service of the host", func(w *World, a *args) error {
		service, from := a.guid("service", ""), a.guid("endpoint", "")
		if a.err != nil {
			return nil
		}
		return w.Guest.RequestSocket(service, from)
	}},
	{"open", "channel=N [pages=N] [vp=N] [flag=N] [connection=N] [redirect] [reserved] [reply-vp=N] [reply-sint=N]",
		"a driver of the guest opens a channel", (*World).open},
	{"close", "channel=N", "a driver of the guest closes its channel", func(w *World, a *args) error { return w.Guest.Close(a.channel()) }},
	{"release", "channel=N", "a driver of the guest gives an offer back", func(w *World, a *args) error { return w.Guest.Release(a.channel()) }},
	{"modify", "channel=N [vp=N]", "the guest moves a channel's interrupt", func(w *World, a *args) error {
		return w.Guest.ModifyChannel(a.channel(), num[uint32](a, "vp", 0))
	}},
	{"remap", "[parent=GPA] [child=GPA]", "the guest replaces its monitor pages", func(w *World, a *args) error {
		return w.Guest.ModifyConnection(num[uint64](a, "parent", 0), num[uint64](a, "child", 0))
	}},
	{"pause", "", "the guest asks the host to be silent", func(w *World, _ *args) error { return w.Guest.Pause() }},
	{"resume", "", "the guest ends the silence", func(w *World, _ *args) error { return w.Guest.Resume() }},

	// Messages that no core wrote.
	{"send", "MESSAGE [FIELD=VALUE ...] [words=(N, ...)] [port=N] [trusted]", "a message of the guest, field by field", (*World).send},
	{"tell", "MESSAGE [FIELD=VALUE ...] [words=(N, ...)]", "a message of the host, field by field", (*World).tell},
	{"post", "[port=N]", "messages of the guest, one in each line of hexadecimal input", (*World).postBytes},
	{"deliver", "", "messages of the host, one in each line of hexadecimal input", func(w *World, a *args) error {
		return w.hexLines(a, func(b []byte) error { return w.Guest.Receive(b) }) // the guest may be a restored one by then
	}},

	// The way between them.
	{"slot", "is=free|busy", "the guest does, or does not, empty its message slot", func(w *World, a *args) error {
		w.Busy = a.word("is", "free", "free", "busy") == "busy"
		return nil
	}},
	{"lose", "direct=yes|no", "answers about reserved channels are lost", func(w *World, a *args) error {
		w.Lossy = a.word("direct", "yes", "yes", "no") == "yes"
		return nil
	}},
	{"trust", "path=yes|no", "the guest's messages come on a trusted path", func(w *World, a *args) error {
		w.Trusted = a.word("path", "yes", "yes", "no") == "yes"
		return nil
	}},
	{"restore", "[side=host|guest] [max=VERSION] [grant=N] [flip=OFFSET] [new-devices]",
		"save both cores, or one, and go on with what comes back from the bytes (with one of them wrong)", (*World).restore},
	{"usage", "", "print what both sides hold", func(w *World, _ *args) error { w.log("%s", w.usage()); return nil }},
	{"run", "", "let everything in flight arrive", func(*World, *args) error { return nil }},
}

func (w *World) publish(a *args) error {
	o := offers.Offer{
		Key: offers.Key{
			Interface: a.guid("interface", "00000001"), Instance: a.guid("instance", "00000002"),
			SubChannel: num[uint16](a, "sub", 0),
		},
		Order: num[uint32](a, "order", 0), NotDedicated: a.has("not-dedicated"), MMIOMegabytes: num[uint16](a, "mmio", 0),
		MMIOMegabytesOptional: num[uint16](a, "mmio-optional", 0), UserDefined: publishedData(a),
		Flags: vmbus.OfferFlags(num[uint16](a, "flags", 0)),

		Monitor: monitor(a),
	}
	if a.err != nil {
		return nil
	}
	id, err := w.Host.Publish(o)
	if err == nil {
		w.log("host: offer %d", id)
	}
	return err
}

// publishedData is the "user=HEX" of a publish, or "pipe=bytes" and "pipe=messages".
func publishedData(a *args) vmbus.UserData {
	u := a.userData("user")
	mode, flags := a.word("pipe", "", "bytes", "messages"), num[uint32](a, "pipe-flags", 0)
	if mode == "" {
		return u
	}
	p := vmbus.PipeUserData{Flags: flags}
	if mode == "messages" {
		p.PipeType = 4
	}
	copy(p.Provider[:], u[:])
	return p.Encode()
}

// monitor is the "monitor=LATENCY" of a publish, with "preset=ID" or without.
func monitor(a *args) *offers.Monitor {
	m := offers.Monitor{Latency: num[uint16](a, "monitor", 0), Preset: a.has("preset"), ID: num[uint8](a, "preset", 0)}
	if !a.has("monitor") {
		return nil
	}
	return &m
}

func (w *World) publishSocket(a *args) error {
	o := endpoint.SocketOffer(a.guid("service", ""), a.guid("endpoint", ""), true, vmbus.Iron)
	if a.err != nil {
		return nil
	}
	_, err := w.Host.Publish(o)
	return err
}

// answerDial accepts or refuses the oldest socket request, or the last.
func (w *World) answerDial(a *args) error {
	n := 0
	if a.has("last") {
		n = len(w.dialed) - 1
	}
	if len(w.dialed) == 0 {
		return mistake(a.Line, `nobody has dialed; write "dial service=port:1388 endpoint=port:1" before`)
	}
	r := w.dialed[n]
	w.dialed = slices.Delete(w.dialed, n, n+1)
	if a.Name == "refuse" {
		w.Host.RefuseSocket(r.Endpoint, r.Service)
		return nil
	}
	_, err := w.Host.AcceptSocket(r.Endpoint, r.Service)
	return err
}

// answerOldest lets the device answer its oldest request.
func (w *World) answerOldest(a *args) error {
	status := num[uint32](a, "status", 0)
	if len(w.asked) == 0 {
		return mistake(a.Line, `no device waits for an answer; write "device answer=manual" before what asks it`)
	}
	asked := w.asked[0]
	w.asked = w.asked[1:]
	w.Answer(asked, status)
	return nil
}

func (w *World) open(a *args) error {
	p := endpoint.OpenParams{
		TargetVP: num[uint32](a, "vp", 0), Redirect: a.has("redirect"),
		EventFlag: num[uint16](a, "flag", 0), ConnectionID: num[uint32](a, "connection", 0),
	}
	reply := endpoint.ReservedTarget{VP: num[uint32](a, "reply-vp", 0), SINT: num[uint8](a, "reply-sint", 2)}
	if a.has("reserved") {
		p.Reserved = &reply
	}
	pages := num[uint16](a, "pages", channel.DefaultRingPages)
	if pages > channel.MaxRingPages {
		a.wrong("pages", "one GPADL has both rings and at most %d pages; write at most %d", channel.MaxGPADLPages, channel.MaxRingPages)
		return nil
	}
	return w.OpenWith(a.channel(), int(pages), p)
}

// postBytes is raw bytes of a hostile guest.
func (w *World) postBytes(a *args) error {
	port := num[uint32](a, "port", 1)
	return w.hexLines(a, func(b []byte) error {
		if w.Host.Refuses(b) {
			return errRefusedPost
		}
		w.arrive(endpoint.Source{Port: port}, b)
		return nil
	})
}

// hexLines hands each line of hexadecimal input, spaces and comments aside, to
// receive.
func (w *World) hexLines(a *args, receive func([]byte) error) error {
	for line := range strings.Lines(a.Input) {
		line, _, _ = strings.Cut(line, "#")
		b, err := hex.DecodeString(strings.Join(strings.Fields(line), ""))
		if err != nil {
			return mistake(a.Line, "below %q: %v; write pairs of hexadecimal digits", a.Name, err)
		}
		if err := receive(b); err != nil {
			w.log("drops: %v", err)
		}
		if err := w.Run(); err != nil {
			return mistake(a.Line, "%v", err)
		}
	}
	return nil
}
