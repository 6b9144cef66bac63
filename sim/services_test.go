package sim

import (
	"bytes"
	"io"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/hvsock/registry"
	"github.com/stretchr/testify/require"
)

// hvsock.md 3: on a strict host both directions need a registered service,
// whichever side listens; the key may come from a real host.
func TestRegisteredServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var file bytes.Buffer
		require.NoError(t, registry.New(registry.Service{ID: hvsock.ServiceIDFromPort(5000), ElementName: "Echo"}).Save(&file))
		key, err := registry.Load(&file)
		require.NoError(t, err)
		host, guest := newPair(t, HostOptions{Services: key, Strict: true}, GuestOptions{})

		_, err = host.Listen(port(hvsock.Wildcard, 5001))
		require.ErrorIs(t, err, syscall.EACCES, "WSAEACCES")
		_, err = host.Dial(t.Context(), port(guest.ID(), 5001))
		require.ErrorIs(t, err, syscall.EACCES)
		stop, err := host.HandleRequests(hvsock.Wildcard, func(*hvsock.Request) { t.Error("an unregistered service reached a handler") })
		require.NoError(t, err)
		defer stop()
		_, err = guest.Dial(t.Context(), port(hvsock.Parent, 5001))
		require.ErrorIs(t, err, syscall.ECONNREFUSED, "hvsock.md 3: what a Windows guest sees")
		inGuest, err := guest.Listen(port(hvsock.Wildcard, 5001))
		require.NoError(t, err, "the guest asks nobody")
		defer inGuest.Close()

		for _, r := range roles(host, guest)[:2] { // they use port 5000
			c1, c2 := connect(t, r)
			require.NoError(t, c1.Close())
			require.NoError(t, c2.Close())
		}
	})
}

// hvsock.md 3: Disabled refuses new connections and cancels the ones there are;
// enabled again, the listener is still there.
func TestDisabledService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		id := hvsock.ServiceIDFromPort(5000)
		key := registry.New(registry.Service{ID: id}, registry.Service{ID: hvsock.ServiceIDFromPort(6000)})
		host, guest := newPair(t, HostOptions{Services: key}, GuestOptions{})
		other, otherEnd := connect(t, role{listen: host.Listen, dial: guest.Dial, bind: port(hvsock.Children, 6000), to: port(hvsock.Parent, 6000)})
		for _, r := range roles(host, guest)[:2] {
			l, err := r.listen(r.bind)
			require.NoError(t, err)
			dialed, err := r.dial(t.Context(), r.to)
			require.NoError(t, err)
			accepted, err := l.Accept()
			require.NoError(t, err)
			require.NoError(t, key.Disable(id))
			synctest.Wait()
			for _, c := range []io.ReadWriteCloser{dialed, accepted} {
				_, err = c.Read(make([]byte, 1))
				require.ErrorIs(t, err, syscall.ECONNRESET, r.name)
				_, err = c.Write([]byte{1})
				require.ErrorIs(t, err, syscall.EPIPE, r.name)
				require.NoError(t, c.Close())
			}
			_, err = r.dial(t.Context(), r.to)
			require.ErrorIs(t, err, syscall.ECONNREFUSED, r.name)
			require.NoError(t, key.Enable(id))
			dialed, err = r.dial(t.Context(), r.to)
			require.NoError(t, err, r.name)
			require.NoError(t, dialed.Close())
			require.NoError(t, l.Close())
		}
		_, err := other.Write([]byte("x"))
		require.NoError(t, err, "another service's connection lives on")
		require.NoError(t, other.Close())
		require.NoError(t, otherEnd.Close())
		synctest.Wait()
		require.Zero(t, host.Usage())
	})
}

// hvsock.md 3: permissions of a service, open mode included.
func TestServicePermissions(t *testing.T) {
	onlySystem := registry.Descriptor("D:P(A;;FA;;;SY)")
	key := registry.New(
		registry.Service{ID: hvsock.ServiceIDFromPort(5000), Bind: onlySystem},
		registry.Service{ID: hvsock.ServiceIDFromPort(5001), Connect: onlySystem},
		registry.Service{ID: hvsock.ServiceIDFromPort(5002), NoWildcardBinds: true},
	)
	host, guest := newPair(t, HostOptions{Services: key}, GuestOptions{})
	_, err := host.Listen(port(guest.ID(), 5000))
	require.ErrorIs(t, err, syscall.EACCES, "an administrator is not the system")
	_, err = host.Dial(t.Context(), port(guest.ID(), 5001))
	require.ErrorIs(t, err, syscall.EACCES)
	_, err = host.Listen(port(hvsock.Wildcard, 5002))
	require.ErrorIs(t, err, syscall.EACCES)
	_, err = host.Listen(port(hvsock.Children, 5002))
	require.ErrorIs(t, err, syscall.EACCES)
	for _, n := range []uint32{5001, 5002, 5003} { // 5003 is not registered, and the host is not strict
		l, err := host.Listen(port(guest.ID(), n))
		require.NoError(t, err)
		c, err := guest.Dial(t.Context(), port(hvsock.Parent, n))
		require.NoError(t, err)
		require.NoError(t, c.Close())
		require.NoError(t, l.Close())
	}
}
