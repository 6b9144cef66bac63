package fuzz

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
)

// A hostBus is a host core between a guest that is the fuzzer and devices that
// answer at once, or when the fuzzer says so. It watches what the host sends and
// remembers the first property that did not hold.
type hostBus struct {
	opts    endpoint.HostOptions
	core    *endpoint.Host
	trusted bool
	manual  bool // devices wait for the fuzzer
	busy    bool // the guest's message slot is occupied

	waiting  []endpoint.Action // device requests without an answer
	answered []endpoint.Action // the last few that have one
	dials    []endpoint.SocketRequested
	offers   []endpoint.OfferID

	asked  map[question]int
	live   map[vmbus.ChannelID]idState
	vague  map[vmbus.ChannelID]bool // released while messages were held back
	silent bool                     // PauseResponse was sent
	fault  error
	trace  *strings.Builder // nil is off
}

// A question is what exactly one answer may follow.
type question struct {
	answer            vmbus.Type
	a, b              uint32
	endpoint, service vmbus.GUID
}

// idState is what the guest was told of a channel id.
type idState uint8

const (
	idFree idState = iota
	idOffered
	idRescinded
)

// answeredKept is how many answered requests are kept to be answered again.
const answeredKept = 16

// newHostBus returns a host that serves everything, and publishes two devices,
// one of them monitored and with a sub-channel.
func newHostBus(everything bool) *hostBus {
	w := &hostBus{
		opts:  endpoint.HostOptions{RedirectSINT: 7},
		asked: map[question]int{}, live: map[vmbus.ChannelID]idState{}, vague: map[vmbus.ChannelID]bool{},
	}
	if everything {
		w.opts.Features, w.opts.ParentToChild, w.opts.ChildToParent = vmbus.AllFeatures, 0x10000, 0x11000
		w.trusted = true
	}
	w.core = endpoint.NewHost(w.opts)
	for _, o := range []offers.Offer{
		{Key: offers.Key{Instance: vmbus.GUID{7}}, Monitor: &offers.Monitor{Latency: 10}},
		{Key: offers.Key{Instance: vmbus.GUID{8}}},
		{Key: offers.Key{Instance: vmbus.GUID{7}, SubChannel: 1}},
	} {
		w.publish(o)
	}
	return w
}

func (w *hostBus) publish(o offers.Offer) {
	id, err := w.core.Publish(o)
	switch {
	case err == nil:
		w.offers = append(w.offers, id)
	case !errors.Is(err, vmbus.ErrState):
		w.fail("whose fault", "Publish: %v", err)
	}
}

// connect is a guest's contact at version v, and its wish for offers.
func (w *hostBus) connect(v vmbus.Version) {
	contact := vmbus.InitiateContact{Version: v, ParentToChild: 4096, ChildToParent: 8192}
	if v >= vmbus.Win10V5 {
		contact.TargetInfo = uint64(vmbus.SINT)
	}
	if v >= vmbus.Copper {
		contact.TargetInfo |= uint64(vmbus.AllFeatures) << 32
		w.send(&vmbus.InitiateContact2{InitiateContact: contact})
	} else {
		w.send(&contact)
	}
	w.send(&vmbus.RequestOffers{})
}

func (w *hostBus) send(m vmbus.Message) { w.receive(vmbus.Append(nil, m)) }

// receive hands one message to the host, if it may be handed one now.
func (w *hostBus) receive(b []byte) {
	if !w.core.WantsMessage() {
		return
	}
	if w.trace != nil {
		w.note("%v", said(vmbus.GuestToHost, b, w.core.Negotiated()))
	}
	w.expect(b)
	port := uint32(endpoint.MultiClientPort)
	if w.core.Negotiated().Version != 0 && w.core.Negotiated().Version < vmbus.Win10V5 {
		port = endpoint.MessagePort
	}
	before := bytes.Clone(b)
	err := w.core.ReceiveFrom(endpoint.Source{Port: port, Trusted: w.trusted}, b)
	if err != nil {
		w.note("dropped: %v", err)
		if !errors.Is(err, vmbus.ErrProtocol) {
			w.fail("whose fault", "%x: %v", b, err)
		}
	} else {
		w.accepted(b)
	}
	if !bytes.Equal(before, b) {
		w.fail("input is only read", "%x became %x", before, b)
	}
	w.run()
}

// accepted notes what b, which the host has not dropped, gives back.
func (w *hostBus) accepted(b []byte) {
	m, _, err := vmbus.ParseFrom(vmbus.GuestToHost, b, w.core.Negotiated())
	if r, ok := m.(*vmbus.RelIDReleased); ok && err == nil {
		w.vague[r.Channel] = w.vague[r.Channel] || w.silent || w.busy
		delete(w.live, r.Channel)
	}
}

// expect notes what question b asks, whether or not the host will like it.
func (w *hostBus) expect(b []byte) {
	m, _, err := vmbus.ParseFrom(vmbus.GuestToHost, b, w.core.Negotiated())
	if err != nil {
		return
	}
	if q, ok := questionOf(m); ok {
		w.asked[q]++
	}
	switch m.(type) {
	case *vmbus.Resume, *vmbus.InitiateContact, *vmbus.InitiateContact2, *vmbus.Unload:
		w.silent = false
	}
}

// questionOf is the question that a guest's message asks.
func questionOf(m vmbus.Message) (q question, ok bool) {
	switch m := m.(type) {
	case *vmbus.InitiateContact, *vmbus.InitiateContact2:
		q.answer = vmbus.TypeVersionResponse
	case *vmbus.RequestOffers:
		q.answer = vmbus.TypeAllOffersDelivered
	case *vmbus.GPADLHeader:
		q = question{answer: vmbus.TypeGPADLCreated, a: uint32(m.Channel), b: uint32(m.GPADL)}
	case *vmbus.GPADLTeardown:
		q = question{answer: vmbus.TypeGPADLTorndown, b: uint32(m.GPADL)}
	case *vmbus.OpenChannel:
		q = question{answer: vmbus.TypeOpenResult, a: uint32(m.Channel), b: m.OpenID}
	case *vmbus.OpenChannel2:
		q = question{answer: vmbus.TypeOpenResult, a: uint32(m.Channel), b: m.OpenID}
	case *vmbus.OpenReservedChannel:
		q = question{answer: vmbus.TypeOpenResult, a: uint32(m.Channel)}
	case *vmbus.CloseReservedChannel:
		q = question{answer: vmbus.TypeCloseReservedChannelResponse, a: uint32(m.Channel)}
	case *vmbus.ModifyChannel:
		q = question{answer: vmbus.TypeModifyChannelResponse, a: uint32(m.Channel)}
	case *vmbus.ModifyConnection:
		q.answer = vmbus.TypeModifyConnectionResponse
	case *vmbus.TLConnectRequest:
		q = question{answer: vmbus.TypeTLConnectResult, endpoint: m.Endpoint, service: m.Service}
	case *vmbus.TLConnectRequest2:
		q = question{answer: vmbus.TypeTLConnectResult, endpoint: m.Endpoint, service: m.Service}
	case *vmbus.Pause:
		q.answer = vmbus.TypePauseResponse
	case *vmbus.Unload:
		q.answer = vmbus.TypeUnloadComplete
	}
	return q, q.answer != 0
}

// answerOf is the question that a host's message answers.
func answerOf(m vmbus.Message) (q question, ok bool) {
	q.answer = m.Type()
	switch m := m.(type) {
	case *vmbus.OfferChannel, *vmbus.RescindChannelOffer:
		return q, false
	case *vmbus.GPADLCreated:
		q.a, q.b = uint32(m.Channel), uint32(m.GPADL)
	case *vmbus.GPADLTorndown:
		q.b = uint32(m.GPADL)
	case *vmbus.OpenResult:
		q.a, q.b = uint32(m.Channel), m.OpenID
	case *vmbus.CloseReservedChannelResponse:
		q.a = uint32(m.Channel)
	case *vmbus.ModifyChannelResponse:
		q.a = uint32(m.Channel)
	case *vmbus.TLConnectResult:
		q.endpoint, q.service = m.Endpoint, m.Service
	}
	return q, true
}

// said is a message as text.
func said(dir vmbus.Direction, b []byte, n vmbus.Negotiated) string {
	m, _, err := vmbus.ParseFrom(dir, b, n)
	if err != nil {
		return fmt.Sprintf("%v %x", dir, b)
	}
	return fmt.Sprintf("%v %v %v", dir, m.Type(), fieldsOf(m))
}

// run carries out everything that the host wants now.
func (w *hostBus) run() {
	for steps := 0; w.step(); steps++ {
		if steps > 100_000 {
			w.fail("L-NO-LIVELOCK", "the host does not come to rest")
			return
		}
	}
	w.checkLimits()
}

func (w *hostBus) step() bool {
	if a, ok := w.core.Next(); ok {
		w.act(a)
		return true
	}
	if w.busy {
		return false
	}
	m, ok := w.core.NextMessage()
	if !ok {
		if !w.silent {
			clear(w.vague)
		}
		return false
	}
	w.sent(m)
	w.core.MessageSent()
	return true
}

// act does what the host's driver does, or leaves a device's answer for later.
func (w *hostBus) act(a endpoint.Action) {
	switch a := a.(type) {
	case endpoint.SocketRequested:
		w.dials = append(w.dials, a)
	case endpoint.SendDirect:
		w.sent(a.Outgoing)
	case endpoint.OfferGone:
		w.offers = slices.DeleteFunc(w.offers, func(id endpoint.OfferID) bool { return id == a.Offer })
	case endpoint.GuestGone:
		w.dials = nil
	case endpoint.Accepted, endpoint.ResetFinished:
	default:
		w.waiting = append(w.waiting, a)
		if !w.manual {
			w.answer(0, vmbus.StatusSuccess)
		}
	}
}

// answer gives the device's answer to the i-th request that waits for one.
func (w *hostBus) answer(i int, status uint32) {
	if len(w.waiting) == 0 {
		return
	}
	i %= len(w.waiting)
	a := w.waiting[i]
	w.waiting = slices.Delete(w.waiting, i, i+1)
	answerDevice(w.core, a, status)
	w.answered = append(w.answered, a)
	if n := len(w.answered) - answeredKept; n > 0 {
		w.answered = slices.Delete(w.answered, 0, n)
	}
}

func answerDevice(h *endpoint.Host, a endpoint.Action, status uint32) {
	switch a := a.(type) {
	case endpoint.SetupConnection:
		h.SetupDone(status == vmbus.StatusSuccess)
	case endpoint.ResetConnection:
		h.ResetDone()
	case endpoint.OpenDevice:
		h.OpenDone(a.Token, status)
	case endpoint.CloseDevice:
		h.CloseDone(a.Token)
	case endpoint.AddGPADL:
		h.GPADLDone(a.Token, status)
	case endpoint.DropGPADL:
		h.TeardownDone(a.Token)
	case endpoint.RemapMonitors:
		h.RemapDone(a.Token, uint8(status))
	case endpoint.RetargetDevice:
		h.ModifyDone(a.Token, status == vmbus.StatusSuccess)
	}
}

// answerAgain repeats a device's answer: its token has been used up, so nothing
// may change (I-NO-STALE-ACTION).
func (w *hostBus) answerAgain(i int, status uint32) {
	if len(w.answered) == 0 {
		return
	}
	a := w.answered[i%len(w.answered)]
	switch a.(type) {
	case endpoint.SetupConnection, endpoint.ResetConnection:
		return // these have no token: there is one such request at a time
	}
	before, err := w.core.Save()
	if err != nil {
		w.fail("I-SAVE-ID", "%v", err)
		return
	}
	answerDevice(w.core, a, status)
	after, err := w.core.Save()
	if err != nil || !bytes.Equal(before, after) {
		w.fail("I-NO-STALE-ACTION", "a second answer to %T changes the state: %v", a, err)
	}
}

// restore replaces the core by what comes back from its saved state.
func (w *hostBus) restore() {
	b, err := w.core.Save()
	if err != nil {
		w.fail("I-SAVE-ID", "nothing is in the way of a save: %v", err)
		return
	}
	h, err := endpoint.RestoreHost(w.opts, b)
	if err != nil {
		w.fail("I-SAVE-ID", "what was saved is refused: %v", err)
		return
	}
	if again, err := h.Save(); err != nil || !bytes.Equal(b, again) {
		w.fail("I-SAVE-ID", "save(restore(b)) is not b: %v", err)
	}
	w.core = h
}

func (w *hostBus) fail(property, format string, args ...any) {
	if w.fault == nil {
		w.fault = violated(property, format, args...)
	}
}

func (w *hostBus) note(format string, args ...any) {
	if w.trace != nil {
		fmt.Fprintf(w.trace, format+"\n", args...)
	}
}
