package vsock_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	original "github.com/hvlab/hvlab/hvsock/compat/vsock/testdata/original"
	echo "github.com/hvlab/hvlab/hvsock/compat/vsock/testdata/swapped"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/hvsock/compat"
	"github.com/hvlab/hvlab/hvsock/compat/vsock"
	"github.com/hvlab/hvlab/internal/apidiff"
	"github.com/hvlab/hvlab/sim"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newPair returns a host, which knows its one guest as CID 3, and that guest.
func newPair(t testing.TB) (host, guest *vsock.Machine) {
	t.Helper()
	h, err := sim.NewHost(sim.HostOptions{})
	require.NoError(t, err)
	g, err := h.NewGuest(sim.GuestOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, h.Close())
		require.Zero(t, h.Usage(), "channels, pages, connections and listeners are back")
		require.Zero(t, g.Usage(), "of the guest, too")
	})
	return vsock.OnHost(h, map[uint32]uuid.UUID{3: g.ID()}), vsock.OnGuest(g)
}

var _ = original.Call // the program as it was written compiles

func TestProgramIsTheOriginalWithOneImportSwapped(t *testing.T) {
	apidiff.Swapped(t, "testdata/original/echo.go", "testdata/swapped/echo.go",
		"github.com/mdlayher/vsock", "github.com/hvlab/hvlab/hvsock/compat/vsock")
}

// A server that was written for real sockets runs in a simulated guest; its
// host, itself, and an idle hour are its clients.
func TestUnchangedServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, guest := newPair(t)
		defer vsock.Use(guest)()
		var log strings.Builder
		s, err := echo.NewServer(0, &log)
		require.NoError(t, err)
		served := make(chan error, 1)
		go func() { served <- s.Serve(time.Hour) }()

		c, err := host.Dial(3, s.Port(), nil)
		require.NoError(t, err)
		_, err = c.Write([]byte("hello"))
		require.NoError(t, err)
		require.NoError(t, c.CloseWrite())
		got, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Equal(t, "hello", string(got))
		require.NoError(t, c.Close())

		answer, peer, err := echo.Call(vsock.Local, s.Port(), "who is it?")
		require.NoError(t, err)
		require.Equal(t, "who is it?", answer)
		require.Regexp(t, `^local\(1\):\d+$`, peer)

		require.NoError(t, <-served, "idleness ends it, in virtual time")
		require.Equal(t, "CID 4294967295, listening on a vsock address\n"+ // a guest of Hyper-V does not know its CID (hvsock.md 2.7)
			"5 bytes of the host\n10 bytes of this machine\nidle\n", log.String())
	})
}

// A client that was written for real sockets runs in a simulated guest.
func TestUnchangedClient(t *testing.T) {
	host, guest := newPair(t)
	defer vsock.Use(guest)()
	l, err := host.Listen(5000, nil)
	require.NoError(t, err)
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, c.RemoteAddr().String()[:6]+c.LocalAddr().String())
	}()
	answer, peer, err := echo.Call(vsock.Host, 5000, "")
	require.NoError(t, err)
	require.Equal(t, "vm(3):host(2):5000", answer, "as the host sees it")
	require.Equal(t, "host(2):5000", peer)

	_, _, err = echo.Call(vsock.Host, 5001, "")
	require.Equal(t, "dial on vsock: connect: connection refused", echo.Why(err))
}

// Without a machine the package is that of a system without vsock.
func TestWithoutAMachine(t *testing.T) {
	_, err := vsock.ContextID()
	var noFile *os.PathError
	require.ErrorAs(t, err, &noFile)
	require.Equal(t, "/dev/vsock", noFile.Path)
	require.ErrorIs(t, err, os.ErrNotExist, "the device is not there")
	require.ErrorContains(t, err, "call vsock.Use first", "the way out")

	var op *net.OpError
	_, err = vsock.Listen(5000, nil)
	require.ErrorAs(t, err, &op)
	require.Equal(t, "listen", op.Op)
	require.ErrorIs(t, err, os.ErrNotExist, "Listen asks for the CID first")
	_, err = vsock.ListenContextID(vsock.Local, 5000, nil)
	require.ErrorIs(t, err, syscall.EAFNOSUPPORT)
	_, err = vsock.Dial(vsock.Host, 5000, nil)
	require.ErrorAs(t, err, &op)
	require.Equal(t, "dial", op.Op)
	require.Equal(t, "host(2):5000", op.Addr.String())
	require.ErrorIs(t, err, syscall.EAFNOSUPPORT)
	var none *compat.NoMachineError
	require.ErrorAs(t, err, &none)
	_, err = vsock.FileListener(os.Stdin)
	require.ErrorIs(t, err, syscall.EINVAL)
}

// One machine for the whole process: a second one would let two tests meet.
func TestUseTwicePanics(t *testing.T) {
	host, guest := newPair(t)
	stop := vsock.Use(guest)
	require.PanicsWithValue(t, "vsock.Use: a machine is installed already, and there is one for the whole process. "+
		"Call what the first Use returned before the next; tests that run in parallel need vsock.On", func() { vsock.Use(host) })
	stop()
	second := vsock.Use(host)
	stop() // of the first: it must not take out the second
	cid, err := vsock.ContextID()
	require.NoError(t, err)
	require.Equal(t, uint32(vsock.Host), cid)
	second()
	require.Panics(t, func() { vsock.Use(nil) })
}

// The rows of hvsock.md 2.7 (bind and connect), and a KVM host's CIDs.
func TestContextIDs(t *testing.T) { synctest.Test(t, testContextIDs) }

func testContextIDs(t *testing.T) {
	host, guest := newPair(t)
	const unknown = 77
	for _, c := range []struct {
		name    string
		on      *vsock.Machine
		cid     uint32
		listen  error
		connect error
	}{
		{"guest, any", guest, hvsock.CIDAny, nil, syscall.ECONNREFUSED}, // its own: the loopback transport
		{"guest, hypervisor", guest, vsock.Hypervisor, syscall.EADDRNOTAVAIL, syscall.ENETUNREACH},
		{"guest, local", guest, vsock.Local, nil, syscall.ECONNREFUSED},
		{"guest, host", guest, vsock.Host, syscall.EADDRNOTAVAIL, syscall.ECONNREFUSED},
		{"guest, another guest", guest, 3, syscall.EADDRNOTAVAIL, syscall.ENODEV},
		{"host, any", host, hvsock.CIDAny, nil, syscall.ENODEV},
		{"host, itself", host, vsock.Host, nil, syscall.ECONNREFUSED},
		{"host, local", host, vsock.Local, nil, syscall.ECONNREFUSED},
		{"host, a guest", host, 3, syscall.EADDRNOTAVAIL, syscall.ETIMEDOUT}, // a guest has no way to refuse (5.2)
		{"host, no guest", host, unknown, syscall.EADDRNOTAVAIL, syscall.ENODEV},
	} {
		_, err := c.on.Dial(c.cid, 6000, nil)
		require.ErrorIs(t, err, c.connect, c.name)
		l, err := c.on.ListenContextID(c.cid, 6000, nil)
		require.ErrorIs(t, err, c.listen, c.name)
		if err == nil {
			require.Equal(t, &vsock.Addr{ContextID: c.cid, Port: 6000}, l.Addr(), c.name)
			_, err = c.on.ListenContextID(c.cid, 6000, nil)
			require.ErrorIs(t, err, syscall.EADDRINUSE, c.name)
			require.NoError(t, l.Close())
		}
	}
}

// The addresses of both ends, as they print: hvsock.md 2.7 (getsockname gives
// any, getpeername of an accepted socket the host and the connector's port).
func TestAddresses(t *testing.T) {
	host, guest := newPair(t)
	for _, c := range []struct {
		name           string
		on, by         *vsock.Machine
		cid            uint32
		local, remote  string // of the dialer, ports left out
		laddr, faraddr string // of the acceptor
	}{
		{"guest dials", host, guest, vsock.Host, "vm(4294967295)", "host(2)", "host(2)", "vm(3)"},
		{"host dials", guest, host, 3, "vm(4294967295)", "vm(3)", "vm(4294967295)", "host(2)"},
		{"guest dials itself", guest, guest, vsock.Local, "vm(4294967295)", "local(1)", "vm(4294967295)", "local(1)"},
	} {
		l, err := c.on.Listen(0, nil)
		require.NoError(t, err)
		bound := l.Addr().(*vsock.Addr)
		require.Greater(t, bound.Port, uint32(1023), "an automatic port is not a privileged one (2.6)")
		near, err := c.by.Dial(c.cid, bound.Port, nil)
		require.NoError(t, err)
		far, err := l.Accept()
		require.NoError(t, err)
		name := func(a net.Addr) string { n, _, _ := strings.Cut(a.String(), ":"); return n }
		require.Equal(t, []string{c.local, c.remote, c.laddr, c.faraddr},
			[]string{name(near.LocalAddr()), name(near.RemoteAddr()), name(far.LocalAddr()), name(far.RemoteAddr())}, c.name)
		require.Equal(t, near.LocalAddr().(*vsock.Addr).Port, far.RemoteAddr().(*vsock.Addr).Port, c.name)
		require.NoError(t, near.Close())
		require.NoError(t, far.Close())
		require.NoError(t, l.Close())
	}
}

// A context ends a dial; it does not lengthen the system's own connect timer.
func TestDialContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, _ := newPair(t)
		start := time.Now()
		for _, c := range []struct {
			patience time.Duration
			took     time.Duration
			want     error
		}{
			{time.Minute, 2 * time.Second, syscall.ETIMEDOUT}, // hvsock.md 8
			{time.Second, time.Second, context.DeadlineExceeded},
			{-1, 0, context.DeadlineExceeded},
		} {
			ctx, cancel := context.WithTimeout(context.Background(), c.patience)
			_, err := host.DialContext(ctx, 3, 5000, nil) // nobody listens, and a guest cannot say so
			cancel()
			require.ErrorIs(t, err, c.want)
			var timeout net.Error
			require.True(t, errors.As(err, &timeout) && timeout.Timeout())
			require.Equal(t, c.took, time.Since(start))
			start = time.Now()
		}
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(time.Second, cancel)
		_, err := host.DialContext(ctx, 3, 5000, nil)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, time.Second, time.Since(start))
	})
}

// Errors are those of the original: their operation, their addresses, the errno
// bare where it comes from package os.
func TestErrorsAreTheOriginals(t *testing.T) {
	host, guest := newPair(t)
	l, err := host.Listen(5000, nil)
	require.NoError(t, err)
	c, err := guest.Dial(vsock.Host, 5000, nil)
	require.NoError(t, err)

	require.NoError(t, c.CloseWrite())
	_, err = c.Write([]byte{1})
	require.Equal(t, &net.OpError{Op: "write", Net: "vsock", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: syscall.EPIPE}, err)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(-1)))
	_, err = c.Read(make([]byte, 1))
	require.Equal(t, &net.OpError{Op: "read", Net: "vsock", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.ErrDeadlineExceeded}, err)
	require.NoError(t, c.CloseRead())
	_, err = c.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err, "the end of a stream is never wrapped")
	require.NoError(t, c.Close())
	require.NoError(t, c.Close(), "mdlayher/socket closes once, and says nothing of the second time")
	closed := &net.OpError{Op: "read", Net: "vsock", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: net.ErrClosed}
	_, err = c.Read(make([]byte, 1))
	require.Equal(t, closed, err)
	require.ErrorIs(t, c.CloseRead(), net.ErrClosed)
	require.ErrorIs(t, c.CloseWrite(), net.ErrClosed)
	require.Equal(t, &net.OpError{Op: "set", Net: "vsock", Addr: c.LocalAddr(), Err: net.ErrClosed}, c.SetDeadline(time.Time{}))
	require.Equal(t, &net.OpError{Op: "set", Net: "vsock", Addr: c.LocalAddr(), Err: net.ErrClosed}, c.SetReadDeadline(time.Time{}))
	require.Equal(t, &net.OpError{Op: "set", Net: "vsock", Addr: c.LocalAddr(), Err: net.ErrClosed}, c.SetWriteDeadline(time.Time{}))
	_, err = c.SyscallConn()
	require.Equal(t, &net.OpError{Op: "syscall-conn", Net: "vsock", Addr: c.LocalAddr(), Err: net.ErrClosed}, err)

	require.NoError(t, l.SetDeadline(time.Now().Add(-1)))
	_, err = l.Accept()
	require.Equal(t, &net.OpError{Op: "accept", Net: "vsock", Addr: l.Addr(), Err: os.ErrDeadlineExceeded}, err)
	require.NoError(t, l.Close())
	require.NoError(t, l.Close())
	_, err = l.Accept()
	require.Equal(t, &net.OpError{Op: "accept", Net: "vsock", Addr: l.Addr(), Err: net.ErrClosed}, err)
	require.ErrorIs(t, l.SetDeadline(time.Time{}), net.ErrClosed)
}

// On a guest with the profile of Linux the program sees what a Linux guest of
// Hyper-V shows (hvsock.md 15): a refusal is not seen, a reset is an end of
// stream, and low ports are for the privileged.
func TestLinuxProfile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, err := sim.NewHost(sim.HostOptions{})
		require.NoError(t, err)
		defer h.Close()
		g, err := h.NewGuest(sim.GuestOptions{Profile: hvsock.Linux, Unprivileged: true})
		require.NoError(t, err)
		host, guest := vsock.OnHost(h, map[uint32]uuid.UUID{3: g.ID()}), vsock.OnGuest(g)

		start := time.Now()
		_, err = guest.Dial(vsock.Host, 5000, nil)
		require.ErrorIs(t, err, syscall.ETIMEDOUT)
		require.Equal(t, 2*time.Second, time.Since(start))
		_, err = guest.Listen(1023, nil)
		require.ErrorIs(t, err, os.ErrPermission)

		l, err := guest.Listen(5000, nil)
		require.NoError(t, err)
		defer l.Close()
		near, err := host.Dial(3, 5000, nil)
		require.NoError(t, err)
		far, err := l.Accept()
		require.NoError(t, err)
		require.Equal(t, uint32(vsock.Host), far.RemoteAddr().(*vsock.Addr).ContextID)
		require.NoError(t, near.Close())
		time.Sleep(9 * time.Second) // virtual: the host has waited for our FIN, and rescinds
		_, err = far.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
		_, err = far.Write([]byte{1})
		require.ErrorIs(t, err, syscall.EPIPE)
		require.NoError(t, far.Close())
	})
}
