//go:build unix

package hvsock

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// fileBufferBytes is what a File's pump moves at a time in each direction: the
// data pages of a ring of the default size.
const fileBufferBytes = 16 << 10

// A connFile joins a Conn and one end of a pair of Unix sockets; the other end is
// the file that File returned.
type connFile struct {
	conn *Conn
	near *net.UnixConn
	left atomic.Int32 // directions that have not ended
}

// File returns a file descriptor for the connection, for programs that insist on
// one: a child process, a library, poll(2). It is one end of a socket pair, and
// from now on two goroutines carry bytes between its other end and the Conn. That
// costs two copies each way; the Conn itself has no descriptor.
//
// The file is the connection's only user: the Conn must not be read or written
// any more. Unlike the file of a net.TCPConn it is no second handle. Closing the
// file closes the Conn, and closing the Conn ends the file's stream; what is
// still on its way from the file is then lost.
//
// shutdown(2) of the file's writing side is CloseWrite of the Conn, and the
// peer's FIN is the end of what the file reads. A reset is an end, too, and so
// is a broken ring: a socket pair has no other. When both directions have ended,
// the Conn is closed; the file is the caller's to close.
//
// The descriptor does not block, as that of a net.TCPConn, so the file has
// deadlines. For a program that expects to wait, such as most child processes,
// first make it: syscall.SetNonblock(int(file.Fd()), false).
//
// Errors are *net.OpError around net.ErrClosed, EBUSY if File was called before,
// or that of socketpair(2); on systems other than Unix, errors.ErrUnsupported.
func (c *Conn) File() (*os.File, error) {
	if c.file.Load() != nil {
		return nil, c.opError("file", syscall.EBUSY)
	}
	if err := c.SetDeadline(time.Time{}); err != nil { // those were for Read and Write
		return nil, c.opError("file", net.ErrClosed)
	}
	near, far, err := socketPair("hvsock:" + c.local.String() + "->" + c.remote.String())
	if err != nil {
		return nil, c.opError("file", err)
	}
	f := &connFile{conn: c, near: near}
	f.left.Store(2)
	if !c.file.CompareAndSwap(nil, f) {
		_, _ = near.Close(), far.Close()
		return nil, c.opError("file", syscall.EBUSY)
	}
	go f.toFile()
	go f.toConn()
	return far, nil
}

// socketPair returns two joined ends: a Conn that can be closed by halves, and a
// file.
func socketPair(name string) (near *net.UnixConn, far *os.File, err error) {
	syscall.ForkLock.RLock() // no child process may get the ends before they are close-on-exec
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	// Before NewFile, which looks: so the file has deadlines, and its Close ends a
	// Read.
	for _, fd := range fds {
		_ = syscall.SetNonblock(fd, true) // fails for no open descriptor
	}
	far = os.NewFile(uintptr(fds[1]), name)
	other := os.NewFile(uintptr(fds[0]), name)
	conn, err := net.FileConn(other)
	_ = other.Close() // FileConn has a copy
	near, ok := conn.(*net.UnixConn)
	if !ok {
		_ = far.Close()
		return nil, nil, err
	}
	return near, far, nil
}

// end makes both goroutines return: the Conn was closed.
func (f *connFile) end() { _ = f.near.Close() }

// ended is called by each goroutine as it returns.
func (f *connFile) ended() {
	if f.left.Add(-1) == 0 {
		_, _ = f.near.Close(), f.conn.Close()
	}
}

// toFile carries the peer's bytes to the file.
func (f *connFile) toFile() {
	defer f.ended()
	readErr, writeErr := relay(f.near, f.conn)
	switch {
	case writeErr != nil: // the file is closed, or does not want to read
		_ = f.conn.CloseRead()
	case readErr == io.EOF:
		_ = f.near.CloseWrite()
	default: // reset, broken, or closed: neither direction leads anywhere
		_ = f.near.Close()
	}
}

// toConn carries the file's bytes to the peer.
func (f *connFile) toConn() {
	defer f.ended()
	if _, writeErr := relay(f.conn, f.near); writeErr != nil {
		_ = f.near.CloseRead() // the file's writer gets EPIPE, as the Conn's would
		return
	}
	_ = f.conn.CloseWrite()
	if f.awaitClose() {
		_ = f.conn.Close() // wakes toFile, which may be waiting for a silent peer
	}
}

// awaitClose waits until the file, whose stream has ended, is closed or wants to
// read nothing any more, and reports whether it was that and not the near end's
// own close.
func (f *connFile) awaitClose() bool {
	raw, err := f.near.SyscallConn()
	if err != nil {
		return false
	}
	// There is nothing to read, so the function is called once now, and then for
	// each change of the other end's state. Sending nothing at all fails if
	// nobody could receive it.
	err = raw.Read(func(fd uintptr) (done bool) {
		_, err := syscall.SendmsgN(int(fd), nil, nil, nil, 0)
		return err != nil && !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EINTR)
	})
	return err == nil
}

// relay copies until either side fails, and says which. The end of from is a read
// error, too.
func relay(to io.Writer, from io.Reader) (readErr, writeErr error) {
	buf := make([]byte, fileBufferBytes)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return nil, err
			}
		}
		if err != nil {
			return err, nil
		}
	}
}
