package hvsock

import (
	"context"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/stretchr/testify/require"
)

// TestCatalogue holds the rows of faults.md, section 1, about one connection, one
// listener, or sockets whose every step the test takes itself. Those that need a
// whole host and guest are in package sim. internal/putback/check puts each fault
// back and runs its row.
func TestCatalogue(t *testing.T) {
	for _, row := range []struct {
		id   string
		test func(*testing.T)
	}{
		{"GC-11", testStatsAfterClose},
		{"GC-13", testSignalBeforeOpen},
		{"GC-18", testViewAfterRescind},
		{"RG-02", testReadLeavesPendingSizeAlone},
		{"RG-06", testPeerDoesNotSignalSpace},
		{"RG-08", testDetachTwice},
		{"HV-05", testRescindAtEachStepOfTheOpen},
		{"HV-07", testDialWithoutBus},
		{"HV-08", testListenerCallsOutWithoutItsLock},
		{"HV-17", testReleasedTransport},
		{"HV-19", testCloseEndsEveryCall},
		{"SS-01", testCompletionWins},
		{"SS-02", testDialAgainAtEachStep},
		{"SS-04", testLoopbackAfterTheEnd},
		{"SS-05", testLookupThenClose},
		{"GO-06", testWriteIsWhole},
	} {
		t.Run(row.id, row.test)
	}
}

// GC-11: statistics are read while and after the channel goes: they stay what they
// were, and the ring is not asked.
func testStatsAfterClose(t *testing.T) {
	p := newPair(t, pairOptions{})
	mustWrite(t, p.b, "hello")
	mustRead(t, p.a, "hello")
	before := p.a.Stats()
	require.EqualValues(t, 5, before.In.Bytes)
	p.b.detach(detachReset)
	p.a.detach(detachReset)
	poison(p.toA, p.toB)
	require.Equal(t, before, p.a.Stats())
	p.close() // not deferred: a panic above leaves a lock behind
}

// GC-13: the other side signals a channel that is offered and not open yet. There
// is no ring to look at, and nothing happens; the open itself will look.
func testSignalBeforeOpen(t *testing.T) {
	(&guestSocket{}).Doorbell()
	(&hostSocket{}).Doorbell()
}

// GC-18: bytes are unread when the host rescinds. They are kept apart from the
// ring, whose pages are somebody else's from then on.
func testViewAfterRescind(t *testing.T) {
	p := newPair(t, pairOptions{})
	defer p.close()
	mustWrite(t, p.b, "unread")
	p.b.detach(detachReset)
	p.a.detach(detachReset)
	poison(p.toA, p.toB)
	mustRead(t, p.a, "unread")
	_, err := p.a.Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.ECONNRESET)
}

// RG-02: the ring is full and a Write waits, its pending size stored. Another
// goroutine only reads from the same connection. When the peer has drained all, it
// must signal, and the Write go on.
func testReadLeavesPendingSizeAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, pairOptions{})
		defer p.close()
		mustWrite(t, p.b, "question")
		sent := pattern(100_000)
		go func() {
			_, _ = p.a.Write(sent)
			_ = p.a.CloseWrite()
		}()
		synctest.Wait()
		mustRead(t, p.a, "question")
		got, err := io.ReadAll(p.b) // or everybody sleeps, for ever
		require.NoError(t, err)
		require.Equal(t, sent, got)
	})
}

// RG-06: the peer drains its ring and never signals the space that a Write waits
// for. A connection that was told so looks again by a timer, and all arrives.
func testPeerDoesNotSignalSpace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, pairOptions{})
		defer p.close()
		p.a.link.options.recheck = true
		p.b.link.signal = func() {}
		sent := pattern(200_000)
		go func() {
			_, _ = p.a.Write(sent)
			_ = p.a.CloseWrite()
		}()
		synctest.Wait()             // the Write sleeps
		got, err := io.ReadAll(p.b) // or everybody does, for ever
		require.NoError(t, err)
		require.Equal(t, sent, got)
	})
}

// RG-06, for callers that cannot wait: TryWrite's notification comes from the same
// timer.
func TestTryWriteRechecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, pairOptions{})
		defer p.close()
		p.a.link.options.recheck = true
		p.b.link.signal = func() {}
		again := make(chan struct{}, 1)
		p.a.Notify(nil, func() { again <- struct{}{} })
		sent := pattern(200_000)
		var got []byte
		for n := 0; n < len(sent); {
			m, err := p.a.TryWrite(sent[n:])
			n += m
			if err == nil {
				break
			}
			require.ErrorIs(t, err, syscall.EAGAIN)
			b := make([]byte, 1<<16)
			m, err = p.b.Read(b)
			require.NoError(t, err)
			got = append(got, b[:m]...)
			<-again // or everybody waits, for ever
		}
		require.NoError(t, p.a.CloseWrite())
		rest, err := io.ReadAll(p.b)
		require.NoError(t, err)
		require.Equal(t, sent, append(got, rest...))
	})
}

// A TryRead that finds another Read waiting leaves its wake-up alone, also if an
// earlier TryRead was waiting itself.
func TestTryReadBesideRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, pairOptions{})
		defer p.close()
		_, err := p.a.TryRead(make([]byte, 1))
		require.ErrorIs(t, err, syscall.EAGAIN)
		read := make(chan error, 1)
		go func() {
			_, err := p.a.Read(make([]byte, 1))
			read <- err
		}()
		synctest.Wait() // it sleeps
		_, err = p.a.TryRead(make([]byte, 1))
		require.ErrorIs(t, err, syscall.EAGAIN)
		mustWrite(t, p.b, "x")
		require.NoError(t, <-read, "the signal was for the Read")
	})
}

// RG-08: the rings are taken away twice: by the rescind, and by the end of the bus.
// The second time nothing happens.
func testDetachTwice(t *testing.T) {
	p := newPair(t, pairOptions{})
	mustWrite(t, p.b, "kept")
	for range 3 {
		p.b.detach(detachReset)
		p.a.detach(detachReset)
		poison(p.toA, p.toB)
	}
	mustRead(t, p.a, "kept")
	requirePoisoned(t, p.toA, p.toB)
	p.close() // not deferred: a panic above leaves a lock behind
}

// runTo runs the world until nothing moves, and calls inject before step n. It
// reports false if there is no such step.
func (w *manualWorld) runTo(n int, inject func()) bool {
	injected := false
	for step := 0; w.host.Steps() != 0 || w.guest.Steps() != 0; {
		for _, s := range []live.Steps{live.StepAction, live.StepPost, live.StepCall, live.StepReceive} {
			for _, do := range []func(live.Steps){w.host.Do, w.guest.Do} {
				if step == n && !injected {
					injected = true
					inject()
				}
				do(s)
				step++
			}
		}
	}
	return injected
}

// finish unloads the guest, closes the host and finds nothing left.
func (w *manualWorld) finish(t *testing.T) {
	t.Helper()
	require.True(t, w.guest.BeginClose())
	w.run()
	require.NoError(t, w.guest.Close())
	w.host.Close()
	for name, usage := range map[string]func() (int, int){"guest": w.local.Usage, "host": w.stack.Usage} {
		sockets, _ := usage()
		require.Zero(t, sockets, "%s: a socket was left in a table", name)
	}
}

// HV-05: the host dials a listener and takes the offer back, at each step of the
// open in turn. It is harmless at every point, and the listener, whose backlog has
// one place, accepts the next connection.
func testRescindAtEachStepOfTheOpen(t *testing.T) {
	for step, more := 0, true; more; step++ {
		w := newManualWorld(t)
		l, err := w.local.Listen(Addr{Wildcard, ServiceIDFromPort(5000)})
		require.NoError(t, err)
		l.SetBacklog(1)
		var first *Conn
		_, cancel := w.peer.BeginDial(ServiceIDFromPort(5000), time.Hour, func(c *Conn, _ error) { first = c })
		more = w.runTo(step, cancel)
		if first != nil { // it was too late to take it back
			require.NoError(t, first.Close())
			c, err := l.TryAccept()
			require.NoError(t, err)
			require.NoError(t, c.Close())
			w.run()
		}
		var second *Conn
		w.peer.BeginDial(ServiceIDFromPort(5000), time.Hour, func(c *Conn, err error) {
			require.NoError(t, err, "step %d", step)
			second = c
		})
		w.run()
		require.NotNil(t, second, "step %d: the listener takes nothing any more", step)
		c, err := l.TryAccept()
		require.NoError(t, err, "step %d", step)
		require.NoError(t, c.Close())
		require.NoError(t, second.Close())
		w.run()
		require.NoError(t, l.Close())
		w.finish(t)
	}
}

// HV-07: the socket layer is there before its bus: a dial says ENODEV, a listener
// is bound and serves when the bus has come.
func testDialWithoutBus(t *testing.T) {
	s := NewGuestStack(GuestOptions{})
	_, err := s.Dial(context.Background(), Addr{Parent, ServiceIDFromPort(1)})
	require.ErrorIs(t, err, syscall.ENODEV)
	l, err := s.Listen(Addr{Wildcard, ServiceIDFromPort(1)})
	require.NoError(t, err, "listening needs no bus")
	require.NoError(t, l.Close())
}

// HV-08: dials, Accepts and Closes of children cross each other without a
// deadlock because a listener calls nobody while it holds its lock.
func testListenerCallsOutWithoutItsLock(t *testing.T) {
	var l *Listener
	free := func(who string) {
		require.True(t, l.mu.TryLock(), "%s is called with the listener's lock held", who)
		l.mu.Unlock()
	}
	l = newListener(listenAddr, 2, live.SystemClock(), func() { free("onClose") })
	p := newPair(t, pairOptions{})
	defer p.close()
	p.a.link.events = func(connEvent) { free("a child's owner") }
	require.True(t, l.reserve())
	require.True(t, l.push(p.a))
	require.NoError(t, l.Close())
}

// HV-17: a connection's channel is released and its transport goes to somebody
// else. Whatever is done with the connection afterwards leaves that alone.
func testReleasedTransport(t *testing.T) {
	p := newPair(t, pairOptions{})
	mustWrite(t, p.b, "unread")
	p.b.detach(detachReset)
	p.a.detach(detachReset)
	poison(p.toA, p.toB) // its next owner's
	_, err := p.a.Write([]byte("late"))
	require.ErrorIs(t, err, syscall.EPIPE)
	mustRead(t, p.a, "unread")
	p.a.doorbell()
	_ = p.a.Stats()
	require.NoError(t, p.a.CloseRead())
	require.NoError(t, p.a.Close())
	p.a.doorbell()
	_, err = p.a.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
	require.NoError(t, p.b.Close())
	requirePoisoned(t, p.toA, p.toB)
	require.Nil(t, p.a.reader, "the pointer is cleared: no way leads to what was released")
	require.Nil(t, p.a.writer)
}

// HV-19: Close ends a Read and a Write that wait, and an Accept; all of them, and
// all later calls, say net.ErrClosed.
func testCloseEndsEveryCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, pairOptions{})
		defer p.close()
		l := newListener(listenAddr, 1, live.SystemClock(), nil)
		ended := make(chan error, 3)
		go func() { _, err := p.a.Read(make([]byte, 1)); ended <- err }()
		go func() { _, err := p.a.Write(make([]byte, 1<<20)); ended <- err }()
		go func() { _, err := l.Accept(); ended <- err }()
		synctest.Wait()
		require.NoError(t, p.a.Close())
		require.NoError(t, l.Close())
		for range 3 {
			require.ErrorIs(t, <-ended, net.ErrClosed) // or one of them waits for ever
		}
		_, err := p.a.Read(make([]byte, 1))
		require.ErrorIs(t, err, net.ErrClosed)
		require.ErrorIs(t, p.a.SetDeadline(time.Time{}), net.ErrClosed)
		require.ErrorIs(t, p.a.CloseWrite(), net.ErrClosed)
	})
}

// SS-01: the timeout of a dial fires just after the connection was made: the
// connection wins, and the end of the dial's context means nothing to it.
func testCompletionWins(t *testing.T) {
	p := newPair(t, pairOptions{})
	defer p.close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	result := make(chan dialResult, 1)
	got, err := await(ctx, time.Hour, result, func() bool {
		result <- dialResult{conn: p.a} // this moment
		return false
	})
	require.NoError(t, err)
	require.Same(t, p.a, got)
	mustWrite(t, p.a, "alive")
	mustRead(t, p.b, "alive")
}

// SS-02: a dial is given up at each step in turn, when it may have succeeded
// already, and the caller dials again. The second connection is a new one, and no
// table has anything left of the first.
func testDialAgainAtEachStep(t *testing.T) {
	for step, more := 0, true; more; step++ {
		w := newManualWorld(t)
		l, err := w.stack.Listen(Addr{Children, ServiceIDFromPort(5000)})
		require.NoError(t, err)
		to := Addr{Parent, ServiceIDFromPort(5000)}
		var first, second *Conn
		_, cancel := w.local.BeginDial(to, time.Hour, func(c *Conn, _ error) { first = c })
		more = w.runTo(step, cancel)
		w.local.BeginDial(to, time.Hour, func(c *Conn, err error) {
			require.NoError(t, err, "step %d", step)
			second = c
		})
		w.run()
		require.NotNil(t, second, "step %d", step)
		require.NotSame(t, first, second)
		for _, c := range []*Conn{first, second} {
			if c != nil {
				require.NoError(t, c.Close())
			}
		}
		for {
			c, err := l.TryAccept()
			if err != nil {
				require.ErrorIs(t, err, syscall.EAGAIN)
				break
			}
			require.NoError(t, c.Close())
		}
		w.run()
		sockets, _ := w.local.Usage()
		require.Zero(t, sockets, "step %d: something is left of a dial", step)
		require.NoError(t, l.Close())
		w.finish(t)
	}
}

// SS-04: both ends of a loopback connection are closed and its pages handed on.
// Nothing that still holds an end reaches them.
func testLoopbackAfterTheEnd(t *testing.T) {
	s := NewGuestStack(GuestOptions{})
	l, err := s.Listen(Addr{Loopback, ServiceIDFromPort(1)})
	require.NoError(t, err)
	near, err := s.Dial(context.Background(), Addr{Loopback, ServiceIDFromPort(1)})
	require.NoError(t, err)
	far, err := l.AcceptHVSock()
	require.NoError(t, err)
	pages := s.local.pairs[0].block.Pages
	require.NoError(t, far.Close())
	require.NoError(t, near.Close())
	require.Zero(t, s.local.mem.InUsePages())
	poison(pages)
	near.doorbell()
	far.doorbell()
	_, _ = near.Stats(), far.Stats()
	requirePoisoned(t, [][]*guestmem.Page{pages}...)
	require.True(t, near.reader == nil && near.writer == nil && far.reader == nil && far.writer == nil, "no way leads to what was freed")
	require.NoError(t, l.Close())
}

// SS-05: a listener is looked up and then closed, before the connection that was
// meant for it takes its place: it has no place any more, and takes no connection
// that it had promised one.
func testLookupThenClose(t *testing.T) {
	table := newListenerTable(portAllocator{rnd: newRandom(1)}, live.SystemClock(), AllOptions)
	service := uuid.UUID{7}
	_, err := table.open(Addr{Wildcard, service}, 2)
	require.NoError(t, err)
	found := table.lookup(service, Wildcard)
	require.True(t, found.reserve(), "promised before")
	require.NoError(t, found.Close())
	require.Nil(t, table.lookup(service, Wildcard))
	require.False(t, found.reserve(), "what was looked up is nothing any more")
	p := newPair(t, pairOptions{})
	defer p.close()
	require.False(t, found.push(p.a), "nobody will ever accept it: it is the caller's to close")
}

// GO-06: a Write puts all of its bytes into the ring or says how many and why not,
// however small the ring.
func testWriteIsWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, pairOptions{ringPages: 2})
		defer p.close()
		sent := pattern(50_000)
		go func() {
			n, err := p.a.Write(sent)
			if n < len(sent) && err == nil {
				t.Errorf("%d of %d bytes, and no error", n, len(sent))
			}
			_ = p.a.CloseWrite()
		}()
		got, err := io.ReadAll(p.b)
		require.NoError(t, err)
		require.Equal(t, sent, got)
	})
}
