package services

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus"
)

// ErrNotReady says that the guest has not opened the channel and agreed on a
// version yet, or has closed it.
var ErrNotReady = fmt.Errorf("services: the guest's service is not ready: %w", vmbus.ErrState)

// maxResponseBytes is the longest response read: a page, as guests use.
const maxResponseBytes = 4096

// A Service is one integration service of one guest: the live.Device behind its
// offer.
type Service struct {
	name     string
	offer    offers.Offer
	versions []Version // of the service, newest first

	mu          sync.Mutex
	channel     *live.HostChannel // nil unless open
	framework   Version
	message     Version // zero until negotiated
	transaction uint8
	waiting     map[uint8]chan response
	ready       chan struct{} // closed once negotiated
	readyOnce   *sync.Once
}

type response struct {
	header header
	body   []byte
	err    error
}

func newService(name, iface, instance string, versions ...Version) *Service {
	s := &Service{
		name: name, versions: versions,
		offer: offers.Offer{Key: offers.Key{
			Interface: vmbus.GUIDFromUUID(uuid.MustParse(iface)), Instance: vmbus.GUIDFromUUID(uuid.MustParse(instance)),
		}},
	}
	s.reset()
	return s
}

func (s *Service) reset() {
	s.waiting = map[uint8]chan response{}
	s.message = Version{}
	s.ready, s.readyOnce = make(chan struct{}), new(sync.Once)
}

// Attach offers the service on bus and returns the offer, to be revoked when
// the service is to go away.
func (s *Service) Attach(bus *live.Host) *live.Offered {
	o := bus.Prepare(s)
	o.Publish(s.offer)
	return o
}

// Ready is closed when the guest has agreed on a version.
func (s *Service) Ready() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ready
}

// Version returns the service version agreed on; zero before Ready.
func (s *Service) Version() Version {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.message
}

// Open starts the negotiation. It is part of live.Device.
func (s *Service) Open(c *live.HostChannel) error {
	s.mu.Lock()
	s.channel = c
	body := offerVersions([]Version{{3, 0}, {1, 0}}, s.versions)
	signal, err := s.sendLocked(kindNegotiate, Version{1, 0}, Version{}, body, nil)
	s.mu.Unlock()
	if signal {
		c.Signal()
	}
	return err
}

// Doorbell reads the guest's responses. It is part of live.Device.
func (s *Service) Doorbell() {
	s.mu.Lock()
	c := s.channel
	signal := c != nil && s.drainLocked(c)
	s.mu.Unlock()
	if signal { // never with the lock held: the guest may answer on this very goroutine
		c.Signal()
	}
}

// drainLocked handles everything in the ring and reports whether the guest must
// be signalled.
func (s *Service) drainLocked(c *live.HostChannel) (signal bool) {
	for {
		var buf [maxResponseBytes]byte
		_, n, err := c.In.Next(buf[:])
		if err == nil {
			signal = c.In.Commit() || signal
			s.handleLocked(buf[:n])
			continue
		}
		if !errors.Is(err, ringbuffer.ErrEmpty) {
			s.failLocked(err)
			return signal
		}
		if more, err := c.In.Readable(); err != nil || !more {
			return signal
		}
	}
}

// handleLocked takes one response; one that cannot be used is dropped.
func (s *Service) handleLocked(b []byte) {
	h, body, err := decode(b)
	if err != nil && putback.On(putback.HC15) {
		s.channel = nil
	}
	if err != nil || h.Flags&flagResponse == 0 {
		return
	}
	if h.Kind == kindNegotiate {
		if s.framework, s.message, err = chosenVersions(body); err == nil {
			s.readyOnce.Do(func() { close(s.ready) })
		}
		return
	}
	if w := s.waiting[h.Transaction]; w != nil {
		delete(s.waiting, h.Transaction)
		w <- response{header: h, body: append([]byte(nil), body...)}
	}
}

// failLocked ends every request: the guest broke the ring.
func (s *Service) failLocked(err error) {
	for id, w := range s.waiting {
		delete(s.waiting, id)
		w <- response{err: err}
	}
}

// Close is part of live.Device.
func (s *Service) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.channel = nil
	s.failLocked(ErrNotReady)
	s.reset()
}

// Gone is part of live.Device.
func (s *Service) Gone(error) {}

// request sends a message of kind k and returns the channel its response will
// be sent to.
func (s *Service) request(k kind, body []byte) (<-chan response, error) {
	s.mu.Lock()
	c := s.channel
	if c == nil || s.message == (Version{}) {
		s.mu.Unlock()
		return nil, ErrNotReady
	}
	w := make(chan response, 1)
	signal, err := s.sendLocked(k, s.framework, s.message, body, w)
	s.mu.Unlock()
	if signal {
		c.Signal()
	}
	return w, err
}

// sendLocked writes one request and reports whether the guest must be
// signalled. The ring is never nearly full: there is at most one request per
// application call.
func (s *Service) sendLocked(k kind, framework, message Version, body []byte, w chan response) (signal bool, err error) {
	s.transaction++
	if w != nil {
		s.waiting[s.transaction] = w
	}
	b := encode(k, framework, message, s.transaction, body)
	if err := s.channel.Out.Append(ringbuffer.Header{Type: ringbuffer.InBand}, b, nil); err != nil {
		delete(s.waiting, s.transaction)
		return false, fmt.Errorf("services: %s: %w", s.name, err)
	}
	return s.channel.Out.Commit(), nil
}

// u64 reads the n-th 64-bit word of b, 0 if it is not there.
func u64(b []byte, n int) uint64 {
	if len(b) < 8*n+8 {
		return 0
	}
	return binary.LittleEndian.Uint64(b[8*n:])
}
