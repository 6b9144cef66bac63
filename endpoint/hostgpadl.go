package endpoint

import (
	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
)

// gpadlHeader handles GPADLHeader: whatever can be refused is answered
// (vmbus-control.md 4.3).
func (h *Host) gpadlHeader(m vmbus.GPADLHeader, tail []byte) error {
	c, err := h.lookup(vmbus.TypeGPADLHeader, m.Channel)
	if err == nil && c.open.Reserved() {
		err = &DropError{Message: vmbus.TypeGPADLHeader, Channel: m.Channel, Reason: "the channel is reserved"}
	}
	if err == nil && h.opts.Dialect.GlobalGPADLs && h.gpadls.InUse(m.GPADL) {
		err = &DropError{Message: vmbus.TypeGPADLHeader, Channel: m.Channel, Reason: "another channel uses the GPADL id"}
	}
	if err != nil {
		h.refuseGPADL(m)
		return err
	}
	g, err := h.gpadls.Begin(m, vmbus.Words(tail))
	if err != nil {
		h.refuseGPADL(m)
		return err
	}
	h.gpadlGrown(g)
	return nil
}

// refuseGPADL answers a header that cannot be served.
func (h *Host) refuseGPADL(m vmbus.GPADLHeader) {
	if !h.opts.Dialect.SilentGPADL {
		h.gpadlCreated(m.Channel, m.GPADL, vmbus.StatusFailure)
	}
}

// gpadlBody handles GPADLBody. A body nobody waits for is dropped: no reply is
// possible.
func (h *Host) gpadlBody(m vmbus.GPADLBody, tail []byte) error {
	g, err := h.gpadls.Continue(m, vmbus.Words(tail))
	if err != nil {
		if g != nil {
			h.gpadlCreated(g.Channel, g.ID, vmbus.StatusFailure)
		}
		return err
	}
	h.gpadlGrown(g)
	return nil
}

// gpadlGrown asks the device once g is complete; on a rescinded channel there
// is no device to ask, and refusing has broken guests (faults.md HC-12).
func (h *Host) gpadlGrown(g *channel.GPADL) {
	if !g.Complete() {
		return
	}
	e := h.table.Lookup(g.Channel)
	if e == nil {
		return
	}
	c := h.byEntry[e]
	if !e.Visible() {
		if putback.On(putback.HC12) {
			h.gpadlCreated(g.Channel, g.ID, vmbus.StatusFailure)
			return
		}
		if h.gpadls.Move(g, channel.CompletesRevoked) == nil {
			h.gpadlCreated(g.Channel, g.ID, vmbus.StatusSuccess)
		}
		return
	}
	if h.gpadls.Move(g, channel.Completes) == nil {
		h.ask(c, AddGPADL{c.id, h.token(operation{channel: c, gpadl: g}), g.ID, g.Ranges})
	}
}

func (h *Host) gpadlCreated(ch vmbus.ChannelID, id vmbus.GPADLID, status uint32) {
	if h.connected() { // a reserved channel's device may answer later than that
		h.send(&vmbus.GPADLCreated{Channel: ch, GPADL: id, Status: status})
	}
}

// GPADLDone answers AddGPADL: status 0 accepts.
func (h *Host) GPADLDone(t Token, status uint32) {
	op := h.take(t)
	h.answered(t, status, op)
	if op == nil {
		return
	}
	g := op.gpadl
	known := g.State() == channel.GPADLOffered // else the guest has released the channel
	event := channel.DeviceAccepts
	if status != vmbus.StatusSuccess {
		event = channel.DeviceRejects
	}
	if h.gpadls.Move(g, event) != nil {
		return
	}
	switch {
	case known:
		h.gpadlCreated(g.Channel, g.ID, status)
	case g.State() == channel.TearingDown:
		h.dropGPADL(op.channel, g)
	default:
		h.drained()
	}
}

// gpadlTeardown handles GPADLTeardown. On a rescinded channel the host has let
// go already (vmbus-control.md 12, row 27).
func (h *Host) gpadlTeardown(m vmbus.GPADLTeardown) error {
	c, err := h.lookup(vmbus.TypeGPADLTeardown, m.Channel)
	if err != nil {
		return err
	}
	if c.open.Reserved() {
		return &DropError{Message: vmbus.TypeGPADLTeardown, Channel: m.Channel, Reason: "the channel is reserved"}
	}
	g := h.gpadls.Lookup(m.Channel, m.GPADL)
	if g == nil {
		return &DropError{Message: vmbus.TypeGPADLTeardown, Channel: m.Channel, Reason: "no such GPADL"}
	}
	event := channel.GuestTearsDown
	if !c.entry.Visible() {
		event = channel.GuestTearsDownRevoked
	}
	if err := h.gpadls.Move(g, event); err != nil {
		return &DropError{Message: vmbus.TypeGPADLTeardown, Channel: m.Channel, Reason: "the GPADL is " + g.State().String(), Cause: err}
	}
	if g.State() == channel.GPADLGone {
		h.send(&vmbus.GPADLTorndown{GPADL: g.ID})
		return nil
	}
	h.dropGPADL(c, g)
	return nil
}

func (h *Host) dropGPADL(c *hostChannel, g *channel.GPADL) {
	h.ask(c, DropGPADL{c.id, h.token(operation{channel: c, gpadl: g}), g.ID})
}

// TeardownDone answers DropGPADL: the last access to the pages is over.
func (h *Host) TeardownDone(t Token) {
	op := h.take(t)
	h.answered(t, vmbus.StatusSuccess, op)
	if op == nil {
		return
	}
	g := op.gpadl
	told := h.gpadls.Lookup(g.Channel, g.ID) == g // the guest still knows the channel
	if h.gpadls.Move(g, channel.DeviceLetsGo) != nil {
		return
	}
	if told {
		h.send(&vmbus.GPADLTorndown{GPADL: g.ID})
	}
	h.drained()
}

// revokeGPADLs is the GPADL half of a revoke: pending answers go out before the
// rescind (vmbus-control.md 5.4).
func (h *Host) revokeGPADLs(c *hostChannel) {
	for _, g := range h.gpadls.OfChannel(c.entry.ID) {
		was := g.State()
		if h.gpadls.Move(g, channel.OfferRevoked) != nil || g.State() != channel.GPADLGone {
			continue
		}
		h.cancelGPADL(g)
		if was == channel.TearingDown {
			h.send(&vmbus.GPADLTorndown{GPADL: g.ID})
		} else {
			h.gpadlCreated(g.Channel, g.ID, vmbus.StatusFailure)
		}
	}
}

// revokeOrphans drops what the device of c was still to be asked about GPADLs of
// a guest that has let go of the channel: the device is being removed
// (vmbus-control.md 5.4).
func (h *Host) revokeOrphans(c *hostChannel) {
	for t, op := range h.tokens {
		if op.channel == c && op.gpadl != nil && h.gpadls.Move(op.gpadl, channel.OfferRevoked) == nil {
			delete(h.tokens, t)
		}
	}
}

// releaseGPADLs takes every GPADL of a channel the guest lets go of. No
// GPADLTorndown is sent for them (vmbus-control.md 4.3).
func (h *Host) releaseGPADLs(c *hostChannel) {
	if c.entry.ID == 0 {
		return
	}
	event := channel.ChannelReleased
	if c.entry.State() != offers.Offered {
		event = channel.ChannelReleasedRevoked
	}
	for _, g := range h.gpadls.OfChannel(c.entry.ID) {
		was := g.State()
		if h.gpadls.Move(g, event) != nil {
			continue
		}
		switch {
		case g.State() == channel.GPADLGone:
			h.cancelGPADL(g)
		case was == channel.Accepted || putback.On(putback.HC06) && was == channel.TearingDown:
			h.dropGPADL(c, g)
		}
	}
}

// cancelGPADL forgets the device operations on g, so that late answers are
// ignored.
func (h *Host) cancelGPADL(g *channel.GPADL) {
	for t, op := range h.tokens {
		if op.gpadl == g {
			op.channel.withdraw(t)
			delete(h.tokens, t)
		}
	}
}
