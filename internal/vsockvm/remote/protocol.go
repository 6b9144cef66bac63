package remote

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/hvlab/hvlab/hvsock"
)

// An op is what a request asks for.
type op uint8

const (
	opListen op = iota // Addr: Handle, Local
	opDial             // Addr, Limit: Handle, Local, Remote
	opAccept           // Handle: Handle, Local, Remote
	opRead             // Handle, Bytes: Data
	opWrite            // Handle, Data: Bytes
	opCloseRead
	opCloseWrite
	opClose
	opDeadline // Handle, Limit; Read and Write say which
)

// A request is one call. Handle names a connection or listener of the server.
type request struct {
	ID          uint64
	Op          op
	Handle      uint64
	Addr        hvsock.Addr
	Bytes       int
	Data        []byte
	Limit       limit
	Read, Write bool
}

// A limit is a deadline that means the same on a machine with another clock, and
// for a dial also what else its context says.
type limit struct {
	Set       bool
	Left      time.Duration // may be negative
	Cancelled bool
}

func newLimit(t time.Time) limit {
	if t.IsZero() {
		return limit{}
	}
	return limit{Set: true, Left: time.Until(t)}
}

// time is the deadline on this machine.
func (l limit) time() time.Time {
	if !l.Set {
		return time.Time{}
	}
	return time.Now().Add(l.Left)
}

// context is one that ends as l says.
func (l limit) context() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	if l.Set {
		ctx, cancel = context.WithDeadline(context.Background(), l.time())
	}
	if l.Cancelled {
		cancel()
	}
	return ctx, cancel
}

// A response answers the request with the same ID.
type response struct {
	ID            uint64
	Handle        uint64
	Bytes         int
	Data          []byte
	Local, Remote hvsock.Addr
	Fault         fault
}

// A fault is an error that travels. The zero fault is none.
type fault struct {
	Op    string // of *net.OpError
	Kind  faultKind
	Call  string        // of *os.SyscallError, with Errno
	Errno syscall.Errno // if a system call failed
	Text  string        // for other errors
}

type faultKind uint8

const (
	faultNone faultKind = iota
	faultEOF            // bare
	faultClosed
	faultDeadline
	faultCancelled
	faultErrno
	faultOther
)

// newFault takes err apart.
func newFault(err error) fault {
	var f fault
	var operation *net.OpError
	if errors.As(err, &operation) {
		f.Op = operation.Op
	}
	var call *os.SyscallError
	switch {
	case err == nil:
		return fault{}
	case err == io.EOF:
		return fault{Kind: faultEOF}
	case errors.Is(err, net.ErrClosed):
		f.Kind = faultClosed
	case errors.Is(err, os.ErrDeadlineExceeded):
		f.Kind = faultDeadline
	case errors.Is(err, context.Canceled):
		f.Kind = faultCancelled
	case errors.As(err, &f.Errno):
		f.Kind = faultErrno
		if errors.As(err, &call) {
			f.Call = call.Syscall
		}
	default:
		f.Kind, f.Text = faultOther, err.Error()
		if operation != nil {
			f.Text = operation.Err.Error()
		}
	}
	return f
}

// err puts the error together again; source and addr are what the program on
// this side knows about the two ends.
func (f fault) err(source, addr net.Addr) error {
	var cause error
	switch f.Kind {
	case faultNone:
		return nil
	case faultEOF:
		return io.EOF
	case faultClosed:
		cause = net.ErrClosed
	case faultDeadline:
		cause = os.ErrDeadlineExceeded
	case faultCancelled:
		cause = context.Canceled
	case faultErrno:
		cause = f.Errno
		if f.Call != "" {
			cause = os.NewSyscallError(f.Call, f.Errno)
		}
	case faultOther:
		cause = errors.New(f.Text)
	}
	if f.Op == "" {
		return cause
	}
	return &net.OpError{Op: f.Op, Net: "hvsock", Source: source, Addr: addr, Err: cause}
}
