package bridge

import (
	"context"
	"io"
	"testing"
	"testing/synctest"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/sim"
	"github.com/stretchr/testify/require"
)

// TestCatalogue holds the rows of faults.md, section 1, about a bridge.
// internal/putback/check puts each fault back and runs its row.
func TestCatalogue(t *testing.T) {
	t.Run("SS-11", testHalfCloseTravels)
	t.Run("SS-12-bytes", TestHandshake)
	t.Run("SS-12-seconds", TestHandshakeIsBounded)
}

// SS-11: one application ends its sending half. The end of the stream comes out at
// the far end of the bridge, and the other direction goes on.
func testHalfCloseTravels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, err := sim.NewHost(sim.HostOptions{})
		require.NoError(t, err)
		guest, err := host.NewGuest(sim.GuestOptions{})
		require.NoError(t, err)
		l, err := host.Listen(hvsock.Addr{})
		require.NoError(t, err)
		to := l.Addr().(hvsock.Addr)
		to.VMID = hvsock.Parent
		pair := func() (outside, inside *hvsock.Conn) {
			outside, err := guest.Dial(context.Background(), to)
			require.NoError(t, err)
			inside, err = l.AcceptHVSock()
			require.NoError(t, err)
			return outside, inside
		}
		client, clientEnd := pair()
		server, serverEnd := pair()
		go relay(clientEnd, serverEnd, nil)
		for _, way := range []struct{ from, to *hvsock.Conn }{{client, server}, {server, client}} {
			_, err := io.WriteString(way.from, "all of it")
			require.NoError(t, err)
			require.NoError(t, way.from.CloseWrite())
			got, err := io.ReadAll(way.to)
			require.NoError(t, err)
			require.Equal(t, "all of it", string(got))
		}
		require.NoError(t, client.Close())
		require.NoError(t, server.Close())
		synctest.Wait()
		require.NoError(t, l.Close())
		require.NoError(t, host.Close())
	})
}
