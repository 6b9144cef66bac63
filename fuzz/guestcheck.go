package fuzz

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/vmbus"
)

// posted checks one message of the guest against what was heard before.
func (w *guestBus) posted(p endpoint.Posting) {
	if w.trace != nil {
		w.note("guest>host %v %v", p.Message.Type(), fieldsOf(p.Message))
	}
	if len(p.Payload) > vmbus.MaxPayloadBytes {
		w.fail("limit of a message", "%v has %d bytes", p.Message.Type(), len(p.Payload))
	}
	switch m := p.Message.(type) {
	case *vmbus.GPADLHeader:
		if c := w.channels[m.Channel]; c != nil && c.ring != nil {
			c.ring.id, c.ring.announced, c.closes = m.GPADL, true, 0
		}
	case *vmbus.OpenChannel:
		w.opens(m.Channel, m.Ring)
	case *vmbus.OpenChannel2:
		w.opens(m.Channel, m.Ring)
	case *vmbus.OpenReservedChannel:
		w.opens(m.Channel, m.Ring)
	case *vmbus.CloseReservedChannel:
		if c := w.channels[m.Channel]; c != nil {
			c.closes++
		}
	case *vmbus.GPADLTeardown:
		r, c := w.ring(m.GPADL), w.channels[m.Channel]
		again := c != nil && c.closes > 1                        // the host may have dropped the first one: see closeReserved in endpoint
		if r == nil || !r.created || r.teardownAsked && !again { // a host may say so before it hears a teardown that a pause held back
			w.fail("I-GPADL-TEARDOWN-ONCE", "GPADL %v: %+v", m.GPADL, r)
			return
		}
		r.teardownAsked = true
	case *vmbus.ModifyChannel:
		if c := w.channels[m.Channel]; c != nil && w.core.Negotiated().Version >= vmbus.Iron {
			c.modifying = true
		}
	case *vmbus.RelIDReleased:
		w.released(m.Channel)
	}
}

// opens: an open names a ring that the host has accepted and still has.
func (w *guestBus) opens(id vmbus.ChannelID, ring vmbus.GPADLID) {
	r := w.ring(ring)
	if c := w.channels[id]; c == nil || r == nil || c.ring != r || !r.created || r.teardownAsked {
		w.fail("I-GPADL-MEM", "channel %d opens over GPADL %v: %+v", id, ring, r)
	}
}

// released: a release that is posted was reported, once.
func (w *guestBus) released(id vmbus.ChannelID) {
	if !w.gone[id] {
		w.fail("I-RELID-UNIQ", "channel %d is released, and was not offered since the last time", id)
	}
	delete(w.gone, id)
}

// forgotten holds I-RELEASE-AFTER-INFLIGHT: while the connection lasts, the last
// word about a channel.
func (w *guestBus) forgotten(id vmbus.ChannelID) {
	c := w.channels[id]
	delete(w.channels, id)
	if c == nil || c.opening && !c.reserved {
		w.fail("L-CALLS", "channel %d is gone: %+v", id, c)
		return
	}
	w.gone[id] = true
	if w.core.State() == endpoint.GuestDisconnected {
		return
	}
	if c.ring != nil && c.ring.announced {
		w.fail("I-RELEASE-AFTER-INFLIGHT", "channel %d is released with its ring %+v", id, c.ring)
	}
	if c.modifying {
		w.fail("I-RELEASE-AFTER-INFLIGHT", "channel %d is released before its ModifyChannelResponse", id)
	}
}

// act checks one report of the guest, and does what a driver does about it.
func (w *guestBus) act(a endpoint.Action) {
	if w.trace != nil {
		w.note("guest: %s", report(a))
	}
	switch a := a.(type) {
	case endpoint.Connected:
		w.over = false
	case endpoint.OfferArrived:
		id := a.Offer.Channel
		if id == 0 || id > vmbus.MaxChannels {
			w.fail("I-RELID-RANGE", "channel %d", id)
		}
		if w.channels[id] != nil {
			w.fail("I-RELID-UNIQ", "channel %d is offered twice", id)
		}
		w.channels[id] = &channelView{}
	case endpoint.OfferRescinded:
		if c := w.channels[a.Channel]; c != nil {
			c.rescinded = true
		}
		_ = w.core.Close(a.Channel) // what a driver does; one that is not open has nothing to close
	case endpoint.ChannelOpened:
		w.outcome(a.Channel)
	case endpoint.OpenFailed:
		w.outcome(a.Channel)
	case endpoint.RingFree:
		w.ringFree(a.Channel)
	case endpoint.ChannelReleased:
		w.forgotten(a.Channel)
	case endpoint.Disconnected:
		if s := w.core.State(); s == endpoint.GuestUnloading {
			w.fail("I-UNLOAD", "disconnected in state %v", s)
		}
	}
}

// outcome: each open has one.
func (w *guestBus) outcome(id vmbus.ChannelID) {
	c := w.channels[id]
	if c == nil || !c.opening {
		w.fail("L-CALLS", "channel %d: an outcome that nobody waits for: %+v", id, c)
		return
	}
	c.opening = false
}

// ringFree holds I-GPADL-MEM: pages are free once, when the host has refused
// them, said that it let go, or is gone. What it accepted for a reserved channel
// outlives the connection, and ends with the channel.
func (w *guestBus) ringFree(id vmbus.ChannelID) {
	c := w.channels[id]
	if c == nil || c.ring == nil || c.ring.done {
		w.fail("I-GPADL-MEM", "the pages of channel %d are free, and were before: %+v", id, c)
		return
	}
	r := c.ring
	letGo := !r.announced || r.answered && !r.created || r.tornDown || w.over ||
		c.rescinded && w.opts.SkipTeardown && r.answered || c.reserved
	if !letGo {
		w.fail("I-GPADL-MEM", "the pages of channel %d are free, and the host has them: %+v", id, r)
	}
	r.done = true
	c.ring, c.reserved = nil, false
}

// finish ends the connection with a host that is honest from now on: that
// always works, and leaves nothing but reserved channels.
func (w *guestBus) finish() {
	w.hold = false
	for _, m := range w.held {
		w.toGuest = append(w.toGuest, honestAnswers(m, w.core.Negotiated())...)
	}
	w.held = nil
	w.run()
	w.misuse("Resume", w.core.Resume())
	w.run()
	if s := w.core.State(); s == endpoint.GuestConnecting {
		w.receive(vmbus.Append(nil, &vmbus.VersionResponse{}))
	}
	if s := w.core.State(); s != endpoint.GuestDisconnected && s != endpoint.GuestUnloading {
		w.misuse("Unload", w.core.Unload())
		w.run()
	}
	w.settle()
	if s := w.core.State(); s != endpoint.GuestDisconnected {
		w.fail("L-RESET", "the guest is %v", s)
	}
	for id, c := range w.channels {
		if !c.reserved {
			w.fail("I-NO-LEAK", "channel %d outlives the connection: %+v", id, c)
		}
	}
}

// settle answers, once more, what a hostile host left unanswered.
func (w *guestBus) settle() {
	for _, r := range w.rings {
		if r.announced && !r.answered {
			for _, id := range w.known() {
				if c := w.channels[id]; c != nil && c.ring == r {
					w.receive(vmbus.Append(nil, &vmbus.GPADLCreated{Channel: id, GPADL: r.id, Status: vmbus.StatusFailure}))
				}
			}
		}
		if r.teardownAsked && !r.tornDown {
			w.receive(vmbus.Append(nil, &vmbus.GPADLTorndown{GPADL: r.id}))
		}
	}
	for _, id := range w.known() {
		if c := w.channels[id]; c != nil && c.opening && !c.reserved {
			w.receive(vmbus.Append(nil, &vmbus.OpenResult{Channel: id, OpenID: uint32(id), Status: vmbus.StatusFailure}))
		}
	}
	if w.core.State() == endpoint.GuestUnloading {
		w.receive(vmbus.Append(nil, &vmbus.UnloadComplete{}))
	}
	for _, r := range w.rings { // below version 1.1 an unload waits for every page
		if r.teardownAsked && !r.tornDown {
			w.receive(vmbus.Append(nil, &vmbus.GPADLTorndown{GPADL: r.id}))
		}
	}
}

// known are the channel ids in order, so that a run does not depend on chance.
func (w *guestBus) known() []vmbus.ChannelID { return slices.Sorted(maps.Keys(w.channels)) }

// report is an action as text: what it is and the channel it is about.
func report(a endpoint.Action) string {
	name := strings.TrimPrefix(fmt.Sprintf("%T", a), "endpoint.")
	switch a := a.(type) {
	case endpoint.OfferArrived:
		return fmt.Sprintf("%s channel %d", name, a.Offer.Channel)
	case endpoint.OfferRescinded:
		return fmt.Sprintf("%s channel %d", name, a.Channel)
	case endpoint.ChannelOpened:
		return fmt.Sprintf("%s channel %d", name, a.Channel)
	case endpoint.OpenFailed:
		return fmt.Sprintf("%s channel %d: %v", name, a.Channel, a.Err)
	case endpoint.RingFree:
		return fmt.Sprintf("%s channel %d", name, a.Channel)
	case endpoint.ChannelReleased:
		return fmt.Sprintf("%s channel %d", name, a.Channel)
	case endpoint.Disconnected:
		return fmt.Sprintf("%s: %v", name, a.Err)
	}
	return name
}
