package hvsock

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"
)

var _ interface {
	net.Conn
	CloseRead() error
	CloseWrite() error
} = (*Conn)(nil)

// faults.md P58: all of nettest, over every kind of memory and the ring sizes
// that real kernels and we open, down to the smallest.
func TestNettest(t *testing.T) {
	for name, o := range map[string]pairOptions{
		"2 pages":              {ringPages: 2},
		"5 pages":              {},
		"5 scattered pages":    {layout: guestmem.ScatteredPages},
		"65 contiguous pages":  {ringPages: 65, layout: guestmem.ContiguousPages},
		"5 pages, EOF not RST": {resetIsEOF: true},
	} {
		t.Run(name, func(t *testing.T) {
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
				p := newPair(t, o)
				return p.a, p.b, p.close, nil
			})
		})
	}
}

// hvsock.md 16: one direction ends, the other goes on; EOF is bare and for ever.
func TestHalfClose(t *testing.T) {
	p := newPair(t, pairOptions{})
	defer p.close()
	mustWrite(t, p.a, "last words")
	require.NoError(t, p.a.CloseWrite())
	require.NoError(t, p.a.CloseWrite(), "the FIN is sent once, later calls do nothing")
	_, err := p.a.Write([]byte("more"))
	require.ErrorIs(t, err, syscall.EPIPE)
	_, err = p.a.Write(nil)
	require.NoError(t, err, "an empty write sends nothing")

	mustRead(t, p.b, "last words")
	for range 3 {
		n, err := p.b.Read(make([]byte, 1))
		require.Zero(t, n)
		require.Same(t, io.EOF, err, "bare: io.Reader's users compare")
	}
	mustWrite(t, p.b, "still allowed after the peer's FIN")
	mustRead(t, p.a, "still allowed after the peer's FIN")
	require.Empty(t, p.seen(0))
	require.NoError(t, p.b.CloseWrite())
	require.Equal(t, []connEvent{evEnded}, p.seen(1), "its FIN is sent and the peer's was reached")
	require.Empty(t, p.seen(0), "a has not reached b's FIN")
	rest, err := io.ReadAll(p.a)
	require.NoError(t, err)
	require.Empty(t, rest)
	require.Equal(t, []connEvent{evEnded}, p.seen(0))
}

// I-FIN-ROOM: a FIN goes out at any fill level without waiting.
func TestCloseWriteOnFullRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, pairOptions{})
		defer p.close()
		require.NoError(t, p.a.SetWriteDeadline(time.Now().Add(time.Second)))
		sent, err := p.a.Write(pattern(1 << 20))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.NoError(t, p.a.CloseWrite())
		got, err := io.ReadAll(p.b)
		require.NoError(t, err)
		require.Equal(t, pattern(1 << 20)[:sent], got, "what Write reported arrives, nothing else does")
	})
}

// HV-15: any size of Write works, order kept; I-STREAM.
func TestWriteSizes(t *testing.T) {
	for _, ringPages := range []int{2, 5, 33} {
		p := newPair(t, pairOptions{ringPages: ringPages})
		for _, size := range []int{1, 7, 8, 4087, 4088, 4089, 8192, 8193, 16384, 16385, 1 << 20} {
			want := pattern(size)
			var wg sync.WaitGroup
			wg.Go(func() {
				n, err := p.a.Write(want)
				require.NoError(t, err)
				require.Equal(t, size, n)
			})
			got := make([]byte, size)
			_, err := io.ReadFull(p.b, got)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, got), "%d bytes through %d pages", size, ringPages)
			wg.Wait()
		}
		p.close()
	}
}

// A Go reader drains several packets in one Read (hvsock.md 6: a short read that
// looks like "drained" has hung edge-triggered pollers).
func TestReadDrainsPackets(t *testing.T) {
	p := newPair(t, pairOptions{})
	defer p.close()
	for range 3 {
		mustWrite(t, p.a, "abc")
	}
	b := make([]byte, 100)
	n, err := p.b.Read(b)
	require.NoError(t, err)
	require.Equal(t, "abcabcabc", string(b[:n]))
}

// hvsock.md 16, row by row: what each operation gives in each state.
func TestStateErrors(t *testing.T) {
	never := errors.New("success")
	buf := make([]byte, 8)
	ops := map[string]func(c *Conn) error{
		"read":       func(c *Conn) error { _, err := c.Read(buf); return err },
		"read0":      func(c *Conn) error { _, err := c.Read(nil); return err },
		"write":      func(c *Conn) error { _, err := c.Write(buf); return err },
		"write0":     func(c *Conn) error { _, err := c.Write(nil); return err },
		"closeread":  (*Conn).CloseRead,
		"closewrite": (*Conn).CloseWrite,
		"close":      (*Conn).Close,
		"set":        func(c *Conn) error { return c.SetDeadline(time.Time{}) },
	}
	past := time.Unix(1, 0)
	for _, state := range []struct {
		name  string
		enter func(p *pair) // brings p.a there
		want  map[string]error
	}{
		{"closed", func(p *pair) { _ = p.a.Close() }, map[string]error{
			"read": net.ErrClosed, "read0": net.ErrClosed, "write": net.ErrClosed, "write0": net.ErrClosed,
			"closeread": net.ErrClosed, "closewrite": net.ErrClosed, "close": net.ErrClosed, "set": net.ErrClosed,
		}},
		{"own CloseRead", func(p *pair) { _ = p.a.CloseRead() }, map[string]error{"read": io.EOF}},
		{"own CloseWrite", func(p *pair) { _ = p.a.CloseWrite() }, map[string]error{"read": never, "write": syscall.EPIPE}},
		{"peer's FIN", func(p *pair) { _ = p.b.CloseWrite() }, map[string]error{"read": io.EOF}},
		{"detached", func(p *pair) { p.a.detach(detachReset) }, map[string]error{"read": syscall.ECONNRESET, "write": syscall.EPIPE}},
		{"detached in order", func(p *pair) { p.a.detach(detachEnd) }, map[string]error{"read": io.EOF, "write": syscall.EPIPE}},
		{"detached behind a FIN", func(p *pair) { _ = p.b.CloseWrite(); p.a.detach(detachReset) }, map[string]error{"read": io.EOF, "write": syscall.EPIPE}},
		{"past deadline", func(p *pair) { _ = p.a.SetDeadline(past) }, map[string]error{"read": os.ErrDeadlineExceeded, "write": os.ErrDeadlineExceeded}},
	} {
		for name, op := range ops {
			if state.want[name] == never {
				continue // it would wait
			}
			t.Run(state.name+"/"+name, func(t *testing.T) {
				p := newPair(t, pairOptions{})
				defer p.close()
				state.enter(p)
				err := op(p.a)
				if want := state.want[name]; want != nil {
					require.ErrorIs(t, err, want)
				} else {
					require.NoError(t, err)
				}
			})
		}
	}
}

// hvsock.md 16: OpError with Source local and Addr remote, except where only one
// end is concerned; timeouts say so.
func TestOpErrorShape(t *testing.T) {
	p := newPair(t, pairOptions{})
	require.Equal(t, p.a.RemoteAddr(), p.b.LocalAddr())
	require.NoError(t, p.a.SetDeadline(time.Unix(1, 0)))
	check := func(err error, op string, timeout, both bool) {
		t.Helper()
		var e *net.OpError
		require.ErrorAs(t, err, &e)
		require.Equal(t, op, e.Op)
		require.Equal(t, "hvsock", e.Net)
		require.Equal(t, timeout, e.Timeout())
		if both {
			require.Equal(t, p.a.LocalAddr(), e.Source)
			require.Equal(t, p.a.RemoteAddr(), e.Addr)
		} else {
			require.Nil(t, e.Source)
			require.Equal(t, p.a.LocalAddr(), e.Addr)
		}
	}
	_, err := p.a.Read(make([]byte, 1))
	check(err, "read", true, true)
	_, err = p.a.Write(make([]byte, 1))
	check(err, "write", true, true)
	p.close()
	check(p.a.Close(), "close", false, true)
	require.ErrorIs(t, p.a.Close(), net.ErrClosed)
	require.ErrorIs(t, p.a.Close(), syscall.EBADF, "hvsock.md 16: also")
	check(p.a.SetDeadline(time.Time{}), "set", false, false)
	require.NotNil(t, p.a.LocalAddr(), "addresses outlive the Conn")
	require.NotNil(t, p.a.RemoteAddr())
}

// HV-11, I-CLOSE-GRACE: what Write took arrives although Close follows at once
// and the reader comes late.
func TestCloseKeepsWhatWasWritten(t *testing.T) {
	p := newPair(t, pairOptions{})
	defer p.close()
	want := pattern(10000)
	n, err := p.a.Write(want)
	require.NoError(t, err)
	require.Equal(t, len(want), n)
	require.NoError(t, p.a.Close())
	require.Equal(t, []connEvent{evClosed}, p.seen(0), "the peer has not ended")
	got, err := io.ReadAll(p.b)
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.NoError(t, p.b.Close())
	require.Equal(t, []connEvent{evClosed, evEnded}, p.seen(1))
	require.Equal(t, []connEvent{evClosed, evEnded}, p.seen(0), "b's FIN was reached by discarding")
}

// HV-19, GO-01: Close ends every blocked call, however many there are.
func TestCloseUnblocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, pairOptions{})
		defer p.close()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				_, err := p.a.Read(make([]byte, 1))
				require.ErrorIs(t, err, net.ErrClosed)
			})
			wg.Go(func() {
				_, err := p.a.Write(make([]byte, 1<<20))
				require.ErrorIs(t, err, net.ErrClosed)
			})
		}
		synctest.Wait() // all six wait: one each in its ring, the others for their turn
		require.NoError(t, p.a.Close())
		wg.Wait()
	})
}

// hvsock.md 16: after CloseRead the peer's writer must not block, however much
// it writes; nobody is told.
func TestCloseReadDiscards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, pairOptions{})
		defer p.close()
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := p.a.Read(make([]byte, 1))
			require.Same(t, io.EOF, err)
		})
		synctest.Wait()
		require.NoError(t, p.a.CloseRead())
		require.NoError(t, p.a.CloseRead())
		wg.Wait()
		n, err := p.b.Write(pattern(1 << 20))
		require.NoError(t, err)
		require.Equal(t, 1<<20, n)
		require.Empty(t, p.seen(0), "data after CloseRead is not late")
		mustWrite(t, p.a, "the other direction lives")
		mustRead(t, p.b, "the other direction lives")
		require.NoError(t, p.b.CloseWrite())
		require.NoError(t, p.a.CloseWrite())
		require.Equal(t, []connEvent{evEnded}, p.seen(0), "the FIN was reached by discarding")
	})
}

// CloseRead and Close drop what is in the ring already, which frees a writer
// that waits for the space.
func TestCloseFreesBlockedPeer(t *testing.T) {
	for name, end := range map[string]func(*Conn) error{"CloseRead": (*Conn).CloseRead, "Close": (*Conn).Close} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t, pairOptions{})
				defer p.close()
				var wg sync.WaitGroup
				wg.Go(func() {
					n, err := p.b.Write(pattern(1 << 20))
					require.NoError(t, err)
					require.Equal(t, 1<<20, n)
				})
				synctest.Wait()
				require.NoError(t, end(p.a))
				wg.Wait()
			})
		})
	}
}

// The owner learns of data that comes after Close, since only it can stop such a
// peer; data that was there at Close, or in front of a FIN, is no reason to.
func TestLateData(t *testing.T) {
	p := newPair(t, pairOptions{})
	mustWrite(t, p.b, "unread at Close")
	require.NoError(t, p.a.Close())
	require.Equal(t, []connEvent{evClosed}, p.seen(0))
	mustWrite(t, p.b, "late")
	mustWrite(t, p.b, "later")
	require.Equal(t, []connEvent{evClosed, evLateData}, p.seen(0))
	require.NoError(t, p.b.Close())
	require.Equal(t, []connEvent{evClosed, evLateData, evEnded}, p.seen(0))
	require.ErrorIs(t, p.a.Close(), net.ErrClosed)
	require.Len(t, p.seen(0), 3, "each event comes once")
}

// Data with the FIN behind it, found together, is no reason to reset a peer that
// has finished.
func TestLateDataBeforeFIN(t *testing.T) {
	p := newPair(t, pairOptions{})
	defer p.close()
	p.b.link.signal = func() {} // lost on the way
	require.NoError(t, p.a.Close())
	mustWrite(t, p.b, "last words")
	require.NoError(t, p.b.CloseWrite())
	p.a.doorbell()
	require.Equal(t, []connEvent{evClosed, evEnded}, p.seen(0))
}

// ringbuffer.md R6 and W4: what happens between the look that found nothing and
// the sleep is found by a second look, since its doorbell found no sleeper.
func TestNoLostWakeup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // a sleep here is a deadlock, which a bubble notices
		p := newPair(t, pairOptions{})
		defer p.close()
		p.a.in.lock()
		_, _, err := p.a.readNow(make([]byte, 1))
		require.Equal(t, ringbuffer.ErrEmpty, err)
		mustWrite(t, p.b, "x")
		p.a.awaitData()
		n, _, err := p.a.readNow(make([]byte, 1))
		require.NoError(t, err)
		require.Equal(t, 1, n)
		p.a.in.unlock()

		p.a.out.lock()
		for err = nil; err == nil; {
			_, _, err = p.a.writeNow(make([]byte, 4088))
		}
		require.Equal(t, channel.ErrFull, err)
		_, err = p.b.Read(make([]byte, 1<<16))
		require.NoError(t, err)
		p.a.awaitSpace(nil)
		n, _, err = p.a.writeNow(make([]byte, 100))
		require.NoError(t, err)
		require.Equal(t, 100, n)
		p.a.out.unlock()
	})
}

// A Write's bytes stay together (hvsock.md 16), although each of these needs
// several rounds of waiting.
func TestWritesAreContiguous(t *testing.T) {
	p := newPair(t, pairOptions{})
	defer p.close()
	const writers, size = 4, 50000
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			n, err := p.a.Write(bytes.Repeat([]byte{byte(i)}, size))
			require.NoError(t, err)
			require.Equal(t, size, n)
		})
	}
	got := make([]byte, writers*size)
	_, err := io.ReadFull(p.b, got)
	require.NoError(t, err)
	for ; len(got) > 0; got = got[size:] {
		require.Equal(t, bytes.Repeat(got[:1], size), got[:size])
	}
	wg.Wait()
}

// HV-16, hvsock.md 16: a broken ring is EIO, for ever, and the peer's fault; the
// owner is told once.
func TestBrokenRing(t *testing.T) {
	const readIndex, writeIndex = 4, 0 // offsets in the control page (ringbuffer.md 2)
	t.Run("incoming", func(t *testing.T) {
		p := newPair(t, pairOptions{})
		defer p.close()
		mustWrite(t, p.b, "good")
		mustRead(t, p.a, "good")
		p.toA[0].Store32(writeIndex, 3)
		for range 2 {
			_, err := p.a.Read(make([]byte, 1))
			require.ErrorIs(t, err, syscall.EIO)
			require.ErrorIs(t, err, vmbus.ErrProtocol)
			p.toA[0].Store32(writeIndex, 64) // I-CORRUPT-STICKY: repaired too late
		}
		require.Equal(t, []connEvent{evFault}, p.seen(0))
		p.a.detach(detachReset)
		_, err := p.a.Read(make([]byte, 1))
		require.ErrorIs(t, err, syscall.EIO)
	})
	t.Run("outgoing", func(t *testing.T) {
		p := newPair(t, pairOptions{})
		defer p.close()
		p.toB[0].Store32(readIndex, 0xFFFFFFF8)
		_, _ = p.a.Write(make([]byte, 1)) // may not need to look at the index before it has written
		for range 2 {
			_, err := p.a.Write(make([]byte, 1))
			require.ErrorIs(t, err, syscall.EIO)
			require.ErrorIs(t, err, vmbus.ErrProtocol)
		}
		require.Equal(t, []connEvent{evFault}, p.seen(0))
	})
	t.Run("found by Close", func(t *testing.T) {
		p := newPair(t, pairOptions{})
		p.toA[0].Store32(writeIndex, 3)
		require.NoError(t, p.a.Close(), "the first Close succeeds")
		require.Equal(t, []connEvent{evClosed, evFault}, p.seen(0))
		require.NoError(t, p.b.Close())
	})
	t.Run("under a sleeping reader", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, pairOptions{})
			defer p.close()
			var wg sync.WaitGroup
			wg.Go(func() {
				_, err := p.a.Read(make([]byte, 1))
				require.ErrorIs(t, err, syscall.EIO)
			})
			synctest.Wait()
			p.toA[0].Store32(writeIndex, 3)
			p.a.doorbell()
			wg.Wait()
		})
	})
}

// Doorbells without a cause wake nobody for long.
func TestSpuriousDoorbells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, pairOptions{})
		defer p.close()
		var wg sync.WaitGroup
		wg.Go(func() { mustRead(t, p.a, "x") })
		wg.Go(func() { _, _ = p.a.Write(make([]byte, 1<<20)) })
		for range 10 {
			synctest.Wait()
			p.a.doorbell()
		}
		mustWrite(t, p.b, "x")
		_, err := io.CopyN(io.Discard, p.b, 1<<20)
		require.NoError(t, err)
		wg.Wait()
	})
}

// CloseWrite on a ring that is known to be broken says so; a link without
// doorbell and owner works.
func TestBareLink(t *testing.T) {
	const readIndex = 4
	p := newPair(t, pairOptions{})
	l := p.a.link
	l.signal, l.events = nil, nil
	c := newConn(p.a.local, p.a.remote, l)
	mustWrite(t, c, "x")
	p.toB[0].Store32(readIndex, 0xFFFFFFF8)
	_, _ = c.Write([]byte("x")) // finds out, if only when the bytes are written
	require.ErrorIs(t, c.CloseWrite(), syscall.EIO)
	_, err := c.Write([]byte("x"))
	require.ErrorIs(t, err, syscall.EIO)
	require.NoError(t, c.Close())
}

// A Read takes the lock for one ring of bytes at most, however large its buffer:
// Close and detach must get it from a peer that keeps pace.
func TestReadIsBounded(t *testing.T) {
	p := newPair(t, pairOptions{ringPages: 2})
	defer p.close()
	p.a.link.signal, p.b.link.signal = func() {}, func() {}
	mustWrite(t, p.a, string(pattern(4000)))
	p.b.link.inPages = 0
	n, _, err := p.b.readNow(make([]byte, 4000))
	require.Zero(t, n, "no pages, no bytes")
	require.NoError(t, err)
}

func TestStats(t *testing.T) {
	p := newPair(t, pairOptions{})
	defer p.close()
	mustWrite(t, p.a, "12345")
	mustRead(t, p.b, "12345")
	require.Equal(t, uint64(5), p.a.Stats().Out.Bytes)
	require.Equal(t, uint64(1), p.a.Stats().Out.Signals, "the ring was empty")
	require.Equal(t, uint64(5), p.b.Stats().In.Bytes)
	require.Zero(t, p.b.Stats().In.Signals, "nobody waited for space")
}
