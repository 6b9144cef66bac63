package endpoint

import (
	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
)

// monitorBit is the monitor_allocated field of an offer.
func monitorBit(e *offers.Entry) uint8 {
	if e.MonitorID == vmbus.NoMonitor {
		return 0
	}
	return 1
}

// modifyConnection handles ModifyConnection: the guest replaces its monitor
// pages. What cannot be done is answered and changes nothing
// (vmbus-control.md 3.16 and 12, row 21).
func (h *Host) modifyConnection(m vmbus.ModifyConnection) error {
	if why := h.keepsMonitors(m); why != "" {
		h.send(&vmbus.ModifyConnectionResponse{ConnectionState: vmbus.ConnectionFailed})
		return &DropError{Message: vmbus.TypeModifyConnection, Reason: why}
	}
	h.remap = h.token(operation{parentToChild: m.ParentToChild, childToParent: m.ChildToParent})
	h.emit(RemapMonitors{h.remap, m.ParentToChild, m.ChildToParent})
	return nil
}

// keepsMonitors says why the monitor pages may not change, or "".
func (h *Host) keepsMonitors(m vmbus.ModifyConnection) string {
	switch {
	case (m.ParentToChild == 0) != (m.ChildToParent == 0):
		return "it names one monitor page"
	case h.negotiated.Features&vmbus.ServerMonitorPages != 0:
		return "the monitor pages are the host's"
	case h.remap != 0:
		return "another one is in progress"
	}
	for _, c := range h.channels {
		if c.open != channel.Closed && c.request.MonitorID != vmbus.NoMonitor {
			return "an open channel uses the monitor pages"
		}
	}
	return ""
}

// RemapDone answers RemapMonitors with a connection state of the wire:
// vmbus.ConnectionOK, or why the pages are what they were.
func (h *Host) RemapDone(t Token, state uint8) {
	op := h.take(t)
	h.answered(t, uint32(state), op)
	if op == nil { // the guest has disconnected meanwhile
		return
	}
	h.remap = 0
	if state == vmbus.ConnectionOK {
		h.monitors = op.parentToChild != 0
	}
	h.send(&vmbus.ModifyConnectionResponse{ConnectionState: state})
}
