package sim

import (
	"bytes"
	"io"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/google/uuid"
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

// hvsock.md 3: a container of the host asks the same registry: its sockets are of
// the same kernel. So does whoever dials within the host.
func TestContainerPermissions(t *testing.T) {
	onlySystem := registry.Descriptor("D:P(A;;FA;;;SY)")
	key := registry.New(
		registry.Service{ID: hvsock.ServiceIDFromPort(5000), Bind: onlySystem},
		registry.Service{ID: hvsock.ServiceIDFromPort(5001), Connect: onlySystem},
		registry.Service{ID: hvsock.ServiceIDFromPort(5002), NoWildcardBinds: true},
		registry.Service{ID: hvsock.ServiceIDFromPort(5003)},
	)
	host, err := NewHost(HostOptions{Services: key, Strict: true})
	require.NoError(t, err)
	defer host.Close()
	silo, err := host.NewContainer(ContainerOptions{})
	require.NoError(t, err)
	for _, c := range []struct {
		name           string
		bind           uuid.UUID
		port           uint32
		listen, dialed error // silo listens, and the host dials it
	}{
		{"the descriptor forbids to bind", hvsock.SiloHost, 5000, syscall.EACCES, nil},
		{"the descriptor forbids to connect", hvsock.SiloHost, 5001, nil, syscall.EACCES},
		{"no wildcard binds", hvsock.Wildcard, 5002, syscall.EACCES, nil},
		{"a bind that is no wildcard", hvsock.Parent, 5002, nil, nil},
		{"all is allowed", hvsock.Wildcard, 5003, nil, nil},
		{"it is not registered", hvsock.SiloHost, 5004, syscall.EACCES, nil},
		{"no such name in a container", hvsock.Children, 5003, syscall.EADDRNOTAVAIL, nil},
	} {
		l, err := silo.Listen(port(c.bind, c.port))
		require.ErrorIs(t, err, c.listen, c.name)
		if err != nil {
			continue
		}
		conn, err := host.Dial(t.Context(), port(silo.ID(), c.port))
		require.ErrorIs(t, err, c.dialed, c.name)
		if err == nil {
			require.NoError(t, conn.Close())
		}
		require.NoError(t, l.Close())
	}
	for _, dial := range []role{
		{name: "silo to host", listen: host.Listen, dial: silo.Dial, bind: port(hvsock.Wildcard, 5001), to: port(hvsock.SiloHost, 5001)},
		{name: "host to itself", listen: host.Listen, dial: host.Dial, bind: port(hvsock.Wildcard, 5001), to: port(hvsock.Loopback, 5001)},
	} {
		l, err := dial.listen(dial.bind)
		require.NoError(t, err)
		_, err = dial.dial(t.Context(), dial.to)
		require.ErrorIs(t, err, syscall.EACCES, dial.name)
		require.NoError(t, l.Close())
	}
}

// hvsock.md 3, Disabled: it cancels connections within the host as well.
func TestDisabledServiceInTheHost(t *testing.T) {
	key := registry.New(registry.Service{ID: hvsock.ServiceIDFromPort(5000)}, registry.Service{ID: hvsock.ServiceIDFromPort(6000)})
	host, err := NewHost(HostOptions{Services: key})
	require.NoError(t, err)
	defer host.Close()
	silo, err := host.NewContainer(ContainerOptions{})
	require.NoError(t, err)
	in := func(n uint32) role {
		return role{listen: silo.Listen, dial: host.Dial, bind: port(hvsock.Wildcard, n), to: port(silo.ID(), n)}
	}
	a, b := connect(t, in(5000))
	other, otherEnd := connect(t, in(6000))
	require.NoError(t, key.Disable(hvsock.ServiceIDFromPort(5000)))
	ended(t, a, "")
	ended(t, b, "")
	_, err = other.Write([]byte("x"))
	require.NoError(t, err, "another service's connection lives on")
	require.NoError(t, other.Close())
	require.NoError(t, otherEnd.Close())
	require.Zero(t, host.Usage())
}

// A machine that ends takes the connections within it along: their programs are
// gone, or find their streams cut off; nothing is kept.
func TestLoopbackEndsWithItsMachine(t *testing.T) {
	host, err := NewHost(HostOptions{})
	require.NoError(t, err)
	guest, err := host.NewGuest(GuestOptions{})
	require.NoError(t, err)
	in := roles(host, guest)[2:] // the host's loopback, the guest's
	for _, m := range []struct {
		role  role
		close func() error
		usage func() Usage
	}{{in[1], guest.Close, guest.Usage}, {in[0], host.Close, host.Usage}} {
		c1, c2 := connect(t, m.role)
		_, err := c1.Write([]byte("before"))
		require.NoError(t, err)
		require.NoError(t, m.close())
		require.Zero(t, m.usage(), m.role.name)
		ended(t, c2, "before")
		ended(t, c1, "")
	}
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
