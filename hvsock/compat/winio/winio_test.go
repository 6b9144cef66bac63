package winio_test

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

	"github.com/Microsoft/go-winio/pkg/guid"
	"github.com/hvlab/hvlab/hvsock/compat"
	"github.com/hvlab/hvlab/hvsock/compat/winio"
	echo "github.com/hvlab/hvlab/hvsock/compat/winio/testdata/swapped"
	"github.com/hvlab/hvlab/sim"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var _ = []compat.Sockets{(*sim.Host)(nil), (*sim.Guest)(nil), (*sim.Container)(nil)}

// newPair returns a host, its one guest, and the guest's VM id.
func newPair(t testing.TB) (host, guest *winio.Machine, vmid guid.GUID) {
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
	return winio.On(h), winio.On(g), guid.FromArray(g.ID())
}

func addr(vmid guid.GUID, port uint32) *winio.HvsockAddr {
	return &winio.HvsockAddr{VMID: vmid, ServiceID: winio.VsockServiceID(port)}
}

// A server that was written for a Windows host runs on a simulated one; its guest
// and itself are its clients.
func TestUnchangedServer(t *testing.T) {
	host, guest, vmid := newPair(t)
	defer winio.Use(host)()
	var log strings.Builder
	s, err := echo.NewServer(winio.HvsockGUIDWildcard(), winio.VsockServiceID(2761), &log)
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()

	c, err := guest.Dial(context.Background(), addr(winio.HvsockGUIDParent(), 2761))
	require.NoError(t, err)
	_, err = c.Write([]byte("hello"))
	require.NoError(t, err)
	require.NoError(t, c.CloseWrite())
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, "hello", string(got))
	require.NoError(t, c.Close())

	answer, err := echo.Call(context.Background(), winio.HvsockGUIDLoopback(), 2761, "who is it?")
	require.NoError(t, err)
	require.Equal(t, "who is it?", answer)

	require.NoError(t, s.Close())
	require.NoError(t, <-served)
	require.Equal(t, "listening on hvsock 00000000-0000-0000-0000-000000000000:00000ac9-facb-11e6-bd58-64006a7986d3\n"+
		"5 bytes of partition "+vmid.String()+"\n10 bytes of this machine\n", log.String())
}

// A client that was written for Windows runs in a simulated guest, and on a host.
// It knocks three times; nobody is at home, then somebody is.
func TestUnchangedClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, guest, vmid := newPair(t)
		stop := winio.Use(guest)
		_, err := echo.Call(context.Background(), winio.HvsockGUIDParent(), 5000, "")
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		require.Equal(t, "dial on hvsock", echo.Why(err))
		stop()

		defer winio.Use(host)()
		start := time.Now()
		_, err = echo.Call(context.Background(), vmid, 5000, "")
		require.ErrorIs(t, err, syscall.ETIMEDOUT, "a guest cannot refuse (hvsock.md 5.2)")
		require.Equal(t, 3*2*time.Second+2*100*time.Millisecond, time.Since(start), "three tries of 2 s, two waits")

		time.AfterFunc(3*time.Second, func() { // while it knocks for the second time
			l, err := guest.ListenHvsock(addr(winio.HvsockGUIDParent(), 5000))
			if err != nil {
				return
			}
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "come in")
			_ = c.Close()
			_ = l.Close()
		})
		answer, err := echo.Call(context.Background(), vmid, 5000, "")
		require.NoError(t, err)
		require.Equal(t, "come in", answer)
	})
}

// Without a machine the package is that of a Windows without Hyper-V sockets.
func TestWithoutAMachine(t *testing.T) {
	for name, err := range map[string]error{
		"dial":   second(winio.Dial(context.Background(), addr(winio.HvsockGUIDParent(), 5000))),
		"listen": second(winio.ListenHvsock(addr(winio.HvsockGUIDWildcard(), 5000))),
	} {
		var op *net.OpError
		require.ErrorAs(t, err, &op)
		require.Equal(t, name, op.Op)
		require.ErrorIs(t, err, syscall.EAFNOSUPPORT)
		require.ErrorIs(t, err, syscall.Errno(10047), "WSAEAFNOSUPPORT")
		require.ErrorContains(t, err, "call winio.Use first", "the way out")
		var none *compat.NoMachineError
		require.ErrorAs(t, err, &none)
	}
}

func second[T any](_ T, err error) error { return err }

// One machine for the whole process: a second one would let two tests meet.
func TestUseTwicePanics(t *testing.T) {
	host, guest, _ := newPair(t)
	stop := winio.Use(guest)
	require.Panics(t, func() { winio.Use(host) })
	stop()
	winio.Use(host)()
}

// The ids are those of Microsoft's hvsocket.h (hvsock.md 2.5), and text is GUIDs.
func TestAddresses(t *testing.T) {
	for text, id := range map[string]guid.GUID{
		"00000000-0000-0000-0000-000000000000": winio.HvsockGUIDWildcard(),
		"ffffffff-ffff-ffff-ffff-ffffffffffff": winio.HvsockGUIDBroadcast(),
		"90db8b89-0d35-4f79-8ce9-49ea0ac8b7cd": winio.HvsockGUIDChildren(),
		"e0e16197-dd56-4a10-9195-5ee7a155a838": winio.HvsockGUIDLoopback(),
		"a42e7cda-d03f-480c-9cc2-a4de20abb878": winio.HvsockGUIDParent(),
		"36bd0c5c-7276-4223-88ba-7d03b654c568": winio.HvsockGUIDSiloHost(),
		"00000ac9-facb-11e6-bd58-64006a7986d3": winio.VsockServiceID(2761),
	} {
		require.Equal(t, text, id.String())
		require.Equal(t, text+":"+text, (&winio.HvsockAddr{VMID: id, ServiceID: id}).String())
	}
	host, guest, vmid := newPair(t)
	l, err := host.ListenHvsock(addr(winio.HvsockGUIDChildren(), 5000))
	require.NoError(t, err)
	defer l.Close()
	near, err := guest.Dial(context.Background(), addr(winio.HvsockGUIDParent(), 5000))
	require.NoError(t, err)
	defer near.Close()
	far, err := l.Accept()
	require.NoError(t, err)
	defer far.Close()
	require.Equal(t, addr(winio.HvsockGUIDParent(), 5000), near.RemoteAddr())
	require.Equal(t, l.Addr(), far.LocalAddr(), "AcceptEx reports the listener's")
	require.Equal(t, vmid, far.RemoteAddr().(*winio.HvsockAddr).VMID)
	require.Equal(t, near.LocalAddr().(*winio.HvsockAddr).ServiceID, far.RemoteAddr().(*winio.HvsockAddr).ServiceID)
}

// The original's listen(2) asks for 16; hvsock.md 16 names that, too.
func TestBacklogIsTheOriginals(t *testing.T) {
	host, guest, _ := newPair(t)
	l, err := host.ListenHvsock(addr(winio.HvsockGUIDChildren(), 5000))
	require.NoError(t, err)
	defer l.Close()
	for range 16 {
		c, err := guest.Dial(context.Background(), addr(winio.HvsockGUIDParent(), 5000))
		require.NoError(t, err)
		defer c.Close()
	}
	_, err = guest.Dial(context.Background(), addr(winio.HvsockGUIDParent(), 5000))
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}

// Errors have the operation, addresses, call and number that the original's have.
func TestErrorsAreTheOriginals(t *testing.T) {
	host, guest, _ := newPair(t)
	to := addr(winio.HvsockGUIDParent(), 5000)
	is := func(err error, op, call string, code, errno syscall.Errno) {
		t.Helper()
		var wrapped *net.OpError
		require.ErrorAs(t, err, &wrapped)
		require.Equal(t, op, wrapped.Op)
		require.Equal(t, "hvsock", wrapped.Net)
		require.Equal(t, os.NewSyscallError(call, &winio.WinsockError{Code: code, Errno: errno}), wrapped.Err)
		require.ErrorIs(t, err, code)
		require.ErrorIs(t, err, errno)
	}
	_, err := guest.Dial(context.Background(), to)
	is(err, "dial", "connectex", 10061, syscall.ECONNREFUSED)
	_, err = host.Dial(context.Background(), addr(winio.HvsockGUIDParent(), 1))
	is(err, "dial", "connectex", 10051, syscall.ENETUNREACH)
	_, err = host.Dial(context.Background(), addr(guid.GUID{Data1: 7}, 1))
	is(err, "dial", "connectex", 10065, syscall.EHOSTUNREACH)

	l, err := host.ListenHvsock(addr(winio.HvsockGUIDWildcard(), 5000))
	require.NoError(t, err)
	_, err = host.ListenHvsock(addr(winio.HvsockGUIDWildcard(), 5000))
	is(err, "listen", "socket", 10048, syscall.EADDRINUSE)
	_, err = host.ListenHvsock(addr(winio.HvsockGUIDParent(), 5000))
	is(err, "listen", "socket", 10049, syscall.EADDRNOTAVAIL)

	c, err := guest.Dial(context.Background(), to)
	require.NoError(t, err)
	far, err := l.Accept()
	require.NoError(t, err)
	require.NoError(t, c.CloseWrite())
	_, err = c.Write([]byte{1})
	is(err, "write", "wsasend", 10058, syscall.EPIPE)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(-1)))
	_, err = c.Read(make([]byte, 1))
	require.Equal(t, &net.OpError{Op: "read", Net: "hvsock", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: winio.ErrTimeout}, err)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, c.SetDeadline(time.Time{}))
	n, err := c.Read(nil)
	require.NoError(t, err, "an empty buffer is no reason to panic")
	require.Zero(t, n)
	require.NoError(t, c.CloseRead())
	_, err = c.Read(make([]byte, 1))
	is(err, "read", "wsarecv", 10058, syscall.EPIPE)
	_, err = far.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err, "the end of a stream is never wrapped")

	require.False(t, c.IsClosed())
	require.NoError(t, c.Close())
	require.NoError(t, c.Close())
	require.True(t, c.IsClosed())
	_, err = c.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
	for op, err := range map[string]error{"closeread": c.CloseRead(), "closewrite": c.CloseWrite()} {
		require.ErrorIs(t, err, net.ErrClosed)
		var wrapped *net.OpError
		require.True(t, errors.As(err, &wrapped) && wrapped.Op == op, "%v", err)
	}
	require.NoError(t, c.SetDeadline(time.Now()), "the original sets a deadline nobody waits for")
	require.NoError(t, far.Close())

	require.NoError(t, l.Close())
	require.NoError(t, l.Close())
	_, err = l.Accept()
	require.ErrorIs(t, err, os.ErrClosed, "what the original says")
	require.ErrorIs(t, err, net.ErrClosed, "what everybody else says")
}

// A connection that the other side's machine takes down is reset, both ways
// (hvsock.md 10: send and recv after an abort).
func TestReset(t *testing.T) {
	h, err := sim.NewHost(sim.HostOptions{})
	require.NoError(t, err)
	defer h.Close()
	g, err := h.NewGuest(sim.GuestOptions{})
	require.NoError(t, err)
	l, err := winio.On(h).ListenHvsock(addr(winio.HvsockGUIDChildren(), 5000))
	require.NoError(t, err)
	defer l.Close()
	_, err = winio.On(g).Dial(context.Background(), addr(winio.HvsockGUIDParent(), 5000))
	require.NoError(t, err)
	c, err := l.Accept()
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, g.Close())
	_, err = c.Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.Errno(10054), "WSAECONNRESET")
	_, err = c.Write([]byte{1})
	require.ErrorIs(t, err, syscall.Errno(10054))
	require.ErrorIs(t, err, syscall.ECONNRESET)
	require.ErrorContains(t, err, "wsasend")
}

// Deadline and context end a dial at once, also between two tries.
func TestDialEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, _, vmid := newPair(t)
		for _, c := range []struct {
			dialer winio.HvsockDialer
			cancel time.Duration
			took   time.Duration
			want   error
		}{
			{winio.HvsockDialer{Deadline: time.Now().Add(-1)}, time.Hour, 0, context.DeadlineExceeded},
			{winio.HvsockDialer{Deadline: time.Now().Add(time.Second)}, time.Hour, time.Second, context.DeadlineExceeded},
			{winio.HvsockDialer{}, time.Second, time.Second, context.Canceled},
			{winio.HvsockDialer{}, time.Hour, 2 * time.Second, syscall.ETIMEDOUT},
			{winio.HvsockDialer{Retries: 1}, time.Hour, 4 * time.Second, syscall.ETIMEDOUT},
			{winio.HvsockDialer{Retries: 1, RetryWait: time.Minute}, 3 * time.Second, 3 * time.Second, context.Canceled},
		} {
			ctx, cancel := context.WithCancel(context.Background())
			stop := time.AfterFunc(c.cancel, cancel)
			start := time.Now()
			_, err := host.Dialer(c.dialer).Dial(ctx, addr(vmid, 5000))
			require.ErrorIs(t, err, c.want)
			require.Equal(t, c.took, time.Since(start), "%v", c)
			stop.Stop()
			cancel()
		}
	})
}

// What programs look at in errors that have no number of Windows.
func TestErrorValues(t *testing.T) {
	var timeout net.Error
	require.True(t, errors.As(winio.ErrTimeout, &timeout) && timeout.Timeout())
	require.EqualError(t, winio.ErrTimeout, "i/o timeout")
	temporary, ok := winio.ErrTimeout.(interface{ Temporary() bool })
	require.True(t, ok && temporary.Temporary(), "as go-winio has it")
	require.Equal(t, os.ErrClosed, winio.ErrFileClosed)

	host, _, vmid := newPair(t)
	l, err := host.ListenHvsock(addr(winio.HvsockGUIDWildcard(), 5000))
	require.NoError(t, err)
	require.NoError(t, l.Close())
	_, err = l.Accept()
	require.ErrorContains(t, err, "acceptex: file already closed")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = host.Dial(ctx, addr(vmid, 5000))
	require.ErrorIs(t, err, context.Canceled)
	refused := &winio.WinsockError{Code: 10061, Errno: syscall.ECONNREFUSED}
	require.EqualError(t, errors.Unwrap(refused), refused.Error(), "in the words of this system")
	require.False(t, refused.Timeout())
	require.True(t, (&winio.WinsockError{Code: 10060, Errno: syscall.ETIMEDOUT}).Timeout())
	require.ErrorIs(t, &winio.WinsockError{Code: 10013, Errno: syscall.EACCES}, os.ErrPermission)
}
