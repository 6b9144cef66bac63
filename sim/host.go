package sim

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/hvsock/registry"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
	"github.com/hvlab/hvlab/vmbus/trace"
)

// HostOptions configures a Host. The zero value works.
type HostOptions struct {
	// MaxVersion is the newest VMBus version served; 0 means the newest there is.
	MaxVersion vmbus.Version
	// Features masks what is granted to guests of version 6.0; 0 means
	// everything the host can do.
	Features vmbus.Features
	// Backlog is the number of connections a listener queues; 0 means 128.
	Backlog int
	// Recheck is hvsock.HostOptions.Recheck: guests may not signal space.
	Recheck bool
	// Services are the services registered on the host, with who may use them:
	// the registry key GuestCommunicationServices. nil means that there are none.
	Services *registry.Registry
	// Strict refuses services that are not registered, as Windows does: EACCES
	// to the host's programs, ECONNREFUSED to guests. Otherwise anything goes.
	Strict bool
	// Trace gets every control message of every guest, as the host sees them.
	Trace trace.Sink
	// Seed makes endpoint ids repeatable; 0 means random.
	Seed uint64
	// Dialect selects what other hosts do where sources disagree, and what real
	// kernels need; the zero value is what the specification says.
	Dialect endpoint.Dialect
}

// A Host is a Hyper-V host.
type Host struct {
	opts    HostOptions
	sockets *hvsock.HostStack

	mu     sync.Mutex
	closed bool
	guests []*Guest
	named  int // guests that got a default name
}

// NewHost returns a host without guests.
func NewHost(opts HostOptions) (*Host, error) {
	if opts.MaxVersion != 0 && !opts.MaxVersion.Known() {
		return nil, fmt.Errorf("sim: VMBus version %v does not exist", opts.MaxVersion)
	}
	return &Host{
		opts: opts,
		sockets: hvsock.NewHostStack(hvsock.HostOptions{
			Backlog: opts.Backlog, Seed: opts.Seed, Services: opts.Services, Strict: opts.Strict, Recheck: opts.Recheck,
		}),
	}, nil
}

// An Attachment is a guest of any kind at this host: a simulated one, or a real
// kernel.
type Attachment struct {
	host *Host
	bus  *live.Host
	peer *hvsock.HostGuest
}

// Attach serves a guest that is reached through port and whose pages are mem,
// under the VM id vmid. name labels its traces.
func (h *Host) Attach(name string, vmid uuid.UUID, mem guestmem.Memory, port synic.Port) (*Attachment, error) {
	return h.AttachDialect(name, vmid, mem, port, h.opts.Dialect)
}

// Dialect returns the dialect of HostOptions.
func (h *Host) Dialect() endpoint.Dialect { return h.opts.Dialect }

// AttachDialect is Attach for a guest that needs a dialect of its own.
func (h *Host) AttachDialect(name string, vmid uuid.UUID, mem guestmem.Memory, port synic.Port, d endpoint.Dialect) (*Attachment, error) {
	return h.attachAs(place{name, vmid, mem, port}, d, live.NewHost)
}

// A place is what a host needs of a guest.
type place struct {
	name string
	vmid uuid.UUID
	mem  guestmem.Memory
	port synic.Port
}

// attach serves a guest of any kind by what start makes.
func (h *Host) attach(p place, start func(live.HostOptions) (*live.Host, error)) (*Attachment, error) {
	return h.attachAs(p, h.opts.Dialect, start)
}

func (h *Host) attachAs(p place, d endpoint.Dialect, start func(live.HostOptions) (*live.Host, error)) (*Attachment, error) {
	peer, err := h.sockets.AddGuest(p.vmid)
	if err != nil {
		return nil, fmt.Errorf("sim: guest %v: %w", p.vmid, err)
	}
	attached := make(chan struct{}) // a restored host may call back before it is
	bus, err := start(live.HostOptions{
		Core: h.coreOptions(d), Memory: p.mem, Port: p.port, Trace: trace.New(h.opts.Trace, p.name),
		Connected: peer.Connected, Gone: peer.Gone,
		SocketRequested: func(r endpoint.SocketRequested) {
			<-attached
			peer.Requested(r)
		},
	})
	if err != nil {
		peer.Remove()
		return nil, err
	}
	peer.Attach(bus)
	close(attached)
	return &Attachment{host: h, bus: bus, peer: peer}, nil
}

func (h *Host) coreOptions(d endpoint.Dialect) endpoint.HostOptions {
	return endpoint.HostOptions{MaxVersion: h.opts.MaxVersion, Features: h.opts.Features, Dialect: d}
}

// Bus returns the host's end of the guest's VMBus.
func (a *Attachment) Bus() *live.Host { return a.bus }

// Close ends every channel of the guest and forgets it.
func (a *Attachment) Close() {
	a.bus.Close()
	a.peer.Remove()
}

// Listen accepts connections of guests on addr.ServiceID. The VM id is
// hvsock.Wildcard, hvsock.Children, hvsock.Loopback or the id of one guest or
// container; a nil service id picks a free port. Errors are *net.OpError around
// EADDRINUSE, EADDRNOTAVAIL, EACCES (see HostOptions.Services) or ENODEV.
func (h *Host) Listen(addr hvsock.Addr) (*hvsock.Listener, error) { return h.sockets.Listen(addr) }

// Dial connects to a service of the guest or container addr.VMID, or of the host
// itself with hvsock.Loopback. ctx covers the whole connect; without a deadline the timeout
// is 2 s. Errors are *net.OpError around ETIMEDOUT (a guest cannot refuse),
// EHOSTUNREACH, ENETDOWN (the guest boots or hibernates), ENETUNREACH, ENODEV (its
// VMBus is too old), ECONNREFUSED (loopback), the context's error or
// os.ErrDeadlineExceeded.
func (h *Host) Dial(ctx context.Context, addr hvsock.Addr) (*hvsock.Conn, error) {
	return h.sockets.Dial(ctx, addr)
}

// Dialer returns a Dialer, which dials with socket options.
func (h *Host) Dialer() *hvsock.Dialer { return h.sockets.Dialer() }

// HandleRequests has fn called for each connection that a guest asks for and no
// listener serves, until stop is called: see hvsock.HostStack.HandleRequests.
func (h *Host) HandleRequests(vmid uuid.UUID, fn func(*hvsock.Request)) (stop func(), err error) {
	return h.sockets.HandleRequests(vmid, fn)
}

// DialContext is Dial for http.Transport and gRPC: address is in any form
// hvsock.ParseAddr takes, network is any name of streams: see hvsock.DialText.
func (h *Host) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return h.sockets.DialContext(ctx, network, address)
}

// Usage counts what a host or guest holds. It is all zero when nothing is left.
type Usage struct {
	Channels    int // channel ids known to a guest
	GPADLs      int // shared page lists
	Pages       int // guest pages in use for rings
	Connections int // sockets that are open, opening or closing
	Listeners   int
}

// Usage returns what the host holds for all its guests. Pages belong to guests:
// see Guest.Usage.
func (h *Host) Usage() Usage {
	var u Usage
	u.Connections, u.Listeners = h.sockets.Usage()
	for _, g := range h.list() {
		_, attachment := g.attached()
		b := attachment.bus.Usage()
		u.Channels += b.Channels
		u.GPADLs += b.GPADLs
	}
	return u
}

func (h *Host) list() []*Guest {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.guests)
}

// Close closes every guest and listener. A second call returns net.ErrClosed.
func (h *Host) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return net.ErrClosed
	}
	h.closed = true
	h.mu.Unlock()
	h.sockets.Close()
	var first error
	for _, g := range h.list() {
		if err := g.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}
