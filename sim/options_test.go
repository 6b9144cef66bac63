package sim

import (
	"context"
	"io"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
)

// hvsock.md 8 and 9: the connect timeout is 2 s, what the option says, or what
// the context says.
func TestConnectTimeoutOption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, guest := newPair(t, HostOptions{}, GuestOptions{Profile: hvsock.Linux})
		for _, side := range []struct {
			dialer *hvsock.Dialer
			to     hvsock.Addr
		}{{host.Dialer(), port(guest.ID(), 1)}, {guest.Dialer(), port(hvsock.Parent, 1)}} {
			takes := func(ctx context.Context) time.Duration {
				start := time.Now()
				_, err := side.dialer.Dial(ctx, side.to)
				require.Error(t, err)
				return time.Since(start)
			}
			require.Equal(t, 2*time.Second, takes(t.Context()))
			require.NoError(t, side.dialer.SetTimeout(300*time.Second))
			require.Equal(t, 300*time.Second, takes(t.Context()))
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			require.Equal(t, time.Second, takes(ctx), "a deadline of the context's own wins")
			cancel()
			require.NoError(t, side.dialer.SetTimeout(0))
			require.Equal(t, 2*time.Second, takes(t.Context()))
		}
		require.ErrorIs(t, host.Dialer().SetTimeout(301*time.Second), syscall.EINVAL)
		require.ErrorIs(t, guest.Dialer().SetOption(hvsock.ConnectTimeout, 1), syscall.ENOPROTOOPT, "Linux has its own")
		require.ErrorIs(t, guest.Dialer().SetOption(hvsock.VSockConnectTimeout, -1), syscall.ERANGE)
	})
}

// hvsock.md 9: CONTAINER_PASSTHRU makes Parent the VM's host, whatever it is
// otherwise.
func TestContainerPassthruOption(t *testing.T) {
	w := newReachWorld(t, GuestOptions{SiloParent: hvsock.ParentIsUtilityVM})
	for _, name := range []string{"host", "vm"} {
		l, err := w.places[name].Listen(port(hvsock.Children, 5000))
		require.NoError(t, err)
		defer l.Close()
		serve(l, name)
	}
	d := w.places["vmbox"].(*Container).Dialer()
	got, err := reached(dialerAs{d}, port(hvsock.Parent, 5000))
	require.NoError(t, err)
	require.Equal(t, "vm", got)
	require.NoError(t, d.SetOption(hvsock.ContainerPassthru, 1))
	got, err = reached(dialerAs{d}, port(hvsock.Parent, 5000))
	require.NoError(t, err)
	require.Equal(t, "host", got)
}

// dialerAs is a Dialer as a place that does not listen.
type dialerAs struct{ *hvsock.Dialer }

func (dialerAs) Listen(hvsock.Addr) (*hvsock.Listener, error) { return nil, syscall.EOPNOTSUPP }

// hvsock.md 9 and 11: a paused VM costs the host its connections, except where
// CONNECTED_SUSPEND is set.
func TestConnectedSuspendOption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, guest := newPair(t, HostOptions{}, GuestOptions{})
		l, err := guest.Listen(port(hvsock.Wildcard, 5000))
		require.NoError(t, err)
		d := host.Dialer()
		dial := func() (near *hvsock.Conn, far io.Closer) {
			near, err := d.Dial(t.Context(), port(guest.ID(), 5000))
			require.NoError(t, err)
			far, err = l.Accept()
			require.NoError(t, err)
			return near, far
		}
		plain, plainEnd := dial()
		require.NoError(t, d.SetOption(hvsock.ConnectedSuspend, 1))
		kept, keptEnd := dial()
		guest.attachment.peer.Suspend()
		_, err = plain.Read(make([]byte, 1))
		require.ErrorIs(t, err, syscall.ECONNRESET)
		_, err = kept.Write([]byte("still here"))
		require.NoError(t, err)
		again, againEnd := dial()
		require.NotNil(t, again, "the listener has survived")
		for _, c := range []io.Closer{plain, plainEnd, kept, keptEnd, again, againEnd, l} {
			require.NoError(t, c.Close())
		}
		synctest.Wait()
		require.Zero(t, host.Usage())
		require.Zero(t, guest.Usage())
	})
}

// hvsock.md 9: HIGH_VTL dials VTL 2, where nothing runs here.
func TestHighVTLOption(t *testing.T) {
	host, guest := newPair(t, HostOptions{}, GuestOptions{})
	d := host.Dialer()
	require.NoError(t, d.SetOption(hvsock.HighVTL, 1))
	_, err := d.Dial(t.Context(), port(guest.ID(), 5000))
	require.ErrorIs(t, err, syscall.EHOSTUNREACH)
	_, err = d.DialContext(t.Context(), "udp", "parent:1")
	require.ErrorIs(t, err, syscall.ESOCKTNOSUPPORT)
}

// hvsock.md 6 and 9: SO_SNDBUF and SO_RCVBUF are hints for the rings; on Linux
// only a listener's survive. Below VMBus 5.0 Linux and FreeBSD know one size, and
// AF_HYPERV (2016) always.
func TestBufferOptions(t *testing.T) {
	want := map[string][3]int{ // a dial's out and in, an accept's out
		"": {16, 32, 16}, "Linux": {7, 7, 16}, "FreeBSD": {16, 32, 16}, "Windows": {16, 32, 16}, "AF_HYPERV (2016)": {5, 5, 5},
	}
	for _, version := range []vmbus.Version{vmbus.Win10RS3, vmbus.Copper} {
		eachProfile(t, GuestOptions{Version: version}, func(t *testing.T, p hvsock.Profile, host *Host, guest *Guest) {
			want := want[p.Name]
			if version == vmbus.Win10RS3 && (p.Name == "Linux" || p.Name == "FreeBSD") {
				want = [3]int{6, 6, 6}
			}
			hl, err := host.Listen(port(hvsock.Wildcard, 5000))
			require.NoError(t, err)
			d := guest.Dialer()
			require.NoError(t, d.SetOption(hvsock.SendBuffer, 65536))
			require.NoError(t, d.SetOption(hvsock.RecvBuffer, 131072))
			dialed, err := d.Dial(t.Context(), port(hvsock.Parent, 5000))
			require.NoError(t, err)
			s := dialed.Stats()
			gl, err := guest.Listen(port(hvsock.Wildcard, 5000))
			require.NoError(t, err)
			require.NoError(t, gl.SetOption(hvsock.SendBuffer, 65536))
			out, err := host.Dial(t.Context(), port(guest.ID(), 5000))
			require.NoError(t, err)
			require.Equal(t, want, [3]int{s.Out.RingPages, s.In.RingPages, out.Stats().In.RingPages}, "what the guest sends is in for the host")
			for _, c := range []io.Closer{hl, gl, dialed, out} {
				require.NoError(t, c.Close())
			}
		})
	}
}
