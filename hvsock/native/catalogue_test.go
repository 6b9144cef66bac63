package native

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/stretchr/testify/require"
)

// TestCatalogue holds the rows of faults.md, section 1.6, about libraries under an
// adapter. internal/putback/check puts each fault back and runs its row. GO-06 is
// in package hvsock.
func TestCatalogue(t *testing.T) {
	for _, row := range []struct {
		id   string
		test func(*testing.T)
	}{
		{"GO-01", testCloseEndsAccept},
		{"GO-02", TestDialEnds},
		{"GO-03-accept", TestAcceptPassesOverBrokenConnections},
		{"GO-03-connect", TestDialRepeatsInterruptedConnect},
		{"GO-04", TestDialLeavesADeafConnectBehind},
		{"GO-05", testOneOwnerCloses},
		{"GO-07", testNameOfTheFamily},
		{"GO-08", TestSetDeadlineReturnsItsError},
		{"GO-09", TestTryLoopbackHasABound},
	} {
		t.Run(row.id, row.test)
	}
}

// GO-01: Accept waits in a library whose listener only its Close wakes.
func testCloseEndsAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newAcceptQueue(newBlockingListener())
		ended := make(chan error, 1)
		go func() { _, err := q.Accept(); ended <- err }()
		synctest.Wait()
		require.NoError(t, q.Close())
		require.ErrorIs(t, <-ended, net.ErrClosed) // or this waits for ever
	})
}

// GO-05: a descriptor has one owner, which closes it once: by the second Close its
// number may be somebody else's.
func testOneOwnerCloses(t *testing.T) {
	closes := 0
	c := newFakeConn(fakeSystem(), &fakeStream{close: func() error { closes++; return nil }})
	require.NoError(t, c.Close())
	requireOp(t, c.Close(), "close", net.ErrClosed)
	requireOp(t, c.SetDeadline(time.Now()), "set", net.ErrClosed)
	require.Equal(t, 1, closes)
}

// GO-07: family 40 is AF_VSOCK only if a new socket has the name of one. On other
// systems, and in sandboxes, the number means something else.
func testNameOfTheFamily(t *testing.T) {
	require.NoError(t, checkName("of a new socket", true, hvsock.CIDAny, hvsock.PortAny))
	require.ErrorIs(t, checkName("of another family", false, 0, 0), errNotVSock)
	require.ErrorIs(t, checkName("of the right size, and all zero", true, 0, 0), errNotVSock)
}
