package hvsock

import (
	"bytes"
	"context"
	"net"
	"slices"
	"sync"
	"syscall"

	"github.com/google/uuid"
)

// A Container is the sockets of one container (silo), of a guest or of the host
// itself. It dials and listens like a partition of its own. What its VM ids mean
// is hvsock.md 4: SiloHost is whoever hosts the container, Parent too, except in
// a guest (see SiloParent).
type Container struct {
	site
	stack containerHost

	mu     sync.Mutex
	closed bool
}

// A containerHost is a GuestStack or a HostStack.
type containerHost interface {
	dialFrom(ctx context.Context, from *site, addr Addr, o dialOptions) (*Conn, error)
	listenIn(at *site, addr Addr) (*Listener, error)
	dialProfile() Profile
	removeContainer(*Container)
}

// ID is the container's id, under which its host dials it.
func (c *Container) ID() uuid.UUID { return c.id }

// Listen accepts connections on addr.ServiceID. addr.VMID is Wildcard, Parent,
// SiloHost or Loopback. A container of the host needs the permission of the
// host's registered services, as the host's own programs do.
func (c *Container) Listen(addr Addr) (*Listener, error) {
	return c.stack.listenIn(&c.site, addr)
}

// Dial connects to a service of whoever hosts the container (SiloHost), of its
// Parent, or of the container itself (Loopback). Errors are those of
// GuestStack.Dial.
func (c *Container) Dial(ctx context.Context, addr Addr) (*Conn, error) {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return nil, dialError(Addr{}, addr, net.ErrClosed)
	}
	return c.stack.dialFrom(ctx, &c.site, addr, dialOptions{})
}

// DialContext is Dial for http.Transport and gRPC: see DialText.
func (c *Container) DialContext(ctx context.Context, stream, address string) (net.Conn, error) {
	return c.stack.dialProfile().dialText(ctx, c.Dial, stream, address)
}

// Close closes the container's listeners and connections, as the end of its
// processes does. Called again, it returns net.ErrClosed.
func (c *Container) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return net.ErrClosed
	}
	c.closed = true
	c.mu.Unlock()
	c.stack.removeContainer(c)
	return nil
}

// containers are those of one stack.
type containers struct {
	mu   sync.Mutex
	byID map[uuid.UUID]*Container
}

// add registers a new container. An id in use, or that is no id of a partition,
// is EADDRINUSE or EINVAL.
func (s *containers) add(c *Container) error {
	if named(c.id) {
		return syscall.EINVAL
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID[c.id] != nil {
		return syscall.EADDRINUSE
	}
	if s.byID == nil {
		s.byID = map[uuid.UUID]*Container{}
	}
	s.byID[c.id] = c
	return nil
}

func (s *containers) remove(id uuid.UUID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byID, id)
}

// find returns the container id, or nil.
func (s *containers) find(id uuid.UUID) *Container {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byID[id]
}

// all returns every container, in the order of their ids.
func (s *containers) all() []*Container {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*Container
	for _, c := range s.byID {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b *Container) int { return bytes.Compare(a.id[:], b.id[:]) })
	return list
}
