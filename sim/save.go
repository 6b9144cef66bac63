package sim

import (
	"fmt"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/internal/snapshot"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// A saved guest is encoded as package snapshot describes: its body is savedGuest.
var guestFormat = snapshot.Format{Magic: "HVLABVM\x00", Version: 1, Kind: 1}

// MaxSavedBytes bounds a saved guest. Its memory is most of it: 4 KiB for each page
// in use that is not all zero.
const MaxSavedBytes = snapshot.MaxBytes

// A savedGuest is all of a guest but its programs.
type savedGuest struct {
	Name      string
	ID        uuid.UUID
	Host      []byte // the host's end, as live.Host.Save returns it
	Guest     []byte // the guest's end, as live.Guest.Save returns it
	Registers synic.Registers
	Memory    []guestmem.SavedBlock
	Listeners []hvsock.Addr
}

// A RestoreError reports a saved guest that cannot be restored, or not on this
// host. It matches vmbus.ErrProtocol: somebody else wrote the bytes.
type RestoreError struct {
	Reason string
	Cause  error // may be nil
}

func (e *RestoreError) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("sim: saved guest: %s: %v", e.Reason, e.Cause)
	}
	return "sim: saved guest: " + e.Reason
}

// Unwrap returns what went wrong below.
func (e *RestoreError) Unwrap() error { return e.Cause }

// Is makes a RestoreError match vmbus.ErrProtocol.
func (e *RestoreError) Is(target error) bool { return target == vmbus.ErrProtocol }

// Save returns the state of the guest, for Host.RestoreGuest: memory, hypervisor,
// both ends of its bus with every message on its way, and the addresses it listens
// on. Containers are not part of it. The guest may be paused; if it is not, it goes
// on afterwards.
//
// Hyper-V sockets cannot be saved: as on Hyper-V, every connection of the guest
// ends on both sides, in the guest that goes on and in the one that is restored
// (hvsock.md 11). A state of more than MaxSavedBytes is an error that matches
// vmbus.ErrState, and so is a guest that hibernates. After Close it is
// net.ErrClosed.
func (g *Guest) Save() ([]byte, error) {
	g.closing.Lock()
	defer g.closing.Unlock()
	if err := g.running(); err != nil {
		return nil, err
	}
	s := savedGuest{Name: g.opts.Name, ID: g.opts.ID}
	for _, l := range g.sockets.Listeners() {
		s.Listeners = append(s.Listeners, l.Addr().(hvsock.Addr))
	}
	_, attachment := g.attached()
	err := g.still(func() (err error) {
		s.Guest, err = g.end().SaveWith(func() (err error) {
			s.Host, err = attachment.bus.SaveWith(func() error {
				s.Memory, s.Registers = g.memory.Save(), g.hypervisor.Save()
				return nil
			})
			return err
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("sim: saving %s: %w", g.opts.Name, err)
	}
	b, err := guestFormat.Seal(&s)
	if err != nil {
		return nil, fmt.Errorf("sim: saving %s: %w: %w", g.opts.Name, err, vmbus.ErrState)
	}
	return b, nil
}

// RestoreOptions configures a restored guest. Name and ID are those that were
// saved, unless others are given; Layout, Version and Features must allow what the
// saved guest has.
type RestoreOptions struct {
	GuestOptions
	Devices
}

// Devices finds the devices of a guest's bus that is taken over from another host.
type Devices struct {
	// Device is asked for the device of each offer, sockets left out; nil, and a
	// nil Device, withdraw the offer. It runs on the host's loop: see
	// live.RestoreHost.
	Device func(*live.Offered, offers.Offer) live.Device
}

// RestoreGuest starts a guest that was saved, on this host or another: a copy, if
// the saved one lives still, and then under another ID. Its memory and its bus are
// as they were; its connections end, its listeners are there (Guest.Listeners), and
// new connections work.
//
// Errors match vmbus.ErrProtocol if the state is damaged, or says what no guest can
// have come to on this host: a version that the host does not serve, for one. A VM
// id in use is EADDRINUSE. After an error nothing is left.
func (h *Host) RestoreGuest(saved []byte, opts RestoreOptions) (*Guest, error) {
	var s savedGuest
	if err := guestFormat.Open(saved, &s); err != nil {
		return nil, &RestoreError{Reason: err.Error()}
	}
	if err := opts.check(); err != nil {
		return nil, err
	}
	if opts.Name == "" {
		opts.Name = s.Name
	}
	if err := h.name(&opts.Name); err != nil {
		return nil, err
	}
	if opts.ID == uuid.Nil {
		opts.ID = s.ID
	}
	g := newGuest(h, opts.GuestOptions)
	if err := g.memory.Restore(s.Memory); err != nil {
		return nil, &RestoreError{"the memory", err}
	}
	if err := g.hypervisor.Restore(s.Registers); err != nil {
		return nil, &RestoreError{"the hypervisor", err}
	}
	attachment, err := h.attach(g.place(), func(o live.HostOptions) (*live.Host, error) {
		return live.RestoreHost(o, s.Host, opts.device)
	})
	if err != nil {
		return nil, err
	}
	g.attachment = attachment
	if err := g.restoreBus(&s); err != nil {
		g.sockets.Close()
		attachment.Close()
		return nil, err
	}
	h.adopt(g)
	return g, nil
}

// device finds the device of an offer; no socket has one any more.
func (d *Devices) device(p *live.Offered, offer offers.Offer) live.Device {
	if offer.Flags&vmbus.OfferTLNPI != 0 || d.Device == nil {
		return nil
	}
	return d.Device(p, offer)
}

// restoreBus starts the guest's end and its listeners.
func (g *Guest) restoreBus(s *savedGuest) error {
	for _, addr := range s.Listeners {
		if _, err := g.sockets.Listen(addr); err != nil {
			return &RestoreError{"a listener", err}
		}
	}
	bus, err := live.RestoreGuest(g.busOptions(), s.Guest, func(vmbus.OfferChannel) live.Driver { return nil })
	if err != nil {
		return err
	}
	g.use(bus)
	bus.Thaw()
	return nil
}

// Migrate moves the guest to another host while it lives, as live migration does:
// its connections with this host end on both sides, its listeners and containers
// stay, and it is reached and dials at the new host from then on. The zero Devices
// do for a guest that has nothing but sockets.
//
// If the new host cannot take it, nothing has changed: a version it does not serve
// is an error that matches vmbus.ErrProtocol, an id of the guest or a container in
// use EADDRINUSE, a closed host ENODEV. A guest that hibernates is an error that matches vmbus.ErrState. After
// Close it is net.ErrClosed.
func (g *Guest) Migrate(to *Host, devices Devices) error {
	g.closing.Lock()
	defer g.closing.Unlock()
	if err := g.running(); err != nil {
		return err
	}
	from, old := g.attached()
	state, err := old.bus.Save()
	if err == nil {
		err = live.CheckSavedHost(to.coreOptions(to.opts.Dialect), state)
	}
	if err != nil {
		return fmt.Errorf("sim: moving %s: %w", g.opts.Name, err)
	}
	if err := g.fits(to); err != nil {
		return fmt.Errorf("sim: moving %s: %w", g.opts.Name, err)
	}
	return g.still(func() error { return g.move(from, to, old, devices.device) })
}

// fits is an error if the host knows another machine by one of the guest's ids.
func (g *Guest) fits(h *Host) error {
	peer, err := h.sockets.AddGuest(g.opts.ID)
	if err != nil {
		return err
	}
	defer peer.Remove()
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.addContainers(peer)
}

// move takes the host's end of a guest that stands still from one host to another.
func (g *Guest) move(from, to *Host, old *Attachment, device func(*live.Offered, offers.Offer) live.Device) error {
	state, err := old.bus.SaveAndClose()
	if err != nil {
		return err
	}
	old.Close()
	from.leave(g)
	attach := func(h *Host) error {
		a, err := h.attach(g.place(), func(o live.HostOptions) (*live.Host, error) {
			return live.RestoreHost(o, state, device)
		})
		if err != nil {
			return err
		}
		if err := g.moveTo(h, a); err != nil {
			a.Close()
			return err
		}
		h.adopt(g)
		return nil
	}
	if err := attach(to); err != nil { // another guest took the id since
		if back := attach(from); back != nil {
			return fmt.Errorf("sim: moving %s: %w, and it cannot stay: %w", g.opts.Name, err, back)
		}
		return fmt.Errorf("sim: moving %s: %w", g.opts.Name, err)
	}
	return nil
}
