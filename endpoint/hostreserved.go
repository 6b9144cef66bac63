package endpoint

import (
	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/vmbus"
)

// A target is where the answers about a reserved channel go: firmware and crash
// dumps poll a slot of their own. Source: vmbus-control.md 3.13.
type target struct {
	VP   uint32
	SINT uint8
}

// openReserved handles OpenReservedChannel: an open without interrupts whose
// answer has open id 0 and goes to its own target.
func (h *Host) openReserved(m vmbus.OpenReservedChannel) error {
	c, err := h.lookup(vmbus.TypeOpenReservedChannel, m.Channel)
	if err != nil {
		return err
	}
	if !c.entry.Visible() {
		return nil
	}
	if err := c.move(channel.GuestReserves); err != nil {
		return &DropError{Message: vmbus.TypeOpenReservedChannel, Channel: m.Channel, Reason: "the channel is " + c.open.String(), Cause: err}
	}
	c.reply = target{m.TargetVP, uint8(m.TargetSINT)}
	c.stale, c.trusted = h.state != OffersSent, h.trusted
	h.startOpen(c, vmbus.OpenChannel2{OpenChannel: vmbus.OpenChannel{
		Channel: m.Channel, Ring: m.Ring, HostOffset: m.HostOffset, TargetVP: vmbus.NoInterrupt,
	}})
	return nil
}

// closeReserved handles CloseReservedChannel, in every state of the connection.
func (h *Host) closeReserved(from Source, m vmbus.CloseReservedChannel) error {
	c, err := h.lookup(vmbus.TypeCloseReservedChannel, m.Channel)
	if err != nil {
		return err
	}
	if !c.entry.Visible() {
		return nil
	}
	if c.open.Reserved() && c.trusted && !from.Trusted {
		return &DropError{Message: vmbus.TypeCloseReservedChannel, Channel: m.Channel, Reason: "a trusted connection has reserved the channel"}
	}
	if err := c.move(channel.GuestUnreserves); err != nil {
		return &DropError{Message: vmbus.TypeCloseReservedChannel, Channel: m.Channel, Reason: "the channel is " + c.open.String(), Cause: err}
	}
	c.reply = target{m.TargetVP, uint8(m.TargetSINT)}
	c.stale = h.state != OffersSent
	h.closeDevice(c)
	return nil
}

// direct sends m past the outbox: a reserved target has nobody who waits for
// room, so an answer that does not fit is lost (vmbus-control.md 5.5).
func (h *Host) direct(to target, m vmbus.Message) {
	h.emit(SendDirect{Outgoing{VP: to.VP, SINT: to.SINT, Message: m, padded: h.opts.Dialect.PadMessages}})
}

// openResult answers an open where the guest waits for it.
func (h *Host) openResult(c *hostChannel, status uint32) {
	m := &vmbus.OpenResult{Channel: c.entry.ID, OpenID: c.openID, Status: status}
	if c.open.Reserved() {
		h.direct(c.reply, m)
		return
	}
	h.send(m)
}

// unreserved goes on after a channel has stopped being reserved: its open was
// refused, or its device has closed. In the connection that asked for it the
// channel stays offered; otherwise the guest has nothing but this channel's id,
// so it is released, and offered like any other.
func (h *Host) unreserved(c *hostChannel) {
	if !c.stale {
		return
	}
	h.releaseGPADLs(c)
	h.table.Hide(c.entry)
	if h.state == OffersSent {
		h.say(later{kind: laterOffer, channel: c})
	}
	h.drained()
}

// keptGPADLs counts GPADLs of reserved channels, which a disconnect leaves
// alone.
func (h *Host) keptGPADLs() int {
	n := 0
	for _, c := range h.channels {
		if c.open.Reserved() {
			n += len(h.gpadls.OfChannel(c.entry.ID))
		}
	}
	return n
}
