package hvsock

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
)

// hvsock.md 8: children are counted from open to accept. A full listener of a
// guest is silent (5.2 step 3), so its host's dialer times out; a full one of the
// host refuses.
func TestBacklogOfAMachine(t *testing.T) {
	for name, c := range map[string]struct {
		listen func(*stepped) *Listener
		dial   func(*stepped) *outcome
		full   error
	}{
		"guest": {(*stepped).guestListens, func(w *stepped) *outcome { o, _ := w.hostDials(time.Second); return o }, syscall.ETIMEDOUT},
		"host":  {(*stepped).hostListens, func(w *stepped) *outcome { o, _ := w.guestDials(time.Second); return o }, syscall.ECONNREFUSED},
	} {
		t.Run(name, func(t *testing.T) {
			w := newStepped(t)
			l := c.listen(w)
			l.SetBacklog(2)
			var dials []*outcome
			dial := func() *outcome {
				o := c.dial(w)
				dials = append(dials, o)
				return o
			}
			first, second, third := dial(), dial(), dial() // all are on their way before the first is open
			w.run()
			w.passes(time.Second)
			require.NoError(t, first.err)
			require.NoError(t, second.err)
			require.ErrorIs(t, third.err, c.full)

			accepted, err := l.TryAccept()
			require.NoError(t, err)
			fourth, fifth := dial(), dial()
			w.run()
			w.passes(time.Second)
			require.NoError(t, fourth.err, "one was accepted")
			require.ErrorIs(t, fifth.err, c.full)

			require.NoError(t, accepted.Close())
			require.NoError(t, l.Close()) // and closes the two that are queued
			for _, o := range dials {
				if o.conn != nil {
					w.run()
					requireEnd(t, o.conn)
					require.NoError(t, o.conn.Close())
				}
			}
			w.end()
		})
	}
}

// hvsock.md 5.3: with 16 requests outstanding the host reads no more of this
// guest's messages. Nothing is lost: each answer lets the next one in.
func TestSixteenOutstandingRequests(t *testing.T) {
	w := newStepped(t)
	var asked []*Request
	stop, err := w.inHost.HandleRequests(Children, func(r *Request) { asked = append(asked, r) })
	require.NoError(t, err)
	const dials = 20
	var outcomes []*outcome
	for range dials {
		o, _ := w.guestDials(time.Hour)
		outcomes = append(outcomes, o)
		w.run()
	}
	require.Len(t, asked, endpoint.MaxSocketRequests)
	for answered := range dials {
		require.Len(t, asked, min(dials, endpoint.MaxSocketRequests+answered), "after %d answers", answered)
		asked[answered].Refuse()
		w.run()
		w.passes(time.Second) // the guest's hypercall found no room for its message, and tries again
		w.run()
	}
	for _, o := range outcomes {
		require.ErrorIs(t, o.err, syscall.ECONNREFUSED)
		require.Equal(t, 1, o.times)
	}
	require.Equal(t, dials, w.count("TLConnectResult"), "each is answered once (13)")
	stop()
	w.end()
}

// hvsock.md 7.4: a listener closes its queued children by the same rules, and
// those on their way as well; who was accepted lives on (16).
func TestListenerCloseWithChildren(t *testing.T) {
	w := newStepped(t)
	l := w.guestListens()
	accepted, _ := w.hostDials(time.Minute)
	w.run()
	c, err := l.TryAccept()
	require.NoError(t, err)
	queued, _ := w.hostDials(time.Minute)
	w.run()
	mustWrite(t, queued.conn, "nobody reads this")
	opening, _ := w.hostDials(time.Minute)
	w.sent = nil
	w.until("OpenChannel")
	require.NoError(t, l.Close())
	w.run()
	for name, o := range map[string]*outcome{"queued": queued, "opening": opening} {
		require.NoError(t, o.err, name)
		requireEnd(t, o.conn)
		require.NoError(t, o.conn.Close())
	}
	mustWrite(t, c, "alive")
	requireText(t, accepted.conn, "alive")
	require.NoError(t, c.Close())
	require.NoError(t, accepted.conn.Close())
	w.end()
}

// hvsock.md 5.1 step 8 and 5.2 step 6: a guest that does not open is nothing
// special. The host rescinds when its time is up, and the id comes back.
func TestGuestNeverOpens(t *testing.T) {
	w := newStepped(t)
	w.offered = func(vmbus.OfferChannel) {}
	l := w.hostListens()
	l.SetBacklog(1)
	dialed, _ := w.guestDials(time.Minute)
	w.run()
	require.False(t, l.reserve(), "a place is kept for it")
	w.passes(openTimeout - 1)
	w.run()
	require.Zero(t, w.count("RescindChannelOffer"))
	w.passes(1)
	w.run()
	require.Equal(t, 1, w.count("RescindChannelOffer"))
	require.True(t, l.reserve(), "and is free again")
	l.cancel()
	w.passes(time.Minute)
	require.ErrorIs(t, dialed.err, syscall.ETIMEDOUT, "the rescind of an unopened offer is no answer (7.5)")
	require.NoError(t, l.Close())

	dialing, _ := w.hostDials(3 * time.Second)
	w.run()
	w.passes(3*time.Second - 1)
	require.Zero(t, dialing.times)
	w.passes(1)
	require.ErrorIs(t, dialing.err, syscall.ETIMEDOUT)
	w.run()
	require.Equal(t, 2, w.count("RelIDReleased"))
	w.end()
}

// hvsock.md 7.4 step 4: a host that never rescinds does not keep the guest's
// socket longer than 8 s. Its channel is closed then, by the guest alone.
func TestHostNeverRescinds(t *testing.T) {
	w := newStepped(t)
	inGuest, inHost := w.established()
	w.sent = nil
	require.NoError(t, inGuest.Close())
	w.run()
	w.passes(closeTimeout - 1)
	w.run()
	require.Empty(t, w.sent)
	sockets, _ := w.inside.Usage()
	require.Equal(t, 1, sockets)
	w.passes(1)
	w.guestRuns() // the host says nothing at all
	sockets, _ = w.inside.Usage()
	require.Zero(t, sockets)
	require.NotEqual(t, w.pages, w.memory.InUsePages(), "the host may still write to the rings")
	w.run()
	require.Equal(t, "CloseChannel", w.sent[0])
	require.Contains(t, w.sent, "GPADLTeardown", "17: of a channel that was not rescinded the pages are asked for")
	require.Equal(t, w.pages, w.memory.InUsePages())
	requireEnd(t, inHost)
	require.NoError(t, inHost.Close())
	w.end()
}

// hvsock.md 5.2 and 14: a guest that asks twice for the same pair of ids cannot
// have two channels; the second request is refused, and the first connection
// does not notice.
func TestIdenticalEndpointIDs(t *testing.T) {
	w := newStepped(t)
	l := w.hostListens()
	o, _ := w.guestDials(time.Minute)
	w.guestRuns()
	ep := wire(o.local.ServiceID)
	for range 3 {
		w.guest.RequestSocket(wire(ServiceIDFromPort(steppedPort)), ep, func(error) {})
	}
	w.run()
	require.NoError(t, o.err)
	require.Equal(t, 1, w.count("OfferChannel"))
	c, err := l.TryAccept()
	require.NoError(t, err)
	_, err = l.TryAccept()
	require.ErrorIs(t, err, syscall.EAGAIN)
	mustWrite(t, c, "one")
	requireText(t, o.conn, "one")
	require.NoError(t, c.Close())
	require.NoError(t, o.conn.Close())
	w.run()
	for range maxBacklog { // no place in the backlog was lost
		if !l.reserve() {
			break
		}
	}
	require.Equal(t, defaultBacklog, l.reserved)
	for range defaultBacklog {
		l.cancel()
	}
	require.NoError(t, l.Close())
	w.end()
}

// hvsock.md 6, "malformed": what came before is read first, then EIO for ever;
// the owner is told, and ends the channel.
func TestMalformedPipePackets(t *testing.T) {
	const maxPayloadBytes = 16384
	for name, packet := range map[string]struct{ head, body []byte }{
		"no pipe header":                 {nil, nil},
		"more bytes than the packet has": {pipeHeader(1, 9), make([]byte, 8)},
		"more bytes than any packet has": {pipeHeader(1, maxPayloadBytes+1), make([]byte, 8)},
		"4 GiB less one":                 {pipeHeader(1, 0xFFFFFFFF), make([]byte, 8)},
		"a type that is no pipe's":       {pipeHeader(0, 8), make([]byte, 8)},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, pairOptions{})
			defer p.close()
			mustWrite(t, p.b, "good")
			rogue, err := ringbuffer.NewWriter(p.toA)
			require.NoError(t, err)
			require.NoError(t, rogue.Append(ringbuffer.Header{Type: ringbuffer.InBand}, packet.head, packet.body))
			rogue.Commit()
			requireText(t, p.a, "good")
			for range 2 {
				n, err := p.a.TryRead(make([]byte, 8))
				require.Zero(t, n)
				require.ErrorIs(t, err, syscall.EIO)
				require.ErrorIs(t, err, vmbus.ErrProtocol)
			}
			require.Equal(t, []connEvent{evFault}, p.seen(0))
		})
	}
}

// A step is one thing that one side does.
func (w *stepped) steps(n int) (done bool) {
	ends := []interface {
		Steps() live.Steps
		Do(live.Steps)
	}{w.host, w.guest}
	for range n {
		if ends[0].Steps() == 0 && ends[1].Steps() == 0 {
			return true
		}
		for _, e := range ends {
			if can := e.Steps(); can != 0 {
				e.Do(can & -can) // one of them: the lowest bit
				break
			}
		}
		ends[0], ends[1] = ends[1], ends[0]
	}
	return false
}

// hvsock.md 14 and 16: whatever comes between a dial and its success, and at
// whatever moment: the dial is told one outcome, and nothing is left of it.
func TestInterruptedAtEveryStep(t *testing.T) {
	for name, interrupt := range map[string]func(w *stepped, l *Listener, cancel func()){
		"the dialer gives up":  func(_ *stepped, _ *Listener, cancel func()) { cancel() },
		"the time is up":       func(w *stepped, _ *Listener, _ func()) { w.passes(10 * time.Second) },
		"the listener closes":  func(_ *stepped, l *Listener, _ func()) { _ = l.Close() },
		"the bus is unloaded":  func(w *stepped, _ *Listener, _ func()) { w.guest.BeginClose() },
		"both of them go away": func(_ *stepped, l *Listener, cancel func()) { _ = l.Close(); cancel() },
	} {
		for _, guestDials := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, guest dials %v", name, guestDials), func(t *testing.T) {
				for n := 0; ; n++ {
					w := newStepped(t)
					if w.interrupted(n, guestDials, interrupt) {
						require.Greater(t, n, 5, "an open takes more steps than that")
						return
					}
					require.Less(t, n, 1000)
				}
			})
		}
	}
}

// interrupted interrupts a dial after n steps, and reports whether it was over by
// then.
func (w *stepped) interrupted(n int, guestDials bool, interrupt func(w *stepped, l *Listener, cancel func())) (over bool) {
	t := w.t
	t.Helper()
	listen, dial := w.guestListens, w.hostDials
	if guestDials {
		listen, dial = w.hostListens, w.guestDials
	}
	l := listen()
	o, cancel := dial(5 * time.Second)
	over = w.steps(n)
	interrupt(w, l, cancel)
	w.run()
	w.passes(10 * time.Second)
	w.run()
	require.Equal(t, 1, o.times, "after %d steps", n)
	require.Equal(t, o.err == nil, o.conn != nil, "after %d steps", n)
	if o.conn != nil {
		require.NoError(t, o.conn.Close())
	}
	for c, err := l.TryAccept(); err == nil; c, err = l.TryAccept() {
		require.NoError(t, c.Close())
	}
	_ = l.Close()
	w.run()
	w.passes(closeTimeout)
	w.run()
	w.end()
	return over
}

// hvsock.md 14, "connect success vs timeout": at the instant of success the end of
// the context changes nothing; before it, it ends the dial, and the reason is in
// the error (16).
func TestContextAgainstSuccess(t *testing.T) {
	conn := newPair(t, pairOptions{})
	defer conn.close()
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	late, stop := context.WithDeadline(context.Background(), time.Now().Add(-time.Hour))
	defer stop()
	decided := func() bool { return false }
	for _, ctx := range []context.Context{cancelled, late} {
		for range 50 { // a select between two that are ready takes either
			result := make(chan dialResult, 1)
			result <- dialResult{conn: conn.a}
			c, err := await(ctx, time.Hour, result, decided)
			require.NoError(t, err)
			require.Same(t, conn.a, c)
		}
	}
	gaveUp := func() bool { return true }
	_, err := await(cancelled, time.Hour, nil, gaveUp)
	require.ErrorIs(t, err, context.Canceled)
	_, err = await(late, time.Hour, nil, gaveUp)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.ErrorIs(t, err, context.DeadlineExceeded, "as with a net.Dialer")
	_, err = await(context.Background(), 1, nil, gaveUp)
	require.ErrorIs(t, err, syscall.ETIMEDOUT, "the system's own timer (8)")
}
