package endpoint

import (
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
)

// An Event is one thing that crossed the edge of a core: a message, an action, a
// call and what became of it. It is observed right after it happened, before what
// it caused, with the connection as it then was. The events of a run are what its invariants are
// checked on (package endpoint/invariant), whoever drives the core.
type Event struct {
	What       Happening
	Host       HostState  // of a host core
	Guest      GuestState // of a guest core
	Negotiated vmbus.Negotiated
}

// A Happening is what an Event is about.
type Happening interface{ happening() }

// Happenings of both cores.
type (
	// MessageReceived is a message the core was handed. Err says why it was
	// dropped, or answered with a refusal. Payload may not be kept.
	MessageReceived struct {
		From    Source // of a guest's message
		Payload []byte
		Err     error
	}
	// MessageLeft is a message that left the outbox. Payload may not be kept.
	MessageLeft struct {
		Message vmbus.Message
		Payload []byte // with what follows the fields, such as page numbers
		Port    uint32 // of a guest's message
	}
	// ActionTaken is an action the driver has taken.
	ActionTaken struct{ Action Action }
)

// Happenings of a host core.
type (
	// OfferPublished is a successful Publish or AcceptSocket.
	OfferPublished struct {
		ID    OfferID
		Offer offers.Offer
	}
	// OfferRevoked is a successful Revoke, its sub-channels first.
	OfferRevoked struct{ ID OfferID }
	// OfferAnnounced says that an offer got a channel id; its OfferChannel is in
	// the outbox.
	OfferAnnounced struct {
		ID      OfferID
		Channel vmbus.ChannelID
	}
	// Answered is a device's answer to the action with that token: OpenDone,
	// CloseDone and so on. Status is 0 for success. Ignored says that nobody
	// waited for it. It is observed before the core deals with it.
	Answered struct {
		Token   Token
		Status  uint32
		Ignored bool
	}
	// DeviceStopped and DeviceStarted are calls of StopDevice and StartDevice.
	DeviceStopped struct{ ID OfferID }
	DeviceStarted struct{ ID OfferID }
	// MachineReset is a call of Reset.
	MachineReset struct{}
	// DevicesReplaced is a call of Repeat: the devices are new, and hold what
	// Established lists.
	DevicesReplaced struct{ Held []Action }
)

// Happenings of a guest core: successful calls of Open and Close.
type (
	OpenAsked  struct{ Channel vmbus.ChannelID }
	CloseAsked struct{ Channel vmbus.ChannelID }
)

func (OpenAsked) happening()       {}
func (CloseAsked) happening()      {}
func (MessageReceived) happening() {}
func (MessageLeft) happening()     {}
func (ActionTaken) happening()     {}
func (OfferPublished) happening()  {}
func (OfferRevoked) happening()    {}
func (OfferAnnounced) happening()  {}
func (Answered) happening()        {}
func (DeviceStopped) happening()   {}
func (DeviceStarted) happening()   {}
func (MachineReset) happening()    {}
func (DevicesReplaced) happening() {}

// observe tells the observer, if there is one.
func (h *Host) observe(what Happening) {
	if h.opts.Observe != nil {
		h.opts.Observe(Event{What: what, Host: h.state, Negotiated: h.negotiated})
	}
}

// observeOffer is observe for what a message may cause while it is received.
func (h *Host) observeOffer(a OfferAnnounced) {
	if h.receiving {
		h.announced = append(h.announced, a)
		return
	}
	h.observe(a)
}

// answered observes a device's answer.
func (h *Host) answered(t Token, status uint32, op *operation) {
	h.observe(Answered{Token: t, Status: status, Ignored: op == nil})
}

// observe tells the observer, if there is one.
func (g *Guest) observe(what Happening) {
	if g.opts.Observe != nil {
		g.opts.Observe(Event{What: what, Guest: g.state, Negotiated: g.negotiated})
	}
}
