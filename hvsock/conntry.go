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
	c.disarmRead()
	var signal bool
	for {
		if h.busy { // another call has the turn
			err = syscall.EAGAIN
			break
		}
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
	h.mu.Unlock()
	if signal {
		c.link.signal()
	}
	if err != nil {
		if err == syscall.EAGAIN {
			return n, c.againError(&c.readAgain, "read")
		}
		c.report()
		return n, c.opError("read", systemCall("read", err))
	}
	return n, nil
}

// disarmRead ends what a TryRead that found nothing has left. in.mu is held.
func (c *Conn) disarmRead() {
	h := &c.in
	if !h.armed {
		return
	}
	h.armed = false
	h.sleeping.Store(false)
}

// TryWrite is Write for callers that cannot wait: it writes what there is room
// for now. If that is not all of p it returns how much it was and an error around
// EAGAIN, and the peer will signal the space: see Notify.
func (c *Conn) TryWrite(p []byte) (n int, err error) {
	h := &c.out
	h.mu.Lock()
	if h.armed {
		h.armed = false
		h.sleeping.Store(false)
		if c.writer != nil {
			c.writer.Resume()
		}
	}
	var signal bool
	for {
		if h.busy { // another call has the turn
			err = syscall.EAGAIN
			break
		}
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
			break
		}
		h.sleeping.Store(false)
		c.writer.Resume()
	}
	h.mu.Unlock()
	if signal {
		c.link.signal()
	}
	if err != nil {
		if err == syscall.EAGAIN {
			return n, c.againError(&c.writeAgain, "write")
		}
		c.report()
		return n, c.opError("write", systemCall("write", err))
	}
	return n, nil
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
