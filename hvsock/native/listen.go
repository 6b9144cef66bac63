package native

import (
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/internal/putback"
)

// maxBrokenAccepts is how many connections in a row may fail between the
// system's queue and Accept before that is the listener's fault, not theirs.
const maxBrokenAccepts = 1024

// A Listener is a net.Listener of the operating system.
type Listener struct {
	system   system
	acceptor acceptor
	addr     net.Addr // a hvsock.Addr: what was asked for, with the real port
	asked    hvsock.Addr
	closed   atomic.Bool
}

// listenOn binds addr.
func (s system) listenOn(addr hvsock.Addr) (*Listener, error) {
	raw, err := s.listen(addr)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Addr: addr, Err: s.cause("bind", err)}
	}
	bound := addr
	switch real := s.addr(raw.Addr()).(type) {
	case hvsock.Addr:
		bound.ServiceID = real.ServiceID
	case hvsock.VSockAddr: // the machine's own CID, which has no VM id
		bound.ServiceID = hvsock.ServiceIDFromPort(real.Port)
	}
	return &Listener{system: s, acceptor: raw, addr: bound, asked: addr}, nil
}

// wantsAnyPort says whether a listener leaves the choice of its port to us.
func wantsAnyPort(service uuid.UUID) bool {
	port, ok := hvsock.PortFromServiceID(service)
	return service == uuid.Nil || ok && port == 0
}

// Addr is the address bound to, a hvsock.Addr: the VM id that was asked for, and
// the real service id. It stays valid after Close.
func (l *Listener) Addr() net.Addr { return l.addr }

// Accept waits for the next connection, a *Conn. The other end may be gone
// already: that is for its first Read to find out. Connections that break before
// they are accepted are passed over.
//
// Errors are *net.OpError around net.ErrClosed, os.ErrDeadlineExceeded or an
// errno.
func (l *Listener) Accept() (net.Conn, error) {
	for broken := 0; ; {
		if l.closed.Load() {
			return nil, l.opError("accept", net.ErrClosed)
		}
		raw, err := l.acceptor.Accept()
		if err == nil {
			remote := l.system.addr(raw.RemoteAddr())
			if l.system.admits(l.asked, remote) {
				return newConn(l.system, raw.(stream), l.addr, remote), nil
			}
			_ = raw.Close() // nobody has it
			continue
		}
		err = l.system.cause("accept", err)
		if l.closed.Load() {
			err = net.ErrClosed
		}
		if broken++; !isBrokenAccept(err) || broken > maxBrokenAccepts {
			return nil, l.opError("accept", err)
		}
	}
}

// isBrokenAccept says whether an accept failed because of the one connection, or
// of nothing at all. Windows reports a connection that was reset while it was
// queued as ECONNRESET (faults.md GO-03).
func isBrokenAccept(err error) bool {
	if putback.On(putback.GO03) {
		return false
	}
	return errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, syscall.EINTR) || errors.Is(err, syscall.ECONNRESET)
}

// SetDeadline makes blocked and future Accepts fail with os.ErrDeadlineExceeded
// from t on; the zero time means never.
func (l *Listener) SetDeadline(t time.Time) error {
	err := net.ErrClosed
	if !l.closed.Load() {
		err = l.acceptor.SetDeadline(t)
	}
	if err != nil {
		return l.opError("set", l.system.cause("set", err))
	}
	return nil
}

// Close stops listening: blocked Accepts return net.ErrClosed, accepted
// connections live on. Called again, it returns net.ErrClosed.
func (l *Listener) Close() error {
	if !l.closed.CompareAndSwap(false, true) {
		return l.opError("close", net.ErrClosed)
	}
	if err := l.acceptor.Close(); err != nil {
		return l.opError("close", l.system.cause("close", err))
	}
	return nil
}

// opError shapes an error of an operation on one end as package net does.
func (l *Listener) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: network, Addr: l.addr, Err: err}
}
