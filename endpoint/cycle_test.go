package endpoint_test

import (
	"runtime"
	"testing"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/endpoint/script"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
)

// connection is one connection of a guest's socket to the host, from the dial to
// the release of its channel id.
func connection(t *testing.T, w *script.World) {
	require.NoError(t, w.Guest.RequestSocket(port5000, vmbus.GUID{9}))
	run(t, w)
	offer, err := w.Host.AcceptSocket(vmbus.GUID{9}, port5000)
	require.NoError(t, err)
	run(t, w)
	require.NoError(t, w.Open(1, 2), "the id of the connection before is free")
	run(t, w)
	require.NoError(t, w.Host.Revoke(offer))
	run(t, w)
	w.Forget()
}

// GC-03: a rescinded channel's GPADL is never torn down by a Linux guest. Its entry,
// the id and the memory come back all the same: after 10,000 connections the heap
// is what it was after 10.
func TestConnectionsInARow(t *testing.T) {
	for linux, connections := range map[bool]int{true: 10_000, false: 1_000} { // a teardown is the simpler case
		w := script.NewWorldOf(endpoint.HostOptions{}, endpoint.GuestOptions{SkipTeardown: linux})
		require.NoError(t, w.Guest.Connect())
		run(t, w)
		heap := func() uint64 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		for range 10 {
			connection(t, w)
		}
		before := heap()
		for range connections - 10 {
			connection(t, w)
		}
		_, ids, gpadls, ops, reqs := w.Host.Usage()
		gids, rings := w.Guest.Usage()
		require.Zero(t, ids+gpadls+ops+reqs+gids+rings)
		after := heap()
		runtime.KeepAlive(w)
		require.Less(t, after, before+32<<10, "one GPADL entry left behind each time would be 2 MB") // the runtime's own allocations move it by some KB
	}
}
