package hvsock

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/hvlab/hvlab/vmbus"
)

// An AddrError reports a text that is no address.
type AddrError struct {
	Text   string
	Reason string // which part, and what would be right
}

func (e *AddrError) Error() string { return fmt.Sprintf("hvsock: address %q: %s", e.Text, e.Reason) }

// Is matches vmbus.ErrState: the caller's misuse.
func (e *AddrError) Is(target error) bool { return target == vmbus.ErrState }

// A SockaddrError reports bytes that are no socket address of the family asked
// for.
type SockaddrError struct {
	Family, WantFamily uint16
	Have, Want         int // bytes
}

func (e *SockaddrError) Error() string {
	return fmt.Sprintf("hvsock: socket address of family %d with %d bytes, want family %d with %d bytes",
		e.Family, e.Have, e.WantFamily, e.Want)
}

// Is matches vmbus.ErrState: the caller's misuse.
func (e *SockaddrError) Is(target error) bool { return target == vmbus.ErrState }

// An alsoError is an error of package net or os, which errors.Is finds under a
// second name, too.
type alsoError struct {
	err  net.Error
	also error
}

func (e alsoError) Error() string        { return e.err.Error() }
func (e alsoError) Timeout() bool        { return e.err.Timeout() }
func (e alsoError) Is(target error) bool { return target == e.also }
func (e alsoError) Unwrap() error        { return e.err }

var (
	// errClosed is net.ErrClosed, and what Linux says of a closed descriptor
	// (hvsock.md 16).
	errClosed = alsoError{net.ErrClosed.(net.Error), syscall.EBADF}
	// errDialDeadline is what the deadline of a context makes of a dial: that of
	// package net matches context.DeadlineExceeded, that of hvsock.md 16
	// os.ErrDeadlineExceeded.
	errDialDeadline = alsoError{os.ErrDeadlineExceeded.(net.Error), context.DeadlineExceeded}
)

// opError is the error of an operation on an established connection, shaped as
// package net shapes it. io.EOF is not to be wrapped: io.Reader's users compare.
func (c *Conn) opError(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &net.OpError{Op: op, Net: network, Source: c.local, Addr: c.remote, Err: closedToo(err)}
}

// localError is the error of an operation that concerns one end only: accept,
// set, and the close of a listener.
func localError(op string, local Addr, err error) error {
	return &net.OpError{Op: op, Net: network, Addr: local, Err: closedToo(err)}
}

// closedToo is err, with errClosed for net.ErrClosed.
func closedToo(err error) error {
	if err == net.ErrClosed {
		return errClosed
	}
	return err
}

// errNoBuffer is what a transfer gets that finds no memory for a buffer.
func errNoBuffer(call string) error { return os.NewSyscallError(call, syscall.ENOMEM) }

// faultError is what the application sees of a ring the peer has broken: EIO, as
// in Linux, and the rule that was broken (vmbus.ErrProtocol).
func faultError(call string, cause error) error {
	return fmt.Errorf("%w: %w", os.NewSyscallError(call, syscall.EIO), cause)
}
