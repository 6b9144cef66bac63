package hvsock

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/ringbuffer"
)

// fileBufferBytes is what a File's pump moves at a time in each direction: the
// data pages of a ring of the default size.
const fileBufferBytes = 16 << 10

// A connFile gives a Conn a descriptor: one end of a pair of Unix sockets, of which
// the Conn's own calls, from then on, and each file are handles of equal right. A
// pump of two goroutines carries bytes between the pair's other end and the rings.
type connFile struct {
	conn     *Conn
	own      *net.UnixConn // the handle behind the Conn's own calls
	near     *net.UnixConn // the pump's end
	left     atomic.Int32  // directions that have not ended
	readShut atomic.Bool   // the Conn's user has called CloseRead
}

// File returns a file descriptor for the connection, for programs that insist on
// one: a child process, a library, poll(2). As that of a net.TCPConn it is a second
// handle of the connection, which ends when the Conn and every file are closed;
// closing one leaves the others alone, and shutdown(2) of one half concerns them
// all. File may be called again.
//
// A Conn has no descriptor of its own. The first call makes a socket pair, and from
// then on two goroutines carry bytes between it and the rings, and the Conn's own
// calls go through it, too: two more copies each way. What is different then:
//
//   - A file finds io.EOF and EPIPE where the connection was reset or broken: a
//     socket pair knows nothing else. The Conn still has the right errors.
//   - What was written is on its way, as in TCP, and a peer that is reset may not
//     get it. Close of the last handle does not wait for it, and loses nothing.
//   - shutdown(2) of both halves is the end of the connection.
//   - TryRead and TryWrite fail with EBUSY, and WriteTo loses what its Writer does
//     not take.
//   - A Write in progress when File is called for the first time goes on in the
//     socket pair; the bytes of another may come in between.
//
// The descriptor does not block, as that of a net.TCPConn, so the file has
// deadlines of its own. For a program that expects to wait, such as most child
// processes, first make it: syscall.SetNonblock(int(file.Fd()), false).
//
// Errors are *net.OpError around net.ErrClosed or that of socketpair(2); on systems
// other than Unix, errors.ErrUnsupported.
func (c *Conn) File() (*os.File, error) {
	f, err := c.descriptor()
	if err != nil {
		return nil, c.opError("file", err)
	}
	file, err := f.own.File()
	if err != nil {
		return nil, c.opError("file", bare(err))
	}
	return file, nil
}

// descriptor returns the Conn's connFile, and makes it first if there is none.
func (c *Conn) descriptor() (*connFile, error) {
	if f := c.file.Load(); f != nil {
		return f, nil
	}
	own, near, err := socketPair()
	if err != nil {
		return nil, err
	}
	f := &connFile{conn: c, own: own, near: near}
	f.left.Store(2)
	if used, err := c.move(f); used != f {
		_, _ = own.Close(), near.Close()
		return used, err
	}
	go f.toFile()
	go f.toConn()
	return f, nil
}

// move sends the Conn's user to f from now on, unless he was sent elsewhere before,
// and returns where he is sent.
func (c *Conn) move(f *connFile) (*connFile, error) {
	c.in.mu.Lock() // both locks: as in detach
	defer c.in.mu.Unlock()
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if before := c.file.Load(); before != nil {
		return before, nil
	}
	if c.out.closed {
		return nil, net.ErrClosed
	}
	_ = f.own.SetReadDeadline(c.in.deadline.at) // fails for no open socket
	_ = f.own.SetWriteDeadline(c.out.deadline.at)
	if c.in.shut {
		_ = f.own.CloseRead()
	}
	if c.out.shut {
		_ = f.own.CloseWrite()
	}
	f.readShut.Store(c.in.shut)
	c.file.Store(f)
	for _, h := range [...]*half{&c.in, &c.out} {
		h.deadline.set(time.Time{})
		h.closed = true // whoever waits finds that out, and goes to f
		h.wake()
	}
	return f, nil
}

// movedFrom returns where a call of the Conn that ended with err is to be made
// instead, or nil.
func (c *Conn) movedFrom(err error) *connFile {
	if err != net.ErrClosed {
		return nil
	}
	return c.file.Load()
}

// read is Conn.Read. The socket pair's end is the connection's, whatever that was.
func (f *connFile) read(p []byte) (int, error) {
	n, err := f.own.Read(p)
	if err == io.EOF || errors.Is(err, syscall.ECONNRESET) {
		f.conn.in.mu.Lock()
		err = f.conn.in.end
		f.conn.in.mu.Unlock()
		if err == nil || err == io.EOF || f.readShut.Load() {
			return n, io.EOF
		}
	}
	return n, f.opError("read", err)
}

// write is Conn.Write.
func (f *connFile) write(p []byte) (int, error) {
	n, err := f.own.Write(p)
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		f.conn.out.mu.Lock()
		err = f.conn.out.end
		f.conn.out.mu.Unlock()
		if err == nil {
			err = errPipe
		}
	}
	return n, f.opError("write", err)
}

// closeRead is Conn.CloseRead. The pump hears of it when it has bytes to pass on.
func (f *connFile) closeRead() error {
	f.readShut.Store(true)
	return f.shut(f.own.CloseRead())
}

// closeWrite is Conn.CloseWrite.
func (f *connFile) closeWrite() error { return f.shut(f.own.CloseWrite()) }

// shut is what a shutdown of own has returned. That the other end is gone is no
// error, as in the Conn.
func (f *connFile) shut(err error) error {
	if errors.Is(err, syscall.ENOTCONN) {
		return nil
	}
	return f.opError("close", err)
}

// opError is err, of the socket pair, as one of the Conn.
func (f *connFile) opError(call string, err error) error {
	if err == nil {
		return nil
	}
	return f.conn.opError(call, bare(err))
}

// bare is err without the *net.OpError that package net puts around it.
func bare(err error) error {
	if op, ok := err.(*net.OpError); ok {
		return op.Err
	}
	return err
}

// end makes both goroutines return, as the connection has ended under its handles.
func (f *connFile) end() { _ = f.near.Close() }

// ended is called by each goroutine as it returns.
func (f *connFile) ended() {
	if f.left.Add(-1) == 0 {
		_ = f.near.Close()
		f.conn.end(false)
	}
}

// toFile carries the peer's bytes to the handles.
func (f *connFile) toFile() {
	defer f.ended()
	readErr, writeErr := relay(f.near, ringOf{f})
	switch {
	case writeErr != nil: // there is no handle any more, or none that wants to read
		f.conn.shutRead()
	case readErr == io.EOF:
		_ = f.near.CloseWrite()
	default: // reset, broken, or closed: neither direction leads anywhere
		_ = f.near.Close()
	}
}

// toConn carries the handles' bytes to the peer.
func (f *connFile) toConn() {
	defer f.ended()
	if _, writeErr := relay(ringOf{f}, f.near); writeErr != nil {
		_ = f.near.CloseRead() // the writer gets EPIPE, as the Conn's would
		return
	}
	if f.awaitClose() {
		f.conn.end(false) // with a FIN; it wakes toFile, which may be waiting for a silent peer
	}
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

// A ringOf is the pump's way to the rings. It is that of Read and Write, which the
// Conn's user may not go any more, but it takes no turn while it waits: a call that
// File has overtaken finds out at once.
type ringOf struct{ file *connFile }

// Read is Conn.Read, with bare errors.
func (r ringOf) Read(p []byte) (n int, err error) {
	c := r.file.conn
	h := &c.in
	var signal bool
	h.lock()
	for {
		n, signal, err = 0, false, net.ErrClosed
		if !h.gone {
			h.closed = false // readNow asks for the Conn's user
			n, signal, err = c.readNow(p)
			h.closed = true
		}
		switch {
		case err != ringbuffer.ErrEmpty:
		case signal:
			h.without(c.link.signal)
			continue
		default:
			if c.armRead() {
				h.nap()
			}
			continue
		}
		h.unlock()
		return n, c.pumped(signal, err)
	}
}

// Write is Conn.Write, with bare errors.
func (r ringOf) Write(p []byte) (n int, err error) {
	c := r.file.conn
	h := &c.out
	var signal bool
	h.lock()
	for {
		m := 0
		signal, err = false, net.ErrClosed
		if !h.gone {
			h.closed = false // likewise
			m, signal, err = c.writeNow(p[n:])
			h.closed = true
		}
		n += m
		switch {
		case err != channel.ErrFull:
		case signal:
			h.without(c.link.signal)
			continue
		default:
			c.napForSpace()
			continue
		}
		h.unlock()
		return n, c.pumped(signal, err)
	}
}

// napForSpace is awaitSpace without a turn. out.mu is held, and given up meanwhile.
func (c *Conn) napForSpace() {
	h := &c.out
	h.arm()
	if c.writer.Wait() {
		if c.link.options.recheck {
			defer c.link.clock.AfterFunc(recheckPause, h.wake).Stop()
		}
		h.nap()
	}
	h.sleeping.Store(false)
	if c.writer != nil { // not detached meanwhile
		c.writer.Resume()
	}
}

// nap waits for wake, without a turn. The caller has called arm and looked again
// since; mu is held, and given up meanwhile.
func (h *half) nap() {
	h.sleeps++
	h.without(func() { <-h.wakeup })
	h.sleeping.Store(false)
}

// without gives up the lock and the turn for a call of f.
func (h *half) without(f func()) {
	h.unlock()
	f()
	h.lock()
}

// pumped does what the pump has to do without the lock.
func (c *Conn) pumped(signal bool, err error) error {
	if signal {
		c.link.signal()
	}
	if err != nil {
		c.report()
	}
	return err
}
