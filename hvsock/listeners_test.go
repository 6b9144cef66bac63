package hvsock

import (
	"syscall"
	"testing"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/stretchr/testify/require"
)

func testListeners() *listenerTable {
	return newListenerTable(portAllocator{rnd: newRandom(1)}, live.SystemClock(), AllOptions)
}

// hvsock.md 4: one listener per (VM id, service), a specific bind wins.
func TestListenersLookup(t *testing.T) {
	r := testListeners()
	vm, service := uuid.New(), ServiceIDFromPort(5000)
	wild, err := r.listen(Addr{Wildcard, service}, 0)
	require.NoError(t, err)
	require.Same(t, wild, r.lookup(service, vm, Children, Wildcard))
	own, err := r.listen(Addr{vm, service}, 0)
	require.NoError(t, err)
	require.Same(t, own, r.lookup(service, vm, Children, Wildcard))
	require.Same(t, wild, r.lookup(service, uuid.New(), Children, Wildcard), "another VM")
	require.Nil(t, r.lookup(ServiceIDFromPort(1), vm, Wildcard))
	_, err = r.listen(Addr{vm, service}, 0)
	require.Equal(t, syscall.EADDRINUSE, err)

	require.NoError(t, own.Close())
	require.Same(t, wild, r.lookup(service, vm, Wildcard), "a closed listener is gone")
	r.closeAll()
	require.Zero(t, r.len())
}

// hvsock.md 2.6: a bind without a port gets one above 1023 and below
// 0x80000000.
func TestListenersAutomaticPort(t *testing.T) {
	r := testListeners()
	for _, ask := range []uuid.UUID{uuid.Nil, ServiceIDFromPort(0)} {
		l, err := r.listen(Addr{Wildcard, ask}, 0)
		require.NoError(t, err)
		port, ok := PortFromServiceID(l.Addr().(Addr).ServiceID)
		require.True(t, ok)
		require.Greater(t, port, uint32(1023))
		require.Less(t, port, uint32(0x80000000))
	}
	_, err := portAllocator{rnd: newRandom(1)}.pick(func(uuid.UUID) bool { return true })
	require.Equal(t, syscall.EADDRNOTAVAIL, err, "24 successive ports are taken")
}

// faults.md 5: listeners per side.
func TestListenerLimit(t *testing.T) {
	r := testListeners()
	for i := range uint32(maxListeners) {
		_, err := r.listen(Addr{Wildcard, ServiceIDFromPort(i + 1)}, 0)
		require.NoError(t, err)
	}
	_, err := r.listen(Addr{Wildcard, ServiceIDFromPort(maxListeners + 1)}, 0)
	require.Equal(t, syscall.EADDRNOTAVAIL, err)
}

// A seed makes ids repeatable, and UUIDs are well formed.
func TestRandom(t *testing.T) {
	a, b := newRandom(7), newRandom(7)
	id := a.uuid()
	require.Equal(t, id, b.uuid())
	require.Equal(t, uuid.Version(4), id.Version())
	require.Equal(t, uuid.RFC4122, id.Variant())
	require.NotEqual(t, newRandom(0).uuid(), newRandom(0).uuid(), "seed 0 is random")
}
