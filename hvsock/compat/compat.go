// Package compat is what the packages below it share. They are stand-ins for
// other people's socket packages, so that a program is tested against simulated
// machines by changing one import path:
//
//	github.com/mdlayher/vsock     hvsock/compat/vsock
//	github.com/Microsoft/go-winio hvsock/compat/winio (Hyper-V sockets only)
//
// The functions of the originals have no argument that says which machine they
// run on; there is only one. Simulated machines are many. So a new program asks
// a machine (On), and for an unchanged program the test installs one for the
// whole process (Use): the one piece of package-level state of hvlab, and the
// reason why Use panics rather than let two tests meet.
package compat

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"github.com/hvlab/hvlab/hvsock"
)

// Sockets is a machine that has Hyper-V sockets: a *sim.Host, *sim.Guest or
// *sim.Container.
type Sockets interface {
	Listen(hvsock.Addr) (*hvsock.Listener, error)
	Dial(context.Context, hvsock.Addr) (*hvsock.Conn, error)
}

// A Slot holds the machine that the functions of a package run on. The zero Slot
// is empty.
type Slot[M any] struct {
	mu sync.Mutex
	in *M
}

// Use puts m into the slot, and returns what takes it out again. It panics if the
// slot is taken: two tests that run at the same time would otherwise talk to each
// other's machines. name is the package's, for that message.
func (s *Slot[M]) Use(name string, m *M) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m == nil {
		panic(name + ".Use: no machine")
	}
	if s.in != nil {
		panic(name + ".Use: a machine is installed already, and there is one for the whole process. " +
			"Call what the first Use returned before the next; tests that run in parallel need " + name + ".On")
	}
	s.in = m
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.in = nil
	})
}

// Get returns the machine, or nil.
func (s *Slot[M]) Get() *M {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.in
}

// A NoMachineError reports a call of a package-level function while no machine
// was installed. It matches what a system without the socket family says.
type NoMachineError struct {
	Package string // whose Use has not been called
	Errno   error  // of the system that lacks the family
}

func (e *NoMachineError) Error() string {
	return e.Errno.Error() + " (no simulated machine: call " + e.Package + ".Use first)"
}

// Unwrap returns the errno.
func (e *NoMachineError) Unwrap() error { return e.Errno }

// Dial connects to addr on s. The system's own connect timer runs whatever the
// deadline of ctx, as in connect(2): a context ends a dial early, and never
// lengthens it. The error is what stopped the dial, without any wrapping: the end
// of ctx, or an errno.
func Dial(ctx context.Context, s Sockets, addr hvsock.Addr) (*hvsock.Conn, error) {
	c, err := s.Dial(undated{ctx}, addr)
	if err == nil {
		return c, nil
	}
	err = Errno(Cause(err))
	if end := ctx.Err(); end != nil && (errors.Is(err, end) || errors.Is(err, os.ErrDeadlineExceeded)) {
		err = end
	}
	return nil, err
}

// undated is a context that ends when it ends, and does not tell when.
type undated struct{ context.Context }

func (undated) Deadline() (deadline time.Time, ok bool) { return deadline, false }

// Cause is err without the *net.OpError that hvsock has put around it: the
// originals put their own.
func Cause(err error) error {
	if op, ok := err.(*net.OpError); ok {
		return op.Err
	}
	return err
}

// Errno is err without the *os.SyscallError around it, where an original has
// none or names another call.
func Errno(err error) error {
	if call, ok := err.(*os.SyscallError); ok {
		return call.Err
	}
	return err
}
