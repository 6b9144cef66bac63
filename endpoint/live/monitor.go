package live

import (
	"encoding/binary"
	"sync"
	"time"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// Offsets in a monitor page, in bytes. Source: vmbus-control.md 8.
const (
	monitorEnable    = 0    // u32, bit per group
	monitorPending   = 8    // + 8 per group: u32, bit per channel
	monitorLatency   = 576  // + 2 per id: u16, units of 100 ns
	monitorParameter = 1088 // + 8 per id: u32 connection id, u16 flag, u16 reserved

	monitorGroups = vmbus.MaxMonitorIDs / 32

	// minMonitorPeriod bounds how often a page is sampled, whatever latency a
	// device asks for: what OpenVMM's network devices ask for.
	minMonitorPeriod = 100 * time.Microsecond
)

// A sampler plays the hypervisor's part of monitored notification: it looks at
// the child-to-parent page within the least latency of the open channels, clears
// the bits it finds and rings those channels. Nothing is read from the page but
// the pending bits. It has a timer only while a monitored channel is open.
type sampler struct {
	clock   Clock
	mu      sync.Mutex // held while doorbells ring, so that unwatch waits for them
	page    *guestmem.Page
	watched map[uint8]watched
	mask    [monitorGroups]uint32
	timer   Timer
	round   uint64 // of the timer
}

type watched struct {
	period time.Duration
	ring   func()
}

// setPage makes page the one to look at; nil for none.
func (s *sampler) setPage(page *guestmem.Page) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.page = page
}

// watch begins to sample the channel of request r. The page's tables are filled
// in as a hypervisor's would be.
func (s *sampler) watch(r endpoint.OpenRequest, ring func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := r.MonitorID
	if s.page == nil || id >= vmbus.MaxMonitorIDs {
		return
	}
	if s.watched == nil {
		s.watched = map[uint8]watched{}
	}
	s.watched[id] = watched{max(time.Duration(r.MonitorLatency)*100, minMonitorPeriod), ring}
	s.mask[id/32] |= 1 << (id % 32)
	b := s.page.Bytes()
	binary.LittleEndian.PutUint16(b[monitorLatency+2*int(id):], r.MonitorLatency)
	binary.LittleEndian.PutUint32(b[monitorParameter+8*int(id):], r.ConnectionID)
	s.page.Or32(monitorEnable, 1<<(id/32))
	s.arm()
}

// unwatch ends it: when it returns ring is not running and will not start.
func (s *sampler) unwatch(id uint8) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.watched, id)
	if id < vmbus.MaxMonitorIDs {
		s.mask[id/32] &^= 1 << (id % 32)
	}
	if len(s.watched) == 0 && s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
}

// arm sets the timer to the least period.
func (s *sampler) arm() {
	period := time.Duration(1<<63 - 1)
	for _, w := range s.watched {
		period = min(period, w.period)
	}
	if s.timer != nil {
		s.timer.Stop()
	}
	s.round++
	round := s.round
	s.timer = s.clock.AfterFunc(period, func() { s.sample(round) })
}

// sample looks once, for the timer of that round.
func (s *sampler) sample(round uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer == nil || s.round != round { // stopped or replaced
		return
	}
	for group, mask := range s.mask {
		if mask == 0 {
			continue
		}
		at := monitorPending + 8*group
		if s.page.Load32(at)&mask == 0 {
			continue
		}
		pending := s.page.And32(at, ^mask) & mask
		for bit := range uint8(32) {
			if pending>>bit&1 != 0 {
				s.watched[uint8(group)*32+bit].ring()
			}
		}
	}
	s.arm()
}

// trigger is the guest's half: it sets the pending bit of a monitored channel.
func trigger(page *guestmem.Page, id uint8) {
	page.Or32(monitorPending+8*int(id/32), 1<<(id%32))
}
