package endpoint

import (
	"encoding/hex"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/cockroachdb/datadriven"
	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
)

// A directive is one line of a scenario file with its arguments.
type directive struct{ *datadriven.TestData }

// has reports whether the argument key is there, with or without a value.
func (d directive) has(key string) bool {
	for _, a := range d.CmdArgs {
		if a.Key == key {
			return true
		}
	}
	return false
}

// text returns the value of an argument, or def.
func (d directive) text(key, def string) string {
	for _, a := range d.CmdArgs {
		if a.Key == key && len(a.Vals) == 1 {
			return a.Vals[0]
		}
	}
	return def
}

// num returns the value of a numeric argument, or def.
func (d directive) num(key string, def uint64) uint64 {
	s := d.text(key, "")
	if s == "" {
		return def
	}
	return number(s)
}

// number reads any base; a scenario that is mistaken panics, which fails it.
func number(s string) uint64 {
	var n uint64
	if _, err := fmt.Sscan(s, &n); err != nil {
		panic(fmt.Sprintf("%q is no number: %v", s, err))
	}
	return n
}

func (d directive) channel() vmbus.ChannelID { return vmbus.ChannelID(d.num("channel", 0)) }

// directives is what a scenario can say. "then=stop" after any of them leaves
// what is in flight in flight, "quiet" leaves the trace out, "run" goes on.
var directives = map[string]func(*world, directive) error{
	"publish":        (*world).publish,
	"publish-socket": (*world).publishSocket,
	"revoke":         func(w *world, d directive) error { return w.host.Revoke(OfferID(d.num("offer", 1))) },
	"accept":         (*world).answerDial,
	"refuse":         (*world).answerDial,
	"reset":          func(w *world, _ directive) error { w.host.Reset(); return nil },
	"device":         func(w *world, d directive) error { w.manual = d.text("answer", "auto") == "manual"; return nil },
	"answer":         (*world).answerOldest,

	"connect": func(w *world, _ directive) error { return w.guest.Connect() },
	"unload":  func(w *world, _ directive) error { return w.guest.Unload() },
	"dial": func(w *world, d directive) error {
		return w.guest.RequestSocket(guid(d.text("service", "")), guid(d.text("endpoint", "")))
	},
	"open":   (*world).openDirective,
	"close":  func(w *world, d directive) error { return w.guest.Close(d.channel()) },
	"pause":  func(w *world, _ directive) error { return w.guest.Pause() },
	"resume": func(w *world, _ directive) error { return w.guest.Resume() },
	"remap": func(w *world, d directive) error {
		return w.guest.ModifyConnection(d.num("parent", 0), d.num("child", 0))
	},
	"modify": func(w *world, d directive) error {
		return w.guest.ModifyChannel(d.channel(), uint32(d.num("vp", 0)))
	},

	"post": (*world).post,
	"deliver": func(w *world, d directive) error {
		return w.hexLines(d.Input, func(b []byte) error { return w.guest.Receive(b) })
	},
	"send":    (*world).send,
	"tell":    (*world).tell,
	"lose":    func(w *world, d directive) error { w.lossy = d.text("direct", "yes") == "yes"; return nil },
	"slot":    func(w *world, d directive) error { w.busy = d.text("is", "free") == "busy"; return nil },
	"release": func(w *world, d directive) error { return w.guest.Release(d.channel()) },
	"trust":   func(w *world, d directive) error { w.trusted = d.text("path", "yes") == "yes"; return nil },
	"usage":   func(w *world, _ directive) error { w.log("%s", w.usage()); return nil },
	"run":     func(*world, directive) error { return nil },
}

// do carries out one directive of a scenario file.
func (w *world) do(d directive) error {
	f := directives[d.Cmd]
	if f == nil {
		return fmt.Errorf("unknown directive %s", d.Cmd)
	}
	return f(w, d)
}

func (w *world) publish(d directive) error {
	id, err := w.host.Publish(offers.Offer{
		Key: offers.Key{
			Interface: guid(d.text("interface", "00000001")), Instance: guid(d.text("instance", "00000002")),
			SubChannel: uint16(d.num("sub", 0)),
		},
		Order: uint32(d.num("order", 0)), NotDedicated: d.has("not-dedicated"), MMIOMegabytes: uint16(d.num("mmio", 0)),
		MMIOMegabytesOptional: uint16(d.num("mmio-optional", 0)), UserDefined: userData(d),
		Flags: vmbus.OfferFlags(d.num("flags", 0)),

		Monitor: monitor(d),
	})
	if err == nil {
		w.log("host: offer %d", id)
	}
	return err
}

// userData is the "user=HEX" of a publish, or "pipe=bytes" and "pipe=messages".
func userData(d directive) (u vmbus.UserData) {
	b, err := hex.DecodeString(d.text("user", ""))
	if err != nil {
		panic(err)
	}
	copy(u[:], b)
	if mode := d.text("pipe", ""); mode != "" {
		p := vmbus.PipeUserData{}
		if mode == "messages" {
			p.PipeType = 4
		}
		copy(p.Provider[:], b)
		p.Flags = uint32(d.num("pipe-flags", 0))
		return p.Encode()
	}
	return u
}

// monitor is the "monitor=LATENCY" of a publish, with "preset=ID" or without.
func monitor(d directive) *offers.Monitor {
	if !d.has("monitor") {
		return nil
	}
	return &offers.Monitor{Latency: uint16(d.num("monitor", 0)), Preset: d.has("preset"), ID: uint8(d.num("preset", 0))}
}

func (w *world) publishSocket(d directive) error {
	_, err := w.host.Publish(SocketOffer(guid(d.text("service", "")), guid(d.text("endpoint", "")), true, vmbus.Iron))
	return err
}

func (w *world) answerDial(d directive) error {
	n := 0
	if d.has("last") {
		n = len(w.dialed) - 1
	}
	r := w.dialed[n]
	w.dialed = slices.Delete(w.dialed, n, n+1)
	if d.Cmd == "refuse" {
		w.host.RefuseSocket(r.Endpoint, r.Service)
		return nil
	}
	_, err := w.host.AcceptSocket(r.Endpoint, r.Service)
	return err
}

// answerOldest lets the device answer its oldest request.
func (w *world) answerOldest(d directive) error {
	a := w.asked[0]
	w.asked = w.asked[1:]
	w.answer(a, uint32(d.num("status", 0)))
	return nil
}

func (w *world) openDirective(d directive) error {
	p := OpenParams{
		TargetVP: uint32(d.num("vp", 0)), Redirect: d.has("redirect"),
		EventFlag: uint16(d.num("flag", 0)), ConnectionID: uint32(d.num("connection", 0)),
	}
	if d.has("reserved") {
		p.Reserved = &ReservedTarget{VP: uint32(d.num("reply-vp", 0)), SINT: uint8(d.num("reply-sint", 2))}
	}
	return w.openWith(d.channel(), int(d.num("pages", channel.DefaultRingPages)), p)
}

// post is raw bytes of a hostile guest.
func (w *world) post(d directive) error {
	return w.hexLines(d.Input, func(b []byte) error { return w.host.Receive(uint32(d.num("port", 1)), b) })
}

// send is a message the guest's kernel posts past its core: "send CloseChannel
// channel_id=1". Fields that are not named are zero; "words=(...)" follow a
// GPADL message.
func (w *world) send(d directive) error {
	b := encode(d)
	w.dropped("host", w.host.ReceiveFrom(Source{Port: uint32(d.num("port", 1)), Trusted: d.has("trusted")}, b))
	return nil
}

// tell is a message of a host other than ours, handed to the guest core.
func (w *world) tell(d directive) error {
	w.dropped("guest", w.guest.Receive(encode(d)))
	return nil
}

// encode builds the message a directive names by its fields.
func encode(d directive) []byte {
	m := newMessage(d.CmdArgs[0].Key)
	var words []uint64
	for _, a := range d.CmdArgs[1:] {
		switch {
		case a.Key == "words":
			for _, v := range a.Vals {
				words = append(words, number(v))
			}
		case len(a.Vals) == 1:
			set(reflect.ValueOf(m).Elem(), a.Key, a.Vals[0])
		}
	}
	return vmbus.AppendWords(vmbus.Append(nil, m), words)
}

func newMessage(name string) vmbus.Message {
	for _, m := range []vmbus.Message{
		&vmbus.OfferChannel{}, &vmbus.RescindChannelOffer{}, &vmbus.RequestOffers{}, &vmbus.AllOffersDelivered{},
		&vmbus.OpenChannel{}, &vmbus.OpenChannel2{}, &vmbus.OpenResult{}, &vmbus.CloseChannel{}, &vmbus.GPADLHeader{},
		&vmbus.GPADLBody{}, &vmbus.GPADLCreated{}, &vmbus.GPADLTeardown{}, &vmbus.GPADLTorndown{}, &vmbus.RelIDReleased{},
		&vmbus.InitiateContact{}, &vmbus.InitiateContact2{}, &vmbus.VersionResponse{}, &vmbus.VersionResponse2{},
		&vmbus.VersionResponse3{}, &vmbus.Unload{}, &vmbus.UnloadComplete{}, &vmbus.OpenReservedChannel{},
		&vmbus.CloseReservedChannel{}, &vmbus.CloseReservedChannelResponse{}, &vmbus.TLConnectRequest{},
		&vmbus.TLConnectRequest2{}, &vmbus.ModifyChannel{}, &vmbus.TLConnectResult{}, &vmbus.ModifyChannelResponse{},
		&vmbus.ModifyConnection{}, &vmbus.ModifyConnectionResponse{}, &vmbus.Pause{}, &vmbus.PauseResponse{}, &vmbus.Resume{},
	} {
		if vmbus.Name(m) == name || m.Type().String() == name {
			return m
		}
	}
	panic(fmt.Sprintf("no message is called %q", name))
}

// set gives the field with the specification's name a value. Names that are no
// field, such as "port" and "quiet", belong to the directive.
func set(v reflect.Value, name, value string) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		switch {
		case f.Anonymous:
			set(v.Field(i), name, value)
		case f.Tag.Get("wire") != name:
		case f.Type == reflect.TypeFor[vmbus.GUID]():
			v.Field(i).Set(reflect.ValueOf(guid(value)))
		case f.Type == reflect.TypeFor[vmbus.Version]():
			version, err := vmbus.ParseVersion(value)
			if err != nil {
				panic(err)
			}
			v.Field(i).SetUint(uint64(version))
		default:
			v.Field(i).SetUint(number(value))
		}
	}
}

// hexLines hands each line of hexadecimal input, spaces and comments aside, to
// receive.
func (w *world) hexLines(input string, receive func([]byte) error) error {
	for line := range strings.Lines(input) {
		line, _, _ = strings.Cut(line, "#")
		b, err := hex.DecodeString(strings.Join(strings.Fields(line), ""))
		if err != nil {
			return err
		}
		if err := receive(b); err != nil {
			w.log("drops: %v", err)
		}
		w.run()
	}
	return nil
}
