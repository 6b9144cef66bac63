package hvsock

import (
	"sync/atomic"
	"syscall"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/ringbuffer"
)

// Notify names what TryRead and TryWrite call when it may be worth to try again:
// once after each that returned EAGAIN, on any goroutine. Both must not block and
// may be nil. It must be called before the first of them.
func (c *Conn) Notify(readable, writable func()) {
	c.in.mu.Lock()
	c.in.notify = readable
	c.in.mu.Unlock()
	c.out.mu.Lock()
	c.out.notify = writable
	c.out.mu.Unlock()
}

// TryRead is Read for callers that cannot wait: an event loop, or a world with
// one goroutine. If nothing has arrived it returns an error around EAGAIN, and
// the peer will signal what comes next: see Notify. It goes to sleep and wakes up
// on the same path as Read.
func (c *Conn) TryRead(p []byte) (n int, err error) {
	h := &c.in
	h.mu.Lock()
	if h.busy { // another call has the turn, and waits for what this one would
		h.mu.Unlock()
		return 0, c.againError(&c.readAgain, "read")
	}
	h.disarm()
	var signal bool
	for {
		n, signal, err = c.readNow(p)
		if err != ringbuffer.ErrEmpty {
			break
		}
		if signal {
			h.pause(c.link.signal)
			h.endTurn()
			signal = false
			continue
		}
		if c.armRead() {
			err, h.armed = syscall.EAGAIN, true
			h.sleeps++
			break
		}
	}
	return n, c.tried(h, signal, "read", &c.readAgain, err)
}

// TryWrite is Write for callers that cannot wait: it writes what there is room
// for now. If that is not all of p it returns how much it was and an error around
// EAGAIN, and the peer will signal the space: see Notify.
func (c *Conn) TryWrite(p []byte) (n int, err error) {
	h := &c.out
	h.mu.Lock()
	if h.busy {
		h.mu.Unlock()
		return 0, c.againError(&c.writeAgain, "write")
	}
	if h.disarm() && c.writer != nil {
		c.writer.Resume()
	}
	var signal bool
	for {
		var m int
		m, signal, err = c.writeNow(p[n:])
		n += m
		if err != channel.ErrFull {
			break
		}
		if signal {
			h.pause(c.link.signal)
			h.endTurn()
			signal = false
			continue
		}
		h.arm()
		if c.writer.Wait() {
			err, h.armed = syscall.EAGAIN, true
			h.sleeps++
			if c.link.options.recheck { // the peer may not signal
				h.recheck = c.link.clock.AfterFunc(recheckPause, h.wake)
			}
			break
		}
		h.sleeping.Store(false)
		c.writer.Resume()
	}
	return n, c.tried(h, signal, "write", &c.writeAgain, err)
}

// disarm ends what a TryRead or TryWrite that had to wait has left, and reports
// whether there was one. mu is held, and nobody has the turn.
func (h *half) disarm() bool {
	if !h.armed {
		return false
	}
	h.armed = false
	h.sleeping.Store(false)
	if h.recheck != nil {
		h.recheck.Stop()
		h.recheck = nil
	}
	return true
}

// tried ends a TryRead or TryWrite: it gives up the lock, signals, and returns err
// as the caller is to see it.
func (c *Conn) tried(h *half, signal bool, call string, again *atomic.Pointer[error], err error) error {
	h.mu.Unlock()
	if signal {
		c.link.signal()
	}
	switch err {
	case nil:
		return nil
	case syscall.EAGAIN:
		return c.againError(again, call)
	}
	if c.movedFrom(err) != nil {
		err = syscall.EBUSY
	}
	c.report()
	return c.opError(call, systemCall(call, err))
}

// againError is the error around EAGAIN, made once for each call: it is no news.
func (c *Conn) againError(made *atomic.Pointer[error], call string) error {
	if e := made.Load(); e != nil {
		return *e
	}
	err := c.opError(call, systemCall(call, syscall.EAGAIN))
	made.Store(&err)
	return err
}
