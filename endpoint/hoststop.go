package endpoint

import (
	"fmt"
	"maps"
	"slices"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
)

// A stopped device touches no ring and is asked nothing: it is being moved, or
// its state saved. What the guest asks meanwhile waits and is asked, in order,
// when the device starts again. Sources: faults.md HC-06, HC-08, P33.

// StopDevice says that the device of an offer has stopped: it touches no ring
// and no shared page until StartDevice. It may still answer what it was asked
// before. Errors match vmbus.ErrState.
func (h *Host) StopDevice(id OfferID) error {
	c := h.channels[id]
	if c == nil || c.stopped {
		return fmt.Errorf("endpoint: offer %d is not published, or stopped already: %w", id, vmbus.ErrState)
	}
	c.stopped = true
	h.observe(DeviceStopped{id})
	return nil
}

// StartDevice ends StopDevice: what was held back for the device is asked before
// it does anything else. Errors match vmbus.ErrState.
func (h *Host) StartDevice(id OfferID) error {
	c := h.channels[id]
	if c == nil || !c.stopped {
		return fmt.Errorf("endpoint: offer %d is not published, or not stopped: %w", id, vmbus.ErrState)
	}
	c.stopped = false
	h.observe(DeviceStarted{id})
	for _, a := range c.held {
		h.emit(a)
	}
	c.held = nil
	return nil
}

// Established lists what the devices hold, in the order a new device has to take
// it: AddGPADL for every accepted GPADL, then OpenDevice for every open channel.
// Their tokens are 0: no answer is wanted. It is for the new devices of a
// restored host; Repeat is for what the old ones had not answered.
func (h *Host) Established() []Action {
	var list []Action
	for _, id := range slices.Sorted(maps.Keys(h.channels)) {
		c := h.channels[id]
		if c.entry.ID == 0 || c.entry.State() == offers.Revoked || c.entry.State() == offers.Reoffered {
			continue // what the guest still holds of a revoked offer was its old device's
		}
		for _, g := range h.gpadls.OfChannel(c.entry.ID) {
			if g.State() == channel.Accepted {
				list = append(list, AddGPADL{Offer: id, GPADL: g.ID, Ranges: g.Ranges})
			}
		}
		if c.open == channel.Open || c.open == channel.OpenReserved {
			list = append(list, OpenDevice{Offer: id, Request: c.request})
		}
	}
	return list
}

// ask hands a to the device of c, now or when it starts again.
func (h *Host) ask(c *hostChannel, a Action) {
	if c != nil && c.stopped {
		if !putback.On(putback.HC08) {
			c.held = append(c.held, a)
		}
		return
	}
	h.emit(a)
}

// tell is ask without an answer: the token is nobody's.
func (h *Host) tell(c *hostChannel, make func(Token) Action) {
	h.lastToken++
	h.ask(c, make(h.lastToken))
}

// holds reports whether the device of c has not been asked t yet.
func (c *hostChannel) holds(t Token) bool {
	return t != 0 && slices.ContainsFunc(c.held, func(a Action) bool { return tokenOf(a) == t })
}

// withdraw takes t back if the device has not been asked yet.
func (c *hostChannel) withdraw(t Token) bool {
	n := len(c.held)
	c.held = slices.DeleteFunc(c.held, func(a Action) bool { return tokenOf(a) == t })
	return len(c.held) < n
}

// tokenOf is the token of a request to a device, 0 for anything else.
func tokenOf(a Action) Token {
	switch a := a.(type) {
	case OpenDevice:
		return a.Token
	case CloseDevice:
		return a.Token
	case AddGPADL:
		return a.Token
	case DropGPADL:
		return a.Token
	case RetargetDevice:
		return a.Token
	}
	return 0
}

// abandon ends everything that waits for the device of c, whose guest is gone:
// the device is stopped, or nobody waits for it. It lets go of the rings when it
// is told to, before it does anything else.
func (h *Host) abandon(c *hostChannel) {
	for _, t := range slices.Sorted(maps.Keys(h.tokens)) {
		if op := h.tokens[t]; op.channel == c && op.gpadl != nil {
			h.abandonGPADL(t, op)
		}
	}
	h.forgetModify(c)
	t := c.pending
	delete(h.tokens, t)
	c.pending = 0
	switch c.open {
	case channel.OpeningReleased:
		_ = c.move(channel.DeviceRefuses) // the edge exists
		h.abandonOpen(c, t)
	case channel.ClosingReleased:
		_ = c.move(channel.DeviceCloses) // the edge exists; the device has been told
	}
	delete(h.busy, c)
}

// abandonOpen tells a device to forget an open it has not answered.
func (h *Host) abandonOpen(c *hostChannel, t Token) {
	if !c.withdraw(t) {
		h.tell(c, func(t Token) Action { return CloseDevice{c.id, t} })
	}
}

// abandonGPADL takes a GPADL the device was to be asked about, or to let go of.
func (h *Host) abandonGPADL(t Token, op *operation) {
	g, c := op.gpadl, op.channel
	delete(h.tokens, t)
	if g.State() == channel.OfferedTearingDown {
		_ = h.gpadls.Move(g, channel.DeviceRejects) // the edge exists
		if !c.withdraw(t) {
			h.tell(c, func(t Token) Action { return DropGPADL{c.id, t, g.ID} })
		}
		return
	}
	_ = h.gpadls.Move(g, channel.DeviceLetsGo) // it is TearingDown: the device has been told
}

// forgetModify forgets a ModifyChannel without an answer.
func (h *Host) forgetModify(c *hostChannel) {
	delete(h.tokens, c.modify)
	c.withdraw(c.modify)
	c.modify, c.nextVP = 0, nil
}

// A savedHeld is one request that waits for a stopped device: an operation that
// is saved under its token, or something nobody waits for.
type savedHeld struct {
	Token Token
	Kind  uint8
	GPADL vmbus.GPADLID // heldDrop
}

const (
	heldOperation uint8 = iota
	heldClose
	heldDrop
)

func (h *Host) saveHeld(c *hostChannel) []savedHeld {
	var list []savedHeld
	for _, a := range c.held {
		s := savedHeld{Token: tokenOf(a)}
		if h.tokens[s.Token] == nil {
			switch a := a.(type) {
			case CloseDevice:
				s.Kind = heldClose
			case DropGPADL:
				s.Kind, s.GPADL = heldDrop, a.GPADL
			}
		}
		list = append(list, s)
	}
	return list
}

// restoreHeld fills the held requests of the channels, once the operations are
// there.
func (h *Host) restoreHeld(s *hostSnapshot) error {
	for _, x := range s.Channels {
		c := h.channels[x.Offer]
		if len(x.Held) > 0 && !x.Stopped || len(x.Held) > MaxHeldOperations+2*channel.MaxGPADLs {
			return refuse("requests are held back from a device that runs", nil)
		}
		for _, held := range x.Held {
			op := h.tokens[held.Token]
			var a Action
			switch {
			case held.Token == 0 || held.Token > h.lastToken || c.holds(held.Token):
			case held.Kind == heldOperation && op != nil && op.channel == c:
				a = h.operates(held.Token, op)
			case held.Kind == heldClose && op == nil:
				a = CloseDevice{c.id, held.Token}
			case held.Kind == heldDrop && op == nil:
				a = DropGPADL{c.id, held.Token, held.GPADL}
			}
			if a == nil {
				return refuse("a request that is held back is none", nil)
			}
			c.held = append(c.held, a)
		}
	}
	return nil
}
