package hvsock

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
	"github.com/stretchr/testify/require"
)

// A manualWorld is a host and a guest on the test's own goroutine.
type manualWorld struct {
	host  *live.Host
	guest *live.Guest
	local *GuestStack
	peer  *HostGuest
	stack *HostStack
}

func newManualWorld(t *testing.T) *manualWorld {
	w := &manualWorld{}
	heap := guestmem.NewHeap(guestmem.HeapOptions{Seed: 1})
	port := synic.NewPartition(heap, 1)
	id := uuid.UUID{1}
	var err error
	w.stack = NewHostStack(HostOptions{Seed: 1})
	w.peer, err = w.stack.AddGuest(id)
	require.NoError(t, err)
	w.host, err = live.NewHost(live.HostOptions{
		Memory: heap, Port: port, Manual: true,
		Connected: w.peer.Connected, Gone: w.peer.Gone, SocketRequested: w.peer.Requested,
	})
	require.NoError(t, err)
	w.peer.Attach(w.host)
	w.local = NewGuestStack(GuestOptions{VMID: id, Seed: 1})
	w.guest, err = live.NewGuest(live.GuestOptions{
		Memory: heap, Port: port, Manual: true,
		Offered: w.local.Offered, SocketRefused: w.local.Refused, Gone: w.local.Gone,
	})
	require.NoError(t, err)
	w.local.Attach(w.guest)
	w.guest.BeginConnect(func(err error) { require.NoError(t, err) })
	w.run()
	return w
}

// run does what can be done until nothing can.
func (w *manualWorld) run() {
	for w.host.Steps() != 0 || w.guest.Steps() != 0 {
		for _, s := range []live.Steps{live.StepAction, live.StepPost, live.StepCall, live.StepReceive} {
			w.host.Do(s)
			w.guest.Do(s)
		}
	}
}

// TestManualWorld: without any goroutine a guest connects, dials, sends more than
// a ring holds and closes; the wake-ups that Notify reports are enough to do so.
func TestManualWorld(t *testing.T) {
	w := newManualWorld(t)
	l, err := w.stack.Listen(Addr{Children, ServiceIDFromPort(5000)})
	require.NoError(t, err)
	_, err = l.TryAccept()
	require.ErrorIs(t, err, syscall.EAGAIN, "nobody has dialed")
	var client *Conn
	w.local.BeginDial(Addr{Parent, ServiceIDFromPort(5000)}, time.Second, func(c *Conn, err error) {
		require.NoError(t, err)
		client = c
	})
	require.Nil(t, client, "nothing happens that nobody asks for")
	w.run()
	require.NotNil(t, client)
	server, err := l.TryAccept()
	require.NoError(t, err)

	readable, writable := 0, 0
	server.Notify(func() { readable++ }, nil)
	client.Notify(nil, func() { writable++ })
	buf := make([]byte, 1<<16)
	_, err = server.TryRead(buf)
	require.ErrorIs(t, err, syscall.EAGAIN)
	n, err := client.TryWrite(make([]byte, 1<<16))
	require.ErrorIs(t, err, syscall.EAGAIN, "the ring has 16 KiB")
	require.Positive(t, n)
	require.Equal(t, 1, readable, "the reader was told: it slept")
	got := 0
	for ; err == nil || got == 0; got += n {
		n, err = server.TryRead(buf)
	}
	require.Equal(t, 1, writable, "the writer was told of the space, once")
	_, err = server.TryRead(buf)
	require.ErrorIs(t, err, syscall.EAGAIN)

	require.NoError(t, client.Close())
	require.NoError(t, server.Close())
	w.run()
	require.True(t, w.guest.BeginClose())
	w.run()
	require.NoError(t, w.guest.Close(), "the host has let go: nothing to wait for")
	w.host.Close()
	require.NoError(t, l.Close())
	sockets, listeners := w.stack.Usage()
	require.Zero(t, sockets+listeners)
}

// TestBeginDial: without a bus the outcome is decided at once; a cancelled or
// timed out dial is told so once, with the errors of Dial.
func TestBeginDial(t *testing.T) {
	var results []error
	done := func(_ *Conn, err error) { results = append(results, err) }
	NewGuestStack(GuestOptions{}).BeginDial(Addr{Parent, ServiceIDFromPort(1)}, time.Second, done)
	require.Len(t, results, 1)
	require.ErrorIs(t, results[0], syscall.ENODEV, "there is no bus")

	w := newManualWorld(t)
	_, cancel := w.peer.BeginDial(ServiceIDFromPort(1), time.Hour, done)
	w.run() // the guest leaves the offer alone: nobody listens
	cancel()
	cancel()
	require.Len(t, results, 2, "told once")
	var op *net.OpError
	require.True(t, errors.As(results[1], &op))
	require.Equal(t, "dial", op.Op)
	w.run()
	require.True(t, w.guest.BeginClose())
	w.run()
	require.NoError(t, w.guest.Close())
	w.host.Close()
}
