package offers

import (
	"math/bits"

	"github.com/hvlab/hvlab/vmbus"
)

// A Monitor asks for monitored notification: instead of a hypercall the guest
// sets a bit in a shared page, which the hypervisor samples.
// Source: vmbus-control.md 8.
type Monitor struct {
	Latency uint16 // how late a signal may be noticed, in units of 100 ns
	// Preset says that ID was chosen elsewhere. It is offered as it is, and not
	// taken from the host's own ids.
	Preset bool
	ID     uint8
}

// MonitorIDs hands out the 128 monitor ids of a connection. The zero value has
// all of them.
type MonitorIDs struct {
	taken [vmbus.MaxMonitorIDs / 32]uint32
}

// Take returns the lowest free id, or false if all are taken: the channel is
// then offered without monitoring.
func (m *MonitorIDs) Take() (uint8, bool) {
	for group, w := range m.taken {
		if bit := bits.TrailingZeros32(^w); bit < 32 {
			m.taken[group] |= 1 << bit
			return uint8(group*32 + bit), true
		}
	}
	return vmbus.NoMonitor, false
}

// Claim takes id itself. It reports false if id does not exist or is taken.
func (m *MonitorIDs) Claim(id uint8) bool {
	if id >= vmbus.MaxMonitorIDs || m.taken[id/32]>>(id%32)&1 != 0 {
		return false
	}
	m.taken[id/32] |= 1 << (id % 32)
	return true
}

// Give returns an id; one that is not taken changes nothing.
func (m *MonitorIDs) Give(id uint8) {
	if id < vmbus.MaxMonitorIDs {
		m.taken[id/32] &^= 1 << (id % 32)
	}
}

// monitorID chooses the monitor id of an offer that is about to be announced.
func (t *HostTable) monitorID(e *Entry, monitors bool) uint8 {
	if e.Monitor == nil || !monitors {
		return vmbus.NoMonitor
	}
	if e.Monitor.Preset {
		return e.Monitor.ID
	}
	id, ok := t.monitors.Take()
	e.ownMonitor = ok
	return id
}

// dropMonitor gives the monitor id of e back.
func (t *HostTable) dropMonitor(e *Entry) {
	if e.ownMonitor {
		t.monitors.Give(e.MonitorID)
	}
	e.MonitorID, e.ownMonitor = vmbus.NoMonitor, false
}
