package winio

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"

	"github.com/hvlab/hvlab/hvsock/compat"
)

// network is what HvsockAddr.Network returns and every *net.OpError carries.
const network = "hvsock"

// ErrFileClosed is os.ErrClosed.
//
// Deprecated: use os.ErrClosed.
var ErrFileClosed = os.ErrClosed

// ErrTimeout is what an operation fails with whose deadline has passed. It matches
// context.DeadlineExceeded and os.ErrDeadlineExceeded.
var ErrTimeout error = &timeoutError{}

type timeoutError struct{}

func (*timeoutError) Error() string        { return "i/o timeout" }
func (*timeoutError) Timeout() bool        { return true }
func (*timeoutError) Temporary() bool      { return true }
func (*timeoutError) Unwrap() error        { return os.ErrDeadlineExceeded }
func (*timeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// errSocketClosed is what a call on a closed connection fails with.
var errSocketClosed = fmt.Errorf("socket closed: %w", net.ErrClosed)

// errListenerClosed is what Accept fails with on a closed listener: a closed file
// in the original.
var errListenerClosed error = closedError{}

type closedError struct{}

func (closedError) Error() string { return os.ErrClosed.Error() }
func (closedError) Is(target error) bool {
	return target == os.ErrClosed || target == net.ErrClosed
}

// A WinsockError is a number of Windows, and the errno that other systems use for
// it. errors.Is finds either, on every system.
type WinsockError struct {
	Code  syscall.Errno // for instance 10061
	Errno syscall.Errno // for instance ECONNREFUSED
}

// Error is this system's text.
func (e *WinsockError) Error() string { return e.own().Error() }

// Is matches both numbers, and what the errno matches, such as os.ErrPermission.
func (e *WinsockError) Is(target error) bool {
	return target == e.Code || target == e.Errno || e.Errno.Is(target)
}

// Unwrap returns the number that this system knows: a program on Windows that
// looks for a windows.Errno finds the one it would get from a real socket.
func (e *WinsockError) Unwrap() error { return e.own() }

// Timeout says whether the error is a timeout, as net.Error wants it.
func (e *WinsockError) Timeout() bool { return e.Errno == syscall.ETIMEDOUT }

func (e *WinsockError) own() syscall.Errno {
	if runtime.GOOS == "windows" {
		return e.Code
	}
	return e.Errno
}

// winsockCodes are the numbers Windows has for what package hvsock returns.
// Source: hvsock.md 10.
var winsockCodes = map[syscall.Errno]syscall.Errno{
	syscall.EACCES:        10013,
	syscall.EADDRINUSE:    10048,
	syscall.EADDRNOTAVAIL: 10049,
	syscall.EAFNOSUPPORT:  10047,
	syscall.ECONNABORTED:  10053,
	syscall.ECONNREFUSED:  10061,
	syscall.ECONNRESET:    10054,
	syscall.EHOSTUNREACH:  10065,
	syscall.EINVAL:        10022,
	syscall.ENETUNREACH:   10051,
	syscall.ENOBUFS:       10055,
	syscall.ENETDOWN:      10050,
	syscall.ENODEV:        10050, // WSAENETDOWN: the machine's socket service is not there
	syscall.ENOMEM:        10055,
	syscall.EPIPE:         10058, // WSAESHUTDOWN: own end is shut
	syscall.ETIMEDOUT:     10060,
}

// winsock is err as Windows has it; what has no number there stays as it is.
func winsock(err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return err
	}
	code, ok := winsockCodes[errno]
	if !ok {
		return err
	}
	return &WinsockError{Code: code, Errno: errno}
}

// failed names the call of Windows behind err, unless there is none: a closed
// socket and a deadline are go-winio's own.
func failed(call string, err error) error {
	err = compat.Cause(err)
	switch {
	case errors.Is(err, net.ErrClosed):
		return errSocketClosed
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ErrTimeout
	}
	return os.NewSyscallError(call, winsock(compat.Errno(err)))
}
