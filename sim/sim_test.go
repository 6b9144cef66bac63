package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/trace"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/net/nettest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func port(vmid uuid.UUID, n uint32) hvsock.Addr {
	return hvsock.Addr{VMID: vmid, ServiceID: hvsock.ServiceIDFromPort(n)}
}

// newPair returns a host and one guest that are closed, and found empty, when
// the test ends.
func newPair(t testing.TB, ho HostOptions, g GuestOptions) (*Host, *Guest) {
	t.Helper()
	host, err := NewHost(ho)
	require.NoError(t, err)
	guest, err := host.NewGuest(g)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, host.Close())
		require.Zero(t, guest.memory.InUsePages(), "every guest page is back")
		require.Zero(t, host.Usage(), "and every channel, connection and listener")
		require.Zero(t, guest.Usage(), "of the guest, too")
	})
	return host, guest
}

// A dialer and a listener that can reach each other.
type role struct {
	name   string
	listen func(hvsock.Addr) (*hvsock.Listener, error)
	dial   func(context.Context, hvsock.Addr) (*hvsock.Conn, error)
	bind   hvsock.Addr // where the listener binds
	to     hvsock.Addr // what the dialer dials
}

func roles(host *Host, guest *Guest) []role {
	return []role{
		{"guest to host", host.Listen, guest.Dial, port(hvsock.Wildcard, 5000), port(hvsock.Parent, 5000)},
		{"host to guest", guest.Listen, host.Dial, port(hvsock.Wildcard, 5000), port(guest.ID(), 5000)},
		{"host loopback", host.Listen, host.Dial, port(hvsock.Loopback, 5001), port(hvsock.Loopback, 5001)},
		{"guest loopback", guest.Listen, guest.Dial, port(hvsock.Loopback, 5001), port(hvsock.Loopback, 5001)},
	}
}

// containerRoles are those of a container in the guest, which is over VMBus with its
// host, and of one on the host.
func containerRoles(t testing.TB, host *Host, guest *Guest) []role {
	silo, err := guest.NewContainer(ContainerOptions{})
	require.NoError(t, err)
	hosted, err := host.NewContainer(ContainerOptions{})
	require.NoError(t, err)
	return []role{
		{"container to host", host.Listen, silo.Dial, port(hvsock.Children, 5000), port(hvsock.Parent, 5000)},
		{"host to container", silo.Listen, host.Dial, port(hvsock.Wildcard, 5000), port(silo.ID(), 5000)},
		{"container to its guest", guest.Listen, silo.Dial, port(hvsock.Wildcard, 5001), port(hvsock.SiloHost, 5001)},
		{"guest to its container", silo.Listen, guest.Dial, port(hvsock.SiloHost, 5001), port(silo.ID(), 5001)},
		{"container to its own host", host.Listen, hosted.Dial, port(hvsock.Children, 5002), port(hvsock.Parent, 5002)},
		{"host to its own container", hosted.Listen, host.Dial, port(hvsock.Parent, 5002), port(hosted.ID(), 5002)},
	}
}

// connect returns both ends of a new connection.
func connect(t require.TestingT, r role) (dialed, accepted net.Conn) {
	l, err := r.listen(r.bind)
	require.NoError(t, err)
	defer l.Close()
	dialed, err = r.dial(context.Background(), r.to)
	require.NoError(t, err)
	accepted, err = l.Accept()
	require.NoError(t, err)
	return dialed, accepted
}

func TestNettest(t *testing.T) {
	host, guest := newPair(t, HostOptions{}, GuestOptions{})
	for _, r := range append(roles(host, guest), containerRoles(t, host, guest)...) {
		t.Run(r.name, func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				c1, c2 = connect(t, r)
				return c1, c2, func() { _, _ = c1.Close(), c2.Close() }, nil
			})
		})
	}
}

// TestNettestOfProfiles runs it with guests that exist; at the same time, since it
// mostly waits.
func TestNettestOfProfiles(t *testing.T) {
	for _, p := range hvsock.Profiles()[1:] {
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			host, guest := newPair(t, HostOptions{}, GuestOptions{Profile: p})
			for _, r := range roles(host, guest)[:2] {
				nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
					c1, c2 = connect(t, r)
					return c1, c2, func() { _, _ = c1.Close(), c2.Close() }, nil
				})
			}
		})
	}
}

// TestNothingLeft opens and closes connections in every role; ids, GPADLs and
// pages come back once the far end has been heard of.
func TestNothingLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, guest := newPair(t, HostOptions{}, GuestOptions{})
		for _, r := range append(roles(host, guest), containerRoles(t, host, guest)...) {
			for range 20 {
				c1, c2 := connect(t, r)
				_, err := c1.Write([]byte("ping"))
				require.NoError(t, err)
				var buf [4]byte
				_, err = io.ReadFull(c2, buf[:])
				require.NoError(t, err)
				require.NoError(t, c1.Close())
				require.NoError(t, c2.Close())
			}
			synctest.Wait()
			require.Zero(t, host.Usage(), r.name)
			require.Zero(t, guest.Usage(), r.name)
		}
	})
}

// TestHalfClose: each direction ends by itself, nothing is lost (I-HALF-CLOSE).
func TestHalfClose(t *testing.T) {
	host, guest := newPair(t, HostOptions{}, GuestOptions{})
	for _, r := range roles(host, guest)[:2] {
		t.Run(r.name, func(t *testing.T) {
			c1, c2 := connect(t, r)
			go func() {
				_, _ = c1.Write([]byte("question"))
				_ = c1.(*hvsock.Conn).CloseWrite()
			}()
			question, err := io.ReadAll(c2)
			require.NoError(t, err)
			require.Equal(t, "question", string(question))
			go func() {
				_, _ = c2.Write([]byte("answer"))
				_ = c2.Close()
			}()
			answer, err := io.ReadAll(c1)
			require.NoError(t, err)
			require.Equal(t, "answer", string(answer))
			_, err = c1.Write([]byte("x"))
			require.ErrorIs(t, err, syscall.EPIPE, "write after CloseWrite")
			require.NoError(t, c1.Close())
		})
	}
}

// TestWriteThenClose: what Write accepted arrives although Close follows at once
// and the reader is slow (HV-11, I-CLOSE-GRACE).
func TestWriteThenClose(t *testing.T) {
	host, guest := newPair(t, HostOptions{}, GuestOptions{})
	for _, r := range roles(host, guest) {
		t.Run(r.name, func(t *testing.T) {
			for range 50 {
				c1, c2 := connect(t, r)
				_, err := c1.Write(make([]byte, 10_000))
				require.NoError(t, err)
				require.NoError(t, c1.Close())
				got, err := io.ReadAll(c2)
				require.NoError(t, err)
				require.Len(t, got, 10_000)
				require.NoError(t, c2.Close())
			}
		})
	}
}

// TestErrors holds the errno of every way a dial or listen fails.
func TestErrors(t *testing.T) {
	host, guest := newPair(t, HostOptions{}, GuestOptions{})
	ctx := context.Background()
	_, err := guest.Dial(ctx, port(hvsock.Parent, 1))
	require.ErrorIs(t, err, syscall.ECONNREFUSED, "TLConnectResult says so")
	_, err = guest.Dial(ctx, port(uuid.New(), 1))
	require.ErrorIs(t, err, syscall.ENETUNREACH, "a guest reaches only its host")
	_, err = guest.Dial(ctx, port(hvsock.Loopback, 1))
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	_, err = host.Dial(ctx, port(uuid.New(), 1))
	require.ErrorIs(t, err, syscall.EHOSTUNREACH, "no such guest")
	_, err = host.Dial(ctx, port(hvsock.Parent, 1))
	require.ErrorIs(t, err, syscall.ENETUNREACH, "a physical host has no parent")

	l, err := host.Listen(port(hvsock.Wildcard, 1))
	require.NoError(t, err)
	_, err = host.Listen(port(hvsock.Wildcard, 1))
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	var op *net.OpError
	require.True(t, errors.As(err, &op))
	require.Equal(t, "listen", op.Op)
	_, err = host.Listen(port(hvsock.Parent, 1))
	require.ErrorIs(t, err, syscall.EADDRNOTAVAIL)
	_, err = guest.Listen(port(hvsock.Broadcast, 1))
	require.ErrorIs(t, err, syscall.EADDRNOTAVAIL)
	require.NoError(t, l.Close())
	require.ErrorIs(t, l.Close(), net.ErrClosed)
	_, err = l.Accept()
	require.ErrorIs(t, err, net.ErrClosed)

	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	_, err = host.Dial(cancelled, port(guest.ID(), 1))
	require.ErrorIs(t, err, context.Canceled)
}

// TestDialTimeouts: a guest cannot refuse, so the host waits its 2 s, or as long
// as the context says (virtual time).
func TestDialTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, guest := newPair(t, HostOptions{}, GuestOptions{})
		start := time.Now()
		_, err := host.Dial(context.Background(), port(guest.ID(), 1))
		require.ErrorIs(t, err, syscall.ETIMEDOUT)
		require.Equal(t, 2*time.Second, time.Since(start))
		var timeout net.Error
		require.True(t, errors.As(err, &timeout) && timeout.Timeout())

		ctx, cancel := context.WithTimeout(context.Background(), 7*time.Second)
		defer cancel()
		start = time.Now()
		_, err = host.Dial(ctx, port(guest.ID(), 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, 7*time.Second, time.Since(start))
		synctest.Wait()
		require.Zero(t, host.Usage(), "the unopened offers were rescinded and released")
	})
}

// TestRefusalBelow41: at 4.0 the host has no way to refuse; the guest's dial
// ends by its own timer.
func TestRefusalBelow41(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, guest := newPair(t, HostOptions{}, GuestOptions{Version: vmbus.Win10})
		_, err := guest.Dial(context.Background(), port(hvsock.Parent, 1))
		require.ErrorIs(t, err, syscall.ETIMEDOUT)
	})
}

// TestVersions: sockets work at every version that has them, and say ENODEV at
// every other.
func TestVersions(t *testing.T) {
	for _, v := range vmbus.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			host, guest := newPair(t, HostOptions{}, GuestOptions{Version: v})
			require.Equal(t, v, guest.Version())
			if v < vmbus.Win10 {
				_, err := guest.Dial(context.Background(), port(hvsock.Parent, 5000))
				require.ErrorIs(t, err, syscall.ENODEV)
				_, err = host.Dial(context.Background(), port(guest.ID(), 5000))
				require.ErrorIs(t, err, syscall.ENODEV)
				return
			}
			for _, r := range roles(host, guest)[:2] {
				c1, c2 := connect(t, r)
				go func() { _, _ = c1.Write([]byte("x")) }()
				var b [1]byte
				_, err := c2.Read(b[:])
				require.NoError(t, err)
				require.NoError(t, c1.Close())
				require.NoError(t, c2.Close())
			}
		})
	}
	host, err := NewHost(HostOptions{MaxVersion: vmbus.Win10})
	require.NoError(t, err)
	defer host.Close()
	_, err = host.NewGuest(GuestOptions{Version: vmbus.Iron})
	var version *endpoint.VersionError
	require.ErrorAs(t, err, &version)
}

// TestRingSizesAndLayouts moves more than a ring through every geometry.
func TestRingSizesAndLayouts(t *testing.T) {
	for _, layout := range []guestmem.Layout{guestmem.ScatteredPFNs, guestmem.ScatteredPages, guestmem.ContiguousPages} {
		for _, pages := range []int{channel.MinRingPages, 5, 6, 65} {
			t.Run(fmt.Sprintf("layout %v, %d pages", layout, pages), func(t *testing.T) {
				host, guest := newPair(t, HostOptions{}, GuestOptions{RingPages: pages, Layout: layout})
				c1, c2 := connect(t, roles(host, guest)[0])
				want := make([]byte, 300_000)
				for i := range want {
					want[i] = byte(i * 7 / 3)
				}
				go func() {
					_, _ = c1.Write(want)
					_ = c1.Close()
				}()
				got, err := io.ReadAll(c2)
				require.NoError(t, err)
				require.Equal(t, want, got)
				require.NoError(t, c2.Close())
			})
		}
	}
	host, err := NewHost(HostOptions{})
	require.NoError(t, err)
	defer host.Close()
	for _, pages := range []int{-1, 1, channel.MaxRingPages + 1} {
		_, err := host.NewGuest(GuestOptions{RingPages: pages})
		require.ErrorContains(t, err, "ring pages", "%d is silly", pages)
	}
}

// TestManyGuestsAndConnections: several guests, both directions, at once.
func TestManyGuestsAndConnections(t *testing.T) {
	host, err := NewHost(HostOptions{})
	require.NoError(t, err)
	l, err := host.Listen(port(hvsock.Children, 5000))
	require.NoError(t, err)
	var all sync.WaitGroup
	all.Go(func() { serveEcho(l, &all) })
	var dials sync.WaitGroup
	for range 3 {
		guest, err := host.NewGuest(GuestOptions{})
		require.NoError(t, err)
		gl, err := guest.Listen(port(hvsock.Wildcard, 6000))
		require.NoError(t, err)
		all.Go(func() { serveEcho(gl, &all) })
		for i := range 10 {
			dials.Go(func() {
				echo(t, i, func() (*hvsock.Conn, error) { return guest.Dial(context.Background(), port(hvsock.Parent, 5000)) })
			})
			dials.Go(func() {
				echo(t, i, func() (*hvsock.Conn, error) { return host.Dial(context.Background(), port(guest.ID(), 6000)) })
			})
		}
	}
	dials.Wait()
	require.NoError(t, host.Close())
	all.Wait()
}

func serveEcho(l net.Listener, all *sync.WaitGroup) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		all.Go(func() {
			defer c.Close()
			_, _ = io.Copy(c, c)
		})
	}
}

func echo(t *testing.T, n int, dial func() (*hvsock.Conn, error)) {
	c, err := dial()
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	want := make([]byte, 50_000*(n+1))
	for i := range want {
		want[i] = byte(i) ^ byte(n)
	}
	go func() {
		_, _ = c.Write(want)
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || string(got) != string(want) {
		t.Errorf("connection %d: %d of %d bytes, error %v", n, len(got), len(want), err)
	}
}

// TestSpecificBindWins: a listener bound to one guest is preferred over the
// wildcard (hvsock.md 4).
func TestSpecificBindWins(t *testing.T) {
	host, guest := newPair(t, HostOptions{}, GuestOptions{})
	wild, err := host.Listen(port(hvsock.Wildcard, 5000))
	require.NoError(t, err)
	defer wild.Close()
	own, err := host.Listen(port(guest.ID(), 5000))
	require.NoError(t, err)
	defer own.Close()
	c, err := guest.Dial(context.Background(), port(hvsock.Parent, 5000))
	require.NoError(t, err)
	defer c.Close()
	accepted, err := own.Accept()
	require.NoError(t, err)
	require.NoError(t, accepted.Close())
}

// TestGuestCloseEndsConnections: unloading the bus ends what is connected; both
// applications learn of it.
func TestGuestCloseEndsConnections(t *testing.T) {
	host, guest := newPair(t, HostOptions{}, GuestOptions{})
	c1, c2 := connect(t, roles(host, guest)[0])
	require.NoError(t, guest.Close())
	for name, c := range map[string]net.Conn{"guest": c1, "host": c2} {
		_, err := c.Read(make([]byte, 1))
		require.ErrorIs(t, err, syscall.ECONNRESET, name)
		_, err = c.Write([]byte("x"))
		require.ErrorIs(t, err, syscall.EPIPE, name)
		require.NoError(t, c.Close())
	}
	_, err := guest.Dial(context.Background(), port(hvsock.Parent, 1))
	require.ErrorIs(t, err, syscall.ENODEV, "the guest has no bus any more")
	_, err = host.Dial(context.Background(), port(guest.ID(), 1))
	require.ErrorIs(t, err, syscall.EHOSTUNREACH)
}

// TestHTTP runs a stock HTTP server and client over the sockets.
func TestHTTP(t *testing.T) {
	host, guest := newPair(t, HostOptions{}, GuestOptions{})
	l, err := guest.Listen(port(hvsock.Wildcard, 80))
	require.NoError(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello from the guest") })}
	go func() { _ = server.Serve(l) }()
	transport := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return host.DialContext(ctx, network, port(guest.ID(), 80).String())
	}}
	response, err := (&http.Client{Transport: transport}).Get("http://guest/")
	require.NoError(t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, "hello from the guest", string(body))
	require.NoError(t, response.Body.Close())
	transport.CloseIdleConnections()
	require.NoError(t, server.Close())
}

// TestTraceOrder: the whole life of one connection, as the host saw it.
func TestTraceOrder(t *testing.T) {
	var mu sync.Mutex
	var names []string
	synctest.Test(t, func(t *testing.T) {
		host, guest := newPair(t, HostOptions{Trace: func(e trace.Event) {
			mu.Lock()
			defer mu.Unlock()
			names = append(names, e.Name)
		}}, GuestOptions{Version: vmbus.Iron})
		c1, c2 := connect(t, roles(host, guest)[0])
		require.NoError(t, c1.Close())
		_, err := c2.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
		require.NoError(t, c2.Close())
		synctest.Wait()
	})
	require.Equal(t, []string{
		"InitiateContact", "VersionResponse", "RequestOffers", "AllOffersDelivered",
		"TLConnectRequest", "OfferChannel", "GPADLHeader", "GPADLCreated", "OpenChannel", "OpenResult",
		"RescindChannelOffer", "CloseChannel", "GPADLTeardown", "GPADLTorndown", "RelIDReleased",
		"Unload", "UnloadComplete",
	}, names)
}
