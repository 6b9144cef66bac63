package invariant

import (
	"maps"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
)

// A Guest checks the events of one guest core. It is for one goroutine.
type Guest struct {
	opts  endpoint.GuestOptions
	model guestModel
	err   error
}

// NewGuest returns rules for a guest core made with opts.
func NewGuest(opts endpoint.GuestOptions) *Guest {
	return &Guest{opts: opts, model: guestModel{channels: map[vmbus.ChannelID]*guestChannel{}, early: map[vmbus.ChannelID]bool{}, rings: map[vmbus.GPADLID]*guestRing{}}}
}

// Observe is for endpoint.GuestOptions.Observe.
func (g *Guest) Observe(e endpoint.Event) {
	m := &g.model
	m.event = e
	m.received = m.parse(e)
	for _, r := range guestRules {
		if err := r.see(g, m); err != nil && g.err == nil {
			g.err = err
		}
	}
	m.update()
}

// Err returns the first violation, a *Violation, or nil.
func (g *Guest) Err() error { return g.err }

// AtRest is Err when nothing moves any more: what a rescind ends has ended.
func (g *Guest) AtRest() error {
	if g.err != nil || g.model.negotiated.Version == 0 {
		return g.err
	}
	for id, c := range g.model.channels {
		if !c.rescinded {
			continue
		}
		if c.opening {
			return broken("I-OPEN-RESP", "channel id %d is rescinded, and its open has not ended", id)
		}
		if c.modifies == 0 && !g.model.halted && g.model.answered(id) { // during a pause the release waits for Resume
			return broken("I-NO-LEAK", "channel id %d is rescinded, nothing about it is in flight, and it was not released", id)
		}
	}
	return nil
}

// answered reports whether the host has answered all it was told about the pages
// of a channel, and the guest waits for nothing there.
func (m *guestModel) answered(id vmbus.ChannelID) bool {
	for _, r := range m.rings {
		if r.channel == id && (!r.created || r.tearing && !r.torndown) {
			return false
		}
	}
	return true
}

// A guestModel is what the events of a run tell.
type guestModel struct {
	event    endpoint.Event
	received vmbus.Message // what the host sent; nil if it makes no sense

	negotiated vmbus.Negotiated
	channels   map[vmbus.ChannelID]*guestChannel
	early      map[vmbus.ChannelID]bool // Open was called before the offer was taken
	rings      map[vmbus.GPADLID]*guestRing
	halted     bool // Pause has left
	over       bool // the connection has ended; the driver has yet to take what follows
}

type guestChannel struct {
	key       offers.Key
	opening   bool // Open was called, and neither ChannelOpened nor OpenFailed came
	rescinded bool // its driver was told
	withdrawn bool // the host's rescind was taken
	outlived  bool // a reserved channel whose connection is over
	modifies  int  // ModifyChannel without an answer, from 5.3
	ring      vmbus.GPADLID
}

// A guestRing is a GPADL the host was told of.
type guestRing struct {
	channel           vmbus.ChannelID
	created, torndown bool // the host has answered
	tearing           bool // GPADLTeardown has left
	refused           bool
}

// parse reads a message of the host with every feature: what is not allowed the
// core has to refuse by itself.
func (m *guestModel) parse(e endpoint.Event) vmbus.Message {
	r, ok := e.What.(endpoint.MessageReceived)
	if !ok {
		return nil
	}
	msg, _, err := vmbus.ParseFrom(vmbus.HostToGuest, r.Payload, vmbus.Negotiated{Version: vmbus.Copper, Features: vmbus.AllFeatures})
	if err != nil {
		return nil
	}
	return msg
}

func (m *guestModel) left() (endpoint.MessageLeft, bool) {
	l, ok := m.event.What.(endpoint.MessageLeft)
	return l, ok
}

func (m *guestModel) action() endpoint.Action {
	if a, ok := m.event.What.(endpoint.ActionTaken); ok {
		return a.Action
	}
	return nil
}

// update takes the event into the model.
func (m *guestModel) update() {
	switch what := m.event.What.(type) {
	case endpoint.OpenAsked:
		if c := m.channels[what.Channel]; c != nil {
			c.opening = true
		} else {
			m.early[what.Channel] = true
		}
	case endpoint.CloseAsked: // nobody wants to hear how the open ends
		if c := m.channels[what.Channel]; c != nil {
			c.opening = false
		}
		delete(m.early, what.Channel)
	case endpoint.ActionTaken:
		m.take(what.Action)
	case endpoint.MessageLeft:
		m.leave(what.Message)
	case endpoint.MessageReceived:
		m.receive()
	}
	m.over = m.over || m.event.Guest == endpoint.GuestDisconnected && m.negotiated.Version != 0
	m.negotiated = m.event.Negotiated
}

func keyOf(o vmbus.OfferChannel) offers.Key {
	return offers.Key{Interface: o.Interface, Instance: o.Instance, SubChannel: o.SubChannel}
}

func (m *guestModel) take(a endpoint.Action) {
	switch a := a.(type) {
	case endpoint.OfferArrived:
		m.channels[a.Offer.Channel] = &guestChannel{key: keyOf(a.Offer), opening: m.early[a.Offer.Channel]}
		delete(m.early, a.Offer.Channel)
	case endpoint.OfferRescinded:
		if c := m.channels[a.Channel]; c != nil {
			c.rescinded = true
		}
	case endpoint.ChannelOpened:
		if c := m.channels[a.Channel]; c != nil {
			c.opening = false
		}
	case endpoint.OpenFailed:
		if c := m.channels[a.Channel]; c != nil {
			c.opening = false
		}
	case endpoint.RingFree:
		if c := m.channels[a.Channel]; c != nil {
			delete(m.rings, c.ring)
			c.ring = 0
		}
	case endpoint.ChannelReleased:
		if c := m.channels[a.Channel]; c != nil && c.opening { // the id is offered anew, and the open is of that offer
			m.early[a.Channel] = true
		}
		delete(m.channels, a.Channel)
		maps.DeleteFunc(m.rings, func(_ vmbus.GPADLID, r *guestRing) bool { return r.channel == a.Channel })
	case endpoint.Disconnected:
		m.halted, m.over = false, false
		for _, c := range m.channels { // what is left
			c.outlived = true
			if r := m.rings[c.ring]; r != nil { // the unload has overtaken the answer
				r.tearing = false
			}
		}
	}
}

func (m *guestModel) leave(msg vmbus.Message) {
	switch msg := msg.(type) {
	case *vmbus.GPADLHeader:
		m.rings[msg.GPADL] = &guestRing{channel: msg.Channel}
		if c := m.channels[msg.Channel]; c != nil {
			c.ring = msg.GPADL
		}
	case *vmbus.GPADLTeardown:
		if r := m.rings[msg.GPADL]; r != nil {
			r.tearing, r.torndown = true, false // what the host said before answers something else
		}
	case *vmbus.ModifyChannel:
		if c := m.channels[msg.Channel]; c != nil && m.event.Negotiated.Version >= vmbus.Iron {
			c.modifies++
		}
	case *vmbus.Pause:
		m.halted = true
	case *vmbus.Resume, *vmbus.Unload:
		m.halted = false
	}
}

func (m *guestModel) receive() {
	taken := m.event.What.(endpoint.MessageReceived).Err == nil
	switch msg := m.received.(type) {
	case *vmbus.GPADLCreated:
		if r := m.rings[msg.GPADL]; r != nil && r.channel == msg.Channel {
			r.created, r.refused = true, r.refused || msg.Status != vmbus.StatusSuccess
		}
	case *vmbus.GPADLTorndown:
		if r := m.rings[msg.GPADL]; r != nil {
			r.torndown = true
		}
	case *vmbus.RescindChannelOffer:
		if c := m.channels[msg.Channel]; taken && c != nil {
			c.withdrawn = true
		}
	case *vmbus.OfferChannel:
		// Of a reserved channel that has outlived its connection: the host has forgotten
		// it, whatever the guest makes of the offer. Of any other id in use: the host
		// contradicts itself, and the connection is over (faults.md GC-21).
		goesOn := m.event.Guest == endpoint.GuestRequesting || m.event.Guest == endpoint.GuestConnected
		for id, c := range m.channels {
			again := id == msg.Channel || c.outlived && c.key == keyOf(*msg) // a device is not offered twice
			if goesOn && again && m.rings[c.ring] != nil {
				m.rings[c.ring].torndown = true
			}
		}
	case *vmbus.OpenResult: // with the open the host gives up all it knows of such a channel
		if c := m.channels[msg.Channel]; taken && c != nil && c.outlived && msg.Status != vmbus.StatusSuccess && m.rings[c.ring] != nil {
			m.rings[c.ring].torndown = true
		}
	case *vmbus.CloseReservedChannelResponse: // after the connection that reserved it the host forgets all about the channel
		if c := m.channels[msg.Channel]; taken && c != nil && m.rings[c.ring] != nil {
			m.rings[c.ring].torndown = m.rings[c.ring].torndown || !m.rings[c.ring].tearing
		}
	case *vmbus.ModifyChannelResponse:
		if c := m.channels[msg.Channel]; c != nil && c.modifies > 0 {
			c.modifies--
		}
	}
}

// A guestRule is one promise; see looks at an event before the model has taken it
// in.
type guestRule struct {
	name string
	see  func(*Guest, *guestModel) error
}

// guestRules are the rows of faults.md section 3 that one run of a guest can show.
var guestRules = []guestRule{
	{"I-RELID-UNIQ", guestIDs},
	{"I-RESCIND-ONCE", guestRescindOnce},
	{"I-NO-OP-AFTER-RELEASE", guestNoOpAfterRelease},
	{"I-OPEN-RESP", guestOpenOnce},
	{"I-GPADL-MEM", guestRingFree},
	{"I-RELEASE-AFTER-INFLIGHT", guestReleaseAfterInFlight},
	{"I-VERSION", guestVersionAllows},
	{"I-PAUSE", guestPauseSilent},
}

// guestIDs: an offer a driver hears of has an id in 1..2047 that no other has.
func guestIDs(_ *Guest, m *guestModel) error {
	a, ok := m.action().(endpoint.OfferArrived)
	if !ok {
		return nil
	}
	id := a.Offer.Channel
	if id == 0 || id > offers.MaxOffers {
		return broken("I-RELID-RANGE", "channel id %d reached a driver", id)
	}
	if m.channels[id] != nil {
		return broken("I-RELID-UNIQ", "channel id %d reached a driver twice without a release", id)
	}
	return nil
}

// guestRescindOnce: however often a channel is rescinded, its driver hears of it
// once.
func guestRescindOnce(_ *Guest, m *guestModel) error {
	a, ok := m.action().(endpoint.OfferRescinded)
	if c := m.channels[a.Channel]; ok && c != nil && c.rescinded {
		return broken("I-RESCIND-ONCE", "the driver of channel id %d heard of its rescind twice", a.Channel)
	}
	return nil
}

// guestNoOpAfterRelease: nothing happens to a channel that was released.
func guestNoOpAfterRelease(_ *Guest, m *guestModel) error {
	id := vmbus.ChannelID(0)
	switch a := m.action().(type) {
	case endpoint.OfferRescinded:
		id = a.Channel
	case endpoint.ChannelOpened:
		id = a.Channel
	case endpoint.OpenFailed:
		id = a.Channel
	case endpoint.RingFree:
		id = a.Channel
	case endpoint.ChannelModified:
		id = a.Channel
	case endpoint.ChannelReleased:
		id = a.Channel
	default:
		return nil
	}
	if m.channels[id] == nil {
		return broken("I-NO-OP-AFTER-RELEASE", "%T for channel id %d, which is nobody's", m.action(), id)
	}
	return nil
}

// guestOpenOnce: an open ends once, in ChannelOpened or OpenFailed.
func guestOpenOnce(_ *Guest, m *guestModel) error {
	id, ok := vmbus.ChannelID(0), false
	switch a := m.action().(type) {
	case endpoint.ChannelOpened:
		id, ok = a.Channel, true
	case endpoint.OpenFailed:
		id, ok = a.Channel, true
	}
	if c := m.channels[id]; ok && c != nil && !c.opening {
		return broken("I-OPEN-RESP", "%T for channel id %d, which is not opening", m.action(), id)
	}
	return nil
}

// guestRingFree: pages come back when the host has let go of them, or never got
// them, or the connection is over; a guest that skips the teardown of a rescinded
// channel relies on the rescind, of which its driver does not hear if an unload has
// told it that all is over.
func guestRingFree(g *Guest, m *guestModel) error {
	a, ok := m.action().(endpoint.RingFree)
	if !ok {
		return nil
	}
	c := m.channels[a.Channel]
	if c == nil || c.ring == 0 || m.over || m.event.Guest == endpoint.GuestDisconnected {
		return nil
	}
	r := m.rings[c.ring]
	if r == nil || r.torndown || r.refused || (c.rescinded || c.withdrawn) && g.opts.SkipTeardown {
		return nil
	}
	return broken("I-GPADL-MEM", "the pages of channel id %d are free although the host has not let go of GPADL %#x", a.Channel, uint32(c.ring))
}

// guestReleaseAfterInFlight: an id goes back when no request about it is without
// its answer. An open is the exception: on a rescinded channel it has none.
func guestReleaseAfterInFlight(g *Guest, m *guestModel) error {
	l, ok := m.left()
	r, released := l.Message.(*vmbus.RelIDReleased)
	if !ok || !released {
		return nil
	}
	if c := m.channels[r.Channel]; c != nil && c.modifies > 0 {
		return broken("I-RELEASE-AFTER-INFLIGHT", "channel id %d is released before the answer to ModifyChannel", r.Channel)
	}
	for id, ring := range m.rings {
		if ring.channel == r.Channel && (!ring.created || ring.tearing && !ring.torndown) {
			return broken("I-RELEASE-AFTER-INFLIGHT", "channel id %d is released before the answer about GPADL %#x", r.Channel, uint32(id))
		}
	}
	return nil
}

// guestVersionAllows: only what was agreed on is sent.
func guestVersionAllows(_ *Guest, m *guestModel) error {
	l, ok := m.left()
	if !ok {
		return nil
	}
	n := m.event.Negotiated
	if n.Version == 0 { // it is over; what still leaves was legal
		return nil
	}
	if why := allowed(l.Message.Type(), n); why != "" {
		return broken("I-VERSION", "%v was sent: %s", l.Message.Type(), why)
	}
	return nil
}

// guestPauseSilent: a paused host would drop anything but Resume and Unload.
func guestPauseSilent(_ *Guest, m *guestModel) error {
	l, ok := m.left()
	if !ok || !m.halted {
		return nil
	}
	switch l.Message.(type) {
	case *vmbus.Resume, *vmbus.Unload, *vmbus.InitiateContact, *vmbus.InitiateContact2:
		return nil
	}
	return broken("I-PAUSE", "%v was sent during a pause", l.Message.Type())
}
