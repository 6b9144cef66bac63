package sim

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// GuestOptions configures a Guest. The zero value works.
type GuestOptions struct {
	// Name labels the guest in traces; "" means guest1, guest2, ...
	Name string
	// ID is the VM id; the zero UUID means a random one.
	ID uuid.UUID
	// Version forces exactly this VMBus version; 0 means the newest both sides
	// know, walking down.
	Version vmbus.Version
	// Features is asked for from version 6.0 on.
	Features vmbus.Features
	// Profile is the kind of guest: hvsock.Linux, hvsock.FreeBSD, hvsock.Windows,
	// hvsock.AFHyperV2016. The zero value behaves best (hvsock.md 16).
	Profile hvsock.Profile
	// Unprivileged makes the guest's programs ordinary users, who may not listen
	// on ports below Profile.PrivilegedPorts.
	Unprivileged bool
	// RingPages is the size of each ring in 4 KiB pages, its control page
	// included; 0 means what the profile says, normally channel.DefaultRingPages.
	RingPages int
	// Layout says how ring pages lie in memory; the zero value scatters their
	// page numbers.
	Layout guestmem.Layout
	// MemoryPages bounds the guest's memory, in 4 KiB pages; 0 means the
	// default of guestmem.
	MemoryPages int
	// Backlog is the number of connections a listener queues; 0 means what the
	// profile says, normally 128.
	Backlog int
	// SiloParent says what hvsock.Parent means in the guest's containers.
	SiloParent hvsock.SiloParent
	// Seed makes page numbers, ports and ids repeatable; 0 means random.
	Seed uint64
}

// connectTimeout bounds a guest's whole negotiation with the host in this
// process; it is only reached if the host has been closed.
const connectTimeout = 10 * time.Second

// A Guest is a simulated virtual machine.
type Guest struct {
	host       *Host
	name       string
	id         uuid.UUID
	memory     *guestmem.Heap
	attachment *Attachment
	bus        *live.Guest
	sockets    *hvsock.GuestStack
	basePages  int // pages of the guest's own, without any connection

	closing sync.Mutex
	closed  bool
}

// NewGuest starts a guest and returns once its VMBus is connected. A version
// the host does not serve is an error matching *endpoint.VersionError.
func (h *Host) NewGuest(opts GuestOptions) (*Guest, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil, fmt.Errorf("sim: the host is closed: %w", net.ErrClosed)
	}
	if opts.Name == "" {
		h.named++
		opts.Name = fmt.Sprintf("guest%d", h.named)
	}
	h.mu.Unlock()
	if opts.ID == uuid.Nil {
		opts.ID = uuid.New()
	}
	g := &Guest{host: h, name: opts.Name, id: opts.ID}
	if err := g.start(opts); err != nil {
		return nil, fmt.Errorf("sim: %s: %w", g.name, err)
	}
	h.mu.Lock()
	h.guests = append(h.guests, g)
	h.mu.Unlock()
	return g, nil
}

func (o GuestOptions) check() error {
	if o.Version != 0 && !o.Version.Known() {
		return fmt.Errorf("sim: VMBus version %v does not exist", o.Version)
	}
	if o.RingPages != 0 && (o.RingPages < channel.MinRingPages || o.RingPages > channel.MaxRingPages) {
		return fmt.Errorf("sim: %d ring pages: a ring has %d to %d pages of 4 KiB", o.RingPages, channel.MinRingPages, channel.MaxRingPages)
	}
	return nil
}

// start wires memory, hypervisor, host end and guest end, and connects.
func (g *Guest) start(opts GuestOptions) error {
	g.memory = guestmem.NewHeap(guestmem.HeapOptions{LimitPages: opts.MemoryPages, Seed: opts.Seed, Layout: opts.Layout})
	hypervisor := synic.NewPartition(g.memory, 1)
	attachment, err := g.host.Attach(g.name, g.id, g.memory, hypervisor)
	if err != nil {
		return err
	}
	g.attachment = attachment
	g.sockets = hvsock.NewGuestStack(hvsock.GuestOptions{
		VMID: g.id, RingPages: opts.RingPages, Backlog: opts.Backlog, Seed: opts.Seed,
		SiloParent: opts.SiloParent, Profile: opts.Profile, Unprivileged: opts.Unprivileged, Memory: g.memory,
	})
	core := endpoint.GuestOptions{Features: opts.Features, ShortSocketRequest: opts.Profile.ShortRequest}
	if opts.Version != 0 {
		core.Versions = []vmbus.Version{opts.Version}
	}
	g.bus, err = live.NewGuest(live.GuestOptions{
		Core: core, Memory: g.memory, Port: hypervisor,
		Offered: g.sockets.Offered, SocketRefused: g.sockets.Refused, Gone: g.sockets.Gone,
	})
	if err != nil {
		attachment.Close()
		return err
	}
	g.basePages = g.memory.InUsePages()
	g.sockets.Attach(g.bus)
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	if err := g.bus.Connect(ctx); err != nil {
		_ = g.bus.Close() // the connection is what failed
		attachment.Close()
		return err
	}
	return nil
}

// ID returns the guest's VM id: what the host dials.
func (g *Guest) ID() uuid.UUID { return g.id }

// Name returns the guest's label in traces.
func (g *Guest) Name() string { return g.name }

// Version returns the negotiated VMBus version.
func (g *Guest) Version() vmbus.Version { return g.bus.Negotiated().Version }

// Listen accepts connections on addr.ServiceID. The VM id is hvsock.Wildcard;
// hvsock.Parent for the host's alone; hvsock.Loopback or the guest's own id for
// its own; hvsock.Children or a container's id for its containers'. A nil service
// id picks a free port. Errors are *net.OpError around EADDRINUSE, EADDRNOTAVAIL
// or ENODEV.
func (g *Guest) Listen(addr hvsock.Addr) (*hvsock.Listener, error) { return g.sockets.Listen(addr) }

// Dial connects to a service of the host (hvsock.Parent), of this guest
// (hvsock.Loopback) or of one of its containers. ctx covers the whole connect; without a deadline the
// timeout is 2 s. Errors are *net.OpError around ECONNREFUSED, ETIMEDOUT,
// ENETUNREACH, ENODEV, ENOMEM, the context's error or os.ErrDeadlineExceeded.
func (g *Guest) Dial(ctx context.Context, addr hvsock.Addr) (*hvsock.Conn, error) {
	return g.sockets.Dial(ctx, addr)
}

// Dialer returns a Dialer, which dials with socket options.
func (g *Guest) Dialer() *hvsock.Dialer { return g.sockets.Dialer() }

// DialContext is Dial for http.Transport and gRPC: see Host.DialContext.
func (g *Guest) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return g.sockets.DialContext(ctx, network, address)
}

// Usage returns what the guest holds. Pages does not count the three pages of
// its interrupt controller.
func (g *Guest) Usage() Usage {
	b := g.bus.Usage()
	u := Usage{Channels: b.Channels, GPADLs: b.GPADLs, Pages: g.memory.InUsePages()}
	g.closing.Lock()
	if !g.closed {
		u.Pages -= g.basePages
	}
	g.closing.Unlock()
	u.Connections, u.Listeners = g.sockets.Usage()
	return u
}

// Close unloads the guest's VMBus, which ends its connections, and removes it
// from the host. A second call returns net.ErrClosed.
func (g *Guest) Close() error {
	g.closing.Lock()
	defer g.closing.Unlock()
	if g.closed {
		return net.ErrClosed
	}
	g.closed = true
	g.sockets.Close()
	err := g.bus.Close()
	g.attachment.Close()
	g.host.mu.Lock()
	g.host.guests = slices.DeleteFunc(g.host.guests, func(o *Guest) bool { return o == g })
	g.host.mu.Unlock()
	return err
}
