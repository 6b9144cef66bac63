package live

import (
	"fmt"
	"slices"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/internal/snapshot"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
)

// The encoding of a saved end is that of package snapshot, with these magics. The
// body of a host is savedHost, that of a guest savedGuest.
var (
	hostFormat  = snapshot.Format{Magic: "HVLABLIV", Version: 1, Kind: 1}
	guestFormat = snapshot.Format{Magic: "HVLABLIV", Version: 1, Kind: 2}
)

// MaxSavedBytes bounds a saved end.
const MaxSavedBytes = snapshot.MaxBytes

// A savedHost is all a Host knows, except its devices.
type savedHost struct {
	Core   []byte                    // as endpoint.Host.Save returns it
	Mapped *endpoint.SetupConnection // whose pages are in use
	Open   []endpoint.OfferID        // offers whose devices have the rings
	Queue  []savedPosted             // what the guest has said and nobody has heard yet
}

type savedPosted struct {
	Port    uint32
	Payload []byte
}

// A RestoreError reports saved bytes that cannot be restored, or not here. It
// matches vmbus.ErrProtocol: somebody else wrote them.
type RestoreError struct {
	Reason string
	Cause  error // may be nil
}

func (e *RestoreError) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("live: saved state: %s: %v", e.Reason, e.Cause)
	}
	return "live: saved state: " + e.Reason
}

// Unwrap returns what went wrong below.
func (e *RestoreError) Unwrap() error { return e.Cause }

// Is makes a RestoreError match vmbus.ErrProtocol.
func (e *RestoreError) Is(target error) bool { return target == vmbus.ErrProtocol }

// Save returns the state of the host's end, for RestoreHost: the connection, the
// offers, the channels with the page numbers of their rings, and every message
// that is not delivered yet. The guest's memory is not part of it. Save changes
// nothing: the host runs on.
//
// For a state that means something the guest and the devices must be quiet from
// before Save on: see Guest.Freeze. The host itself is not: if another is to take
// over, SaveAndClose is what is wanted. An error matches vmbus.ErrState.
func (h *Host) Save() ([]byte, error) { return h.SaveWith(func() error { return nil }) }

// SaveWith saves the host and, before it says or hears anything else, calls rest
// on the loop: for copying the guest's memory at the same moment.
func (h *Host) SaveWith(rest func() error) (b []byte, err error) {
	ok := h.loop.call(func() {
		if b, err = h.save(); err == nil {
			err = rest()
		}
	})
	if !ok {
		return nil, ErrStopped
	}
	return b, err
}

// SaveAndClose is Save and Close at the same moment: what the guest has said and
// nobody has heard is for RestoreHost alone. After an error the host runs on.
func (h *Host) SaveAndClose() (b []byte, err error) {
	ok := h.loop.call(func() {
		if b, err = h.save(); err == nil {
			h.quit(nil)
		}
	})
	if !ok {
		return nil, ErrStopped
	}
	if err == nil {
		<-h.loop.done
	}
	return b, err
}

func (h *Host) save() ([]byte, error) {
	h.loop.settle()
	core, err := h.core.Save()
	if err != nil {
		return nil, err
	}
	s := savedHost{Core: core, Mapped: h.mapped}
	for id, p := range h.offered {
		if p.channel != nil {
			s.Open = append(s.Open, id)
		}
	}
	slices.Sort(s.Open)
	h.mu.Lock()
	for _, m := range h.queue.all() {
		s.Queue = append(s.Queue, savedPosted{m.port, slices.Clone(m.payload[:m.bytes])})
	}
	h.mu.Unlock()
	b, err := hostFormat.Seal(&s)
	if err != nil {
		return nil, fmt.Errorf("live: %w: %w", err, vmbus.ErrState)
	}
	return b, nil
}

// openSavedHost decodes what Save returned, and checks what can be checked
// without the guest's memory.
func openSavedHost(opts endpoint.HostOptions, b []byte) (s savedHost, core *endpoint.Host, err error) {
	if err := hostFormat.Open(b, &s); err != nil {
		return s, nil, &RestoreError{Reason: err.Error()}
	}
	if core, err = endpoint.RestoreHost(opts, s.Core); err != nil {
		return s, nil, &RestoreError{"the core", err}
	}
	n := core.Negotiated()
	switch {
	case n.Version != 0 && (s.Mapped == nil || s.Mapped.Negotiated != n):
		return s, nil, &RestoreError{Reason: "the connection has no pages"}
	case len(s.Queue) > endpoint.MaxIncomingMessages:
		return s, nil, &RestoreError{Reason: "too many messages of the guest"}
	}
	for _, m := range s.Queue {
		if len(m.Payload) > vmbus.MaxPayloadBytes {
			return s, nil, &RestoreError{Reason: "a message of the guest is too long"}
		}
	}
	open := map[endpoint.OfferID]bool{}
	for _, p := range core.Published() {
		open[p.ID] = p.Open
	}
	for i, id := range s.Open {
		if !open[id] || i > 0 && s.Open[i-1] >= id {
			return s, nil, &RestoreError{Reason: "a device has rings that no channel has"}
		}
	}
	return s, core, nil
}

// CheckSavedHost says whether RestoreHost with these options can take b, as far as
// that does not depend on the guest's memory; nil means that it can.
func CheckSavedHost(opts endpoint.HostOptions, b []byte) error {
	_, _, err := openSavedHost(opts, b)
	return err
}

// RestoreHost starts the host that Save was called on, over the same memory or a
// copy of it. device is asked on the loop for the device of each offer; nil
// withdraws the offer, and the guest's end of it ends. A device whose channel was
// open is opened again with the same rings, which are Restored, and rung once; one
// that refuses is withdrawn. Connected is called again if the guest is connected.
//
// What the guest has asked of the devices and no device has answered is asked
// again, once; a socket request comes again, too.
//
// Errors match vmbus.ErrProtocol if the state is damaged, or says what no host
// with these options and this memory can have come to; then nothing is left.
func RestoreHost(opts HostOptions, b []byte, device func(*Offered, offers.Offer) Device) (*Host, error) {
	s, core, err := openSavedHost(opts.Core, b)
	if err != nil {
		return nil, err
	}
	h, err := newHost(opts, core)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	for _, m := range s.Queue { // what came since the ports were bound is younger
		h.queue.push(newPosted(m.Port, m.Payload))
	}
	h.mu.Unlock()
	h.loop.startWith(func() { err = h.takeOver(&s, device) })
	if err != nil {
		h.end(err)
		return nil, err
	}
	return h, nil
}

// takeOver maps what the old host had mapped and finds a device for each offer.
func (h *Host) takeOver(s *savedHost, device func(*Offered, offers.Offer) Device) error {
	if s.Mapped != nil && !h.setup(*s.Mapped) {
		return &RestoreError{Reason: "the guest's memory has no such pages, or it no such processor"}
	}
	if n := h.core.Negotiated(); n.Version != 0 && h.opts.Connected != nil {
		h.opts.Connected(n)
	}
	var withdrawn []*Offered
	var open []*Offered
	for _, o := range h.core.Published() {
		p := &Offered{host: h, id: o.ID}
		if p.device = device(p, o.Offer); p.device == nil {
			p.device = nobody{}
			withdrawn = append(withdrawn, p)
		} else if slices.Contains(s.Open, o.ID) {
			if err := h.hand(p, o.Request, true); err != nil {
				h.drops.note(err)
				withdrawn = append(withdrawn, p)
			} else {
				open = append(open, p)
			}
		}
		h.offered[o.ID] = p
	}
	for _, p := range withdrawn {
		p.revoked = true
		_ = h.core.Revoke(p.id) // a sub-channel may have gone with its primary
	}
	h.core.Repeat()
	for _, p := range open { // either side may have missed a signal
		p.device.Doorbell()
		p.channel.Signal()
	}
	return nil
}

// nobody is the device of an offer that nobody serves any more.
type nobody struct{}

func (nobody) Open(*HostChannel) error { return errNobody }
func (nobody) Doorbell()               {}
func (nobody) Close()                  {}
func (nobody) Gone(error)              {}

var errNobody = fmt.Errorf("live: the offer is being withdrawn: %w", vmbus.ErrState)
