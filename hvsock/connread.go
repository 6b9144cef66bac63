package hvsock

import (
	"io"
	"net"
	"os"
	"runtime"
	"syscall"

	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// Read reads what has arrived, across packets, and waits if nothing has. It
// returns io.EOF at the end of the peer's stream and after CloseRead; bytes come
// first, even if the channel is gone. An empty p reads nothing, successfully.
func (c *Conn) Read(p []byte) (n int, err error) {
	h := &c.in
	var signal bool
	h.mu.Lock() // h.lock and h.unlock by hand: a call each is 1.03 at 64 bytes
	if h.busy {
		h.awaitTurn()
	}
	for {
		n, signal, err = c.readNow(p)
		if err != ringbuffer.ErrEmpty {
			break
		}
		if signal {
			h.pause(c.link.signal)
			continue
		}
		c.awaitData()
	}
	h.endTurn()
	h.mu.Unlock()
	if signal {
		c.link.signal()
	}
	if err != nil {
		if f := c.movedFrom(err); f != nil {
			return f.read(p)
		}
		c.report()
		return n, c.opError("read", err)
	}
	return n, nil
}

// readNow reads what is there, or says why there is nothing; ErrEmpty means to
// wait. in.mu is held.
func (c *Conn) readNow(p []byte) (n int, signal bool, err error) {
	h := &c.in
	switch {
	case h.closed:
		return 0, false, net.ErrClosed
	case len(p) == 0:
		return 0, false, nil
	case h.shut:
		return 0, false, io.EOF
	case h.deadline.expired:
		return 0, false, os.ErrDeadlineExceeded
	case len(c.rest) > 0:
		n = copy(p, c.rest)
		c.inBytes += uint64(n)
		if c.rest = c.rest[n:]; len(c.rest) == 0 {
			c.rest = nil
		}
		return n, false, nil
	case h.end != nil:
		return 0, false, h.end
	}
	// A ring full at most: a peer that keeps pace with a large p must not keep
	// the lock from Close and detach.
	p = p[:min(len(p), c.link.inPages*guestmem.PageSize)]
	options := &c.link.options
	if options.buffer != nil {
		if ready, _ := c.reader.Readable(); ready { // Read finds the error again
			release, ok := options.buffer()
			if !ok {
				return 0, false, errNoBuffer("read")
			}
			defer release()
		}
	}
	if options.onePacketReads {
		n, signal, err = c.reader.ReadPacket(p)
	} else {
		n, signal, err = c.reader.Read(p)
	}
	if signal {
		h.signals++
	}
	if err != nil {
		return 0, signal, c.readEnded(err)
	}
	if putback.On(putback.RG02) && c.writer != nil {
		c.writer.Resume()
	}
	c.inBytes += uint64(n)
	c.reads++
	c.readBytes += n
	return n, signal, nil
}

// readEnded notes an error of the ring that is for ever, and returns what Read
// is to return. in.mu is held.
func (c *Conn) readEnded(err error) error {
	switch err {
	case ringbuffer.ErrEmpty:
		return err
	case io.EOF:
		c.mark(markFINSeen)
		c.in.end = io.EOF
	default:
		c.mark(markFault)
		c.in.end = faultError("read", err)
	}
	return c.in.end
}

// awaitData waits for the doorbell, or any other reason to look again. in.mu is
// held, and given up meanwhile.
//
// A reader that yields masks the ring, since it will look again by itself
// (ringbuffer.md 8.3), and leaves it masked until it has to sleep. It keeps the
// lock: it can run, as a goroutine that is preempted while it copies, and whoever
// needs the lock waits for one turn of the scheduler. Ping-pong is 1.07 times as
// fast. (A Write may yield without end, and does give the lock up.)
//
// Before it sleeps, a reader lets its peer run once, if that is about to write:
// it has just taken one message, and an answer may bring the next one; or it has
// taken so much that the writer probably waits for the space. Streams of 1 KiB
// and more are 1.15 to 1.25 times as fast as with sleeping only. A reader that
// keeps finding a few small messages runs on a core of its own, as fast as the
// writer; it sleeps, so that a batch gathers, because each look at a ring in use
// takes the index's cache line from the writer. That makes streams of 64 bytes
// about 1.2 times as fast. (internal/bench.)
func (c *Conn) awaitData() {
	h := &c.in
	yield := c.reads == 1 || c.readBytes >= c.link.inPages*(guestmem.PageSize/4)
	c.reads, c.readBytes = 0, 0
	if yield {
		if !c.masked {
			c.reader.Mask()
			c.masked = true
		}
		runtime.Gosched()
		return
	}
	if c.armRead() {
		h.sleep(nil)
	}
}

// armRead makes the peer signal what it writes next, and reports whether there is
// nothing to read until then. in.mu is held.
func (c *Conn) armRead() bool {
	c.in.arm()
	c.unmask()
	// The ring is only looked at, and an error is Read's to find again.
	if ready, err := c.reader.Readable(); ready || err != nil {
		c.in.sleeping.Store(false)
		return false
	}
	return true
}

// unmask makes the peer signal data again. A look at the ring must follow. in.mu
// is held.
func (c *Conn) unmask() {
	if c.masked {
		c.reader.Unmask()
		c.masked = false
	}
}

// CloseRead ends this end's reading: Reads return io.EOF, and what has arrived
// or still arrives is discarded, so that the peer's Writes do not hang. The peer
// is not told. It does nothing if called again.
func (c *Conn) CloseRead() error {
	c.in.mu.Lock()
	closed := c.in.closed
	c.in.mu.Unlock()
	if !closed {
		c.shutRead()
		return nil
	}
	if f := c.file.Load(); f != nil {
		return f.closeRead()
	}
	return c.opError("close", net.ErrClosed)
}

// shutRead is CloseRead whoever may read.
func (c *Conn) shutRead() {
	h := &c.in
	h.mu.Lock()
	first := !h.shut
	h.shut = true
	h.deadline.stop()
	c.rest = nil
	h.wake()
	h.mu.Unlock()
	if first && !c.link.options.keepsUnread {
		c.discarding.Store(true)
		c.discard(0)
	}
}

// resetError is what a reader finds at the end of a stream that was cut off.
func (c *Conn) resetError(cause detachCause) error {
	switch {
	case cause == detachEnd || c.link.options.cutOff == CutOffEOF:
		return io.EOF
	case c.link.options.cutOff == CutOffPipe:
		return os.NewSyscallError("read", syscall.EPIPE)
	}
	return os.NewSyscallError("read", syscall.ECONNRESET)
}
