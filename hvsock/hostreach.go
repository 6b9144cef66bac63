package hvsock

import (
	"cmp"
	"context"
	"net"
	"syscall"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/vmbus"
)

// This file is whom a host and its containers reach: hvsock.md 4.

// Listen accepts connections on addr.ServiceID. addr.VMID is Wildcard; Children,
// for connections of guests and containers; the id of one of them; or Loopback,
// for those of the host itself. A bind that the registered services do not permit
// is EACCES, in the host's containers too.
func (s *HostStack) Listen(addr Addr) (*Listener, error) {
	return s.listenIn(&s.root, addr)
}

// listenIn listens for a program of the host itself or of one of its containers:
// both are sockets of one kernel, and ask one registry.
func (s *HostStack) listenIn(at *site, addr Addr) (*Listener, error) {
	// The host may bind to guests it does not know yet; a physical host has neither
	// parent nor silo host.
	if unknown := at == &s.root && !named(addr.VMID); !unknown && !at.mayBind(addr.VMID) {
		return nil, listenError(addr, syscall.EADDRNOTAVAIL)
	}
	q := s.question(addr.ServiceID)
	q.Wildcard = addr.VMID == Wildcard || addr.VMID == Children
	if err := s.opts.Services.MayBind(q); err != nil {
		return nil, listenError(addr, err)
	}
	return at.listeners.open(addr, s.opts.Backlog)
}

// Dial connects to a service of a guest, of a container, or of the host itself
// (Loopback). ctx covers the whole connect; without a deadline the timeout is
// 2 s, since a guest has no way to refuse.
func (s *HostStack) Dial(ctx context.Context, addr Addr) (*Conn, error) {
	return s.dialFrom(ctx, &s.root, addr, dialOptions{})
}

// DialContext is Dial for http.Transport and gRPC: see DialText.
func (s *HostStack) DialContext(ctx context.Context, stream, address string) (net.Conn, error) {
	return s.dialProfile().dialText(ctx, s.Dial, stream, address)
}

// dialProfile: the host is a Windows host, and does what is best.
func (s *HostStack) dialProfile() Profile { return Profile{} }

func (s *HostStack) dialFrom(ctx context.Context, from *site, addr Addr, o dialOptions) (*Conn, error) {
	var child *Container
	if from == &s.root {
		child = s.containers.find(addr.VMID)
	}
	to := from.route(addr.VMID, child != nil, ParentIsVMHost)
	switch {
	case to != toNowhere:
		if err := s.opts.Services.MayConnect(s.question(addr.ServiceID)); err != nil {
			return nil, dialError(Addr{}, addr, err)
		}
		return s.local.dial(ctx, newHop(to, from, &s.root, child, addr, ParentIsVMHost))
	case named(addr.VMID) || from != &s.root:
		return nil, dialError(Addr{}, addr, syscall.ENETUNREACH)
	}
	return s.dialGuest(ctx, addr, o)
}

// dialGuest dials a guest, or a container of one, over VMBus.
func (s *HostStack) dialGuest(ctx context.Context, addr Addr, o dialOptions) (*Conn, error) {
	s.mu.Lock()
	g, silo := s.guests[addr.VMID], uuid.UUID{}
	if g == nil {
		g, silo = s.silos[addr.VMID], addr.VMID
	}
	s.mu.Unlock()
	if g == nil || o.highVTL { // no guest here has a VTL 2
		return nil, dialError(Addr{}, addr, syscall.EHOSTUNREACH)
	}
	if err := s.opts.Services.MayConnect(s.question(addr.ServiceID)); err != nil {
		return nil, dialError(Addr{}, addr, err)
	}
	if err := ctx.Err(); err != nil {
		return nil, dialError(Addr{}, addr, contextError(err))
	}
	result := make(chan dialResult, 1)
	k, err := g.newDial(addr, silo, func(r dialResult) { result <- r })
	if err != nil {
		return nil, dialError(Addr{}, addr, err)
	}
	k.offer()
	conn, err := await(ctx, cmp.Or(o.timeout, defaultDialTimeout), result, k.giveUp)
	if err != nil {
		return nil, dialError(k.local, addr, err)
	}
	return conn, nil
}

// NewContainer adds a container to the host itself. An id in use is EADDRINUSE,
// one of the well-known ids EINVAL.
func (s *HostStack) NewContainer(id uuid.UUID) (*Container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, syscall.ENODEV
	case s.guests[id] != nil || s.silos[id] != nil:
		return nil, syscall.EADDRINUSE
	}
	c := &Container{stack: s,
		site: site{inHostSilo, id, newListenerTable(portAllocator{rnd: s.rnd}, s.opts.Clock, AllOptions)}}
	if err := s.containers.add(c); err != nil {
		return nil, err
	}
	return c, nil
}

func (s *HostStack) removeContainer(c *Container) {
	s.containers.remove(c.id)
	c.listeners.closeAll()
	s.local.closeSite(&c.site)
}

// AddContainer tells the host of a container in the guest, which it then reaches
// under id, and which may ask for connections in its own name. An id in use is
// EADDRINUSE, one of the well-known ids EINVAL.
func (g *HostGuest) AddContainer(id uuid.UUID) error {
	s := g.stack
	if named(id) {
		return syscall.EINVAL
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.guests[id] != nil || s.silos[id] != nil || s.containers.find(id) != nil {
		return syscall.EADDRINUSE
	}
	s.silos[id] = g
	return nil
}

// RemoveContainer undoes AddContainer.
func (g *HostGuest) RemoveContainer(id uuid.UUID) {
	g.stack.mu.Lock()
	defer g.stack.mu.Unlock()
	if g.stack.silos[id] == g {
		delete(g.stack.silos, id)
	}
}

// connector is the id under which the host knows who asks: a container it was
// told of, or else the guest. A silo id is the guest's word only, and must not
// make it another guest; a host that knows no silos ignores it altogether, as
// OpenVMM does.
func (g *HostGuest) connector(silo vmbus.GUID) uuid.UUID {
	id := silo.UUID()
	g.stack.mu.Lock()
	defer g.stack.mu.Unlock()
	if g.stack.silos[id] == g {
		return id
	}
	return g.vmid
}
