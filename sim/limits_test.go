package sim

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
)

// A guest has as many connections as there are event flags, 2,047. The next one
// gets an error that says so, nothing else notices, and there is room again when
// one of them ends.
func TestEveryChannelInUse(t *testing.T) {
	for name, full := range map[string]error{
		"guest to host": syscall.ECONNREFUSED, // all that a host can say
		"host to guest": syscall.ENOBUFS,
	} {
		t.Run(name, func(t *testing.T) {
			host, guest := newPair(t, HostOptions{Backlog: 4096}, GuestOptions{RingPages: 2, Backlog: 4096})
			r := roles(host, guest)[0]
			if r.name != name {
				r = roles(host, guest)[1]
			}
			l, err := r.listen(r.bind)
			require.NoError(t, err)
			// Longer than the 2 s of a dial: this may be a busy machine.
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			var dialed []*hvsock.Conn
			for range vmbus.MaxChannels {
				c, err := r.dial(ctx, r.to)
				require.NoError(t, err)
				dialed = append(dialed, c)
			}
			require.Equal(t, 4*vmbus.MaxChannels, guest.Usage().Pages, "idle connections cost their rings")
			for range 3 {
				_, err = r.dial(ctx, r.to)
				require.ErrorIs(t, err, full)
			}
			require.Equal(t, vmbus.MaxChannels, guest.Usage().Connections)
			for _, i := range []int{0, 1000, vmbus.MaxChannels - 1} {
				_, err := dialed[i].Write([]byte{byte(i)})
				require.NoError(t, err)
			}
			for i := range vmbus.MaxChannels {
				c, err := l.AcceptHVSock()
				require.NoError(t, err)
				if i == 0 || i == 1000 || i == vmbus.MaxChannels-1 {
					b := make([]byte, 1)
					_, err := c.Read(b)
					require.NoError(t, err)
					require.Equal(t, byte(i), b[0], "first come, first served")
				}
				require.NoError(t, c.Close())
				require.NoError(t, dialed[i].Close())
			}
			again, err := r.dial(ctx, r.to)
			for err != nil { // the ids come back when the guest has released them
				require.ErrorIs(t, err, full)
				again, err = r.dial(ctx, r.to)
			}
			require.NoError(t, again.Close())
			require.NoError(t, l.Close())
		})
	}
}
