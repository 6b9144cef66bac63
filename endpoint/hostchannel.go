package endpoint

import (
	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
)

// lookup returns the channel the guest knows as id, or an error that drops the
// message.
func (h *Host) lookup(t vmbus.Type, id vmbus.ChannelID) (*hostChannel, error) {
	e := h.table.Lookup(id)
	if e == nil {
		return nil, &DropError{Message: t, Channel: id, Reason: "the guest was not offered this id"}
	}
	return h.byEntry[e], nil
}

// openChannel handles OpenChannel. A rescinded channel is ignored in silence:
// the rescind itself wakes the guest (vmbus-control.md 5.2, 6.4).
func (h *Host) openChannel(m vmbus.OpenChannel2) error {
	c, err := h.lookup(vmbus.TypeOpenChannel, m.Channel)
	if err != nil {
		return err
	}
	if !c.entry.Visible() {
		if h.opts.Dialect.AnswerRescindedOpens {
			h.send(&vmbus.OpenResult{Channel: m.Channel, OpenID: m.OpenID, Status: h.opts.Dialect.openFailure()})
		}
		return nil
	}
	if err := c.move(channel.GuestOpens); err != nil {
		return &DropError{Message: vmbus.TypeOpenChannel, Channel: m.Channel, Reason: "the channel is " + c.open.String(), Cause: err}
	}
	if c.open == channel.ClosingReopen {
		c.reopen = &m
		return nil
	}
	h.startOpen(c, m)
	return nil
}

// startOpen checks the ring GPADL and asks the device; c is Opening.
func (h *Host) startOpen(c *hostChannel, m vmbus.OpenChannel2) {
	c.openID = m.OpenID
	req, err := h.openRequest(c, m)
	if err != nil {
		h.refuseOpen(c, h.opts.Dialect.openFailure())
		return
	}
	c.request = req
	c.pending = h.token(operation{channel: c})
	h.ask(c, OpenDevice{c.id, c.pending, req})
}

func (h *Host) openRequest(c *hostChannel, m vmbus.OpenChannel2) (OpenRequest, error) {
	req := OpenRequest{
		Channel: m.Channel, TargetVP: m.TargetVP, NoInterrupt: m.TargetVP == vmbus.NoInterrupt,
		ConnectionID: h.opts.Dialect.eventConnection(m.Channel), EventFlag: uint16(m.Channel), Ring: m.Ring, UserData: m.UserData,
		MonitorID: vmbus.NoMonitor,
	}
	if c.entry.MonitorID != vmbus.NoMonitor && h.monitors && !req.NoInterrupt {
		req.MonitorID, req.MonitorLatency = c.entry.MonitorID, c.entry.Monitor.Latency
	}
	if h.negotiated.Version < vmbus.Win8 {
		req.TargetVP, req.EventFlag = 0, 0 // one flag, and bits in the interrupt page
	}
	if h.negotiated.Version < vmbus.Win7 {
		req.ConnectionID = vmbus.LegacyEventConnection // and bits in the interrupt page
	}
	if h.negotiated.Features&vmbus.GuestSignalParams != 0 && !c.open.Reserved() {
		req.ConnectionID, req.EventFlag = m.ConnectionID, m.EventFlag // for this open only
		if req.EventFlag >= vmbus.EventFlagsPerSINT || req.ConnectionID>>connectionIDBits != 0 {
			return req, &DropError{Message: vmbus.TypeOpenChannel, Channel: m.Channel, Reason: "there is no such event flag or connection id"}
		}
	}
	// Undefined bits of OpenFlags mean nothing.
	req.Redirected = h.negotiated.Features&vmbus.RedirectInterrupt != 0 && m.OpenFlags&vmbus.OpenRedirectInterrupt != 0
	g := h.gpadls.Lookup(c.entry.ID, m.Ring)
	if g == nil || g.State() != channel.Accepted {
		return req, &channel.RingError{Reason: "is not established on this channel"}
	}
	var err error
	req.ToHost, req.ToGuest, err = channel.SplitRings(g.Ranges, m.HostOffset)
	return req, err
}

func (h *Host) refuseOpen(c *hostChannel, status uint32) {
	h.openResult(c, status)
	reserved := c.open.Reserved()
	_ = c.move(channel.DeviceRefuses) // c is Opening: the edge exists
	if reserved {
		h.unreserved(c)
	}
}

// OpenDone answers OpenDevice: status 0 opens the channel, anything else, a
// negative NTSTATUS, refuses it.
func (h *Host) OpenDone(t Token, status uint32) {
	op := h.take(t)
	h.answered(t, status, op)
	if op == nil {
		return
	}
	c := op.channel
	c.pending = 0
	if c.open == channel.Opening || c.open == channel.OpeningReserved {
		if status != vmbus.StatusSuccess {
			h.refuseOpen(c, status)
			return
		}
		h.openResult(c, status)
		_ = c.move(channel.DeviceOpens)
		return
	}
	if status != vmbus.StatusSuccess { // OpeningReleased: the guest is gone
		_ = c.move(channel.DeviceRefuses)
		h.closed(c)
		return
	}
	if c.move(channel.DeviceOpens) == nil {
		h.closeDevice(c)
	}
}

// closeChannel handles CloseChannel; there is no reply. On a rescinded channel
// it is expected and ignored.
func (h *Host) closeChannel(id vmbus.ChannelID) error {
	c, err := h.lookup(vmbus.TypeCloseChannel, id)
	if err != nil {
		return err
	}
	if !c.entry.Visible() {
		return nil
	}
	if err := c.move(channel.GuestCloses); err != nil {
		return &DropError{Message: vmbus.TypeCloseChannel, Channel: id, Reason: "the channel is " + c.open.String(), Cause: err}
	}
	h.closeDevice(c)
	return nil
}

func (h *Host) closeDevice(c *hostChannel) {
	if !c.holds(c.modify) { // a stopped device is asked both when it starts (faults.md HC-08)
		h.endModify(c)
	}
	c.pending = h.token(operation{channel: c})
	h.ask(c, CloseDevice{c.id, c.pending})
}

// CloseDone answers CloseDevice: the device no longer touches the rings.
func (h *Host) CloseDone(t Token) {
	op := h.take(t)
	h.answered(t, vmbus.StatusSuccess, op)
	if op == nil {
		return
	}
	c := op.channel
	c.pending = 0
	reserved := c.open.Reserved()
	if c.move(channel.DeviceCloses) != nil {
		return
	}
	if reserved {
		h.direct(c.reply, &vmbus.CloseReservedChannelResponse{Channel: c.entry.ID})
		h.unreserved(c)
		return
	}
	if c.open == channel.Opening {
		m := *c.reopen
		c.reopen = nil
		h.startOpen(c, m)
		return
	}
	h.closed(c)
}

// closed goes on after the device of a released channel has closed.
func (h *Host) closed(c *hostChannel) {
	if _, waiting := h.busy[c]; waiting {
		delete(h.busy, c)
		h.drained()
	}
}

// relIDReleased handles RelIDReleased: the id is free, at once for anybody.
func (h *Host) relIDReleased(id vmbus.ChannelID) error {
	if h.opts.Dialect.IgnoreReleases {
		return &DropError{Message: vmbus.TypeRelIDReleased, Channel: id, Reason: "this host does not serve it"}
	}
	c, err := h.lookup(vmbus.TypeRelIDReleased, id)
	if err != nil {
		return err
	}
	// While the device works on an open the guest may not let go; nor of an
	// open channel (vmbus-control.md 5.2).
	if c.open == channel.Opening || c.open == channel.Open || c.open == channel.ClosingReopen || c.open.Reserved() {
		return &DropError{Message: vmbus.TypeRelIDReleased, Channel: id, Reason: "the channel is " + c.open.String()}
	}
	h.releaseGPADLs(c)
	h.releaseOpen(c, channel.GuestGone)
	reoffer, err := h.table.Release(c.entry)
	if err != nil {
		return &DropError{Message: vmbus.TypeRelIDReleased, Channel: id, Reason: "the offer is " + c.entry.State().String(), Cause: err}
	}
	switch {
	case reoffer && h.table.MayAnnounce(c.entry):
		h.sendOffer(c)
		for _, sub := range h.table.SubChannels(c.entry) {
			if sub.State() == offers.Hidden {
				h.say(later{kind: laterOffer, channel: h.byEntry[sub]})
			}
		}
	case reoffer: // a sub-channel whose primary is not back yet follows it
		h.table.Hide(c.entry)
	case c.entry.State() == offers.Gone:
		h.forget(c)
	}
	return nil
}

// releaseOpen ends the open life of c on behalf of a guest that is gone.
func (h *Host) releaseOpen(c *hostChannel, on channel.OpenEvent) {
	was := c.open
	if c.move(on) != nil {
		return
	}
	c.reopen = nil
	switch c.open {
	case channel.Closed:
		if was != channel.Closed { // a reset does not wait for a pending open: the device is told to forget it
			t := c.pending
			delete(h.tokens, t)
			c.pending = 0
			delete(h.busy, c)
			h.abandonOpen(c, t)
		}
	case channel.ClosingReleased:
		if was == channel.Open || was == channel.OpenReserved {
			h.closeDevice(c)
		}
		h.busy[c] = struct{}{}
	case channel.OpeningReleased:
		h.busy[c] = struct{}{}
	}
}
