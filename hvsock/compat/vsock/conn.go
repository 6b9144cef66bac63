package vsock

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/hvsock/compat"
)

var (
	_ net.Listener = &Listener{}
	_ net.Conn     = &Conn{}
	_ syscall.Conn = &Conn{}
	_ net.Addr     = &Addr{}
)

// A Listener is a net.Listener of a simulated machine.
type Listener struct {
	l       *hvsock.Listener
	machine *Machine
	addr    *Addr
	closed  atomic.Bool
}

// Accept waits for the next connection, a *Conn.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.l.AcceptHVSock()
	if err != nil {
		return nil, l.opError(opAccept, err)
	}
	from, _ := c.RemoteAddr().(hvsock.Addr) // that is what its documentation says
	return &Conn{c: c, local: l.addr, remote: l.machine.remote(from)}, nil
}

// Addr is the address bound to, an *Addr that all calls share.
func (l *Listener) Addr() net.Addr { return l.addr }

// Close stops listening; accepted connections live on. Called again, it does
// nothing.
func (l *Listener) Close() error {
	if !l.closed.CompareAndSwap(false, true) {
		return nil
	}
	return l.opError(opClose, l.l.Close())
}

// SetDeadline makes Accept fail with os.ErrDeadlineExceeded from t on; the zero
// time means never.
func (l *Listener) SetDeadline(t time.Time) error { return l.opError(opSet, l.l.SetDeadline(t)) }

func (l *Listener) opError(op string, err error) error { return opError(op, err, l.addr, nil) }

// A Conn is a net.Conn of a simulated machine.
type Conn struct {
	c             *hvsock.Conn
	local, remote *Addr

	mu     sync.Mutex
	closed bool
	file   *os.File // set by the first use of SyscallConn
}

// Close closes the connection. Called again, it does nothing.
func (c *Conn) Close() error {
	c.mu.Lock()
	closed, file := c.closed, c.file
	c.closed = true
	c.mu.Unlock()
	if closed {
		return nil
	}
	if file != nil {
		_ = file.Close() // the other handle is the one whose Close says something
	}
	return c.opError(opClose, c.c.Close())
}

// CloseRead ends this end's reading: Reads return io.EOF.
func (c *Conn) CloseRead() error { return c.opError(opClose, c.c.CloseRead()) }

// CloseWrite ends this end's stream: the other end reads io.EOF behind it.
func (c *Conn) CloseWrite() error { return c.opError(opClose, c.c.CloseWrite()) }

// LocalAddr is this end's address, an *Addr that all calls share.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is the other end's address, an *Addr that all calls share.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// Read reads what has arrived, and waits if nothing has.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.c.Read(b)
	return n, c.opError(opRead, err)
}

// Write writes all of b, or returns how much it has written and an error.
func (c *Conn) Write(b []byte) (int, error) {
	n, err := c.c.Write(b)
	return n, c.opError(opWrite, err)
}

// SetDeadline sets the read and the write deadline.
func (c *Conn) SetDeadline(t time.Time) error { return c.opError(opSet, c.c.SetDeadline(t)) }

// SetReadDeadline makes Reads fail with os.ErrDeadlineExceeded from t on; the
// zero time means never.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.opError(opSet, c.c.SetReadDeadline(t)) }

// SetWriteDeadline does the same for Writes.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.opError(opSet, c.c.SetWriteDeadline(t)) }

func (c *Conn) opError(op string, err error) error { return opError(op, err, c.local, c.remote) }

// The operations that errors name.
const (
	opAccept      = "accept"
	opClose       = "close"
	opDial        = "dial"
	opListen      = "listen"
	opRawControl  = "raw-control"
	opRawRead     = "raw-read"
	opRawWrite    = "raw-write"
	opRead        = "read"
	opSet         = "set"
	opSyscallConn = "syscall-conn"
	opWrite       = "write"
)

// opError shapes err as the original does: io.EOF is bare. Reads and writes go
// through package os there, which leaves a bare errno; other calls keep the name
// of the system call. (ENOTCONN, which the original turns into io.EOF, no call of
// hvsock returns.)
func opError(op string, err error, local, remote *Addr) error {
	if err == nil || err == io.EOF {
		return err
	}
	if path, ok := err.(*os.PathError); ok { // of a descriptor
		err = path.Err
	}
	switch err = compat.Cause(err); {
	case errors.Is(err, net.ErrClosed):
		err = net.ErrClosed // and nothing else
	case op == opRead || op == opWrite:
		err = compat.Errno(err)
	}
	wrapped := &net.OpError{Op: op, Net: network, Err: err}
	switch op {
	case opClose, opDial, opRawRead, opRawWrite, opRead, opWrite:
		if local != nil { // a nil *Addr is not a nil net.Addr
			wrapped.Source = local
		}
		if remote != nil {
			wrapped.Addr = remote
		}
	default: // these concern one end
		if local != nil {
			wrapped.Addr = local
		}
	}
	return wrapped
}
