package hvsock

import (
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/stretchr/testify/require"
)

var _ interface {
	net.Listener
	SetDeadline(time.Time) error
} = (*Listener)(nil)

var listenAddr = Addr{Wildcard, ServiceIDFromPort(5000)}

// faults.md 5: backlog 128 unless told otherwise, at most 4096; I-BACKLOG: a
// place is taken from the promise until Accept.
func TestBacklog(t *testing.T) {
	for ask, want := range map[int]int{0: 128, -1: 128, 1: 1, 4096: 4096, 4097: 4096} {
		l := newListener(listenAddr, ask, live.SystemClock(), nil)
		for range want {
			require.True(t, l.reserve())
		}
		require.False(t, l.reserve(), "backlog %d is full at %d", ask, want)
		l.cancel()
		require.True(t, l.reserve(), "a place was given back")
		p := newPair(t, pairOptions{})
		require.True(t, l.push(p.a))
		require.False(t, l.reserve(), "queued is still taken")
		c, err := l.Accept()
		require.NoError(t, err)
		require.Same(t, p.a, c)
		require.True(t, l.reserve(), "accepted is not")
		p.close()
		require.NoError(t, l.Close())
	}
}

func TestAcceptOrder(t *testing.T) {
	l := newListener(listenAddr, 3, live.SystemClock(), nil)
	var want []*Conn
	for range 3 {
		p := newPair(t, pairOptions{})
		defer p.close()
		want = append(want, p.a)
		require.True(t, l.reserve())
		require.True(t, l.push(p.a))
	}
	for _, w := range want {
		c, err := l.AcceptHVSock()
		require.NoError(t, err)
		require.Same(t, w, c, "first come, first served")
	}
	require.NoError(t, l.Close())
}

// hvsock.md 16: a connection that ended while it was queued is still returned.
func TestAcceptDeadConn(t *testing.T) {
	l := newListener(listenAddr, 1, live.SystemClock(), nil)
	p := newPair(t, pairOptions{})
	defer p.close()
	require.True(t, l.reserve())
	require.True(t, l.push(p.a))
	p.a.detach(detachReset)
	c, err := l.Accept()
	require.NoError(t, err)
	_, err = c.Read(make([]byte, 1))
	require.Error(t, err)
	require.NoError(t, l.Close())
}

// GO-01: Close ends every blocked Accept, and closes what nobody accepted.
func TestListenerClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closes := 0
		l := newListener(listenAddr, 0, live.SystemClock(), func() { closes++ })
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				c, err := l.Accept()
				require.Nil(t, c, "a nil interface")
				require.ErrorIs(t, err, net.ErrClosed)
				var e *net.OpError
				require.ErrorAs(t, err, &e)
				require.Equal(t, "accept", e.Op)
				require.Equal(t, listenAddr, e.Addr)
				require.Nil(t, e.Source)
			})
		}
		synctest.Wait()
		require.NoError(t, l.Close())
		wg.Wait()
		require.ErrorIs(t, l.Close(), net.ErrClosed)
		require.ErrorIs(t, l.SetDeadline(time.Time{}), net.ErrClosed)
		require.Equal(t, 1, closes)
		require.False(t, l.reserve(), "closed")
		require.Equal(t, net.Addr(listenAddr), l.Addr())
	})
}

func TestListenerCloseClosesQueued(t *testing.T) {
	l := newListener(listenAddr, 0, live.SystemClock(), nil)
	queued, accepted, late := newPair(t, pairOptions{}), newPair(t, pairOptions{}), newPair(t, pairOptions{})
	for range 3 {
		require.True(t, l.reserve())
	}
	require.True(t, l.push(accepted.a))
	_, err := l.Accept()
	require.NoError(t, err)
	require.True(t, l.push(queued.a))
	require.NoError(t, l.Close())
	require.False(t, l.push(late.a), "it was promised a place, but the listener is closed")
	require.Equal(t, []connEvent{evClosed}, queued.seen(0))
	require.Empty(t, accepted.seen(0), "accepted ones live on")
	require.Empty(t, late.seen(0), "the caller's to close")
	for _, p := range []*pair{queued, accepted, late} {
		p.close()
	}
}

func TestAcceptDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener(listenAddr, 0, live.SystemClock(), nil)
		start := time.Now()
		require.NoError(t, l.SetDeadline(start.Add(time.Second)))
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				_, err := l.Accept()
				requireTimeout(t, err)
				require.Equal(t, time.Second, time.Since(start))
			})
		}
		wg.Wait()
		p := newPair(t, pairOptions{})
		defer p.close()
		require.True(t, l.reserve())
		require.True(t, l.push(p.a))
		_, err := l.Accept()
		require.ErrorIs(t, err, os.ErrDeadlineExceeded, "an expired deadline goes before a connection")
		require.NoError(t, l.SetDeadline(time.Time{}))
		_, err = l.Accept()
		require.NoError(t, err)
		wg.Go(func() {
			_, err := l.Accept()
			requireTimeout(t, err)
		})
		synctest.Wait()
		require.NoError(t, l.SetDeadline(time.Unix(1, 0)), "the past ends blocked calls")
		wg.Wait()
		require.NoError(t, l.Close())
	})
}

// HV-08: connections arrive, are accepted and closed while the listener closes.
func TestListenerStress(t *testing.T) {
	for range 50 {
		l := newListener(listenAddr, 4, live.SystemClock(), nil)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					_ = c.Close()
				}
			})
			wg.Go(func() {
				for range 5 {
					if !l.reserve() {
						continue
					}
					p := newPair(t, pairOptions{ringPages: 2})
					if !l.push(p.a) {
						_ = p.a.Close()
					}
					_ = p.b.Close()
				}
			})
		}
		wg.Go(func() { _ = l.Close() })
		wg.Wait()
	}
}

// hvsock.md 12, "listen() in state L": another listen(2) changes the backlog, and
// nothing else. Shrinking keeps who waits already (8: counted from open to accept).
func TestSetBacklog(t *testing.T) {
	l := newListener(listenAddr, 1, live.SystemClock(), nil)
	p, q := newPair(t, pairOptions{}), newPair(t, pairOptions{})
	defer p.close()
	defer q.close()
	require.True(t, l.reserve())
	require.False(t, l.reserve())
	l.SetBacklog(2)
	require.True(t, l.reserve(), "there is room for one more")
	require.True(t, l.push(p.a))
	require.True(t, l.push(q.a))
	l.SetBacklog(0)
	require.False(t, l.reserve(), "two wait, and one may")
	for _, want := range []*Conn{p.a, q.a} {
		c, err := l.AcceptHVSock()
		require.NoError(t, err)
		require.Same(t, want, c)
	}
	require.True(t, l.reserve(), "0 would accept nothing for ever, so it is 1")
	require.NoError(t, l.Close())
}
