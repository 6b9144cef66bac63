package native

import (
	"bytes"
	"context"
	"crypto/sha256"
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

// The tests TestReal... are those on sockets of the operating system. A machine
// without loopback skips them; internal/vsockvm/run boots one that has it.

// requireLoopback skips a test where this machine cannot connect to itself.
func requireLoopback(t *testing.T) {
	t.Helper()
	if r := Probe(); !r.Usable(OfferLoopback) {
		t.Skipf("no loopback on this machine (internal/vsockvm/run boots one that has it):\n%s", r)
	}
}

var anyLoopback = hvsock.Addr{VMID: hvsock.Loopback}

func listenReal(t *testing.T, addr hvsock.Addr) (l *Listener, loopback hvsock.Addr) {
	t.Helper()
	l, err := Listen(addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	require.NoError(t, l.SetDeadline(time.Now().Add(10*time.Second)), "no test hangs")
	return l, hvsock.Addr{VMID: hvsock.Loopback, ServiceID: l.Addr().(hvsock.Addr).ServiceID}
}

func connectReal(t *testing.T) (dialed, accepted *Conn) {
	t.Helper()
	l, addr := listenReal(t, anyLoopback)
	dialed, err := Dial(context.Background(), addr)
	require.NoError(t, err)
	c, err := l.Accept()
	require.NoError(t, err)
	accepted = c.(*Conn)
	t.Cleanup(func() {
		_ = dialed.Close()
		_ = accepted.Close()
	})
	return dialed, accepted
}

func TestRealConnSuite(t *testing.T) {
	requireLoopback(t)
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		dialed, accepted := connectReal(t)
		return dialed, accepted, func() {
			_ = dialed.Close()
			_ = accepted.Close()
		}, nil
	})
}

func TestRealAddresses(t *testing.T) {
	requireLoopback(t)
	dialed, accepted := connectReal(t)
	require.Equal(t, dialed.RemoteAddr(), accepted.LocalAddr())
	require.Equal(t, hvsock.Loopback, accepted.RemoteAddr().(hvsock.Addr).VMID)
	c, err := DialContext(context.Background(), "tcp", "parent:notaport")
	require.True(t, c == nil)
	require.ErrorAs(t, err, new(*hvsock.AddrError))
}

func TestRealTransfer(t *testing.T) {
	requireLoopback(t)
	dialed, accepted := connectReal(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 4<<20/16)
	sum := make(chan [sha256.Size]byte)
	go func() {
		got, _ := io.ReadAll(accepted)
		sum <- sha256.Sum256(got)
	}()
	n, err := dialed.Write(data)
	require.NoError(t, err)
	require.Equal(t, len(data), n)
	require.NoError(t, dialed.CloseWrite())
	require.Equal(t, sha256.Sum256(data), <-sum)
	_, err = dialed.Write([]byte("x"))
	requireOp(t, err, "write", syscall.EPIPE)
}

func TestRealCloseRead(t *testing.T) {
	requireLoopback(t)
	dialed, _ := connectReal(t)
	result := make(chan error)
	go func() {
		_, err := dialed.Read(make([]byte, 1))
		result <- err
	}()
	require.NoError(t, dialed.CloseRead())
	require.Equal(t, io.EOF, <-result)
}

func TestRealRefusal(t *testing.T) {
	requireLoopback(t)
	l, addr := listenReal(t, anyLoopback)
	require.NoError(t, l.Close())
	start := time.Now()
	_, err := Dial(context.Background(), addr)
	require.Error(t, err)
	var o *net.OpError
	require.ErrorAs(t, err, &o)
	// The loopback transport says ECONNRESET, hv_sock ETIMEDOUT, Windows
	// ECONNREFUSED: see testdata/observed.
	require.True(t, errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, syscall.ECONNREFUSED), "%v", err)
	require.Less(t, time.Since(start), 5*time.Second)
}

func TestRealListenerErrors(t *testing.T) {
	requireLoopback(t)
	l, addr := listenReal(t, anyLoopback)
	_, err := Listen(addr)
	requireOp(t, err, "listen", syscall.EADDRINUSE)
	require.NoError(t, l.SetDeadline(time.Now().Add(-time.Second)))
	_, err = l.Accept()
	requireOp(t, err, "accept", os.ErrDeadlineExceeded)
	require.NoError(t, l.Close())
	requireOp(t, l.Close(), "close", net.ErrClosed)
	_, err = l.Accept()
	requireOp(t, err, "accept", net.ErrClosed)
}

// A listener on Parent is for the host alone, although it is bound to any CID.
func TestRealParentListenerTurnsLoopbackAway(t *testing.T) {
	requireLoopback(t)
	l, loopback := listenReal(t, hvsock.Addr{VMID: hvsock.Parent})
	c, err := Dial(context.Background(), loopback)
	require.NoError(t, err, "the connection opens in the kernel, before anyone looks")
	defer c.Close()
	result := make(chan error)
	go func() {
		_, err := l.Accept()
		result <- err
	}()
	require.NoError(t, c.SetDeadline(time.Now().Add(10*time.Second)))
	_, err = c.Read(make([]byte, 1))
	require.Error(t, err)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "it is closed, not left waiting")
	require.NoError(t, l.Close())
	require.ErrorIs(t, <-result, net.ErrClosed)
}

// faults.md GO-04: whatever fails, no descriptor stays open.
func TestRealErrorsLeakNothing(t *testing.T) {
	requireLoopback(t)
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skipf("this system does not list a program's descriptors: %v", err)
		}
		return len(entries)
	}
	l, addr := listenReal(t, anyLoopback)
	fail := func() {
		_, err := Listen(addr)
		require.ErrorIs(t, err, syscall.EADDRINUSE)
		_, err = Dial(context.Background(), hvsock.Addr{VMID: hvsock.Loopback, ServiceID: hvsock.ServiceIDFromPort(1)})
		require.Error(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err = Dial(ctx, addr)
		require.ErrorIs(t, err, context.Canceled)
	}
	fail() // the runtime's poller opens its own descriptors once
	before := count()
	for range 10 {
		fail()
	}
	require.Equal(t, before, count())
	require.NoError(t, l.Close())
}
