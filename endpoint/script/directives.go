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
	name string
	do   func(*World, *args) error
}

// commands is what a scenario can say besides "world". "then=stop" after any of
// them leaves what is in flight in flight, "quiet" leaves the trace out, "run"
// goes on.
var commands = []command{
	// The host and its devices.
	{"publish", (*World).publish},
	{"publish-socket", (*World).publishSocket},
	{"revoke", func(w *World, a *args) error { return w.Host.Revoke(endpoint.OfferID(num[uint64](a, "offer", 1))) }},
	{"accept", (*World).answerDial},
	{"refuse", (*World).answerDial},
	{"reset", func(w *World, _ *args) error { w.Host.Reset(); return nil }},
	{"device", func(w *World, a *args) error {
		w.Manual = a.word("answer", "auto", "auto", "manual") == "manual"
		return nil
	}},
	{"answer", (*World).answerOldest},

	// The guest and its drivers.
	{"connect", func(w *World, _ *args) error { return w.Guest.Connect() }},
	{"unload", func(w *World, _ *args) error { return w.Guest.Unload() }},
	{"dial", func(w *World, a *args) error {
		service, from := a.guid("service", ""), a.guid("endpoint", "")
		if a.err != nil {
			return nil
		}
		return w.Guest.RequestSocket(service, from)
	}},
	{"open", (*World).open},
	{"close", func(w *World, a *args) error { return w.Guest.Close(a.channel()) }},
	{"release", func(w *World, a *args) error { return w.Guest.Release(a.channel()) }},
	{"modify", func(w *World, a *args) error { return w.Guest.ModifyChannel(a.channel(), num[uint32](a, "vp", 0)) }},
	{"remap", func(w *World, a *args) error {
		return w.Guest.ModifyConnection(num[uint64](a, "parent", 0), num[uint64](a, "child", 0))
	}},
	{"pause", func(w *World, _ *args) error { return w.Guest.Pause() }},
	{"resume", func(w *World, _ *args) error { return w.Guest.Resume() }},

	// Messages nobody's core wrote.
	{"post", (*World).postBytes},
	{"deliver", func(w *World, a *args) error {
		return w.hexLines(a, func(b []byte) error { return w.Guest.Receive(b) }) // the guest may be a restored one by then
	}},
	{"send", (*World).send},
	{"tell", (*World).tell},

	// The way between them.
	{"slot", func(w *World, a *args) error { w.Busy = a.word("is", "free", "free", "busy") == "busy"; return nil }},
	{"lose", func(w *World, a *args) error { w.Lossy = a.word("direct", "yes", "yes", "no") == "yes"; return nil }},
	{"trust", func(w *World, a *args) error { w.Trusted = a.word("path", "yes", "yes", "no") == "yes"; return nil }},
	{"usage", func(w *World, _ *args) error { w.log("%s", w.usage()); return nil }},
	{"run", func(*World, *args) error { return nil }},
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
	return w.hexLines(a, func(b []byte) error { return w.Host.Receive(port, b) })
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
