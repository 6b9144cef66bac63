package native

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/stretchr/testify/require"
)

// offer is what r says about name.
func offer(t *testing.T, r Report, name string) Offer {
	t.Helper()
	for _, o := range r.Offers {
		if o.Name == name {
			return o
		}
	}
	t.Fatalf("the report does not speak of %s", name)
	return Offer{}
}

func TestVSockReport(t *testing.T) {
	noLoopback := dialError(somewhere, noLoopback(somewhere, syscall.ENETUNREACH))
	for _, c := range []struct {
		name           string
		facts          vsockFacts
		loopback       bool
		parent         bool
		enableLoopback string
		enableParent   string
	}{
		{"Debian in QEMU after modprobe vsock_loopback", vsockFacts{cid: hvsock.CIDAny}, true, false, "", "sudo modprobe hv_sock (in a guest of Hyper-V)"},
		{"guest of Firecracker", vsockFacts{cid: 3, loopback: noLoopback}, false, true, vsockLoopbackEnable, ""},
		{"guest of Hyper-V", vsockFacts{cid: hvsock.CIDAny, hvSock: true, loopback: noLoopback}, false, true, vsockLoopbackEnable, ""},
		{"host of QEMU guests", vsockFacts{cid: hvsock.CIDHost}, true, false, "", ""},
		{"an ordinary user", vsockFacts{cidErr: os.ErrPermission}, true, false, "", "sudo chmod a+r /dev/vsock"},
		{"loopback that does not carry", vsockFacts{cid: 3, loopback: io.ErrUnexpectedEOF}, false, true, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := c.facts.report()
			require.Equal(t, "AF_VSOCK", r.Family)
			require.True(t, r.Usable(OfferFamily))
			require.Equal(t, c.loopback, r.Usable(OfferLoopback))
			require.Equal(t, c.parent, r.Usable(OfferParent))
			require.Equal(t, c.enableLoopback, offer(t, r, OfferLoopback).Enable)
			require.Equal(t, c.enableParent, offer(t, r, OfferParent).Enable)
			require.Equal(t, c.facts.cidErr == nil, r.CID != nil)
		})
	}
}

func TestMissingFamilyReport(t *testing.T) {
	r := vsockFacts{family: syscall.EAFNOSUPPORT}.report()
	for _, o := range r.Offers {
		require.False(t, o.Usable, o.Name)
	}
	require.Equal(t, vsockEnable, offer(t, r, OfferFamily).Enable)

	r = hypervFacts{loopback: &UnsupportedError{Family: "AF_HYPERV"}}.report()
	require.False(t, r.Usable(OfferFamily))
	require.Equal(t, hypervEnable, offer(t, r, OfferFamily).Enable)

	r = unsupportedReport("", nil, "")
	require.False(t, r.Usable(OfferFamily))
	require.False(t, r.Usable("something unheard of"))
}

func TestHyperVReport(t *testing.T) {
	f := hypervFacts{service: service(hvsock.Loopback, 5000)}
	require.True(t, f.report().Usable(OfferLoopback))

	f.loopback = &net.OpError{Op: "listen", Err: winsockErrno("bind", syscall.Errno(10013))}
	r := f.report()
	require.True(t, r.Usable(OfferFamily))
	require.False(t, r.Usable(OfferLoopback))
	require.Equal(t, RegisterCommand(f.service.ServiceID, "hvlab"), offer(t, r, OfferLoopback).Enable,
		"WSAEACCES is what an unregistered service gives (hvsock.md 3)")
}

func TestReportText(t *testing.T) {
	r := vsockFacts{cid: 3, loopback: noLoopback(somewhere, syscall.ENETUNREACH)}.report()
	require.Equal(t, "yes  address family  AF_VSOCK sockets open\n"+
		"no   loopback        the loopback transport is not loaded; to enable it: sudo modprobe vsock_loopback\n"+
		"yes  parent          guest with CID 3\n", r.String())
	b, err := json.Marshal(r)
	require.NoError(t, err)
	require.Contains(t, string(b), `"cid":3`)
}

// The probe is of the machine the test runs on, so only its shape is known.
func TestProbe(t *testing.T) {
	r := Probe()
	t.Logf("%+v\n%s", r, r)
	require.Equal(t, runtime.GOOS+"/"+runtime.GOARCH, r.System)
	require.Len(t, r.Offers, 3)
	require.Equal(t, len(r.Offers), strings.Count(r.String(), "\n"), "one line each")
	for _, o := range r.Offers {
		require.NotEmpty(t, o.Detail)
	}
}

func TestTryLoopback(t *testing.T) {
	bothSystems(t, func(t *testing.T, s system) {
		addr := hvsock.Addr{VMID: hvsock.Loopback}
		require.NoError(t, s.tryLoopback(addr))

		refused := s
		refused.dial = func(context.Context, hvsock.Addr) (stream, error) { return nil, syscall.ECONNRESET }
		require.ErrorIs(t, refused.tryLoopback(addr), syscall.ECONNRESET, "and it does not wait for the other side's deadline")

		unheard := s
		unheard.listen = func(hvsock.Addr) (acceptor, error) { return nil, syscall.EACCES }
		require.ErrorIs(t, unheard.tryLoopback(addr), os.ErrPermission)

		wrong := s
		wrong.dial = func(ctx context.Context, addr hvsock.Addr) (stream, error) {
			c, err := s.dial(ctx, addr)
			if err != nil {
				return nil, err
			}
			return &fakeStream{
				read:  func(p []byte) (int, error) { p[0] = 0; return 1, nil },
				write: c.Write, close: c.Close,
			}, nil
		}
		require.ErrorContains(t, wrong.tryLoopback(addr), "got 0x0 back")
	})
}

// A peer that says nothing is waited for, but not for ever (faults.md GO-09).
func TestTryLoopbackHasABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		s := fakeSystem()
		s.listen = func(addr hvsock.Addr) (acceptor, error) {
			return &fakeListener{addr: addr, accept: func() (net.Conn, error) { return pipeStream{server}, nil }}, nil
		}
		s.dial = func(context.Context, hvsock.Addr) (stream, error) {
			return &fakeStream{read: client.Read, setRead: client.SetReadDeadline, close: client.Close}, nil // swallows the byte
		}
		start := time.Now()
		require.ErrorIs(t, s.tryLoopback(somewhere), os.ErrDeadlineExceeded)
		require.Equal(t, probeTimeout, time.Since(start))
	})
}

// A pipeStream is one end of net.Pipe, which has no halves, and no deadlines
// here: they would fire at the same time as those of the other end.
type pipeStream struct{ net.Conn }

func (pipeStream) SetReadDeadline(time.Time) error  { return nil }
func (pipeStream) SetWriteDeadline(time.Time) error { return nil }

func (pipeStream) CloseRead() error  { return nil }
func (pipeStream) CloseWrite() error { return nil }

func TestUnsupported(t *testing.T) {
	err := error(&UnsupportedError{System: "plan9/386"})
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.EqualError(t, err, "no Hyper-V sockets on plan9/386: they exist on Linux and Windows")
	require.NoError(t, errors.Unwrap(err))
}
