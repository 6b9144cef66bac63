package native

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"
)

func TestConnSuite(t *testing.T) {
	bothSystems(t, func(t *testing.T, s system) {
		nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
			dialed, accepted := connect(t, s)
			return dialed, accepted, func() {
				_ = dialed.Close()
				_ = accepted.Close()
			}, nil
		})
	})
}

// What the libraries return, and what a caller of hvsock is promised for it
// (hvsock.md 16).
func TestReadErrors(t *testing.T) {
	for _, c := range []struct {
		name    string
		system  system
		library error
		want    error
		bare    bool
	}{
		{"end of stream is bare", fakeSystem(), io.EOF, io.EOF, true},
		{"reset", fakeSystem(), syscall.ECONNRESET, syscall.ECONNRESET, false},
		{"the library's wrapping goes", fakeSystem(), &net.OpError{Op: "x", Err: &os.PathError{Err: syscall.EIO}}, syscall.EIO, false},
		{"deadline", fakeSystem(), os.ErrDeadlineExceeded, os.ErrDeadlineExceeded, false},
		{"a timeout that is nothing else", newHyperVSystem(hypervCalls{}), winioTimeout{}, os.ErrDeadlineExceeded, false},
		{"ETIMEDOUT calls itself a timeout, but is no deadline", fakeSystem(), syscall.ETIMEDOUT, syscall.ETIMEDOUT, false},
		{"WSAECONNRESET", newHyperVSystem(hypervCalls{}), syscall.Errno(10054), syscall.ECONNRESET, false},
		{"WSAECONNABORTED is a reset to a reader", newHyperVSystem(hypervCalls{}), syscall.Errno(10053), syscall.ECONNRESET, false},
		{"closed by the library", fakeSystem(), os.ErrClosed, net.ErrClosed, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := newFakeConn(c.system, &fakeStream{read: func([]byte) (int, error) { return 0, c.library }})
			_, err := conn.Read(make([]byte, 1))
			if c.bare {
				require.Equal(t, c.want, err, "io.Reader's users compare")
				return
			}
			requireOp(t, err, "read", c.want)
			o := err.(*net.OpError)
			require.Equal(t, conn.LocalAddr(), o.Source)
			require.Equal(t, conn.RemoteAddr(), o.Addr)
			require.Equal(t, c.want == os.ErrDeadlineExceeded || c.want == syscall.ETIMEDOUT, o.Timeout())
		})
	}
}

func TestWriteErrors(t *testing.T) {
	for _, c := range []struct {
		name    string
		system  system
		library error
		want    error
	}{
		{"after own CloseWrite", fakeSystem(), syscall.EPIPE, syscall.EPIPE},
		{"mdlayher/vsock says io.EOF for ENOTCONN", fakeSystem(), io.EOF, syscall.EPIPE},
		{"WSAESHUTDOWN", newHyperVSystem(hypervCalls{}), syscall.Errno(10058), syscall.EPIPE},
		{"WSAENOTCONN", newHyperVSystem(hypervCalls{}), syscall.Errno(10057), syscall.EPIPE},
		{"the library closed it, we did not", newHyperVSystem(hypervCalls{}), net.ErrClosed, syscall.EPIPE},
		{"reset", newHyperVSystem(hypervCalls{}), syscall.Errno(10054), syscall.ECONNRESET},
		{"deadline", newHyperVSystem(hypervCalls{}), winioTimeout{}, os.ErrDeadlineExceeded},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := newFakeConn(c.system, &fakeStream{write: func([]byte) (int, error) { return 2, c.library }})
			n, err := conn.Write([]byte("abc"))
			require.Equal(t, 2, n, "bytes that went out before the error are reported")
			requireOp(t, err, "write", c.want)
		})
	}
}

// go-winio panics on an empty read, and an empty packet is a FIN on the wire.
func TestEmptyReadAndWriteStayAwayFromTheSocket(t *testing.T) {
	never := func([]byte) (int, error) { panic("reached the socket") }
	conn := newFakeConn(fakeSystem(), &fakeStream{read: never, write: never})
	for _, call := range []func([]byte) (int, error){conn.Read, conn.Write} {
		n, err := call(nil)
		require.Zero(t, n)
		require.NoError(t, err)
	}
	require.NoError(t, conn.Close())
	for _, call := range []func([]byte) (int, error){conn.Read, conn.Write} {
		_, err := call(nil)
		require.ErrorIs(t, err, net.ErrClosed)
	}
}

// go-winio only looks at a deadline when it has to wait, so it returns data, or
// takes some, after the deadline (net.Conn wants neither).
func TestPastDeadlineFailsAtOnce(t *testing.T) {
	var set []time.Time
	remember := func(at time.Time) error { set = append(set, at); return nil }
	conn := newFakeConn(fakeSystem(), &fakeStream{
		read:    func([]byte) (int, error) { return 1, nil },
		setRead: remember, setWrite: remember,
	})
	past := time.Now().Add(-time.Second)
	require.NoError(t, conn.SetDeadline(past))
	_, err := conn.Read(make([]byte, 1))
	requireOp(t, err, "read", os.ErrDeadlineExceeded)
	_, err = conn.Write(make([]byte, 1))
	requireOp(t, err, "write", os.ErrDeadlineExceeded)
	require.Equal(t, []time.Time{past, past}, set, "the library wakes those who wait")

	require.NoError(t, conn.SetDeadline(time.Time{}))
	n, err := conn.Read(make([]byte, 1))
	require.NoError(t, err, "a deadline is not sticky")
	require.Equal(t, 1, n)
}

// faults.md GO-08: the result of setting a deadline is not dropped.
func TestSetDeadlineReturnsItsError(t *testing.T) {
	fail := func(time.Time) error { return syscall.EINVAL }
	conn := newFakeConn(fakeSystem(), &fakeStream{setRead: fail})
	requireOp(t, conn.SetReadDeadline(time.Now()), "set", syscall.EINVAL)
	requireOp(t, conn.SetDeadline(time.Now()), "set", syscall.EINVAL)
	conn = newFakeConn(fakeSystem(), &fakeStream{setWrite: fail})
	requireOp(t, conn.SetDeadline(time.Now()), "set", syscall.EINVAL)

	require.NoError(t, conn.Close())
	requireOp(t, conn.SetDeadline(time.Now()), "set", net.ErrClosed)
}

func TestCloseWrite(t *testing.T) {
	for _, c := range []struct {
		name    string
		library error
		want    error
	}{
		{"done", nil, nil},
		{"the peer is gone: mdlayher/vsock", io.EOF, nil},
		{"the peer is gone: go-winio", net.ErrClosed, nil},
		{"shut already", syscall.EPIPE, nil},
		{"anything else is the caller's to know", syscall.EIO, syscall.EIO},
	} {
		t.Run(c.name, func(t *testing.T) {
			shut := func() error { return c.library }
			conn := newFakeConn(fakeSystem(), &fakeStream{closeWrite: shut, closeRead: shut})
			if c.want == nil {
				require.NoError(t, conn.CloseWrite())
				require.NoError(t, conn.CloseRead())
			} else {
				requireOp(t, conn.CloseWrite(), "close", c.want)
				requireOp(t, conn.CloseRead(), "close", c.want)
			}
			require.NoError(t, conn.Close())
			requireOp(t, conn.CloseWrite(), "close", net.ErrClosed)
			requireOp(t, conn.CloseRead(), "close", net.ErrClosed)
		})
	}
}

func TestHalfClose(t *testing.T) {
	bothSystems(t, func(t *testing.T, s system) {
		dialed, accepted := connect(t, s)
		_, err := dialed.Write([]byte("last words"))
		require.NoError(t, err)
		require.NoError(t, dialed.CloseWrite())
		require.NoError(t, dialed.CloseWrite(), "the second time does nothing")
		_, err = dialed.Write([]byte("more"))
		requireOp(t, err, "write", syscall.EPIPE)

		got, err := io.ReadAll(accepted)
		require.NoError(t, err)
		require.Equal(t, "last words", string(got), "everything before the end arrives")

		answer := bytes.Repeat([]byte("answer "), 10_000)
		go func() {
			_, _ = accepted.Write(answer)
			_ = accepted.Close()
		}()
		got, err = io.ReadAll(dialed)
		require.NoError(t, err, "the other direction is untouched")
		require.Equal(t, answer, got)
	})
}

// Windows leaves a pending receive alone when the reading half is shut, so the
// Conn has to wake it.
func TestCloseReadWakesReader(t *testing.T) {
	reading, wake := make(chan struct{}), make(chan time.Time, 1)
	conn := newFakeConn(fakeSystem(), &fakeStream{
		read: func([]byte) (int, error) {
			close(reading)
			<-wake
			return 0, winioTimeout{}
		},
		setRead: func(at time.Time) error { wake <- at; return nil },
	})
	result := make(chan error)
	go func() {
		_, err := conn.Read(make([]byte, 1))
		result <- err
	}()
	<-reading
	require.NoError(t, conn.CloseRead())
	require.Equal(t, io.EOF, <-result, "own CloseRead is the end of the stream")
	_, err := conn.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err)
	require.NoError(t, conn.SetReadDeadline(time.Time{}), "this does not reach the socket, where it would undo the wake-up")
	require.NoError(t, conn.CloseRead())
	require.Empty(t, wake)
}

func TestCloseWakesEverybody(t *testing.T) {
	bothSystems(t, func(t *testing.T, s system) {
		dialed, _ := connect(t, s)
		errs := make(chan error)
		started := make(chan struct{})
		go func() {
			close(started)
			_, err := dialed.Read(make([]byte, 1))
			errs <- err
		}()
		<-started
		require.NoError(t, dialed.Close())
		requireOp(t, <-errs, "read", net.ErrClosed)
		_, err := dialed.Write([]byte("x"))
		requireOp(t, err, "write", net.ErrClosed)
		requireOp(t, dialed.Close(), "close", net.ErrClosed) // the libraries return nil
		require.NotNil(t, dialed.LocalAddr(), "addresses outlive the connection")
	})
}

// Errors of a close are shown, and do not keep the Conn open.
func TestCloseError(t *testing.T) {
	conn := newFakeConn(fakeSystem(), &fakeStream{close: func() error { return syscall.EIO }})
	requireOp(t, conn.Close(), "close", syscall.EIO)
	requireOp(t, conn.Close(), "close", net.ErrClosed)
}

// A closed connection says so, whatever the library says about it.
func TestReadAfterConcurrentClose(t *testing.T) {
	var conn *Conn
	closeAndFail := func([]byte) (int, error) {
		_ = conn.Close()
		return 0, syscall.EBADF
	}
	conn = newFakeConn(fakeSystem(), &fakeStream{read: closeAndFail})
	_, err := conn.Read(make([]byte, 1))
	requireOp(t, err, "read", net.ErrClosed)
	conn = newFakeConn(fakeSystem(), &fakeStream{write: closeAndFail})
	_, err = conn.Write(make([]byte, 1))
	requireOp(t, err, "write", net.ErrClosed)
	conn = newFakeConn(fakeSystem(), &fakeStream{closeWrite: func() error { _ = conn.Close(); return syscall.EBADF }})
	requireOp(t, conn.CloseWrite(), "close", net.ErrClosed)
}

// The numbers of Windows answer to the names of every other system, as well as
// to their own.
func TestWinsockErrors(t *testing.T) {
	err := winsockErrno("connect", syscall.Errno(10013))
	require.ErrorIs(t, err, syscall.EACCES)
	require.ErrorIs(t, err, os.ErrPermission)
	require.ErrorIs(t, err, syscall.Errno(10013))
	require.NotErrorIs(t, err, syscall.ECONNREFUSED)
	var call *os.SyscallError
	require.ErrorAs(t, err, &call)
	require.Equal(t, "connect", call.Syscall)

	require.True(t, (&net.OpError{Err: winsockErrno("connect", syscall.Errno(10060))}).Timeout())
	require.False(t, (&net.OpError{Err: winsockErrno("connect", syscall.Errno(10061))}).Timeout())
	require.ErrorIs(t, winsockErrno("accept", syscall.Errno(10053)), syscall.ECONNABORTED, "not a reset: there was no connection yet")
	require.ErrorIs(t, winsockErrno("connect", syscall.Errno(4711)), syscall.Errno(4711), "unknown numbers stay")
	unknown := errors.New("no number at all")
	require.ErrorIs(t, winsockErrno("connect", unknown), unknown)

	for _, code := range []syscall.Errno{10043, 10044, 10047} {
		err := newHyperVSystem(hypervCalls{}).cause("connect", code)
		require.ErrorIs(t, err, errors.ErrUnsupported, "%d: no AF_HYPERV here", code)
		require.ErrorIs(t, err, syscall.EAFNOSUPPORT)
		require.ErrorContains(t, err, hypervEnable)
	}
}

// Constants must not be mixed up: hvsock.md 10 pairs them.
func TestWinsockTableOfSpecification(t *testing.T) {
	for code, errno := range map[syscall.Errno]syscall.Errno{
		10061: syscall.ECONNREFUSED, 10060: syscall.ETIMEDOUT, 10051: syscall.ENETUNREACH, 10065: syscall.EHOSTUNREACH,
		10047: syscall.EAFNOSUPPORT, 10050: syscall.ENETDOWN, 10013: syscall.EACCES, 10048: syscall.EADDRINUSE,
		10049: syscall.EADDRNOTAVAIL, 10022: syscall.EINVAL, 10056: syscall.EISCONN, 10057: syscall.ENOTCONN,
		10058: syscall.EPIPE, 10054: syscall.ECONNRESET, 10035: syscall.EAGAIN, 10045: syscall.EOPNOTSUPP,
	} {
		require.Equal(t, errno, winsockErrnos[code], "%d", code)
	}
}

func TestAddressErrorText(t *testing.T) {
	_, err := newVSockSystem(vsockCalls{}).listenOn(hvsock.Addr{VMID: hvsock.SiloHost})
	require.ErrorContains(t, err, "listen hvsock 36bd0c5c-7276-4223-88ba-7d03b654c568:00000000-0000-0000-0000-000000000000: ")
	require.ErrorContains(t, err, ": AF_VSOCK listens on VM ids Wildcard, Parent, Children and Loopback only")
}
