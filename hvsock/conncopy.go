package hvsock

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"sync"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

const (
	// copyBufferBytes is what ReadFrom and WriteTo move at a time: whole packets,
	// and about as much as io.Copy. Half is 1.05 times as fast from memory to
	// memory, because of the first cache, but half as fast towards the kernel; twice
	// as much gains nothing.
	copyBufferBytes = 8 * channel.DefaultChunkBytes

	// maxEmptyReads is how often in a row ReadFrom takes "no bytes, no error" from
	// a Reader, before it gives up with io.ErrNoProgress. It is bufio's number.
	maxEmptyReads = 100
)

// copyBuffers is shared by all Conns: a buffer belongs to one only while bytes
// move. The memory holds no ring, so its reader may look at it as often as it
// likes.
var copyBuffers = sync.Pool{New: func() any { return new([copyBufferBytes]byte) }}

// WriteTo writes to w what arrives until the end of the peer's stream, which is no
// error; io.Copy calls it. It returns how much w took, and the first error: a
// Read's, or w's own.
//
// What w does not take is not lost: the next Read returns it. While it waits for
// the peer, WriteTo holds no buffer, and no lock while w writes. w never sees ring
// memory, which the peer may change while w looks at it (faults.md GC-18); only
// to another Conn the bytes go from ring to ring, without a buffer in between that
// would take what the other does not read. Bytes go to a Reader or another
// WriteTo of the same Conn if those come first.
func (c *Conn) WriteTo(w io.Writer) (n int64, err error) {
	switch w := w.(type) {
	case *Conn:
		if c.link.options.buffer == nil {
			return c.writeToConn(w)
		}
	case *bytes.Buffer: // these two read into what they have
		return w.ReadFrom(onlyReader{c})
	case *bufio.Writer:
		return w.ReadFrom(onlyReader{c})
	}
	for {
		c.awaitReadable()
		m, readErr, writeErr := c.writeArrived(w)
		n += m
		switch {
		case writeErr != nil:
			return n, writeErr
		case readErr == io.EOF:
			return n, nil
		case readErr != nil:
			return c.copyRest(w, n, readErr)
		}
	}
}

// copyRest goes on with a copy of n bytes that ended with err, by Read and Write, if
// File has overtaken one of the Conns.
func (c *Conn) copyRest(w io.Writer, n int64, err error) (int64, error) {
	to, _ := w.(*Conn)
	if !errors.Is(err, net.ErrClosed) || c.file.Load() == nil && (to == nil || to.file.Load() == nil) {
		return n, err
	}
	m, err := io.Copy(onlyWriter{w}, onlyReader{c})
	return n + m, err
}

// writeArrived writes to w until nothing is left to read for now.
func (c *Conn) writeArrived(w io.Writer) (n int64, readErr, writeErr error) {
	buffer := copyBuffers.Get().(*[copyBufferBytes]byte)
	defer copyBuffers.Put(buffer)
	for {
		got, err := c.readArrived(buffer[:])
		if err == ringbuffer.ErrEmpty {
			return n, nil, nil
		}
		if err != nil {
			return n, err, nil
		}
		took, err := w.Write(buffer[:got])
		took = min(max(took, 0), got) // a Writer may be wrong
		n += int64(took)
		if took < got {
			c.unread(buffer[took:got])
			if err == nil {
				err = io.ErrShortWrite
			}
		}
		if err != nil {
			return n, nil, err
		}
	}
}

// awaitReadable returns when it is worth to read: something has arrived, or there
// is a reason why nothing will.
func (c *Conn) awaitReadable() {
	h := &c.in
	h.lock()
	for !c.readable() {
		c.awaitData()
	}
	h.unlock()
}

// readable says whether readNow would not answer ErrEmpty. in.mu is held.
func (c *Conn) readable() bool {
	h := &c.in
	if h.closed || h.shut || h.deadline.expired || len(c.rest) > 0 || h.end != nil {
		return true
	}
	ready, err := c.reader.Readable()
	return ready || err != nil
}

// readArrived is Read that returns ErrEmpty instead of waiting.
func (c *Conn) readArrived(p []byte) (n int, err error) {
	h := &c.in
	h.lock()
	n, signal, err := c.readNow(p)
	h.unlock()
	return n, c.readDone(signal, err)
}

// readDone does what a read has to do without the lock.
func (c *Conn) readDone(signal bool, err error) error {
	if signal {
		c.link.signal()
	}
	if err == nil || err == ringbuffer.ErrEmpty {
		return err
	}
	c.report()
	return c.opError("read", err)
}

// unread gives bytes back that were read and could not be passed on, for the next
// Read.
func (c *Conn) unread(b []byte) {
	h := &c.in
	h.mu.Lock()
	if !h.closed && !h.shut {
		c.rest = append(bytes.Clone(b), c.rest...)
		c.inBytes -= uint64(len(b))
		h.wake()
	}
	h.mu.Unlock()
}

// ReadFrom writes what r returns until r ends, which is no error; io.Copy calls it,
// unless r has a WriteTo. It returns how much r returned, and the first error: r's
// own, or a Write's, and then what r returned last may be lost in part.
//
// A Reader gets a buffer of its own to read into, not ring memory, in which it
// could leave more than it says; only from another Conn the bytes go from ring to
// ring, and what does not fit stays there.
//
// Of a *net.Buffers, small buffers share packets, and the list is consumed as far
// as it was written. That needs a direct call: its own WriteTo, which io.Copy
// prefers, writes each buffer by itself to everything outside package net.
func (c *Conn) ReadFrom(r io.Reader) (n int64, err error) {
	switch r := r.(type) {
	case *Conn:
		if r.link.options.buffer == nil {
			return r.writeToConn(c)
		}
	case *net.Buffers:
		return c.writeBuffers(r)
	case *bytes.Buffer:
		return r.WriteTo(onlyWriter{c})
	case *bytes.Reader:
		return r.WriteTo(onlyWriter{c})
	case *strings.Reader:
		return r.WriteTo(onlyWriter{c})
	}
	buffer := copyBuffers.Get().(*[copyBufferBytes]byte)
	defer copyBuffers.Put(buffer)
	for empty := 0; empty < maxEmptyReads; {
		got, readErr := r.Read(buffer[:])
		n += int64(got)
		if empty++; got > 0 {
			empty = 0
			if _, err := c.Write(buffer[:got]); err != nil {
				return n, err
			}
		}
		if readErr == io.EOF {
			return n, nil
		}
		if readErr != nil {
			return n, readErr
		}
	}
	return n, io.ErrNoProgress
}

// An onlyWriter hides that a Conn has more methods, so that nobody calls ReadFrom
// from within it.
type onlyWriter struct{ io.Writer }

// An onlyReader is its counterpart.
type onlyReader struct{ io.Reader }

// writeBuffers writes what is in v and consumes it.
func (c *Conn) writeBuffers(v *net.Buffers) (n int64, err error) {
	buffer := copyBuffers.Get().(*[copyBufferBytes]byte)
	defer copyBuffers.Put(buffer)
	for len(*v) > 0 && err == nil {
		next := (*v)[0] // large ones need no copy
		if len(next) < channel.DefaultChunkBytes {
			next = gather(buffer[:], *v)
		}
		var m int
		m, err = c.Write(next)
		n += int64(m)
		consume(v, m)
	}
	return n, err
}

// gather copies the beginning of v into buffer, up to the first large one, and
// returns what it has copied.
func gather(buffer []byte, v net.Buffers) []byte {
	n := 0
	for _, b := range v {
		if len(b) >= channel.DefaultChunkBytes || n+len(b) > len(buffer) {
			break
		}
		n += copy(buffer[n:], b)
	}
	return buffer[:n]
}

// consume takes the first n bytes off v, and empty buffers before the next byte.
func consume(v *net.Buffers, n int) {
	for len(*v) > 0 && len((*v)[0]) <= n {
		n -= len((*v)[0])
		(*v)[0] = nil // nobody needs it any more
		*v = (*v)[1:]
	}
	if n > 0 {
		(*v)[0] = (*v)[0][n:]
	}
}

// writeToConn is WriteTo for another Conn: each byte is copied once, from the ring
// it came in to the ring it goes out by.
func (c *Conn) writeToConn(to *Conn) (n int64, err error) {
	for {
		c.awaitReadable()
		m, full, err := c.pour(to)
		n += m
		switch {
		case err == io.EOF:
			return n, nil
		case err != nil:
			return c.copyRest(to, n, err)
		case full:
			to.awaitRoom(m > 0)
		}
	}
}

// pour moves what has arrived to the other ring, as far as there is room; full
// says that it stopped for that, and io.EOF that the peer's stream has ended.
func (c *Conn) pour(to *Conn) (n int64, full bool, err error) {
	// Nobody holds the lock of an out half and waits for an in half (detach), so
	// neither may this; a turn is not waited for with a lock.
	c.in.lock()
	to.out.mu.Lock()
	var read, wrote bool // whom to signal
	var readErr, writeErr error
	limit := int64(c.link.inPages * guestmem.PageSize) // Close must get the locks, too
	for full = to.out.busy; !full && n < limit && readErr == nil && writeErr == nil; {
		b, signal, err := c.arrived()
		read = read || signal
		if readErr = err; err != nil {
			break
		}
		m, signal, err := to.writeNow(b)
		n, wrote = n+int64(m), wrote || signal
		if m > 0 {
			read = c.drop(m) || read
		}
		if full = err == channel.ErrFull; !full {
			writeErr = err
		}
	}
	to.out.mu.Unlock()
	c.in.unlock()
	if wrote {
		to.link.signal()
	}
	if readErr = c.readDone(read, readErr); readErr != nil && readErr != ringbuffer.ErrEmpty {
		return n, false, readErr
	}
	if writeErr != nil {
		to.report()
		return n, false, to.opError("write", writeErr)
	}
	return n, full, nil
}

// arrived returns unread bytes where they are, in the ring if that is where;
// drop steps over them. signal is as with readNow. in.mu is held.
func (c *Conn) arrived() (b []byte, signal bool, err error) {
	h := &c.in
	if h.closed || h.shut || h.deadline.expired {
		var none [1]byte
		_, _, err = c.readNow(none[:])
		return nil, false, err
	}
	if len(c.rest) > 0 {
		return c.rest, false, nil
	}
	if h.end == nil {
		if b, ok := c.reader.View(); ok {
			return b, false, nil
		}
	}
	// There is nothing, and a read knows why; by now it may find a byte.
	var one [1]byte
	n, signal, err := c.readNow(one[:])
	c.inBytes -= uint64(n) // until drop
	c.rest = append(c.rest, one[:n]...)
	return c.rest, signal, err
}

// drop steps over n bytes of what arrived returned. in.mu is held.
func (c *Conn) drop(n int) (signal bool) {
	if len(c.rest) > 0 {
		if c.rest = c.rest[n:]; len(c.rest) == 0 {
			c.rest = nil
		}
	} else if signal = c.reader.Discard(n); signal {
		c.in.signals++
	}
	c.inBytes += uint64(n)
	c.reads++
	c.readBytes += n
	return signal
}

// awaitRoom waits for space behind a write that got ErrFull, or any other reason
// to look again; it only lets others run once if the space was used a moment ago.
func (c *Conn) awaitRoom(recent bool) {
	h := &c.out
	h.lock()
	switch {
	case h.closed || h.shut || h.deadline.expired || h.end != nil:
	case recent:
		h.yield(nil)
	default:
		c.awaitSpace(nil)
	}
	h.unlock()
}
