package native

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/mdlayher/vsock"
	"github.com/stretchr/testify/require"
)

var someVM = uuid.MustParse("12345678-1234-4234-8234-123456789abc")

// The table of the package comment (hvsock.md 2.5 to 2.7).
func TestVSockAddresses(t *testing.T) {
	guid := hvsock.Addr{VMID: hvsock.Parent, ServiceID: someVM}
	local := hvsock.Addr{VMID: hvsock.Loopback, ServiceID: someVM}
	for _, c := range []struct {
		addr         hvsock.Addr
		dial, listen string // "CID:port", or the errno
	}{
		{service(hvsock.Parent, 5000), "2:5000", "4294967295:5000"},
		{service(hvsock.Loopback, 5000), "1:5000", "1:5000"},
		{service(hvsock.Wildcard, 5000), "ENETUNREACH", "4294967295:5000"},
		{service(hvsock.Children, 5000), "ENETUNREACH", "2:5000"},
		{service(hvsock.SiloHost, 5000), "ENETUNREACH", "EADDRNOTAVAIL"},
		{service(hvsock.Broadcast, 5000), "ENETUNREACH", "EADDRNOTAVAIL"},
		{service(someVM, 5000), "ENETUNREACH", "EADDRNOTAVAIL"},
		{service(hvsock.Parent, 0xFFFFFFFF), "2:4294967295", "4294967295:4294967295"},
		{guid, "EADDRNOTAVAIL", "EADDRNOTAVAIL"},
		{local, "EADDRNOTAVAIL", "EADDRNOTAVAIL"},
		// No service and port 0 leave a listener's port open; mdlayher/vsock
		// takes 0 for that.
		{hvsock.Addr{VMID: hvsock.Loopback}, "EADDRNOTAVAIL", "1:0"},
		{service(hvsock.Wildcard, 0), "ENETUNREACH", "4294967295:0"},
	} {
		t.Run(c.addr.String(), func(t *testing.T) {
			to, err := vsockTarget(c.addr)
			requireWhere(t, c.dial, to, err)
			at, err := vsockBind(c.addr)
			requireWhere(t, c.listen, at, err)
		})
	}
}

func requireWhere(t *testing.T, want string, got hvsock.VSockAddr, err error) {
	t.Helper()
	if err == nil {
		require.Equal(t, want, fmt.Sprintf("%d:%d", got.CID, got.Port))
		return
	}
	require.Equal(t, want, map[syscall.Errno]string{
		syscall.ENETUNREACH: "ENETUNREACH", syscall.EADDRNOTAVAIL: "EADDRNOTAVAIL",
	}[err.(*AddressError).Errno])
	require.ErrorIs(t, err, err.(*AddressError).Errno)
	require.ErrorIs(t, err, vmbus.ErrState, "the caller's to choose another")
	require.NotEmpty(t, err.(*AddressError).Reason)
}

// A vsockWorld is socket calls that remember what they were asked.
type vsockWorld struct {
	noLoopback bool
	open       int // listening sockets
	dialed     []string
}

func (w *vsockWorld) calls() vsockCalls {
	return vsockCalls{
		dial: func(_ context.Context, cid, port uint32) (stream, error) {
			w.dialed = append(w.dialed, fmt.Sprintf("%d:%d", cid, port))
			return &fakeStream{}, nil
		},
		listen: func(cid, port uint32) (acceptor, error) {
			if cid == hvsock.CIDLocal && w.noLoopback {
				return nil, &net.OpError{Op: "listen", Err: syscall.EADDRNOTAVAIL}
			}
			w.open++
			return &fakeListener{addr: &vsock.Addr{ContextID: cid, Port: 1 + port}, close: func() error { w.open--; return nil }}, nil
		},
	}
}

func TestVSockDial(t *testing.T) {
	var w vsockWorld
	s := newVSockSystem(w.calls())
	for _, addr := range []hvsock.Addr{somewhere, service(hvsock.Loopback, 7)} {
		_, err := s.dialTo(context.Background(), addr)
		require.NoError(t, err)
	}
	require.Equal(t, []string{"2:5000", "1:7"}, w.dialed)
	require.Zero(t, w.open, "the question whether CID 1 is local leaves no socket behind")
}

// Seen on a Firecracker guest with kernel 6.18: without vsock_loopback a connect
// to CID 1 travels to the hypervisor.
func TestVSockLoopbackNeverLeavesTheMachine(t *testing.T) {
	w := vsockWorld{noLoopback: true}
	s := newVSockSystem(w.calls())
	_, err := s.dialTo(context.Background(), service(hvsock.Loopback, 7))
	requireOp(t, err, "dial", syscall.ENETUNREACH)
	require.ErrorContains(t, err, vsockLoopbackEnable)
	require.Empty(t, w.dialed)
	_, err = s.listenOn(service(hvsock.Loopback, 7))
	requireOp(t, err, "listen", syscall.EADDRNOTAVAIL)
	require.ErrorContains(t, err, vsockLoopbackEnable)

	// Anything else that fails there says nothing about the transport.
	calls := w.calls()
	calls.listen = func(uint32, uint32) (acceptor, error) { return nil, syscall.EMFILE }
	_, err = newVSockSystem(calls).dialTo(context.Background(), service(hvsock.Loopback, 7))
	requireOp(t, err, "dial", syscall.EMFILE)
}

func TestVSockListen(t *testing.T) {
	var w vsockWorld
	s := newVSockSystem(w.calls())
	l, err := s.listenOn(hvsock.Addr{VMID: hvsock.Wildcard})
	require.NoError(t, err)
	require.Equal(t, service(hvsock.Wildcard, 1), l.Addr())
	_, err = s.listenOn(service(hvsock.SiloHost, 1))
	requireOp(t, err, "listen", syscall.EADDRNOTAVAIL)
}

// A listener on Parent binds to any CID, because Linux cannot bind to a peer, and
// so has to look at who comes.
func TestVSockParentAdmitsOnlyTheHost(t *testing.T) {
	admits := newVSockSystem(vsockCalls{}).admits
	host, local := service(hvsock.Parent, 1), service(hvsock.Loopback, 1)
	guest := hvsock.VSockAddr{CID: 3, Port: 1}
	require.True(t, admits(service(hvsock.Parent, 5000), host))
	require.False(t, admits(service(hvsock.Parent, 5000), local))
	require.False(t, admits(service(hvsock.Parent, 5000), guest))
	for _, remote := range []net.Addr{host, local, guest} {
		require.True(t, admits(service(hvsock.Wildcard, 5000), remote))
		require.True(t, admits(service(hvsock.Loopback, 5000), remote), "the system has seen to that")
	}
}

func TestVSockShowsAddresses(t *testing.T) {
	require.Equal(t, service(hvsock.Parent, 9), fromVSock(&vsock.Addr{ContextID: 2, Port: 9}))
	require.Equal(t, service(hvsock.Loopback, 9), fromVSock(&vsock.Addr{ContextID: 1, Port: 9}))
	require.Equal(t, service(hvsock.Wildcard, 9), fromVSock(&vsock.Addr{ContextID: 0xFFFFFFFF, Port: 9}))
	require.Equal(t, hvsock.VSockAddr{CID: 3, Port: 9}, fromVSock(&vsock.Addr{ContextID: 3, Port: 9}), "a CID without a VM id")
	unix := &net.UnixAddr{Name: "x"}
	require.Same(t, unix, fromVSock(unix))
}

func TestVSockFamilyMissing(t *testing.T) {
	calls := vsockCalls{dial: func(context.Context, uint32, uint32) (stream, error) {
		return nil, &net.OpError{Op: "dial", Err: syscall.EAFNOSUPPORT}
	}}
	_, err := newVSockSystem(calls).dialTo(context.Background(), somewhere)
	requireOp(t, err, "dial", errors.ErrUnsupported)
	var unsupported *UnsupportedError
	require.ErrorAs(t, err, &unsupported)
	require.Equal(t, "AF_VSOCK", unsupported.Family)
	require.ErrorIs(t, err, syscall.EAFNOSUPPORT, "what the system said is kept")
	require.ErrorContains(t, err, vsockEnable)
}
