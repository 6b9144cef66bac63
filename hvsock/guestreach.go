package hvsock

import (
	"cmp"
	"context"
	"net"
	"slices"
	"syscall"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/vmbus"
)

// This file is who a guest and its containers reach: hvsock.md 4.

// Listen accepts connections on addr.ServiceID. addr.VMID is Wildcard; Parent,
// for connections of the host; Loopback or the guest's own id, for those of this
// guest; Children or a container's id, for those of its containers.
//
// Errors are *net.OpError around EADDRINUSE, EADDRNOTAVAIL, ENODEV and, with some
// profiles, EACCES and EINVAL.
func (s *GuestStack) Listen(addr Addr) (*Listener, error) {
	return s.listenIn(&s.root, addr)
}

// listenIn listens for a program of the guest itself or of one of its containers.
func (s *GuestStack) listenIn(at *site, addr Addr) (*Listener, error) {
	err := error(nil)
	if s.opts.Profile.AnyPort && addr.ServiceID == ServiceIDFromPort(PortAny) {
		addr.ServiceID = ServiceIDFromPort(0)
	}
	if at == &s.root {
		err = s.mayListen(addr)
	} else if !at.mayBind(addr.VMID) {
		err = syscall.EADDRNOTAVAIL
	}
	if err != nil {
		return nil, listenError(addr, err)
	}
	return at.listeners.open(addr, s.opts.Backlog)
}

// Dial connects to a service of the host (VM id Parent), of this guest
// (Loopback) or of one of its containers. ctx covers the whole connect; without
// a deadline the timeout is the profile's, normally 2 s.
func (s *GuestStack) Dial(ctx context.Context, addr Addr) (*Conn, error) {
	return s.dialFrom(ctx, &s.root, addr, dialOptions{})
}

// DialContext is Dial for http.Transport and gRPC: see DialText.
func (s *GuestStack) DialContext(ctx context.Context, stream, address string) (net.Conn, error) {
	return s.dialProfile().dialText(ctx, s.Dial, stream, address)
}

func (s *GuestStack) dialProfile() Profile { return s.opts.Profile }

func (s *GuestStack) dialFrom(ctx context.Context, from *site, addr Addr, o dialOptions) (*Conn, error) {
	p := s.opts.Profile
	if _, isPort := PortFromServiceID(addr.ServiceID); p.PortsOnly && !isPort {
		return nil, dialError(Addr{}, addr, syscall.EINVAL)
	}
	if p.NoLoopback && addr.VMID == Loopback {
		return nil, dialError(Addr{}, addr, p.unreachable())
	}
	var child *Container
	if from == &s.root {
		child = s.containers.find(addr.VMID)
	}
	parent := s.opts.SiloParent
	if o.passthru {
		parent = ParentIsVMHost
	}
	switch to := from.route(addr.VMID, child != nil, parent); to {
	case toNowhere:
		return nil, dialError(Addr{}, addr, p.unreachable())
	case toVMHost:
		return s.dialHost(ctx, from, addr, o)
	default:
		return s.local.dial(ctx, newHop(to, from, &s.root, child, addr, parent))
	}
}

// dialHost dials over VMBus. From a container that needs a version that can say
// which container it is.
func (s *GuestStack) dialHost(ctx context.Context, from *site, addr Addr, o dialOptions) (*Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, dialError(Addr{}, addr, contextError(err))
	}
	if from.place == inVMSilo && s.bus.Load() != nil && s.bus.Load().Version() < vmbus.Win10RS5 {
		return nil, dialError(Addr{}, addr, syscall.ENETUNREACH)
	}
	result := make(chan dialResult, 1)
	k, err := s.newDial(from, addr, o, func(r dialResult) { result <- r })
	if err != nil {
		return nil, dialError(Addr{}, addr, err)
	}
	k.request()
	conn, err := await(ctx, cmp.Or(o.timeout, s.opts.Profile.connectTimeout()), result, func() bool { return s.giveUp(k) })
	if err != nil {
		return nil, dialError(k.local, addr, err)
	}
	return conn, nil
}

// offerSite is the site an offer of the host is for: the container it names, or
// the guest itself. nil means that there is no such container.
func (s *GuestStack) offerSite(data vmbus.HVSockUserData) *site {
	if !data.ForGuestContainer || s.opts.Profile.NoSilos {
		return &s.root
	}
	if data.ParametersVersion < vmbus.HVSockRS5 {
		return nil // the silo id is not valid
	}
	if c := s.containers.find(data.Silo.UUID()); c != nil {
		return &c.site
	}
	return nil
}

// NewContainer adds a container to the guest. An id in use is EADDRINUSE, a
// profile without containers EOPNOTSUPP. The host must learn of it as well: HostGuest.AddContainer.
func (s *GuestStack) NewContainer(id uuid.UUID) (*Container, error) {
	c := &Container{stack: s,
		site: site{inVMSilo, id, newListenerTable(portAllocator{rnd: s.rnd}, s.opts.Clock, s.opts.Profile.Options)}}
	if s.opts.Profile.NoSilos {
		return nil, syscall.EOPNOTSUPP
	}
	if id == s.opts.VMID {
		return nil, syscall.EADDRINUSE
	}
	if err := s.containers.add(c); err != nil {
		return nil, err
	}
	return c, nil
}

func (s *GuestStack) removeContainer(c *Container) {
	s.containers.remove(c.id)
	c.listeners.closeAll()
	s.local.closeSite(&c.site)
	s.mu.Lock()
	var own []*guestSocket
	for k := range s.sockets {
		if k.site == &c.site {
			own = append(own, k)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(own, func(a, b *guestSocket) int { return cmp.Compare(a.serial, b.serial) })
	for _, k := range own {
		if conn := k.conn.Load(); conn != nil {
			conn.end(false)
		}
	}
}
