package native

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/vmbus"
)

// An UnsupportedError reports that this machine has no Hyper-V sockets: the
// operating system is another, or it lacks the address family. It matches
// errors.ErrUnsupported.
type UnsupportedError struct {
	System string // like "linux/amd64"
	Family string // the address family that is missing, "" if none is known here
	Enable string // command that provides it, "" if there is none
	Err    error  // what the system said, nil if it was not asked
}

func (e *UnsupportedError) Error() string {
	if e.Family == "" {
		return fmt.Sprintf("no Hyper-V sockets on %s: they exist on Linux and Windows", e.System)
	}
	text := fmt.Sprintf("no %s sockets on this %s machine", e.Family, e.System)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	if e.Enable != "" {
		text += "; try: " + e.Enable
	}
	return text
}

// Is matches errors.ErrUnsupported.
func (e *UnsupportedError) Is(target error) bool { return target == errors.ErrUnsupported }

// Unwrap returns what the system said.
func (e *UnsupportedError) Unwrap() error { return e.Err }

// An AddressError reports an address that this system has no socket for. It
// matches its errno, and vmbus.ErrState: it is the caller's to choose another.
type AddressError struct {
	Addr   hvsock.Addr
	Errno  syscall.Errno // ENETUNREACH or EADDRNOTAVAIL
	Reason string
}

func (e *AddressError) Error() string { return e.Errno.Error() + ": " + e.Reason }

// Is matches vmbus.ErrState.
func (e *AddressError) Is(target error) bool { return target == vmbus.ErrState }

// Unwrap returns the errno.
func (e *AddressError) Unwrap() error { return e.Errno }

// cause is what an error of a library says, without the library's wrapping and
// in the words of package hvsock: io.EOF, net.ErrClosed, os.ErrDeadlineExceeded,
// the errors of a context, or the errno, named after call.
//
// mdlayher/vsock turns ENOTCONN of every call into io.EOF, and go-winio its own
// closing and a failed shutdown into net.ErrClosed, so callers still have to ask
// who closed what.
func (s system) cause(call string, err error) error {
	var unsupported *UnsupportedError
	var address *AddressError
	var errno syscall.Errno
	switch {
	case errors.As(err, &unsupported):
		return unsupported
	case errors.As(err, &address):
		return address
	case errors.Is(err, io.EOF):
		if call != "read" {
			return os.NewSyscallError(call, syscall.ENOTCONN)
		}
		return io.EOF
	case errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrClosed):
		return net.ErrClosed
	case errors.Is(err, context.Canceled):
		return context.Canceled
	// Before errnos, because a library may put one behind its timeout.
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return os.ErrDeadlineExceeded
	case errors.As(err, &errno):
		err = s.errno(call, errno)
		if errors.Is(err, syscall.EAFNOSUPPORT) {
			return &UnsupportedError{System: thisSystem, Family: s.family, Enable: s.enable, Err: err}
		}
		return err
	}
	// Last, since an errno may call itself a timeout, and is more precise.
	if t, ok := errors.AsType[net.Error](err); ok && t.Timeout() {
		return os.ErrDeadlineExceeded
	}
	return err
}

// posixErrno is system.errno where errnos are what they say.
func posixErrno(call string, err error) error { return os.NewSyscallError(call, err) }

// contextError is what a dial returns that its context ended: a deadline is
// os.ErrDeadlineExceeded, as net does it; a cancellation stays itself.
func contextError(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return os.ErrDeadlineExceeded
	}
	return err
}
