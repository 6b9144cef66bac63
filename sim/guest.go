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
	// Recheck is hvsock.GuestOptions.Recheck: the host may not signal space.
	Recheck bool
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
	opts       GuestOptions // with a name and an id
	memory     *guestmem.Heap
	hypervisor *synic.Partition
	sockets    *hvsock.GuestStack

	mu         sync.Mutex // guards what changes when it moves or wakes up
	host       *Host
	attachment *Attachment
	bus        *live.Guest
	containers map[uuid.UUID]struct{}

	closing    sync.Mutex // held while any of these changes, and while it is saved or moved
	closed     bool
	paused     bool
	hibernated vmbus.Version // that it had, and will have again; 0 if it runs
}

// NewGuest starts a guest and returns once its VMBus is connected. A version
// the host does not serve is an error matching *endpoint.VersionError.
func (h *Host) NewGuest(opts GuestOptions) (*Guest, error) {
	if err := opts.check(); err != nil {
		return nil, err
	}
	if err := h.name(&opts.Name); err != nil {
		return nil, err
	}
	if opts.ID == uuid.Nil {
		opts.ID = uuid.New()
	}
	g := newGuest(h, opts)
	if err := g.start(); err != nil {
		return nil, fmt.Errorf("sim: %s: %w", opts.Name, err)
	}
	h.adopt(g)
	return g, nil
}

// name makes up a name if there is none. A closed host is an error.
func (h *Host) name(name *string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return fmt.Errorf("sim: the host is closed: %w", net.ErrClosed)
	}
	if *name == "" {
		h.named++
		*name = fmt.Sprintf("guest%d", h.named)
	}
	return nil
}

// adopt adds a guest to the host's list, leave takes it off.
func (h *Host) adopt(g *Guest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.guests = append(h.guests, g)
}

func (h *Host) leave(g *Guest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.guests = slices.DeleteFunc(h.guests, func(o *Guest) bool { return o == g })
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

// newGuest makes a guest that is not started: memory, hypervisor and sockets.
func newGuest(h *Host, opts GuestOptions) *Guest {
	g := &Guest{
		host: h, opts: opts, containers: map[uuid.UUID]struct{}{},
		memory: guestmem.NewHeap(guestmem.HeapOptions{LimitPages: opts.MemoryPages, Seed: opts.Seed, Layout: opts.Layout}),
	}
	g.hypervisor = synic.NewPartition(g.memory, guestVPs)
	g.sockets = hvsock.NewGuestStack(hvsock.GuestOptions{
		VMID: opts.ID, RingPages: opts.RingPages, Backlog: opts.Backlog, Seed: opts.Seed,
		SiloParent: opts.SiloParent, Profile: opts.Profile, Unprivileged: opts.Unprivileged, Memory: g.memory,
		Recheck: opts.Recheck,
	})
	return g
}

// guestVPs is the number of a simulated guest's virtual processors.
const guestVPs = 1

// busOptions is what the guest's end of the bus is made of.
func (g *Guest) busOptions() live.GuestOptions {
	core := endpoint.GuestOptions{Features: g.opts.Features, ShortSocketRequest: g.opts.Profile.ShortRequest}
	if g.opts.Version != 0 {
		core.Versions = []vmbus.Version{g.opts.Version}
	}
	return live.GuestOptions{
		Core: core, Memory: g.memory, Port: g.hypervisor, VPs: guestVPs,
		Offered: g.sockets.Offered, SocketRefused: g.sockets.Refused, Gone: g.sockets.Gone,
	}
}

// start makes the host's end and the guest's end, and connects.
func (g *Guest) start() error {
	attachment, err := g.host.attach(g.place(), live.NewHost)
	if err != nil {
		return err
	}
	g.attachment = attachment
	if err := g.connect(g.busOptions()); err != nil {
		attachment.Close()
		return err
	}
	return nil
}

// connect makes the guest's end and connects it to the host.
func (g *Guest) connect(opts live.GuestOptions) error {
	bus, err := live.NewGuest(opts)
	if err != nil {
		return err
	}
	g.use(bus)
	ctx, cancel := context.WithTimeout(context.Background(), connectTimeout)
	defer cancel()
	if err := bus.Connect(ctx); err != nil {
		_ = bus.Close() // the connection is what failed
		return err
	}
	return nil
}

// use makes bus the guest's end.
func (g *Guest) use(bus *live.Guest) {
	g.mu.Lock()
	g.bus = bus
	g.mu.Unlock()
	g.sockets.Attach(bus)
}

// end returns the guest's end of its bus.
func (g *Guest) end() *live.Guest {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.bus
}

// place is how the guest is reached from its host.
func (g *Guest) place() place {
	return place{g.opts.Name, g.opts.ID, g.memory, g.hypervisor}
}

// attached returns where the guest is.
func (g *Guest) attached() (*Host, *Attachment) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.host, g.attachment
}

// ID returns the guest's VM id: what the host dials.
func (g *Guest) ID() uuid.UUID { return g.opts.ID }

// Name returns the guest's label in traces.
func (g *Guest) Name() string { return g.opts.Name }

// Version returns the negotiated VMBus version; 0 if the guest is closed or
// hibernated.
func (g *Guest) Version() vmbus.Version { return g.end().Negotiated().Version }

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
	g.closing.Lock() // else it may be about to give its own pages back
	bus := g.end()
	b := bus.Usage()
	u := Usage{Channels: b.Channels, GPADLs: b.GPADLs, Pages: g.memory.InUsePages()}
	if !g.closed && g.hibernated == 0 {
		u.Pages -= bus.OwnPages()
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
	g.goOn() // a paused guest cannot unload
	var err error
	if g.hibernated == 0 {
		err = g.end().Close()
	}
	host, attachment := g.attached()
	attachment.Close()
	host.leave(g)
	return err
}
