package live

import (
	"errors"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// actOne carries out the core's oldest wish.
func (h *Host) actOne() bool {
	a, ok := h.core.Next()
	if ok {
		h.act(a)
	}
	return ok
}

// receiveOne hands the core the oldest message of the guest, unless something
// waits for the guest: no new message is read meanwhile (vmbus-control.md 5.5).
func (h *Host) receiveOne() bool {
	if !h.core.WantsMessage() {
		return false
	}
	h.mu.Lock()
	ok := h.queue.len() > 0
	if ok {
		h.received = *h.queue.front()
		h.queue.pop()
	}
	h.mu.Unlock()
	if ok {
		h.receive(h.received.port, h.received.payload[:h.received.bytes])
	}
	return ok
}

// receive hands the core a message, which it does not keep.
func (h *Host) receive(port uint32, payload []byte) {
	if h.opts.Trace.On() {
		traceReceived(h.opts.Trace, vmbus.GuestToHost, payload, h.core.Negotiated())
	}
	if err := h.core.Receive(port, payload); err != nil {
		h.dropped.Add(1)
		h.drops.note(err)
	}
}

// postOne posts the oldest message that waits for the guest; false if there is
// none or the message slot is busy.
func (h *Host) postOne() bool {
	if h.closed { // another end may speak for the host by now, one that was restored
		return false
	}
	m, ok := h.core.NextMessage()
	if !ok || h.slotBusy.Load() && !putback.On(putback.HC05) {
		return false
	}
	h.posting = m.AppendPayload(h.posting[:0])
	payload := h.posting
	h.slotBusy.Store(true) // before the attempt: SlotFree may come at once
	err := h.opts.Port.Post(synic.Target{VP: m.VP, SINT: m.SINT}, payload)
	if errors.Is(err, synic.ErrSlotBusy) && !putback.On(putback.HC05) {
		return false // SlotFree kicks the loop
	}
	h.slotBusy.Store(false)
	if err != nil { // the guest named a VP it does not have: nobody will ever read it
		h.drops.note(err)
		h.core.MessageSent()
		return true
	}
	if h.opts.Trace.On() {
		traceMessage(h.opts.Trace, vmbus.HostToGuest, m.Message, payload)
	}
	h.core.MessageSent()
	h.sent(m.Message)
	return true
}

// sent signals once after a successful OpenResult: some guests ignore what
// comes before it (vmbus-control.md 5.5).
func (h *Host) sent(m vmbus.Message) {
	r, ok := m.(*vmbus.OpenResult)
	if !ok || r.Status != vmbus.StatusSuccess || putback.On(putback.GC14) {
		return
	}
	if p := h.open[r.Channel]; p != nil {
		p.channel.Signal()
	}
}

func (h *Host) act(a endpoint.Action) {
	switch a := a.(type) {
	case endpoint.SetupConnection:
		h.core.SetupDone(h.setup(a))
	case endpoint.ResetConnection:
		h.mapped = nil
		h.interruptPage.Store(nil)
		h.monitor.setPage(nil)
		h.legacy.disconnect()
		h.core.ResetDone()
	case endpoint.RemapMonitors:
		h.core.RemapDone(a.Token, h.remap(a))
	case endpoint.Accepted:
		if h.opts.Connected != nil {
			h.opts.Connected(a.Negotiated)
		}
	case endpoint.GuestGone:
		if h.opts.Gone != nil {
			h.opts.Gone()
		}
	case endpoint.ResetFinished:
		done := h.resets
		h.resets = nil
		for _, f := range done {
			f()
		}
	case endpoint.OpenDevice:
		h.openDevice(a)
	case endpoint.CloseDevice:
		h.closeDevice(h.offered[a.Offer])
		h.core.CloseDone(a.Token)
	case endpoint.AddGPADL:
		h.core.GPADLDone(a.Token, vmbus.StatusSuccess)
	case endpoint.DropGPADL:
		if p := h.offered[a.Offer]; p != nil && p.channel != nil && p.channel.Request.Ring == a.GPADL {
			h.closeDevice(p) // the guest tears down before it closes: legal order or not, the pages go
		}
		h.core.TeardownDone(a.Token)
	case endpoint.RetargetDevice:
		p := h.offered[a.Offer]
		ok := p != nil && p.channel != nil && h.exists(a.TargetVP)
		if ok {
			p.channel.retarget(a.TargetVP)
		}
		h.core.ModifyDone(a.Token, ok)
	case endpoint.SocketRequested:
		if h.opts.SocketRequested == nil {
			h.core.RefuseSocket(a.Endpoint, a.Service)
			return
		}
		h.opts.SocketRequested(a)
	case endpoint.OfferGone:
		if p := h.offered[a.Offer]; p != nil {
			delete(h.offered, a.Offer)
			h.closeDevice(p)
			p.device.Gone(nil)
		}
	case endpoint.SendDirect:
		// Lost if the slot is busy: nobody waits for it (vmbus-control.md 5.5).
		_ = h.opts.Port.Post(synic.Target{VP: a.VP, SINT: a.SINT}, a.Payload())
	}
}

// setup maps what the guest handed over; it reports false if a page does not
// exist.
func (h *Host) setup(a endpoint.SetupConnection) bool {
	if !h.exists(a.TargetVP) {
		return false
	}
	if !h.mapMonitors(a.ParentToChild, a.ChildToParent) {
		return false
	}
	var page *guestmem.Page
	if a.InterruptPage != 0 {
		var err error
		if page, err = h.page(a.InterruptPage); err != nil {
			return false
		}
	}
	if a.Negotiated.Version < vmbus.Win7 && h.legacy.connect(h.opts.Port, page) != nil {
		return false
	}
	h.interruptPage.Store(page)
	h.mapped = &a
	return true
}

// mapMonitors checks both monitor pages and keeps the one the guest writes; 0 is
// none. The other is not needed: this host sends no monitored interrupts.
func (h *Host) mapMonitors(parentToChild, childToParent uint64) bool {
	if childToParent == 0 {
		h.monitor.setPage(nil)
		return true
	}
	if parentToChild != 0 { // a host's own may be missing
		if _, err := h.page(parentToChild); err != nil {
			return false
		}
	}
	page, err := h.page(childToParent)
	if err == nil {
		h.monitor.setPage(page)
	}
	return err == nil
}

func (h *Host) remap(a endpoint.RemapMonitors) uint8 {
	if !h.mapMonitors(a.ParentToChild, a.ChildToParent) {
		return vmbus.ConnectionFailed
	}
	if h.mapped != nil {
		h.mapped.ParentToChild, h.mapped.ChildToParent = a.ParentToChild, a.ChildToParent
	}
	return vmbus.ConnectionOK
}

// exists reports whether the guest has a virtual processor vp.
func (h *Host) exists(vp uint32) bool { return vp < h.opts.VPs }

func (h *Host) page(gpa uint64) (*guestmem.Page, error) {
	if gpa%guestmem.PageSize != 0 {
		return nil, &channel.RingError{Reason: "page is not aligned"}
	}
	return h.opts.Memory.Page(gpa / guestmem.PageSize)
}

// openDevice maps the rings, creates the doorbell and asks the device.
func (h *Host) openDevice(a endpoint.OpenDevice) {
	p := h.offered[a.Offer]
	// An offer may have been revoked since the core asked: its device is told nothing
	// more, and nobody waits for the answer.
	if p == nil || p.revoked || !a.Request.NoInterrupt && !h.exists(a.Request.TargetVP) {
		h.core.OpenDone(a.Token, vmbus.StatusFailure)
		return
	}
	if err := h.hand(p, a.Request, false); err != nil {
		h.drops.note(err)
		h.core.OpenDone(a.Token, vmbus.StatusFailure)
		return
	}
	h.core.OpenDone(a.Token, vmbus.StatusSuccess)
}

// hand maps the rings of an open, creates the doorbell and gives both to the
// device.
func (h *Host) hand(p *Offered, r endpoint.OpenRequest, restored bool) error {
	rings, err := channel.MapHostRings(h.opts.Memory, r.ToHost, r.ToGuest)
	if err == nil {
		err = h.bindDoorbell(r, p.device)
	}
	if err != nil {
		return err
	}
	p.channel = &HostChannel{
		Rings: rings, Request: r, Negotiated: h.core.Negotiated(), Restored: restored,
		host: h, targetVP: r.TargetVP,
	}
	if err := p.device.Open(p.channel); err != nil {
		h.unbindDoorbell(r)
		p.channel = nil
		return err
	}
	h.open[r.Channel] = p
	return nil
}

// closeDevice takes the rings from an open device; otherwise it does nothing.
func (h *Host) closeDevice(p *Offered) {
	if p == nil || p.channel == nil {
		return
	}
	c := p.channel
	p.channel = nil
	delete(h.open, c.Request.Channel)
	h.unbindDoorbell(c.Request)
	p.device.Close()
}

// bindDoorbell makes the guest's signals of an open channel reach d: before d
// learns of the open (vmbus-control.md 5.5).
func (h *Host) bindDoorbell(r endpoint.OpenRequest, d Device) error {
	if r.ConnectionID == vmbus.LegacyEventConnection && h.legacy.connected() {
		h.legacy.add(r.Channel, d)
	} else if err := h.opts.Port.BindEvents(synic.ConnectionID(r.ConnectionID), func(uint16) { d.Doorbell() }); err != nil {
		return err
	}
	if r.MonitorID != vmbus.NoMonitor {
		h.monitor.watch(r, d.Doorbell)
	}
	return nil
}

// unbindDoorbell undoes it: when it returns the doorbell is not ringing.
func (h *Host) unbindDoorbell(r endpoint.OpenRequest) {
	if r.ConnectionID == vmbus.LegacyEventConnection && h.legacy.connected() {
		h.legacy.remove(r.Channel)
	} else {
		h.opts.Port.Unbind(synic.ConnectionID(r.ConnectionID))
	}
	if r.MonitorID != vmbus.NoMonitor {
		h.monitor.unwatch(r.MonitorID)
	}
}
