package live

import (
	"maps"
	"slices"
	"sync"

	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// The interrupt page holds one bit per channel and direction. Versions below 2.4
// signal the guest through it, 0.13 the host too, and channels that are not
// dedicated set their bit besides. Source: vmbus-control.md 1.4.

// guestToHost is where the bits of signals to the host begin, in bytes.
const guestToHost = 2048

// setBit sets bit n of the half of the interrupt page that begins at from.
func setBit(page *guestmem.Page, from int, n uint32) { page.Or32(from+int(n/32*4), 1<<(n%32)) }

// takeBits clears the bits of one half that a channel may have and hands each to
// ring.
func takeBits(page *guestmem.Page, from int, ring func(n uint32)) {
	for w := range (vmbus.MaxChannels + 1) / 32 {
		at := from + w*4
		if page.Load32(at) == 0 {
			continue
		}
		bits := page.And32(at, 0)
		for n := range uint32(32) {
			if bits>>n&1 != 0 {
				ring(uint32(w)*32 + n)
			}
		}
	}
}

// A switchboard passes on what arrives on the one event connection of version
// 0.13.
type switchboard struct {
	mu      sync.RWMutex   // held to read while doorbells ring, so that remove waits for them
	page    *guestmem.Page // nil if the guest has no interrupt page
	devices map[vmbus.ChannelID]Device
	port    synic.Port // nil while nothing is bound
}

// connect listens on the legacy event connection for bits of page.
func (s *switchboard) connect(port synic.Port, page *guestmem.Page) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := port.BindEvents(synic.ConnectionID(vmbus.LegacyEventConnection), func(uint16) { s.signalled() }); err != nil {
		return err
	}
	s.port, s.page, s.devices = port, page, map[vmbus.ChannelID]Device{}
	return nil
}

// disconnect undoes connect; without one it does nothing.
func (s *switchboard) disconnect() {
	s.mu.Lock()
	port := s.port
	s.port, s.page, s.devices = nil, nil, nil
	s.mu.Unlock()
	if port != nil {
		port.Unbind(synic.ConnectionID(vmbus.LegacyEventConnection))
	}
}

// connected reports whether channels signal here instead of on connections of
// their own.
func (s *switchboard) connected() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.port != nil
}

func (s *switchboard) add(id vmbus.ChannelID, d Device) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.devices[id] = d
}

// remove forgets a channel: when it returns its doorbell is not ringing.
func (s *switchboard) remove(id vmbus.ChannelID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.devices, id)
}

func (s *switchboard) signalled() {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.page == nil { // the guest cannot say which channel it means
		for _, id := range slices.Sorted(maps.Keys(s.devices)) {
			s.devices[id].Doorbell()
		}
		return
	}
	takeBits(s.page, guestToHost, func(n uint32) {
		if d := s.devices[vmbus.ChannelID(n)]; d != nil {
			d.Doorbell()
		}
	})
}
