package hvsock

import (
	"encoding/binary"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
)

// requireText reads exactly text, without waiting.
func requireText(t *testing.T, c *Conn, text string) {
	t.Helper()
	b := make([]byte, len(text)+1)
	n, err := c.TryRead(b)
	require.NoError(t, err)
	require.Equal(t, text, string(b[:n]))
}

// requireEnd finds the end of the stream, and finds it again.
func requireEnd(t *testing.T, c *Conn) {
	t.Helper()
	for range 2 {
		n, err := c.TryRead(make([]byte, 8))
		require.Zero(t, n)
		require.Equal(t, io.EOF, err)
	}
}

// established returns a connection: its end in the guest, which has dialed, and
// its end in the host.
func (w *stepped) established() (inGuest, inHost *Conn) {
	w.t.Helper()
	l := w.hostListens()
	o, _ := w.guestDials(time.Second)
	w.run()
	require.NoError(w.t, o.err)
	accepted, err := l.TryAccept()
	require.NoError(w.t, err)
	require.NoError(w.t, l.Close())
	return o.conn, accepted
}

// TestRaces is hvsock.md 14, row by row. Each race is run in the order that goes
// wrong somewhere; afterwards nothing is left, and nobody was told twice.
func TestRaces(t *testing.T) {
	for _, row := range races {
		t.Run(row.name, func(t *testing.T) {
			w := newStepped(t)
			row.run(t, w)
			w.end()
		})
	}
}

var races = []struct {
	name string // the first column of the table
	run  func(*testing.T, *stepped)
}{
	{"rescind vs accept: host closes before accept()", raceRescindAccept},
	{"rescind callback installed before open fails", raceRescindBeforeOpened},
	{"rescind vs offer processing", raceRescindOffer},
	{"rescind vs channel callback", raceRescindDoorbell},
	{"two rescinds at once", raceTwoRescinds},
	{"close vs host reading", raceCloseReading},
	{"close timer vs rescind", raceCloseTimer},
	{"double removal from tables", raceDoubleRemoval},
	{"double close or close after shutdown", raceDoubleClose},
	{"writer blocked, host freed space earlier", raceBlockedWriter},
	{"FIN behind data in one batch", raceFINBehindData},
	{"data arriving after FIN", raceDataAfterFIN},
	{"offer while the listener closes", raceOfferListenerCloses},
	{"offer after connect timed out", raceLateOffer},
	{"second offer with the same pair", raceSamePair},
	{"port reuse after a timeout", racePortReuse},
	{"connect success vs timeout or signal", raceSuccessTimeout},
	{"message 23 vs offer", raceRefusalOffer},
	{"poller before first data", racePoller},
	{"close during blocked read and write in Go", raceCloseBlocked},
	{"listener up after VM start", raceLateListener},
}

// A queued child may be dead already: accept returns it all the same, and its
// bytes, and then the end.
func raceRescindAccept(t *testing.T, w *stepped) {
	l := w.guestListens()
	o, _ := w.hostDials(time.Second)
	w.run()
	require.NoError(t, o.err, "the host's connect is done before accept() (5.2)")
	mustWrite(t, o.conn, "bye")
	require.NoError(t, o.conn.Close())
	w.passes(closeTimeout) // nobody answers the FIN, so the host rescinds
	w.run()
	require.Equal(t, 1, w.count("RescindChannelOffer"))
	c, err := l.TryAccept()
	require.NoError(t, err)
	requireText(t, c, "bye")
	requireEnd(t, c)
	require.NoError(t, c.Close())
	require.NoError(t, l.Close())
}

// The rescind takes the place of the answer to OpenChannel. The open fails, once;
// Rescinded, for channels that are open, is not called on top of it.
func raceRescindBeforeOpened(t *testing.T, w *stepped) {
	l := w.guestListens()
	l.SetBacklog(1)
	o, cancel := w.hostDials(time.Second)
	w.until("GPADLCreated")
	w.guestRuns() // OpenChannel is on its way
	cancel()
	w.run()
	require.ErrorContains(t, o.err, "canceled")
	require.Equal(t, 1, o.times)
	require.Zero(t, w.count("OpenResult"), "the host ignores an open of what it has withdrawn")
	_, err := l.TryAccept()
	require.ErrorIs(t, err, syscall.EAGAIN, "the child was destroyed (5.2)")
	require.True(t, l.reserve(), "and its place in the backlog is free")
	l.cancel()
	require.NoError(t, l.Close())
}

// The rescind arrives while the offer is being handled, and waits for none of its
// answers.
func raceRescindOffer(t *testing.T, w *stepped) {
	l := w.guestListens()
	o, cancel := w.hostDials(time.Second)
	w.until("OfferChannel")
	w.guestRuns() // announces its rings, and waits for the answer
	cancel()
	w.hostRuns() // the rescind comes first, or the answer: both are in the queue
	w.run()
	require.Equal(t, 1, o.times)
	_, err := l.TryAccept()
	require.ErrorIs(t, err, syscall.EAGAIN)
	require.NoError(t, l.Close())
}

// A signal that arrives when the channel is gone finds no ring.
func raceRescindDoorbell(t *testing.T, w *stepped) {
	inGuest, inHost := w.established()
	var socket *guestSocket
	for k := range w.inside.sockets {
		socket = k
	}
	mustWrite(t, inHost, "last")
	require.NoError(t, inHost.Close())
	require.NoError(t, inGuest.CloseWrite())
	w.run() // both have ended, so the host rescinds
	require.Equal(t, 1, w.count("RescindChannelOffer"))
	for range 3 {
		socket.Doorbell()
	}
	requireText(t, inGuest, "last")
	requireEnd(t, inGuest)
	require.NoError(t, inGuest.Close())
}

// The second rescind of an id is dropped as what it is: for nobody.
func raceTwoRescinds(t *testing.T, w *stepped) {
	inGuest, inHost := w.established()
	var id vmbus.ChannelID
	for k := range w.inside.sockets {
		id = k.channel
	}
	w.posts(&vmbus.RescindChannelOffer{Channel: id})
	w.guestRuns()
	w.posts(&vmbus.RescindChannelOffer{Channel: id})
	w.run()
	require.Equal(t, 1, w.count("CloseChannel"))
	require.Equal(t, 1, w.count("RelIDReleased"), "exactly once (7.1)")
	_, err := inGuest.TryRead(make([]byte, 1))
	require.ErrorIs(t, err, syscall.ECONNRESET)
	require.NoError(t, inGuest.Close())
	require.NoError(t, inHost.Close())
}

// The guest's close() does not take away what the host has not read yet.
func raceCloseReading(t *testing.T, w *stepped) {
	inGuest, inHost := w.established()
	mustWrite(t, inGuest, "last words")
	require.NoError(t, inGuest.Close())
	w.run()
	w.passes(closeTimeout - time.Second) // the host takes its time
	w.run()
	requireText(t, inHost, "last words")
	requireEnd(t, inHost)
	require.NoError(t, inHost.Close())
	w.run()
	require.Equal(t, 1, w.count("RescindChannelOffer"))
}

// Rescind and timer come at the same instant, in either order: the socket goes
// once.
func raceCloseTimer(t *testing.T, w *stepped) {
	for _, timerFirst := range []bool{true, false} {
		w.sent = nil
		inGuest, inHost := w.established()
		require.NoError(t, inGuest.Close())
		w.run()
		w.passes(closeTimeout - 1)
		require.NoError(t, inHost.Close()) // both have ended: the host rescinds
		if timerFirst {
			w.passes(1)
			w.hostRuns()
		} else {
			w.hostRuns()
			w.guestRuns()
			w.passes(1)
		}
		w.run()
		require.Equal(t, 1, w.count("CloseChannel"), "timer first: %v", timerFirst)
		require.Equal(t, 1, w.count("RelIDReleased"))
		w.empty()
	}
}

// Everything that removes a socket at once: its close timer, the rescind, and the
// end of the bus.
func raceDoubleRemoval(t *testing.T, w *stepped) {
	inGuest, inHost := w.established()
	var socket *guestSocket
	for k := range w.inside.sockets {
		socket = k
	}
	require.NoError(t, inGuest.Close())
	require.NoError(t, inHost.Close())
	w.passes(closeTimeout)
	w.run()
	for range 2 {
		socket.Rescinded()
		socket.end(guestLingerEnds)
		socket.fail(guestRefused, syscall.ENODEV)
	}
	require.Equal(t, guestGone, socket.state)
}

// However an end is closed, it sends one FIN.
func raceDoubleClose(t *testing.T, w *stepped) {
	inGuest, inHost := w.established()
	require.NoError(t, inGuest.CloseWrite())
	require.NoError(t, inGuest.CloseWrite())
	require.NoError(t, inGuest.Close())
	require.ErrorIs(t, inGuest.Close(), net.ErrClosed)
	require.ErrorIs(t, inGuest.CloseWrite(), net.ErrClosed)
	require.EqualValues(t, 1, inGuest.Stats().Out.Packets)
	requireEnd(t, inHost)
	require.NoError(t, inHost.Close())
}

// The reader takes everything between the writer's look and its wish to be told:
// the writer tries again, and is told of nothing that it has missed.
func raceBlockedWriter(t *testing.T, w *stepped) {
	inGuest, inHost := w.established()
	told := 0
	inGuest.Notify(nil, func() { told++ })
	full, err := inGuest.TryWrite(make([]byte, 1<<16))
	require.ErrorIs(t, err, syscall.EAGAIN)
	buf := make([]byte, 1<<16)
	for got := 0; got < full; {
		n, err := inHost.TryRead(buf)
		require.NoError(t, err)
		got += n
	}
	require.Equal(t, 1, told)
	n, err := inGuest.TryWrite([]byte("x"))
	require.NoError(t, err)
	require.Equal(t, 1, n)
	requireText(t, inHost, "x")
	require.NoError(t, inGuest.Close())
	require.NoError(t, inHost.Close())
}

// Data and FIN are found by one look: the data comes without an error, then the
// end.
func raceFINBehindData(t *testing.T, w *stepped) {
	inGuest, inHost := w.established()
	mustWrite(t, inGuest, "one ")
	mustWrite(t, inGuest, "batch")
	require.NoError(t, inGuest.CloseWrite())
	requireText(t, inHost, "one batch")
	requireEnd(t, inHost)
	require.NoError(t, inHost.Close())
	requireEnd(t, inGuest)
	require.NoError(t, inGuest.Close())
}

// A peer that goes on after its FIN is not heard any more (7.3), and has no
// effect on the other direction. Our own writer refuses to do that, so another
// one, on the same ring, does.
func raceDataAfterFIN(t *testing.T, _ *stepped) {
	p := newPair(t, pairOptions{})
	defer p.close()
	mustWrite(t, p.b, "before")
	require.NoError(t, p.b.CloseWrite())
	rogue, err := ringbuffer.NewWriter(p.toA)
	require.NoError(t, err)
	require.NoError(t, rogue.Append(ringbuffer.Header{Type: ringbuffer.InBand}, pipeHeader(1, 4), []byte("more")))
	rogue.Commit()
	requireText(t, p.a, "before")
	requireEnd(t, p.a)
	p.a.doorbell()
	requireEnd(t, p.a)
	mustWrite(t, p.a, "the other direction lives")
	requireText(t, p.b, "the other direction lives")
	require.NotContains(t, p.seen(0), evFault, "an end of stream, not a broken ring")
}

// pipeHeader is what precedes the bytes of a pipe packet (hvsock.md 6).
func pipeHeader(kind, payloadBytes uint32) []byte {
	return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, kind), payloadBytes)
}

// The listener closes when the offer has been taken and the channel is being
// opened: the child is opened and closed, since nobody else could end it.
func raceOfferListenerCloses(t *testing.T, w *stepped) {
	l := w.guestListens()
	o, _ := w.hostDials(time.Second)
	w.until("GPADLCreated")
	require.NoError(t, l.Close())
	w.run()
	require.NoError(t, o.err)
	requireEnd(t, o.conn)
	require.NoError(t, o.conn.Close())
	w.empty()

	o, _ = w.hostDials(time.Second) // closed before the offer: it is left unopened
	w.run()
	w.passes(time.Second)
	require.ErrorIs(t, o.err, syscall.ETIMEDOUT)
}

// The offer that answers a dial comes when the dial has ended: it is left alone,
// and the host withdraws it after its own time.
func raceLateOffer(t *testing.T, w *stepped) {
	l := w.hostListens()
	o, _ := w.guestDials(time.Second)
	w.guestRuns()
	w.passes(time.Second)
	require.ErrorIs(t, o.err, syscall.ETIMEDOUT)
	w.run()
	require.Equal(t, []string{"TLConnectRequest", "OfferChannel"}, w.sent, "nobody opens it")
	w.passes(openTimeout)
	w.run()
	require.Equal(t, []string{"TLConnectRequest", "OfferChannel", "RescindChannelOffer", "RelIDReleased"}, w.sent)
	_, err := l.TryAccept()
	require.ErrorIs(t, err, syscall.EAGAIN)
	require.Equal(t, 1, o.times)
	require.NoError(t, l.Close())
}

// A host that offers the same pair again gets nothing out of it: the guest's
// socket has its channel.
func raceSamePair(t *testing.T, w *stepped) {
	var first vmbus.OfferChannel
	offered := w.offered
	w.offered = func(o vmbus.OfferChannel) {
		first = o
		offered(o)
	}
	inGuest, inHost := w.established()
	again := first
	again.Channel += 7
	w.posts(&again)
	w.run()
	require.Equal(t, 1, w.count("OpenChannel"))
	sockets, _ := w.inside.Usage()
	require.Equal(t, 1, sockets)
	w.posts(&vmbus.RescindChannelOffer{Channel: again.Channel})
	w.run()
	mustWrite(t, inGuest, "mine")
	requireText(t, inHost, "mine")
	require.NoError(t, inGuest.Close())
	require.NoError(t, inHost.Close())
}

// The late offer of one dial does not connect another dial from the same port:
// service and endpoint must both match, and ports are fresh.
func racePortReuse(t *testing.T, w *stepped) {
	ports := map[any]bool{}
	for range 100 {
		o, _ := w.guestDials(time.Second)
		var op *net.OpError
		w.passes(time.Second)
		require.ErrorAs(t, o.err, &op)
		require.False(t, ports[op.Source], "%v was used before", op.Source)
		ports[op.Source] = true
		w.run() // nobody listens: it is refused, which is too late
	}
	l := w.hostListens()
	var late *vmbus.OfferChannel
	w.offered = func(o vmbus.OfferChannel) { late = &o } // held back
	first, _ := w.guestDials(time.Second)
	w.run()
	require.NotNil(t, late)
	w.passes(time.Second)
	require.ErrorIs(t, first.err, syscall.ETIMEDOUT)

	second := &outcome{}
	k, err := w.inside.newDial(&w.inside.root, Addr{Parent, ServiceIDFromPort(steppedPort + 1)}, dialOptions{}, func(r dialResult) { second.tell(r.conn, r.err) })
	require.NoError(t, err)
	w.inside.forget(k) // and registered again, from the port of the first
	k.endpoint = late.Instance.UUID()
	w.inside.ports[k.endpoint] = struct{}{}
	w.inside.dials[guestDial{k.remote.ServiceID, k.endpoint}] = k
	w.inside.sockets[k] = struct{}{}
	w.inside.Offered(*late)
	w.run()
	require.Zero(t, second.times, "that offer was for another service")
	require.Zero(t, w.count("OpenChannel"))
	k.fail(guestRefused, syscall.ECONNREFUSED)
	w.passes(openTimeout)
	w.run()
	require.NoError(t, l.Close())
}

// Success and the end of the caller's patience come at the same instant, in
// either order and on both sides: the dial has one outcome, and success wins if
// it was first.
func raceSuccessTimeout(t *testing.T, w *stepped) {
	hostListener, guestListener := w.hostListens(), w.guestListens()
	for name, dial := range map[string]func(time.Duration) (*outcome, func()){"guest": w.guestDials, "host": w.hostDials} {
		o, cancel := dial(time.Second) // all is done, then the time is up
		w.run()
		w.passes(time.Second)
		cancel()
		require.NoError(t, o.err, name)
		require.Equal(t, 1, o.times, name)
		require.NoError(t, o.conn.Close())

		o, cancel = dial(time.Second) // the time is up, and the answer is on its way
		w.until("GPADLCreated")
		w.guestRuns()
		w.passes(time.Second)
		cancel()
		require.ErrorIs(t, o.err, syscall.ETIMEDOUT, name)
		w.run()
		require.Equal(t, 1, o.times, name)
	}
	for _, l := range []*Listener{hostListener, guestListener} {
		for {
			c, err := l.TryAccept()
			if err != nil {
				break
			}
			require.NoError(t, c.Close())
		}
		require.NoError(t, l.Close())
	}
	w.run()
	w.passes(closeTimeout)
}

// Both answers come for one request: the first counts, the other is dropped.
func raceRefusalOffer(t *testing.T, w *stepped) {
	l := w.hostListens()
	accept := w.requested
	var asked endpoint.SocketRequested
	w.requested = func(r endpoint.SocketRequested) {
		asked = r
		accept(r)
	}
	refuse := func() {
		w.posts(&vmbus.TLConnectResult{Endpoint: asked.Endpoint, Service: asked.Service, Status: vmbus.StatusConnectionRefused})
	}
	o, _ := w.guestDials(time.Second)
	w.run()
	refuse()
	w.run()
	require.NoError(t, o.err, "the offer was first")
	require.Equal(t, 1, o.times)
	c, err := l.TryAccept()
	require.NoError(t, err)
	mustWrite(t, c, "alive")
	requireText(t, o.conn, "alive")
	require.NoError(t, c.Close())
	require.NoError(t, o.conn.Close())
	w.run()

	w.requested = func(r endpoint.SocketRequested) { asked = r }
	o, _ = w.guestDials(time.Second)
	w.run()
	refuse()
	w.guestRuns()
	require.ErrorIs(t, o.err, syscall.ECONNREFUSED, "the refusal was first")
	accept(asked)
	w.run()
	require.Equal(t, 1, o.times)
	w.passes(openTimeout) // the host's own, since nobody opens
	w.run()
	require.NoError(t, l.Close())
}

// Whoever asks to be told is told of what came between the look and the asking.
func racePoller(t *testing.T, w *stepped) {
	inGuest, inHost := w.established()
	readable, writable := 0, 0
	inGuest.Notify(func() { readable++ }, func() { writable++ })
	n, err := inGuest.TryWrite([]byte("writable before anything has come"))
	require.NoError(t, err)
	require.Positive(t, n)
	require.Zero(t, writable, "there was room at once, so there is nothing to tell")
	_, err = inGuest.TryRead(make([]byte, 1))
	require.ErrorIs(t, err, syscall.EAGAIN)
	mustWrite(t, inHost, "first")
	require.Equal(t, 1, readable)
	requireText(t, inGuest, "first")
	require.NoError(t, inGuest.Close())
	require.NoError(t, inHost.Close())
}

// Close wakes who waits in Read and in Write; then the channel goes, and no
// goroutine with it.
func raceCloseBlocked(t *testing.T, _ *stepped) {
	synctest.Test(t, func(t *testing.T) {
		w := newStepped(t)
		inGuest, inHost := w.established()
		ended := make(chan error, 2)
		go func() { _, err := inGuest.Read(make([]byte, 1)); ended <- err }()
		go func() { _, err := inGuest.Write(make([]byte, 1<<20)); ended <- err }()
		synctest.Wait()
		require.Empty(t, ended, "both wait")
		require.NoError(t, inGuest.Close())
		for range 2 {
			require.ErrorIs(t, <-ended, net.ErrClosed)
		}
		_, err := io.Copy(io.Discard, inHost)
		require.NoError(t, err, "what was written before Close, and the end")
		require.NoError(t, inHost.Close())
		w.run()
		w.end()
	})
}

// Nobody listens yet when the guest asks first: it is refused, and may ask again.
func raceLateListener(t *testing.T, w *stepped) {
	o, _ := w.guestDials(time.Second)
	w.run()
	require.ErrorIs(t, o.err, syscall.ECONNREFUSED)
	inGuest, inHost := w.established()
	require.NoError(t, inGuest.Close())
	require.NoError(t, inHost.Close())
}
