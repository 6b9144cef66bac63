package endpoint

import (
	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/vmbus"
)

// modifyChannel handles ModifyChannel (vmbus-control.md 7.3).
func (h *Host) modifyChannel(m vmbus.ModifyChannel) error {
	c, err := h.lookup(vmbus.TypeModifyChannel, m.Channel)
	if err != nil || !c.entry.Visible() || c.open != channel.Open || c.request.NoInterrupt || m.TargetVP == vmbus.NoInterrupt {
		h.modifyResult(m.Channel, vmbus.StatusFailure)
		return err
	}
	if c.modify != 0 {
		if h.negotiated.Version >= vmbus.Iron {
			return &DropError{Message: vmbus.TypeModifyChannel, Channel: m.Channel, Reason: "another one is in progress"}
		}
		c.nextVP = &m.TargetVP // the newest wins; there is one place
		return nil
	}
	h.retarget(c, m.TargetVP)
	return nil
}

func (h *Host) retarget(c *hostChannel, vp uint32) {
	c.modify = h.token(operation{channel: c, vp: vp})
	h.ask(c, RetargetDevice{c.id, c.modify, vp})
}

// ModifyDone answers RetargetDevice: after success no interrupt is raised on
// the old VP any more.
func (h *Host) ModifyDone(t Token, ok bool) {
	op := h.take(t)
	status := vmbus.StatusFailure
	if ok {
		status = vmbus.StatusSuccess
	}
	h.answered(t, status, op)
	if op == nil {
		return
	}
	c := op.channel
	c.modify = 0
	if ok {
		c.request.TargetVP = op.vp
	}
	h.modifyResult(c.entry.ID, status)
	if c.nextVP != nil {
		vp := *c.nextVP
		c.nextVP = nil
		h.retarget(c, vp)
	}
}

// modifyResult sends ModifyChannelResponse, which exists from 5.3 on.
func (h *Host) modifyResult(id vmbus.ChannelID, status uint32) {
	if h.negotiated.Version >= vmbus.Iron {
		h.send(&vmbus.ModifyChannelResponse{Channel: id, Status: status})
	}
}

// endModify forgets a ModifyChannel the device is working on, since the channel
// closes under it. A guest that is still there gets its answer: it may wait for
// it without a timeout (vmbus-control.md 6.2), and must have it before it may
// release the id (faults.md GC-20).
func (h *Host) endModify(c *hostChannel) {
	if c.modify == 0 {
		return
	}
	h.forgetModify(c)
	if h.connected() {
		h.modifyResult(c.entry.ID, vmbus.StatusFailure)
	}
}
