package hvsock

import (
	"io"
	"net"
	"time"

	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

const (
	// discardRings is how many rings full of unwanted data are dropped at a
	// stretch. A peer that writes on while its data is dropped would otherwise
	// keep the goroutine of its doorbell here for ever.
	discardRings = 16

	// discardPause is the wait before going on with a peer like that. Nobody
	// waits for these bytes.
	discardPause = time.Millisecond
)

// Close ends the connection: it sends the FIN, makes every blocked and later
// call fail with net.ErrClosed, discards what is unread, and returns without
// waiting for the peer, which still gets everything written before. If there are
// files (File), they keep the connection. Called again, it returns net.ErrClosed.
func (c *Conn) Close() error {
	if c.end(true) {
		return nil
	}
	if f := c.file.Load(); f != nil {
		return f.opError("close", f.own.Close())
	}
	return c.opError("close", net.ErrClosed)
}

// end is Close, for the Conn's user or for everybody: the handles that File has made
// as well. It returns false, and has no effect, if there was nothing to close.
func (c *Conn) end(byUser bool) bool {
	h := &c.out
	h.mu.Lock()
	if h.gone || byUser && h.closed {
		h.mu.Unlock()
		return false
	}
	h.closed, h.gone = true, true
	h.deadline.stop()
	signal, _ := c.finish("close") // a broken ring is reported below
	h.wake()
	h.mu.Unlock()
	if signal {
		c.link.signal()
	}

	h = &c.in
	h.mu.Lock()
	h.closed, h.gone = true, true
	h.deadline.stop()
	c.rest = nil
	if !putback.On(putback.HV19) {
		h.wake()
	}
	h.mu.Unlock()
	c.discarding.Store(true)
	c.mark(markClosed)
	c.discard(0)
	if f := c.file.Load(); f != nil {
		f.end()
	}
	return true
}

// discardLate drops what has arrived after Close or CloseRead.
func (c *Conn) discardLate() { c.discard(markLate) }

// discard drops what is in the ring up to the FIN, so that the peer's writer
// never hangs, signals the space and reports. onData is marked if there was data
// and no FIN behind it, after Close.
func (c *Conn) discard(onData uint32) {
	h := &c.in
	h.mu.Lock()
	n, signal, done := c.discardNow()
	if !h.gone || h.end != nil {
		onData = 0
	}
	if !done {
		c.goOnDiscarding()
	}
	if signal {
		h.signals++
	}
	h.mu.Unlock()
	if n > 0 {
		c.mark(onData)
	}
	if signal {
		c.link.signal()
	}
	c.report()
}

// discardNow drops what is in the ring, in one bounded stretch, and returns how
// many bytes that were; done says that the peer will signal what comes next, or
// that nothing can come. in.mu is held.
func (c *Conn) discardNow() (n int, signal, done bool) {
	h := &c.in
	limit := discardRings * c.link.inPages * guestmem.PageSize
	if c.reader != nil {
		c.unmask() // nobody looks any more without a signal
	}
	for h.end == nil {
		b, ok := c.reader.View()
		if ok {
			n += len(b)
			signal = c.reader.Discard(len(b)) || signal
			if n >= limit {
				return n, signal, false
			}
			continue
		}
		// Nothing there, the end, or a fault: Read knows, and by now may find
		// a byte.
		var one [1]byte
		m, s, err := c.reader.Read(one[:])
		n += m
		signal = signal || s
		if err == nil {
			continue
		}
		if c.readEnded(err) != ringbuffer.ErrEmpty {
			break
		}
		if ready, err := c.reader.Readable(); !ready && err == nil {
			break
		}
	}
	return n, signal, true
}

// goOnDiscarding calls discard later. in.mu is held. With both deadlines a Conn
// has at most three timers, and after Close only this one.
func (c *Conn) goOnDiscarding() {
	if c.again == nil {
		c.again = c.link.clock.AfterFunc(discardPause, c.discardLate)
	} else {
		c.again.Reset(discardPause)
	}
}

// detach takes the rings away from the Conn, because the control plane is about
// to: when it returns, no goroutine touches them any more. What is unread is
// kept for Read; behind it comes the end of the stream, if the FIN has arrived,
// and otherwise what cause says. Writes get EPIPE. It may be called at any time,
// after Close too, from any goroutine; only the first call has an effect.
func (c *Conn) detach(cause detachCause) {
	c.in.mu.Lock() // both locks: in before out, and nowhere else
	c.out.mu.Lock()
	if c.reader != nil || putback.On(putback.RG08) {
		c.saveUnread(cause)
		c.inRing, c.outRing = countsOf(c.reader.Stats()), countsOf(c.writer.Stats())
		if !putback.On(putback.HV17) {
			c.reader, c.writer = nil, nil
		}
		if c.out.end == nil {
			c.out.end = errPipe
		}
		if c.again != nil {
			c.again.Stop()
		}
		c.in.wake()
		c.out.wake()
	}
	c.out.mu.Unlock()
	c.in.mu.Unlock()
}

// saveUnread copies what a reader could still have read, which is at most what
// the ring holds: a peer that goes on writing gains nothing. Both locks are held.
func (c *Conn) saveUnread(cause detachCause) {
	h := &c.in
	wanted := !h.gone && !h.shut && !putback.On(putback.HV11)
	keep := func(b []byte) {
		if putback.On(putback.GC18) {
			c.rest, wanted = b, false
		}
		if wanted {
			c.rest = append(c.rest, b...)
		}
	}
	limit := c.link.inPages * guestmem.PageSize
	for n := 0; h.end == nil && n < limit; {
		if b, ok := c.reader.View(); ok {
			keep(b)
			n += len(b)
			c.reader.Discard(len(b))
			continue
		}
		var one [1]byte // nothing there, the end, or a fault: see discardNow
		m, _, err := c.reader.Read(one[:])
		keep(one[:m])
		n += m
		switch {
		case err == nil:
		case err == ringbuffer.ErrEmpty:
			h.end = c.resetError(cause)
		case err == io.EOF:
			h.end = io.EOF
		default:
			h.end = faultError("read", err)
		}
	}
	if h.end == nil {
		h.end = c.resetError(cause)
	}
}
