package sim

import (
	"io"
	"net"
	"runtime"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/stretchr/testify/require"
)

// channelIDs is how many channels a guest can have: ids 1 to 2047, one bit each
// of the event flag page (vmbus-control.md).
const channelIDs = 2047

// hvsock.md 13 and issue 6: a guest has as many connections as there are channel
// ids. One more is an errno at once, to either side, and disturbs nobody; when
// one ends, the next may begin.
func TestConnectionLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, guest := newPair(t, HostOptions{Backlog: 4096}, GuestOptions{RingPages: channel.MinRingPages, Backlog: 4096})
		atHost, err := host.Listen(port(hvsock.Wildcard, 5000))
		require.NoError(t, err)
		atGuest, err := guest.Listen(port(hvsock.Wildcard, 5000))
		require.NoError(t, err)
		var dialed, accepted []net.Conn
		grow := func() {
			d, err := guest.Dial(t.Context(), port(hvsock.Parent, 5000))
			require.NoError(t, err, "connection %d", len(dialed)+1)
			a, err := atHost.Accept()
			require.NoError(t, err)
			dialed, accepted = append(dialed, d), append(accepted, a)
		}
		for range channelIDs {
			grow()
		}
		_, err = guest.Dial(t.Context(), port(hvsock.Parent, 5000))
		require.ErrorIs(t, err, syscall.ECONNREFUSED, "the host has no channel to offer")
		_, err = host.Dial(t.Context(), port(guest.ID(), 5000))
		require.ErrorIs(t, err, syscall.ENOBUFS)
		for i := 0; i < channelIDs; i += 100 {
			_, err := dialed[i].Write([]byte{byte(i)})
			require.NoError(t, err)
			var b [1]byte
			_, err = io.ReadFull(accepted[i], b[:])
			require.NoError(t, err)
			require.Equal(t, byte(i), b[0])
		}
		require.NoError(t, dialed[0].Close())
		require.NoError(t, accepted[0].Close())
		synctest.Wait()
		dialed, accepted = dialed[1:], accepted[1:]
		grow()

		for i := range dialed {
			require.NoError(t, dialed[i].Close())
			require.NoError(t, accepted[i].Close())
		}
		require.NoError(t, atHost.Close())
		require.NoError(t, atGuest.Close())
		time.Sleep(time.Second) // virtual: the hypervisor refuses messages when it has too many, and they are posted again
		synctest.Wait()
		require.Zero(t, host.Usage())
		require.Zero(t, guest.Usage())
	})
}

// idleBytes is what an idle connection, both ends of it, may cost beside its
// rings: socket, Conn and channel of either side, and their places in tables. No
// goroutine, no timer and no buffer is among it. Measured: about 8 KiB.
const idleBytes = 16 << 10

// An idle connection costs its rings, and little else.
func TestIdleConnections(t *testing.T) {
	const conns = 200
	host, guest := newPair(t, HostOptions{Backlog: conns}, GuestOptions{})
	l, err := host.Listen(port(hvsock.Wildcard, 5000))
	require.NoError(t, err)
	warm, _ := connect(t, role{listen: host.Listen, dial: guest.Dial, bind: port(hvsock.Wildcard, 5001), to: port(hvsock.Parent, 5001)})
	require.NoError(t, warm.Close())
	goroutines, pages, heap := runtime.NumGoroutine(), guest.memory.InUsePages(), heapBytes()
	var all []net.Conn
	for range conns {
		d, err := guest.Dial(t.Context(), port(hvsock.Parent, 5000))
		require.NoError(t, err)
		a, err := l.Accept()
		require.NoError(t, err)
		all = append(all, d, a)
	}
	perConn := int(heapBytes()-heap)/conns - (guest.memory.InUsePages()-pages)/conns*4096
	t.Logf("%d bytes a connection beside its rings", perConn)
	require.Less(t, perConn, idleBytes)
	require.LessOrEqual(t, runtime.NumGoroutine(), goroutines)
	require.LessOrEqual(t, guest.memory.InUsePages()-pages, conns*2*channel.DefaultRingPages)
	for _, c := range all {
		require.NoError(t, c.Close())
	}
	require.NoError(t, l.Close())
}

func heapBytes() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
