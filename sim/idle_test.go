package sim

import (
	"net"
	"runtime"
	"testing"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/stretchr/testify/require"
)

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
