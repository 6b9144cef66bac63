package sim

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/stretchr/testify/require"
)

// A talk is one connection in each direction, with the listeners that they came
// from: at the host, and in the guest.
type talk struct {
	atHost, inGuest *hvsock.Listener
	hostEnds        [2]net.Conn
	guestEnds       [2]net.Conn
}

// talking connects a host and a guest both ways, and leaves a byte unread at each
// end.
func talking(t *testing.T, host *Host, guest *Guest) (k talk) {
	t.Helper()
	var err error
	k.atHost, err = host.Listen(port(hvsock.Children, 5000))
	require.NoError(t, err)
	k.inGuest, err = guest.Listen(port(hvsock.Wildcard, 6000))
	require.NoError(t, err)
	k.guestEnds[0], k.hostEnds[0] = reach(t, guest.Dial, port(hvsock.Parent, 5000), k.atHost)
	k.hostEnds[1], k.guestEnds[1] = reach(t, host.Dial, port(guest.ID(), 6000), k.inGuest)
	for i := range 2 {
		for _, c := range []net.Conn{k.hostEnds[i], k.guestEnds[i]} {
			_, err := c.Write([]byte("x"))
			require.NoError(t, err)
		}
	}
	return k
}

// reach dials and accepts.
func reach(t *testing.T, dial func(context.Context, hvsock.Addr) (*hvsock.Conn, error), to hvsock.Addr, l net.Listener) (dialed, accepted net.Conn) {
	t.Helper()
	accepting := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		accepting <- c
	}()
	c, err := dial(context.Background(), to)
	require.NoError(t, err)
	return c, <-accepting
}

// keep makes ends of the host survive a pause.
func keep(t *testing.T, ends ...net.Conn) {
	t.Helper()
	for _, c := range ends {
		require.NoError(t, c.(*hvsock.Conn).SetOption(hvsock.ConnectedSuspend, 1))
	}
}

// ended wants an end that has everything that had arrived, and then errors.
func ended(t *testing.T, c net.Conn, unread string) {
	t.Helper()
	got, err := io.ReadAll(c)
	require.Equal(t, unread, string(got), "what had arrived stays readable")
	require.ErrorIs(t, err, syscall.ECONNRESET)
	_, err = c.Write([]byte("late"))
	require.ErrorIs(t, err, syscall.EPIPE)
	require.NoError(t, c.Close())
}

// works wants new connections both ways, and that they leave nothing.
func works(t *testing.T, host *Host, guest *Guest, atHost, inGuest net.Listener) {
	t.Helper()
	a, b := reach(t, guest.Dial, port(hvsock.Parent, 5000), atHost)
	c, d := reach(t, host.Dial, port(guest.ID(), 6000), inGuest)
	for _, pair := range [][2]net.Conn{{a, b}, {c, d}} {
		_, err := pair[0].Write([]byte("new"))
		require.NoError(t, err)
		require.NoError(t, pair[0].Close())
		got, err := io.ReadAll(pair[1])
		require.NoError(t, err)
		require.Equal(t, "new", string(got))
		require.NoError(t, pair[1].Close())
	}
	synctest.Wait()
	require.Zero(t, host.Usage().Channels)
	require.Zero(t, guest.Usage().Channels)
	require.Zero(t, guest.Usage().Pages)
	require.Zero(t, guest.Usage().Connections)
}

// forVersions runs a test for a new host and guest in a bubble, at the versions
// that have Hyper-V sockets of different kinds.
func forVersions(t *testing.T, test func(t *testing.T, host *Host, guest *Guest)) {
	for _, v := range []vmbus.Version{vmbus.Win10, vmbus.Win10V5, vmbus.Iron, vmbus.Copper} {
		t.Run(v.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				host, guest := newPair(t, HostOptions{}, GuestOptions{Version: v})
				test(t, host, guest)
			})
		})
	}
}

// TestPause is HV-18: connections end, at the host at once and in the guest when it
// goes on; listeners live; what is dialed meanwhile times out; new connections work.
func TestPause(t *testing.T) {
	forVersions(t, func(t *testing.T, host *Host, guest *Guest) {
		k := talking(t, host, guest)
		require.NoError(t, guest.Pause())
		require.NoError(t, guest.Pause(), "again")
		for _, c := range k.hostEnds {
			ended(t, c, "x")
		}
		still := make(chan error, 1)
		require.NoError(t, k.guestEnds[0].SetReadDeadline(time.Now().Add(time.Second)))
		go func() {
			got, err := io.ReadAll(k.guestEnds[0])
			if string(got) != "x" { // which it could see, if it ran
				err = errors.Join(err, errors.New("another byte"))
			}
			still <- err
		}()
		time.Sleep(time.Hour)
		require.Empty(t, still, "nothing runs")
		start := time.Now()
		_, err := host.Dial(context.Background(), port(guest.ID(), 6000))
		require.ErrorIs(t, err, syscall.ETIMEDOUT)
		_, err = guest.Dial(context.Background(), port(hvsock.Parent, 5000))
		require.ErrorIs(t, err, syscall.ETIMEDOUT)
		require.Equal(t, 4*time.Second, time.Since(start))
		require.Equal(t, guest.Version(), guest.Version(), "it can be looked at")
		require.NotZero(t, guest.Usage().Channels)

		require.NoError(t, guest.Resume())
		require.NoError(t, guest.Resume(), "again")
		require.ErrorIs(t, <-still, os.ErrDeadlineExceeded, "the deadline has passed meanwhile")
		require.NoError(t, k.guestEnds[0].Close())
		ended(t, k.guestEnds[1], "x")
		time.Sleep(10 * time.Second) // the host's offer to the dial of above is given up
		works(t, host, guest, k.atHost, k.inGuest)
	})
}

// TestPauseKeepingConnections: with the connections left alone, streams in flight
// stand still and go on, without a byte lost (SS-09).
func TestPauseKeepingConnections(t *testing.T) {
	forVersions(t, func(t *testing.T, host *Host, guest *Guest) {
		l, err := host.Listen(port(hvsock.Children, 5000))
		require.NoError(t, err)
		require.NoError(t, l.SetOption(hvsock.ConnectedSuspend, 1))
		g, h := reach(t, guest.Dial, port(hvsock.Parent, 5000), l)
		const total = 4 << 20
		sums := make(chan [32]byte, 4)
		for _, c := range []net.Conn{g, h} {
			go func() { // writes
				sum := sha256.New()
				b := make([]byte, 5000)
				for n := 0; n < total; n += len(b) {
					binary.LittleEndian.PutUint64(b, uint64(n))
					if n > 0 && n%(len(b)*10) == 0 {
						time.Sleep(time.Millisecond)
					}
					sum.Write(b)
					if _, err := c.Write(b); err != nil {
						t.Error(err)
					}
				}
				if err := c.(*hvsock.Conn).CloseWrite(); err != nil {
					t.Error(err)
				}
				sums <- [32]byte(sum.Sum(nil))
			}()
			go func() { // reads
				sum := sha256.New()
				if _, err := io.Copy(sum, c); err != nil {
					t.Error(err)
				}
				sums <- [32]byte(sum.Sum(nil))
			}()
		}
		for range 10 {
			time.Sleep(3 * time.Millisecond)
			require.NoError(t, guest.Pause())
			synctest.Wait()
			before := h.(*hvsock.Conn).Stats()
			time.Sleep(time.Minute)
			after := h.(*hvsock.Conn).Stats()
			require.Equal(t, before.In.Bytes, after.In.Bytes, "the guest writes nothing")
			require.LessOrEqual(t, after.Out.Bytes-before.Out.Bytes, uint64(guestmem.PageSize*10), "and reads nothing: a ring full at most")
			require.NoError(t, guest.Resume())
		}
		want := <-sums
		for range 3 {
			require.Equal(t, want, <-sums)
		}
		require.NoError(t, g.Close())
		require.NoError(t, h.Close())
		synctest.Wait()
		require.Zero(t, guest.Usage())
	})
}

// TestMigrate moves a guest whose program waits in Accept: connections end, the
// listener lives and is reached from the new host.
func TestMigrate(t *testing.T) {
	forVersions(t, func(t *testing.T, host *Host, guest *Guest) {
		k := talking(t, host, guest)
		old, err := NewHost(HostOptions{MaxVersion: vmbus.Win81})
		require.NoError(t, err)
		require.ErrorIs(t, guest.Migrate(old, Devices{}), vmbus.ErrProtocol, "it does not serve the version (P17)")
		require.NoError(t, old.Close())
		require.ErrorIs(t, guest.Migrate(old, Devices{}), vmbus.ErrProtocol)
		require.ErrorIs(t, guest.Migrate(host, Devices{}), syscall.EADDRINUSE, "it is here")
		for i, c := range k.hostEnds { // nothing has changed
			_, err := c.Write([]byte("y"))
			require.NoError(t, err)
			got := make([]byte, 2)
			_, err = io.ReadFull(k.guestEnds[i], got)
			require.NoError(t, err)
			require.Equal(t, "xy", string(got))
		}

		accepted := make(chan net.Conn, 1)
		go func() {
			c, err := k.inGuest.Accept()
			if err != nil {
				t.Error(err)
			}
			accepted <- c
		}()
		synctest.Wait()
		to, err := NewHost(HostOptions{})
		require.NoError(t, err)
		require.NoError(t, guest.Migrate(to, Devices{}))
		for i := range 2 {
			ended(t, k.hostEnds[i], "x")
			ended(t, k.guestEnds[i], "")
		}
		c, err := to.Dial(context.Background(), port(guest.ID(), 6000))
		require.NoError(t, err)
		require.NoError(t, (<-accepted).Close())
		require.NoError(t, c.Close())
		_, err = host.Dial(context.Background(), port(guest.ID(), 6000))
		require.ErrorIs(t, err, syscall.EHOSTUNREACH, "it is gone from here")
		atHost, err := to.Listen(port(hvsock.Children, 5000))
		require.NoError(t, err)
		works(t, to, guest, atHost, k.inGuest)
		require.Zero(t, host.Usage().Channels)
		require.NoError(t, guest.Migrate(host, Devices{}), "and back")
		works(t, host, guest, k.atHost, k.inGuest)
		require.NoError(t, to.Close())
	})
}

// TestHibernate: connections end, listeners live on both sides, and the guest comes
// back with the version that it had (hvsock.md 11).
func TestHibernate(t *testing.T) {
	forVersions(t, func(t *testing.T, host *Host, guest *Guest) {
		version := guest.Version()
		k := talking(t, host, guest)
		accepting := make(chan net.Conn, 1)
		go func() {
			c, err := k.inGuest.Accept()
			if err != nil {
				t.Error(err)
			}
			accepting <- c
		}()
		synctest.Wait()
		require.NoError(t, guest.Pause(), "a paused guest goes on first")
		require.NoError(t, guest.Hibernate())
		require.NoError(t, guest.Hibernate(), "again")
		for i := range 2 {
			ended(t, k.hostEnds[i], "x")
			ended(t, k.guestEnds[i], "x")
		}
		_, err := guest.Dial(context.Background(), port(hvsock.Parent, 5000))
		require.ErrorIs(t, err, syscall.ENODEV)
		_, err = host.Dial(context.Background(), port(guest.ID(), 6000))
		require.ErrorIs(t, err, syscall.ENETDOWN, "it may come back (10)")
		require.Zero(t, host.Usage().Channels)
		require.Equal(t, Usage{Listeners: 1}, guest.Usage())
		_, err = guest.Save()
		for _, err := range []error{err, guest.Pause(), guest.Migrate(host, Devices{})} {
			require.ErrorIs(t, err, vmbus.ErrState)
		}

		require.NoError(t, guest.Resume())
		require.Equal(t, version, guest.Version())
		c, err := host.Dial(context.Background(), port(guest.ID(), 6000))
		require.NoError(t, err)
		require.NoError(t, (<-accepting).Close(), "it has waited all the time")
		require.NoError(t, c.Close())
		works(t, host, guest, k.atHost, k.inGuest)
		require.NoError(t, guest.Hibernate()) // and the test closes it like that
	})
}

// TestLinuxSeesEnds: a Linux guest knows no reset: its streams end, as after any
// rescind (hvsock.md 7.5, 11).
func TestLinuxSeesEnds(t *testing.T) {
	for name, happen := range map[string]func(*Guest) error{
		"hibernate": (*Guest).Hibernate,
		"crash":     (*Guest).Crash,
		"save":      func(g *Guest) error { _, err := g.Save(); return err },
		"pause":     func(g *Guest) error { return errors.Join(g.Pause(), g.Resume()) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				host, guest := newPair(t, HostOptions{}, GuestOptions{Profile: hvsock.Linux, Version: vmbus.Iron})
				k := talking(t, host, guest)
				require.NoError(t, happen(guest))
				synctest.Wait()
				for i := range 2 {
					ended(t, k.hostEnds[i], "x")
					got, err := io.ReadAll(k.guestEnds[i])
					require.NoError(t, err)
					require.Equal(t, "x", string(got))
					_, err = k.guestEnds[i].Write([]byte("late"))
					require.ErrorIs(t, err, syscall.EPIPE)
				}
			})
		})
	}
}

// TestCrash: the host's ends are reset, the guest's end with the guest, and another
// may take its place.
func TestCrash(t *testing.T) {
	forVersions(t, func(t *testing.T, host *Host, guest *Guest) {
		k := talking(t, host, guest)
		accepting := make(chan error, 1)
		go func() { _, err := k.inGuest.Accept(); accepting <- err }()
		synctest.Wait()
		require.NoError(t, guest.Crash())
		require.ErrorIs(t, <-accepting, net.ErrClosed)
		for i := range 2 {
			ended(t, k.hostEnds[i], "x")
			ended(t, k.guestEnds[i], "x")
		}
		_, err := guest.Dial(context.Background(), port(hvsock.Parent, 5000))
		require.ErrorIs(t, err, syscall.ENODEV)
		_, err = host.Dial(context.Background(), port(guest.ID(), 6000))
		require.ErrorIs(t, err, syscall.EHOSTUNREACH)
		for _, err := range []error{guest.Crash(), guest.Close(), guest.Pause(), guest.Resume(), guest.Migrate(host, Devices{})} {
			require.ErrorIs(t, err, net.ErrClosed)
		}
		_, err = guest.Save()
		require.ErrorIs(t, err, net.ErrClosed)
		require.Zero(t, guest.Usage())
		next, err := host.NewGuest(GuestOptions{ID: guest.ID()})
		require.NoError(t, err)
		inGuest, err := next.Listen(port(hvsock.Wildcard, 6000))
		require.NoError(t, err)
		works(t, host, next, k.atHost, inGuest)
	})
}

// TestCloseWhilePaused: a paused guest goes on to unload.
func TestCloseWhilePaused(t *testing.T) {
	forVersions(t, func(t *testing.T, host *Host, guest *Guest) {
		k := talking(t, host, guest)
		keep(t, k.hostEnds[:]...)
		require.NoError(t, guest.Pause())
		require.NoError(t, guest.Close())
		for i := range 2 {
			ended(t, k.hostEnds[i], "x")
			ended(t, k.guestEnds[i], "x")
		}
	})
}

// TestMigrateContainers: a guest's containers move with it, or it does not move.
func TestMigrateContainers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, guest := newPair(t, HostOptions{}, GuestOptions{})
		to, err := NewHost(HostOptions{})
		require.NoError(t, err)
		box, err := guest.NewContainer(ContainerOptions{})
		require.NoError(t, err)
		l, err := box.Listen(port(hvsock.Wildcard, 7000))
		require.NoError(t, err)
		taken, err := to.NewContainer(ContainerOptions{ID: box.ID()})
		require.NoError(t, err)
		a, b := reach(t, host.Dial, port(box.ID(), 7000), l)
		require.ErrorIs(t, guest.Migrate(to, Devices{}), syscall.EADDRINUSE)
		_, err = a.Write([]byte("y"))
		require.NoError(t, err, "nothing has changed")
		require.NoError(t, taken.Close())

		require.NoError(t, guest.Migrate(to, Devices{}))
		ended(t, a, "")
		ended(t, b, "y")
		_, err = host.Dial(context.Background(), port(box.ID(), 7000))
		require.ErrorIs(t, err, syscall.EHOSTUNREACH)
		a, b = reach(t, to.Dial, port(box.ID(), 7000), l)
		require.NoError(t, a.Close())
		require.NoError(t, b.Close())
		require.NoError(t, box.Close())
		_, err = to.Dial(context.Background(), port(box.ID(), 7000))
		require.ErrorIs(t, err, syscall.EHOSTUNREACH)
		require.NoError(t, to.Close())
	})
}
