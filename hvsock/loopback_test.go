package hvsock

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// A loopback connection that cannot be made leaves nothing: no pages, no promised
// place in the queue.
func TestLoopbackWithoutRings(t *testing.T) {
	s := NewGuestStack(GuestOptions{RingPages: 1}) // a control page and no data
	l, err := s.Listen(Addr{Loopback, ServiceIDFromPort(5000)})
	require.NoError(t, err)
	defer l.Close()
	for range 2 {
		_, err = s.Dial(t.Context(), Addr{Loopback, ServiceIDFromPort(5000)})
		require.ErrorIs(t, err, syscall.ENOMEM)
	}
	require.Zero(t, s.local.mem.InUsePages())
	queued, promised := l.Waiting()
	require.Zero(t, queued+promised)
}
