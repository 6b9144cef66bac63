package hvsock

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/internal/putback"
)

// writeYields is how often a writer lets others run before it sleeps, if that
// gains it no space.
const writeYields = 2

// recheckPause is how long a Write waits for the signal of a peer that may not
// send one.
const recheckPause = 10 * time.Millisecond

// Write puts all of p into the ring, waiting for space as often as it must, or
// returns how much it has put there and an error. Bytes that were written arrive
// even if Close follows at once. An empty p sends nothing, successfully: the
// empty packet is the FIN.
func (c *Conn) Write(p []byte) (n int, err error) {
	h := &c.out
	var signal bool
	h.mu.Lock() // h.lock and h.unlock by hand: a call each is 1.03 at 64 bytes
	if h.busy {
		h.awaitTurn()
	}
	n, signal, err = c.writeNow(p)
	if err == channel.ErrFull {
		n, signal, err = c.writeRest(p, n, signal)
	}
	h.endTurn()
	h.mu.Unlock()
	if signal {
		c.link.signal()
	}
	if err != nil {
		if f := c.movedFrom(err); f != nil {
			m, err := f.write(p[n:])
			return n + m, err
		}
		c.report()
		return n, c.opError("write", err)
	}
	return n, nil
}

// writeRest goes on with a Write of which n bytes are in the ring, and the rest
// did not fit; signal is what writeNow said. out.mu is held, and given up while
// waiting.
func (c *Conn) writeRest(p []byte, n int, signal bool) (int, bool, error) {
	h := &c.out
	err := error(channel.ErrFull)
	for yields := 0; err == channel.ErrFull; {
		var first func()
		if signal {
			first = c.link.signal
		}
		if yields < writeYields {
			yields++
			h.yield(first)
		} else {
			c.awaitSpace(first)
		}
		var m int
		m, signal, err = c.writeNow(p[n:])
		n += m
		if m > 0 {
			yields = 0
		}
	}
	return n, signal, err
}

// writeNow writes as much of p as fits; ErrFull means that some did not. out.mu
// is held.
func (c *Conn) writeNow(p []byte) (n int, signal bool, err error) {
	h := &c.out
	switch {
	case h.closed:
		return 0, false, net.ErrClosed
	case len(p) == 0:
		return 0, false, nil
	case h.deadline.expired:
		return 0, false, os.ErrDeadlineExceeded
	case h.end != nil:
		return 0, false, h.end
	case h.shut:
		return 0, false, errPipe
	}
	if buffer := c.link.options.buffer; buffer != nil {
		release, ok := buffer()
		if !ok {
			return 0, false, errNoBuffer("write")
		}
		defer release()
	}
	n, signal, err = c.writer.Write(p)
	c.outBytes += uint64(n)
	if signal {
		h.signals++
	}
	switch {
	case err == nil && n == len(p):
		return n, signal, nil
	case putback.On(putback.GO06) && n > 0:
		return n, signal, nil
	case err == nil || errors.Is(err, channel.ErrFull):
		return n, signal, channel.ErrFull
	}
	c.mark(markFault)
	h.end = faultError("write", err)
	return n, signal, h.end
}

// errPipe is what a writer gets that must not write any more.
var errPipe = os.NewSyscallError("write", syscall.EPIPE)

// awaitSpace waits for the doorbell, or any other reason to look again. It calls
// signal first if that is not nil. out.mu is held, and given up meanwhile.
func (c *Conn) awaitSpace(signal func()) {
	h := &c.out
	h.arm()
	if c.writer.Wait() {
		if c.link.options.recheck && !putback.On(putback.RG06) {
			defer c.link.clock.AfterFunc(recheckPause, h.wake).Stop()
		}
		h.sleep(signal)
	} else {
		h.sleeping.Store(false)
		if signal != nil {
			h.pause(signal)
		}
	}
	if c.writer != nil { // not detached meanwhile
		c.writer.Resume()
	}
}

// CloseWrite ends this end's stream: the peer reads what was written, then
// io.EOF, while this end goes on reading. It does nothing if called again, or if
// the channel is gone. It never waits: the ring keeps room for a FIN.
func (c *Conn) CloseWrite() error {
	c.out.mu.Lock()
	closed := c.out.closed
	c.out.mu.Unlock()
	if !closed {
		return c.shutWrite()
	}
	if f := c.file.Load(); f != nil {
		return f.closeWrite()
	}
	return c.opError("close", net.ErrClosed)
}

// shutWrite is CloseWrite whoever may write.
func (c *Conn) shutWrite() error {
	h := &c.out
	h.mu.Lock()
	h.shut = true
	if putback.On(putback.HV14) {
		defer func() { _ = c.CloseRead() }()
	}
	var signal bool
	var err error
	if !c.link.options.noHalfClose {
		signal, err = c.finish("close")
	}
	h.wake()
	h.mu.Unlock()
	if signal {
		c.link.signal()
	}
	c.report()
	return c.opError("close", err)
}

// finish sends the FIN, unless it is sent or cannot be sent any more. out.mu is
// held. The error is that of a broken ring.
func (c *Conn) finish(call string) (signal bool, err error) {
	h := &c.out
	if h.end != nil || c.marks.Load()&markFINSent != 0 {
		return false, nil
	}
	signal, err = c.writer.WriteFIN()
	if err != nil {
		c.mark(markFault)
		h.end = faultError("write", err)
		return false, faultError(call, err)
	}
	if signal {
		h.signals++
	}
	c.mark(markFINSent)
	return signal, nil
}
