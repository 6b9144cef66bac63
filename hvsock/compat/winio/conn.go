package winio

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hvlab/hvlab/hvsock"
)

var (
	_ net.Listener = &HvsockListener{}
	_ net.Conn     = &HvsockConn{}
)

// An HvsockListener is a net.Listener of a simulated machine.
type HvsockListener struct {
	l    *hvsock.Listener
	addr HvsockAddr
}

// Addr is the address bound to, an *HvsockAddr.
func (l *HvsockListener) Addr() net.Addr { return &l.addr }

// Accept waits for the next connection, an *HvsockConn.
func (l *HvsockListener) Accept() (net.Conn, error) {
	c, err := l.l.AcceptHVSock()
	if err != nil { // there is no deadline, so it is closed
		return nil, &net.OpError{Op: "accept", Net: network, Addr: &l.addr, Err: os.NewSyscallError("acceptex", errListenerClosed)}
	}
	return &HvsockConn{c: c, local: l.addr, remote: fromHvsock(c.RemoteAddr())}, nil
}

// Close stops listening; accepted connections live on. Called again, it does
// nothing.
func (l *HvsockListener) Close() error {
	_ = l.l.Close() // it can only have been closed before
	return nil
}

// An HvsockConn is a net.Conn of a simulated machine.
type HvsockConn struct {
	c             *hvsock.Conn
	local, remote HvsockAddr

	closed, readShut, writeShut atomic.Bool
}

// LocalAddr is this end's address, an *HvsockAddr; of an accepted connection it
// is the listener's.
func (conn *HvsockConn) LocalAddr() net.Addr { return &conn.local }

// RemoteAddr is the other end's address, an *HvsockAddr.
func (conn *HvsockConn) RemoteAddr() net.Addr { return &conn.remote }

func (conn *HvsockConn) opErr(op string, err error) error {
	return &net.OpError{Op: op, Net: network, Source: &conn.local, Addr: &conn.remote, Err: err}
}

// Read reads what has arrived, and waits if nothing has. It returns io.EOF at the
// end of the other end's stream, and WSAESHUTDOWN after CloseRead.
func (conn *HvsockConn) Read(b []byte) (int, error) {
	n, err := conn.c.Read(b)
	switch {
	case err == nil:
		return n, nil
	case err == io.EOF && conn.readShut.Load():
		return n, conn.opErr("read", os.NewSyscallError("wsarecv", winsock(syscall.EPIPE)))
	case err == io.EOF:
		return n, err
	}
	return n, conn.opErr("read", failed("wsarecv", err))
}

// Write writes all of b, or returns how much it has written and an error:
// WSAESHUTDOWN after CloseWrite, WSAECONNRESET if the other end is gone.
func (conn *HvsockConn) Write(b []byte) (int, error) {
	n, err := conn.c.Write(b)
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, syscall.EPIPE) && !conn.writeShut.Load():
		err = syscall.ECONNRESET // one errno for both in Linux, and in hvsock
	}
	return n, conn.opErr("write", failed("wsasend", err))
}

// Close closes the connection. Called again, it does nothing.
func (conn *HvsockConn) Close() error {
	conn.closed.Store(true)
	_ = conn.c.Close() // it can only have been closed before
	return nil
}

// IsClosed says whether Close was called.
func (conn *HvsockConn) IsClosed() bool { return conn.closed.Load() }

// CloseRead ends this end's reading.
func (conn *HvsockConn) CloseRead() error {
	conn.readShut.Store(true)
	if err := conn.c.CloseRead(); err != nil {
		return conn.opErr("closeread", failed("shutdown", err))
	}
	return nil
}

// CloseWrite ends this end's stream: the other end reads io.EOF behind it.
func (conn *HvsockConn) CloseWrite() error {
	conn.writeShut.Store(true)
	if err := conn.c.CloseWrite(); err != nil {
		return conn.opErr("closewrite", failed("shutdown", err))
	}
	return nil
}

// SetDeadline sets the read and the write deadline. On a closed connection it
// does nothing.
func (conn *HvsockConn) SetDeadline(t time.Time) error {
	_ = conn.c.SetDeadline(t) // fails on a closed connection only, where the original does not
	return nil
}

// SetReadDeadline makes Reads fail with ErrTimeout from t on; the zero time means
// never.
func (conn *HvsockConn) SetReadDeadline(t time.Time) error {
	_ = conn.c.SetReadDeadline(t) // as in SetDeadline
	return nil
}

// SetWriteDeadline does the same for Writes.
func (conn *HvsockConn) SetWriteDeadline(t time.Time) error {
	_ = conn.c.SetWriteDeadline(t) // as in SetDeadline
	return nil
}
