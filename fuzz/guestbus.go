package fuzz

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
)

// A guestBus is a guest core between a host that is the fuzzer and drivers that
// want what the fuzzer says. It watches what the guest posts and reports, and
// remembers the first property that did not hold.
type guestBus struct {
	opts    endpoint.GuestOptions
	core    *endpoint.Guest
	hold    bool            // the host answers when the fuzzer says so
	held    []vmbus.Message // posted, and not answered yet
	toGuest [][]byte        // honest answers on their way

	channels map[vmbus.ChannelID]*channelView
	rings    []*ringView              // every ring there was; the last one of a channel counts
	gone     map[vmbus.ChannelID]bool // reported as released, and not posted yet
	over     bool                     // UnloadComplete came: the host has let go of everything
	fault    error
	trace    *strings.Builder // nil is off
}

// A channelView is what was heard about a channel id since its offer.
type channelView struct {
	rescinded bool
	opening   bool      // a driver waits for the outcome of its open
	ring      *ringView // shared, or on its way; nil without
	reserved  bool
	closes    int // how often the guest has asked for its end, if it is reserved
	modifying bool
}

// A ringView is one ring GPADL.
type ringView struct {
	id                            vmbus.GPADLID
	announced, answered, created  bool
	teardownAsked, tornDown, done bool
}

// newGuestBus returns a guest that asks for one version. The bits of setup:
// 0x3F chooses the version, 0x40 is a guest that skips teardowns, 0x80 one that
// asks for every feature.
func newGuestBus(setup uint8) *guestBus {
	versions := vmbus.Versions()
	w := &guestBus{
		opts: endpoint.GuestOptions{
			Versions:     []vmbus.Version{versions[int(setup&0x3F)%len(versions)]},
			SkipTeardown: setup&0x40 != 0, ParentToChild: 4096, ChildToParent: 8192,
		},
		channels: map[vmbus.ChannelID]*channelView{}, gone: map[vmbus.ChannelID]bool{},
	}
	if setup&0x80 != 0 {
		w.opts.Features, w.opts.OwnEventFlags = vmbus.AllFeatures, true
	}
	w.core = endpoint.NewGuest(w.opts)
	return w
}

// open shares a ring pair of the given pages each way.
func (w *guestBus) open(id vmbus.ChannelID, pages int, reserved bool) {
	p := endpoint.OpenParams{HostOffset: uint32(pages)}
	for i := range 2 * pages {
		p.PFNs = append(p.PFNs, uint64(0x1000+7*i))
	}
	if reserved {
		p.Reserved = &endpoint.ReservedTarget{SINT: 2}
	}
	if err := w.core.Open(id, p); err != nil {
		w.misuse("Open", err)
		return
	}
	c := w.channels[id]
	if c == nil || c.ring != nil || c.rescinded {
		w.fail("I-STATE-LEGAL", "channel %d could be opened: %+v", id, c)
		return
	}
	c.ring, c.opening, c.reserved = &ringView{}, true, reserved
	w.rings = append(w.rings, c.ring)
}

// misuse checks an error of the guest's own API.
func (w *guestBus) misuse(call string, err error) {
	if err != nil && !errors.Is(err, vmbus.ErrState) {
		w.fail("whose fault", "%s: %v", call, err)
	}
}

// receive hands one message of the host to the guest.
func (w *guestBus) receive(b []byte) {
	n := w.core.Negotiated()
	if w.core.State() == endpoint.GuestUnloading && len(b) >= 4 && b[0] == byte(vmbus.TypeUnloadComplete) {
		w.over = true
	}
	if w.trace != nil {
		w.note("%v", said(vmbus.HostToGuest, b, n))
	}
	before := bytes.Clone(b)
	err := w.core.Receive(b)
	if err != nil {
		w.note("dropped: %v", err)
		if !errors.Is(err, vmbus.ErrProtocol) {
			w.fail("whose fault", "%x: %v", b, err)
		}
	} else {
		w.heard(b, n)
	}
	if !bytes.Equal(before, b) {
		w.fail("input is only read", "%x became %x", before, b)
	}
	w.run()
}

// heard notes what the guest took as an answer.
func (w *guestBus) heard(b []byte, n vmbus.Negotiated) {
	m, _, err := vmbus.ParseFrom(vmbus.HostToGuest, b, n)
	if err != nil {
		return
	}
	switch m := m.(type) {
	case *vmbus.GPADLCreated:
		if r := w.ring(m.GPADL); r != nil {
			r.answered, r.created = true, m.Status == vmbus.StatusSuccess
		}
	case *vmbus.GPADLTorndown:
		if r := w.ring(m.GPADL); r != nil {
			r.tornDown = true
		}
	case *vmbus.ModifyChannelResponse:
		if c := w.channels[m.Channel]; c != nil {
			c.modifying = false
		}
	}
}

func (w *guestBus) ring(id vmbus.GPADLID) *ringView {
	for _, r := range w.rings {
		if r.id == id && r.announced {
			return r
		}
	}
	return nil
}

// run carries out everything that the guest wants now.
func (w *guestBus) run() {
	for steps := 0; w.step(); steps++ {
		if steps > 100_000 {
			w.fail("L-NO-LIVELOCK", "the guest does not come to rest")
			return
		}
	}
	if ids, gpadls := w.core.Usage(); ids > offers.MaxOffers || gpadls > offers.MaxOffers {
		w.fail("I-MEM", "%d channel ids, %d GPADLs", ids, gpadls)
	}
}

func (w *guestBus) step() bool {
	if a, ok := w.core.Next(); ok {
		w.act(a)
		return true
	}
	if m, ok := w.core.NextMessage(); ok {
		w.posted(m)
		w.core.MessageSent()
		if w.hold {
			w.held = append(w.held, m.Message)
		} else {
			w.toGuest = append(w.toGuest, honestAnswers(m.Message, w.core.Negotiated())...)
		}
		return true
	}
	if len(w.toGuest) > 0 {
		b := w.toGuest[0]
		w.toGuest = w.toGuest[1:]
		w.receive(b)
		return true
	}
	return false
}

// restore replaces the core by what comes back from its saved state.
func (w *guestBus) restore() {
	b, err := w.core.Save()
	if err != nil {
		w.fail("I-SAVE-ID", "nothing is in the way of a save: %v", err)
		return
	}
	g, err := endpoint.RestoreGuest(w.opts, b)
	if err != nil {
		w.fail("I-SAVE-ID", "what was saved is refused: %v", err)
		return
	}
	if again, err := g.Save(); err != nil || !bytes.Equal(b, again) {
		w.fail("I-SAVE-ID", "save(restore(b)) is not b: %v", err)
	}
	w.core = g
}

func (w *guestBus) fail(property, format string, args ...any) {
	if w.fault == nil {
		w.fault = violated(property, format, args...)
	}
}

func (w *guestBus) note(format string, args ...any) {
	if w.trace != nil {
		fmt.Fprintf(w.trace, format+"\n", args...)
	}
}

// honestAnswers is what an honest host says to one message of a guest.
func honestAnswers(m vmbus.Message, n vmbus.Negotiated) [][]byte {
	one := func(m vmbus.Message) [][]byte { return [][]byte{vmbus.Append(nil, m)} }
	switch m := m.(type) {
	case *vmbus.InitiateContact:
		return one(accepted(*m))
	case *vmbus.InitiateContact2:
		return one(accepted(m.InitiateContact))
	case *vmbus.RequestOffers:
		var list [][]byte
		for id := range vmbus.ChannelID(2) {
			list = append(list, vmbus.Append(nil, &vmbus.OfferChannel{Channel: id + 1, Instance: vmbus.GUID{byte(id) + 1}, MonitorID: vmbus.NoMonitor}))
		}
		return append(list, one(&vmbus.AllOffersDelivered{})...)
	case *vmbus.GPADLHeader:
		return one(&vmbus.GPADLCreated{Channel: m.Channel, GPADL: m.GPADL})
	case *vmbus.GPADLTeardown:
		return one(&vmbus.GPADLTorndown{GPADL: m.GPADL})
	case *vmbus.OpenChannel:
		return one(&vmbus.OpenResult{Channel: m.Channel, OpenID: m.OpenID})
	case *vmbus.OpenChannel2:
		return one(&vmbus.OpenResult{Channel: m.Channel, OpenID: m.OpenID})
	case *vmbus.OpenReservedChannel:
		return one(&vmbus.OpenResult{Channel: m.Channel})
	case *vmbus.CloseReservedChannel:
		return one(&vmbus.CloseReservedChannelResponse{Channel: m.Channel})
	case *vmbus.ModifyChannel:
		if n.Version >= vmbus.Iron {
			return one(&vmbus.ModifyChannelResponse{Channel: m.Channel})
		}
	case *vmbus.ModifyConnection:
		return one(&vmbus.ModifyConnectionResponse{})
	case *vmbus.TLConnectRequest:
		return one(&vmbus.TLConnectResult{Endpoint: m.Endpoint, Service: m.Service, Status: vmbus.StatusConnectionRefused})
	case *vmbus.TLConnectRequest2:
		return one(&vmbus.TLConnectResult{Endpoint: m.Endpoint, Service: m.Service, Status: vmbus.StatusConnectionRefused})
	case *vmbus.Pause:
		return one(&vmbus.PauseResponse{})
	case *vmbus.Unload:
		return one(&vmbus.UnloadComplete{})
	}
	return nil
}

// accepted grants a contact everything it asks for.
func accepted(m vmbus.InitiateContact) vmbus.Message {
	r := vmbus.VersionResponse{Supported: 1, VersionOrConnectionID: uint32(m.Version)}
	if m.Version >= vmbus.Win10V5 {
		r.VersionOrConnectionID = endpoint.MessagePort
	}
	if m.Version < vmbus.Copper {
		return &r
	}
	return &vmbus.VersionResponse2{VersionResponse: r, Features: vmbus.Features(m.TargetInfo>>32) &^ vmbus.ServerMonitorPages}
}
