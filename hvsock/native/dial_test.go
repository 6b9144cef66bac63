package native

import (
	"context"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/stretchr/testify/require"
)

var somewhere = service(hvsock.Parent, 5000)

// dialer is a system whose connects last as long as given and end with err, or
// earlier with the context's error if it looks at the context.
func dialer(lasts time.Duration, err error, dials *int) system {
	s := fakeSystem()
	s.dial = func(ctx context.Context, _ hvsock.Addr) (stream, error) {
		*dials++
		t := time.NewTimer(lasts)
		defer t.Stop()
		select {
		case <-t.C:
			if err != nil {
				return nil, err
			}
			return &fakeStream{}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return s
}

const never = 24 * time.Hour

func TestDialEnds(t *testing.T) {
	for _, c := range []struct {
		name    string
		lasts   time.Duration
		library error
		limit   time.Duration // of the caller's context, 0 for none
		want    error
		after   time.Duration
		dials   int
	}{
		{"nobody answers: our timer", never, nil, 0, syscall.ETIMEDOUT, dialTimeout, 1},
		{"nobody answers: the system's timer", time.Second, syscall.ETIMEDOUT, 0, syscall.ETIMEDOUT, time.Second, 1},
		{"a deadline before the timer", never, nil, time.Second, os.ErrDeadlineExceeded, time.Second, 1},
		{"a deadline behind the system's timer is waited for", 2 * time.Second, syscall.ETIMEDOUT, 5 * time.Second, os.ErrDeadlineExceeded, 5 * time.Second, 3},
		{"a system that times out at once is not asked in a loop", 0, syscall.ETIMEDOUT, 5 * time.Second, syscall.ETIMEDOUT, 0, 1},
		{"refused", 0, syscall.ECONNREFUSED, 5 * time.Second, syscall.ECONNREFUSED, 0, 1},
		{"mdlayher/vsock says io.EOF for ENOTCONN", 0, io.EOF, 0, syscall.ENOTCONN, 0, 1},
		{"a signal that interrupts every connect", 0, syscall.EINTR, 0, syscall.EINTR, 0, maxInterrupted + 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.Background(), context.CancelFunc(func() {})
				if c.limit > 0 {
					ctx, cancel = context.WithTimeout(ctx, c.limit)
				}
				defer cancel()
				var dials int
				start := time.Now()
				conn, err := dialer(c.lasts, c.library, &dials).dialTo(ctx, somewhere)
				require.Nil(t, conn)
				requireOp(t, err, "dial", c.want)
				require.Equal(t, c.want == os.ErrDeadlineExceeded || c.want == syscall.ETIMEDOUT, err.(net.Error).Timeout())
				require.Equal(t, c.after, time.Since(start))
				require.Equal(t, c.dials, dials)
			})
		})
	}
}

// faults.md GO-03: one signal does not end a dial.
func TestDialRepeatsInterruptedConnect(t *testing.T) {
	s := fakeSystem()
	dials := 0
	s.dial = func(context.Context, hvsock.Addr) (stream, error) {
		if dials++; dials == 1 {
			return nil, syscall.EINTR
		}
		return &fakeStream{}, nil
	}
	c, err := s.dialTo(context.Background(), somewhere)
	require.NoError(t, err)
	require.Equal(t, somewhere, c.RemoteAddr())
}

func TestDialCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(time.Second, cancel)
		var dials int
		_, err := dialer(never, nil, &dials).dialTo(ctx, somewhere)
		requireOp(t, err, "dial", context.Canceled)
		require.False(t, err.(net.Error).Timeout(), "a cancellation is no timeout")
		_, err = dialer(never, nil, &dials).dialTo(ctx, somewhere)
		requireOp(t, err, "dial", context.Canceled)
		require.Equal(t, 1, dials, "a context that is done opens no socket")
	})
}

// go-winio's connect does not look at its context: Dial returns all the same, and
// the connection that comes later is closed (hvsock.md 16: do not leak).
func TestDialLeavesADeafConnectBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer, closed := make(chan struct{}), make(chan struct{})
		s := newHyperVSystem(hypervCalls{
			addr: func(a net.Addr) net.Addr { return a },
			dial: func(context.Context, hvsock.Addr) (stream, error) {
				<-answer
				return &fakeStream{close: func() error { close(closed); return nil }}, nil
			},
		})
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := s.dialTo(ctx, somewhere)
		requireOp(t, err, "dial", os.ErrDeadlineExceeded)
		close(answer)
		<-closed
	})
}

func TestDialText(t *testing.T) {
	s := fakeSystem()
	var dialed hvsock.Addr
	s.dial = func(_ context.Context, addr hvsock.Addr) (stream, error) { dialed = addr; return &fakeStream{}, nil }
	for _, network := range []string{"hvsock", "vsock", "tcp", "unix"} {
		c, err := s.dialText(context.Background(), network, "parent:5000")
		require.NoError(t, err, network)
		require.Equal(t, somewhere, dialed)
		require.NoError(t, c.Close())
	}
	_, err := s.dialText(context.Background(), "carrier pigeon", "parent:5000")
	require.ErrorAs(t, err, new(net.UnknownNetworkError))
	_, err = s.dialText(context.Background(), "tcp", "nonsense")
	requireOp(t, err, "dial", err)
	require.ErrorAs(t, err, new(*hvsock.AddrError))

	s.dial = func(context.Context, hvsock.Addr) (stream, error) { return nil, syscall.ECONNREFUSED }
	c, err := s.dialText(context.Background(), "tcp", "parent:5000")
	requireOp(t, err, "dial", syscall.ECONNREFUSED)
	require.True(t, c == nil, "not a nil *Conn in an interface")
}

// hvsock.md 10: SOCK_DGRAM fails in socket(), ENODEV on Linux, WSAESOCKTNOSUPPORT on
// Windows; SOCK_SEQPACKET is ESOCKTNOSUPPORT, on Linux in connect().
func TestSocketTypes(t *testing.T) {
	for _, c := range []struct {
		system  system
		network string
		call    string
		want    syscall.Errno
	}{
		{newVSockSystem(vsockCalls{}), "udp", "socket", syscall.ENODEV},
		{newVSockSystem(vsockCalls{}), "unixgram", "socket", syscall.ENODEV},
		{newVSockSystem(vsockCalls{}), "seqpacket", "connect", syscall.ESOCKTNOSUPPORT},
		{newHyperVSystem(hypervCalls{}), "udp", "socket", syscall.ESOCKTNOSUPPORT},
		{newHyperVSystem(hypervCalls{}), "seqpacket", "connect", syscall.ESOCKTNOSUPPORT},
	} {
		_, err := c.system.dialText(t.Context(), c.network, "parent:5000")
		var op *net.OpError
		require.ErrorAs(t, err, &op)
		require.Equal(t, c.network, op.Net)
		var call *os.SyscallError
		require.ErrorAs(t, err, &call)
		require.Equal(t, os.SyscallError{Syscall: c.call, Err: c.want}, *call, "%s %s", c.system.family, c.network)
	}
}

func TestDialRefused(t *testing.T) { // faults.md GO-02
	bothSystems(t, func(t *testing.T, s system) {
		_, err := s.dialTo(context.Background(), service(hvsock.Loopback, 9999))
		requireOp(t, err, "dial", syscall.ECONNREFUSED)
		require.Equal(t, service(hvsock.Loopback, 9999), err.(*net.OpError).Addr)
	})
}
