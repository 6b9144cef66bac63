package native

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hvlab/hvlab/internal/putback"
)

// A Conn is a connection of the operating system: a byte stream whose halves can
// be closed one by one. All methods may be called from any goroutine.
//
// Errors are shaped as those of hvsock.Conn: *net.OpError around net.ErrClosed
// after this end's Close, os.ErrDeadlineExceeded, or an errno; the end of the
// peer's stream is a bare io.EOF. Where real systems differ from each other (what
// a reader sees of a reset, say), a Conn shows what this system does.
type Conn struct {
	system        system
	stream        stream
	local, remote net.Addr

	closed, readShut  atomic.Bool
	readBy, writtenBy instant
}

// newConn takes over an open stream. local is its address unless the stream
// knows better.
func newConn(s system, raw stream, local, remote net.Addr) *Conn {
	return &Conn{system: s, stream: raw, local: local, remote: remote}
}

// LocalAddr is this end's address; it stays valid after Close. Of a connection
// that was accepted it is the listener's.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is the other end's address; it stays valid after Close.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// Read reads what has arrived, and waits if nothing has. It returns io.EOF at
// the end of the peer's stream and after CloseRead. An empty p reads nothing,
// successfully.
func (c *Conn) Read(p []byte) (int, error) {
	switch {
	case c.closed.Load():
		return 0, c.opError("read", net.ErrClosed)
	case len(p) == 0: // go-winio panics on it
		return 0, nil
	case c.readShut.Load():
		return 0, io.EOF
	case c.readBy.passed(): // go-winio still returns what has arrived
		return 0, c.opError("read", os.ErrDeadlineExceeded)
	}
	n, err := c.stream.Read(p)
	if n > 0 || err == nil {
		return n, nil
	}
	err = c.system.cause("read", err)
	switch {
	case c.closed.Load():
		err = net.ErrClosed
	case c.readShut.Load(), err == io.EOF:
		return 0, io.EOF
	}
	return 0, c.opError("read", err)
}

// Write writes all of p, or returns how much it has written and an error. An
// empty p sends nothing, successfully.
func (c *Conn) Write(p []byte) (int, error) {
	switch {
	case c.closed.Load():
		return 0, c.opError("write", net.ErrClosed)
	case len(p) == 0:
		return 0, nil
	case c.writtenBy.passed():
		return 0, c.opError("write", os.ErrDeadlineExceeded)
	}
	n, err := c.stream.Write(p)
	if err == nil {
		return n, nil
	}
	err = c.system.cause("write", err)
	switch {
	case c.closed.Load():
		err = net.ErrClosed
	case errors.Is(err, syscall.ENOTCONN), err == net.ErrClosed:
		// We have not closed it, so the connection has ended under us.
		err = os.NewSyscallError("write", syscall.EPIPE)
	}
	return n, c.opError("write", err)
}

// CloseWrite ends this end's stream: the peer reads io.EOF behind what was
// written. It does nothing if called again, or if the peer is gone.
func (c *Conn) CloseWrite() error { return c.shut(c.stream.CloseWrite) }

// CloseRead ends this end's reading: Reads return io.EOF, blocked ones included.
// Whether the peer is told is the system's business.
func (c *Conn) CloseRead() error {
	first := c.readShut.CompareAndSwap(false, true)
	err := c.shut(c.stream.CloseRead)
	if first && err == nil {
		// Windows leaves a Read alone that is already waiting.
		_ = c.stream.SetReadDeadline(longAgo)
	}
	return err
}

// shut runs one of the two shutdowns.
func (c *Conn) shut(shutdown func() error) error {
	if c.closed.Load() {
		return c.opError("close", net.ErrClosed)
	}
	err := shutdown()
	if err == nil {
		return nil
	}
	err = c.system.cause("shutdown", err)
	switch {
	case c.closed.Load():
		return c.opError("close", net.ErrClosed)
	case err == net.ErrClosed, errors.Is(err, syscall.ENOTCONN), errors.Is(err, syscall.EPIPE):
		return nil // it is shut already, by us or by the end of the connection
	}
	return c.opError("close", err)
}

// Close ends the connection; blocked and later calls fail with net.ErrClosed.
// Called again, it returns net.ErrClosed.
func (c *Conn) Close() error {
	if !c.closed.CompareAndSwap(false, true) && !putback.On(putback.GO05) {
		return c.opError("close", net.ErrClosed)
	}
	if err := c.stream.Close(); err != nil {
		return c.opError("close", c.system.cause("close", err))
	}
	return nil
}

// SetDeadline sets the read and the write deadline.
func (c *Conn) SetDeadline(t time.Time) error {
	err := c.SetReadDeadline(t)
	if err == nil {
		err = c.SetWriteDeadline(t)
	}
	return err
}

// SetReadDeadline makes blocked and future Reads fail with
// os.ErrDeadlineExceeded from t on; the zero time means never.
func (c *Conn) SetReadDeadline(t time.Time) error {
	if c.readShut.Load() && !c.closed.Load() {
		return nil // Reads do not wait any more, and must not start to
	}
	return c.setDeadline(&c.readBy, c.stream.SetReadDeadline, t)
}

// SetWriteDeadline does the same for Writes, which then say how much they have
// written.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	return c.setDeadline(&c.writtenBy, c.stream.SetWriteDeadline, t)
}

func (c *Conn) setDeadline(by *instant, set func(time.Time) error, t time.Time) error {
	err := net.ErrClosed
	if !c.closed.Load() {
		by.set(t)
		err = set(t)
	}
	if err == nil || putback.On(putback.GO08) {
		return nil
	}
	return &net.OpError{Op: "set", Net: network, Addr: c.local, Err: c.system.cause("set", err)}
}

// opError shapes an error of an operation on both ends as package net does.
func (c *Conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: network, Source: c.local, Addr: c.remote, Err: err}
}

// longAgo is a deadline that has passed, whatever the clock says.
var longAgo = time.Unix(1, 0)

// An instant is a deadline that is only looked at, by those who are about to
// wait; those who wait already are woken by the library.
type instant struct {
	mu sync.Mutex
	at time.Time
}

func (i *instant) set(t time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.at = t
}

// passed says whether the time has come; the zero time never does.
func (i *instant) passed() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return !i.at.IsZero() && !time.Now().Before(i.at)
}
