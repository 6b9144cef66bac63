package native

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/internal/putback"
)

const (
	// dialTimeout ends a dial whose context has no deadline, as Linux and
	// Windows do by themselves. Source: hvsock.md 8.
	dialTimeout = 2 * time.Second

	// minDialTime is how long a connect that timed out must have taken for
	// another one to be worth it. It keeps a system that says "timed out" at once
	// from being asked in a tight loop.
	minDialTime = time.Second

	// maxInterrupted is how often a signal may interrupt one connect.
	maxInterrupted = 16
)

// dialTo connects to addr.
func (s system) dialTo(ctx context.Context, addr hvsock.Addr) (*Conn, error) {
	parent := ctx
	_, patient := ctx.Deadline()
	if !patient && !putback.On(putback.GO02) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, dialTimeout)
		defer cancel()
	}
	for interrupted := 0; ; {
		if ctx.Err() != nil {
			return nil, dialError(addr, endOfContext(parent))
		}
		start := time.Now()
		raw, err := s.dial(ctx, addr)
		if err == nil {
			return newConn(s, raw, s.addr(raw.LocalAddr()), addr), nil
		}
		var errno syscall.Errno
		err = s.cause("connect", err)
		switch {
		case errors.Is(err, syscall.EINTR) && interrupted < maxInterrupted && !putback.On(putback.GO03):
			interrupted++
		case errors.Is(err, syscall.ETIMEDOUT) && patient && time.Since(start) >= minDialTime:
		case ctx.Err() != nil && !errors.As(err, &errno):
			return nil, dialError(addr, endOfContext(parent))
		default:
			return nil, dialError(addr, err)
		}
	}
}

// endOfContext is why a dial ended before its connection: what the caller's
// context says, or our own timeout.
func endOfContext(parent context.Context) error {
	if err := parent.Err(); err != nil {
		return contextError(err)
	}
	return os.NewSyscallError("connect", syscall.ETIMEDOUT)
}

// dialError wraps err as net does.
func dialError(addr hvsock.Addr, err error) error {
	return &net.OpError{Op: "dial", Net: network, Addr: addr, Err: err}
}

// dialText parses address and dials it. Stream networks are all alike to it,
// since callers pass "tcp" out of habit; this family has nothing else.
func (s system) dialText(ctx context.Context, stream, address string) (net.Conn, error) {
	if err := s.profile.CheckNetwork(stream); err != nil {
		return nil, err
	}
	addr, err := hvsock.ParseAddr(address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	c, err := s.dialTo(ctx, addr)
	if err != nil {
		return nil, err // not c: a nil *Conn is not a nil net.Conn
	}
	return c, nil
}
