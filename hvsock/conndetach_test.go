package hvsock

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/stretchr/testify/require"
)

// hvsock.md 7.5: what had arrived is still read, then comes the end that fits;
// the ring is not looked at any more.
func TestDetachKeepsUnread(t *testing.T) {
	for _, test := range []struct {
		name       string
		fin        bool
		resetIsEOF bool
		cause      detachCause
		want       error
	}{
		{"cut off", false, false, detachReset, syscall.ECONNRESET},
		{"cut off, as Linux shows it", false, true, detachReset, io.EOF},
		{"cut off in order", false, false, detachEnd, io.EOF},
		{"ended", true, false, detachReset, io.EOF},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newPair(t, pairOptions{resetIsEOF: test.resetIsEOF})
			defer p.close()
			want := pattern(9000) // several packets, around the pages
			for b := want; len(b) > 0; b = b[min(1000, len(b)):] {
				mustWrite(t, p.b, string(b[:min(1000, len(b))]))
			}
			mustRead(t, p.a, string(want[:1500])) // and into the second
			if test.fin {
				require.NoError(t, p.b.CloseWrite())
			}
			p.b.detach(detachReset) // both ends let go before the pages are reused
			p.a.detach(test.cause)
			poison(p.toA, p.toB)
			p.a.detach(detachEnd) // the first one counts
			got := make([]byte, len(want)-1500)
			_, err := io.ReadFull(p.a, got)
			require.NoError(t, err)
			require.Equal(t, want[1500:], got)
			for range 2 {
				n, err := p.a.Read(make([]byte, 1))
				require.Zero(t, n)
				require.ErrorIs(t, err, test.want)
			}
			_, err = p.a.Write(make([]byte, 1))
			require.ErrorIs(t, err, syscall.EPIPE)
			require.NoError(t, p.a.CloseWrite(), "a channel that is gone counts as a FIN sent")
			require.Empty(t, p.seen(0), "the owner knows")
			require.NoError(t, p.a.Close())
			require.Equal(t, []connEvent{evClosed}, p.seen(0))
			requirePoisoned(t, p.toA, p.toB)
		})
	}
}

// A detach ends blocked calls; one that comes after Close or CloseRead keeps
// nothing, and doorbells and calls after it find no ring.
func TestDetachUnblocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, pairOptions{})
		defer p.close()
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				_, err := p.a.Read(make([]byte, 1))
				require.ErrorIs(t, err, syscall.ECONNRESET)
			})
			wg.Go(func() {
				_, err := p.a.Write(make([]byte, 1<<20))
				require.ErrorIs(t, err, syscall.EPIPE)
			})
		}
		synctest.Wait()
		p.b.detach(detachReset)
		p.a.detach(detachReset)
		poison(p.toA, p.toB)
		wg.Wait()
		p.a.doorbell()
		requirePoisoned(t, p.toA, p.toB)
	})
}

func TestDetachAfterClose(t *testing.T) {
	for name, end := range map[string]func(*Conn) error{"CloseRead": (*Conn).CloseRead, "Close": (*Conn).Close} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, pairOptions{})
			defer p.close()
			require.NoError(t, end(p.a))
			mustWrite(t, p.b, "dropped")
			p.a.detach(detachReset)
			p.b.detach(detachReset)
			poison(p.toA, p.toB)
			p.a.doorbell()
			require.Empty(t, p.a.rest)
			requirePoisoned(t, p.toA, p.toB)
			_, err := p.a.Read(make([]byte, 1))
			require.Error(t, err)
		})
	}
}

// CloseRead after a detach drops what was kept.
func TestDetachThenCloseRead(t *testing.T) {
	p := newPair(t, pairOptions{})
	defer p.close()
	mustWrite(t, p.b, "kept")
	p.a.detach(detachReset)
	mustRead(t, p.a, "ke")
	require.NoError(t, p.a.CloseRead())
	_, err := p.a.Read(make([]byte, 1))
	require.Same(t, io.EOF, err)
}

// A hostile peer moves its write index on while detach copies: the copy is
// bounded by the ring, and what a broken ring held is not delivered.
func TestDetachBrokenRing(t *testing.T) {
	p := newPair(t, pairOptions{})
	defer p.close()
	mustWrite(t, p.b, "good")
	mustWrite(t, p.b, "bad!")
	first := binary.LittleEndian.Uint64(p.toA[1].Bytes())
	size := int(first>>32&0xFFFF)*8 + 8
	binary.LittleEndian.PutUint32(p.toA[1].Bytes()[size+20:], 0xFFFF) // pipe header: more data than the packet has
	p.a.detach(detachReset)
	mustRead(t, p.a, "good")
	_, err := p.a.Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.EIO)
}

// A peer that never stops writing does not keep the doorbell's goroutine:
// dropping stops after a bounded stretch. What it leaves is dropped by a timer,
// since the peer will not signal again for a ring that is not empty.
func TestDiscardIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, pairOptions{})
		defer p.close()
		p.a.link.inPages = 0 // a stretch of nothing: one packet at a time
		for range 3 {
			mustWrite(t, p.b, "dropped")
		}
		require.NoError(t, p.a.CloseRead())
		start := time.Now()
		for left := 2; left >= 0; left-- {
			p.a.in.mu.Lock()
			ready, err := p.a.reader.Readable()
			p.a.in.mu.Unlock()
			require.NoError(t, err)
			require.Equal(t, left > 0, ready)
			time.Sleep(discardPause)
			synctest.Wait()
		}
		require.Equal(t, 3*discardPause, time.Since(start))
		require.Empty(t, p.seen(0), "not late: the Conn is not closed")

		mustWrite(t, p.b, "late")
		mustWrite(t, p.b, "later")
		require.NoError(t, p.a.Close())
		require.Equal(t, []connEvent{evClosed}, p.seen(0), "it came before Close")
		time.Sleep(discardPause)
		synctest.Wait()
		mustWrite(t, p.b, "late")
		require.Equal(t, []connEvent{evClosed, evLateData}, p.seen(0))
		p.a.detach(detachReset)
		require.False(t, p.a.again.Stop(), "detach stops the timer")
	})
}

// HV-17, HV-19: everything at once, many times over; the race detector and the
// poison judge whether anything is touched after detach.
func TestStress(t *testing.T) {
	rounds := 300
	if testing.Short() {
		rounds = 30
	}
	for round := range rounds {
		p := newPair(t, pairOptions{ringPages: 2 + round%4, layout: guestmem.Layout(round % 3)})
		var wg sync.WaitGroup
		storm(t, &wg, round, p.a, p.b)
		storm(t, &wg, round, p.b, p.a)
		var ends sync.WaitGroup
		for _, c := range []*Conn{p.a, p.b} {
			ends.Go(func() { c.detach(detachReset) })
		}
		ends.Wait()
		poison(p.toA, p.toB)
		wg.Wait()
		p.close()
		requirePoisoned(t, p.toA, p.toB)
		for i := range 2 {
			counts := map[connEvent]int{}
			for _, e := range p.seen(i) {
				counts[e]++
			}
			require.Equal(t, 1, counts[evClosed])
			for e, n := range counts {
				require.Equal(t, 1, n, "event %d comes once", e)
			}
			require.Zero(t, counts[evFault], "both ends are honest")
		}
	}
}

// storm starts goroutines that use and end c in every way at once, until other
// ends too. What they do depends on round.
func storm(t *testing.T, wg *sync.WaitGroup, round int, c, other *Conn) {
	wg.Go(func() {
		for n := 1; ; n = n*3%20000 + 1 {
			if _, err := c.Write(make([]byte, n)); err != nil {
				return
			}
		}
	})
	wg.Go(func() {
		b := make([]byte, 3000)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			if !bytes.Equal(b[:n], make([]byte, n)) {
				t.Error("read what nobody wrote")
				return
			}
		}
	})
	wg.Go(func() {
		for range 20 {
			c.doorbell()
			_ = c.SetDeadline(time.Now().Add(time.Duration(round) * time.Microsecond))
			_ = c.SetDeadline(time.Time{})
			_ = c.Stats()
		}
		switch round % 4 {
		case 0:
			_ = c.CloseRead()
		case 1:
			_ = c.CloseWrite()
		}
		if round%2 == 0 {
			_ = c.Close()
		}
		other.detach(detachReset)
	})
}

// Close from several goroutines: one succeeds.
func TestConcurrentClose(t *testing.T) {
	p := newPair(t, pairOptions{})
	defer p.close()
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := p.a.Close(); err == nil {
				won.Add(1)
			} else {
				require.ErrorIs(t, err, net.ErrClosed)
			}
		})
	}
	wg.Wait()
	require.Equal(t, int32(1), won.Load())
}
