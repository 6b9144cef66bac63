package hvsock

import (
	"context"
	"sync/atomic"
	"syscall"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/endpoint"
)

// A Request is a connection that a guest asks for and that no listener of the
// host serves. One Accept or Refuse answers it, from any goroutine; until then
// the guest waits, a Linux guest for 2 s unless its program says otherwise.
type Request struct {
	local, remote Addr
	guest         *HostGuest
	asked         endpoint.SocketRequested
	answered      atomic.Bool
}

// LocalAddr is what the guest dialled: Parent and a service of the host.
func (r *Request) LocalAddr() Addr { return r.local }

// RemoteAddr is the VM id of the guest, or of its container, and the id of the
// endpoint.
func (r *Request) RemoteAddr() Addr { return r.remote }

// Refuse tells the guest that nobody serves this. It does nothing if the
// request has been answered, or if the guest is gone.
func (r *Request) Refuse() {
	if r.answered.CompareAndSwap(false, true) {
		r.guest.bus.RefuseSocket(r.asked)
	}
}

// Accept offers the guest a channel and returns once the guest has opened it.
// Without a deadline in ctx that takes 5 s at most.
//
// Errors are *net.OpError around EALREADY (it was answered before), ETIMEDOUT,
// ECONNRESET (the guest is gone), ENOBUFS, the context's error or
// os.ErrDeadlineExceeded.
func (r *Request) Accept(ctx context.Context) (*Conn, error) {
	if !r.answered.CompareAndSwap(false, true) {
		return nil, localError("accept", r.local, syscall.EALREADY)
	}
	if err := ctx.Err(); err != nil {
		r.guest.bus.RefuseSocket(r.asked)
		return nil, localError("accept", r.local, contextError(err))
	}
	result := make(chan dialResult, 1)
	k := &hostSocket{guest: r.guest, local: r.local, remote: r.remote, done: func(r dialResult) { result <- r }}
	r.guest.add(k, 0)
	k.offered.AcceptSocket(r.asked)
	conn, err := await(ctx, openTimeout, result, k.giveUp)
	if err != nil {
		return nil, localError("accept", r.local, err)
	}
	return conn, nil
}

// HandleRequests has fn called for each connection that the guest vmid asks for
// and no listener serves, until stop is called. Without a handler such
// connections are refused. fn must not block, since everything else the guest
// says waits for it; it, or a goroutine of its own, answers the Request. A call
// of fn may still be running when stop returns.
//
// vmid is one guest's id, Children or Wildcard; a guest's own handler wins. One
// that has a handler is EADDRINUSE.
func (s *HostStack) HandleRequests(vmid uuid.UUID, fn func(*Request)) (stop func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	addr := Addr{VMID: vmid}
	switch {
	case s.closed:
		return nil, listenError(addr, syscall.ENODEV)
	case s.handlers[vmid] != nil:
		return nil, listenError(addr, syscall.EADDRINUSE)
	}
	own := &fn // tells this handler from a later one
	s.handlers[vmid] = own
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.handlers[vmid] == own {
			delete(s.handlers, vmid)
		}
	}, nil
}

// handler returns the handler for a guest's requests, or nil.
func (s *HostStack) handler(vmid uuid.UUID) func(*Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range []uuid.UUID{vmid, Children, Wildcard} {
		if fn := s.handlers[id]; fn != nil {
			return *fn
		}
	}
	return nil
}

// unclaimed hands a request for which there is no listener to the handler.
func (g *HostGuest) unclaimed(r endpoint.SocketRequested) {
	fn := g.stack.handler(g.vmid)
	if fn == nil {
		g.bus.RefuseSocket(r)
		return
	}
	fn(&Request{
		local: Addr{Parent, r.Service.UUID()}, remote: Addr{g.connector(r.Silo), r.Endpoint.UUID()},
		guest: g, asked: r,
	})
}
