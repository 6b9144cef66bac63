package invariant

import (
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
)

// A Host checks the events of one host core. It is for one goroutine.
type Host struct {
	opts  endpoint.HostOptions
	model hostModel
	err   error
}

// NewHost returns rules for a host core made with opts.
func NewHost(opts endpoint.HostOptions) *Host {
	return &Host{opts: opts, model: hostModel{
		published: map[endpoint.OfferID]offers.Offer{},
		revoked:   map[endpoint.OfferID]bool{},
		ids:       map[vmbus.ChannelID]*channelID{},
		wire:      map[vmbus.ChannelID]*channelID{},
		devices:   map[endpoint.OfferID]*device{},
		asked:     map[endpoint.Token]endpoint.Action{},
		gpadls:    map[gpadlKey]*gpadlRequest{},

		reservedOpens: map[vmbus.ChannelID]int{},
		progress:      map[vmbus.GPADLID]gpadlKey{},
	}}
}

// Observe is for endpoint.HostOptions.Observe.
func (h *Host) Observe(e endpoint.Event) {
	m := &h.model
	m.event = e
	m.message, m.tail = m.parse(e)
	for _, r := range hostRules {
		if err := r.see(h, m); err != nil && h.err == nil {
			h.err = err
		}
	}
	m.update(h.opts)
}

// Err returns the first violation, a *Violation, or nil.
func (h *Host) Err() error { return h.err }

// AtRest is Err when nothing moves any more: every answer that is owed and not
// waiting for a device must have been given.
func (h *Host) AtRest() error {
	if h.err != nil {
		return h.err
	}
	for _, r := range hostRules {
		if r.rest == nil {
			continue
		}
		if err := r.rest(h, &h.model); err != nil {
			return err
		}
	}
	return nil
}

// A hostModel is what the events of a run tell. During the rules it stands before
// the event, except for event, message and tail.
type hostModel struct {
	event   endpoint.Event
	message vmbus.Message // received or left; nil if it makes no sense
	tail    []byte

	state      endpoint.HostState
	negotiated vmbus.Negotiated
	spoken     vmbus.Negotiated // of the connection whose messages are still leaving
	contacts   []vmbus.Features // asked for by contacts that have no answer, oldest first
	trusted    bool
	nextTrust  bool // of the newest contact
	paused     bool
	unloads    int  // accepted and not answered
	resets     bool // Reset was called; it may have to wait for a set-up

	published map[endpoint.OfferID]offers.Offer
	revoked   map[endpoint.OfferID]bool
	devices   map[endpoint.OfferID]*device
	asked     map[endpoint.Token]endpoint.Action // not answered

	ids  map[vmbus.ChannelID]*channelID // as the core has given them out
	wire map[vmbus.ChannelID]*channelID // as the guest can know them

	mayOffer bool                          // RequestOffers was accepted
	burst    map[offers.Key]bool           // offered since, until AllOffersDelivered
	expected map[endpoint.OfferID]struct{} // still to be offered before it

	// reservedOpens counts the opens of reserved channels without an answer, which
	// goes past the outbox: the id may be another offer's by then.
	reservedOpens map[vmbus.ChannelID]int

	gpadls    map[gpadlKey]*gpadlRequest
	progress  map[vmbus.GPADLID]gpadlKey
	teardowns []teardown
}

// A channelID is a channel id in use.
type channelID struct {
	offer              endpoint.OfferID
	key                offers.Key
	revoked, rescinded bool
	reserved, stale    bool     // see endpoint: a reserved channel outlives the connection
	opens              []uint32 // open ids of accepted opens without a result
	modifies           int      // ModifyChannel without an answer
}

// A device is what the device of an offer holds.
type device struct {
	open    bool
	stopped bool
	left    bool // the host does not wait for it: its guest went while it was stopped
	ring    vmbus.GPADLID
	pages   map[vmbus.GPADLID]pagesState
}

type pagesState uint8

const (
	pagesAsked pagesState = iota // AddGPADL was not answered
	pagesHeld
	pagesDropping // DropGPADL was not answered
)

type gpadlKey struct {
	channel vmbus.ChannelID
	gpadl   vmbus.GPADLID
}

// A gpadlRequest is a GPADLHeader, or several of the same name, without an answer.
type gpadlRequest struct {
	owed       int // answers
	incomplete bool
	rescinded  bool // it was complete only after its channel was withdrawn
	have, want int  // words
}

type teardown struct {
	gpadlKey
	offer endpoint.OfferID
}

// parse reads the message an event is about, as the core did.
func (m *hostModel) parse(e endpoint.Event) (vmbus.Message, []byte) {
	switch what := e.What.(type) {
	case endpoint.MessageReceived:
		msg, tail, err := vmbus.ParseFrom(vmbus.GuestToHost, what.Payload, m.negotiated)
		if err != nil {
			return nil, nil
		}
		return msg, tail
	case endpoint.MessageLeft:
		return what.Message, nil
	case endpoint.ActionTaken:
		if d, ok := what.Action.(endpoint.SendDirect); ok {
			return d.Message, nil
		}
	}
	return nil, nil
}

// received reports whether the event is a guest's message, and whether the core
// took it.
func (m *hostModel) received() (r endpoint.MessageReceived, taken, ok bool) {
	r, ok = m.event.What.(endpoint.MessageReceived)
	return r, ok && r.Err == nil, ok
}

// left returns the message that left the outbox in this event, or nil.
func (m *hostModel) left() vmbus.Message {
	if _, ok := m.event.What.(endpoint.MessageLeft); ok {
		return m.message
	}
	return nil
}

// action returns the action that was taken in this event, or nil.
func (m *hostModel) action() endpoint.Action {
	if a, ok := m.event.What.(endpoint.ActionTaken); ok {
		return a.Action
	}
	return nil
}

func connected(s endpoint.HostState) bool {
	return s == endpoint.Negotiated || s == endpoint.OffersSent
}

// dispatched reports whether a received message reached the part of the core that
// answers it.
func (m *hostModel) dispatched() bool {
	r, _, ok := m.received()
	return ok && m.message != nil && connected(m.state) && !m.paused && (r.From.Trusted || !m.trusted)
}

func (m *hostModel) device(id endpoint.OfferID) *device {
	d := m.devices[id]
	if d == nil {
		d = &device{pages: map[vmbus.GPADLID]pagesState{}}
		m.devices[id] = d
	}
	return d
}

// waiting reports whether answers may still be missing: a device has not given
// its own, is not asked, or there is nobody to answer.
func (m *hostModel) waiting() bool {
	if !connected(m.state) || m.paused {
		return true
	}
	for _, d := range m.devices {
		if d.stopped {
			return true
		}
	}
	return len(m.asked) > 0
}
