package vsock

import (
	"net"
	"os"
	"syscall"

	"github.com/hvlab/hvlab/hvsock/compat"
)

// SyscallConn returns the connection's descriptor. It is one end of a pair of Unix
// sockets, since a simulated connection has none of its own: what it reads and
// writes is the connection's, but the socket options of AF_VSOCK and its address
// are not there. The pair is made when the RawConn is first used, which slows the
// connection down from then on: see hvsock.Conn.File.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, c.opError(opSyscallConn, net.ErrClosed)
	}
	return rawConn{c}, nil
}

// A rawConn is the descriptor of a Conn.
type rawConn struct{ c *Conn }

// Control runs fn with the descriptor.
func (r rawConn) Control(fn func(fd uintptr)) error {
	return r.do(opRawControl, func(rc syscall.RawConn) error { return rc.Control(fn) })
}

// Read runs fn with the descriptor until it returns true, and waits until there is
// something to read before it runs it again.
func (r rawConn) Read(fn func(fd uintptr) (done bool)) error {
	return r.do(opRawRead, func(rc syscall.RawConn) error { return rc.Read(fn) })
}

// Write is Read for room to write.
func (r rawConn) Write(fn func(fd uintptr) (done bool)) error {
	return r.do(opRawWrite, func(rc syscall.RawConn) error { return rc.Write(fn) })
}

func (r rawConn) do(op string, use func(syscall.RawConn) error) error {
	file, err := r.c.descriptor()
	if err == nil {
		var rc syscall.RawConn
		if rc, err = file.SyscallConn(); err == nil {
			err = use(rc)
		}
	}
	return r.c.opError(op, err)
}

// descriptor returns the file of the connection, which Close closes.
func (c *Conn) descriptor() (*os.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return nil, net.ErrClosed
	case c.file != nil:
		return c.file, nil
	}
	file, err := c.c.File()
	if err != nil {
		return nil, compat.Cause(err)
	}
	c.file = file
	return file, nil
}
