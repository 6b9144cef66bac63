package native

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service is an address with a port for a service id.
func service(vmid [16]byte, port uint32) hvsock.Addr {
	return hvsock.Addr{VMID: vmid, ServiceID: hvsock.ServiceIDFromPort(port)}
}

// A fakeStream is a stream made of functions; those that are nil do nothing.
type fakeStream struct {
	read, write           func([]byte) (int, error)
	closeRead, closeWrite func() error
	close                 func() error
	setRead, setWrite     func(time.Time) error
	remote                net.Addr
}

func (f *fakeStream) Read(p []byte) (int, error) {
	if f.read == nil {
		return 0, io.EOF
	}
	return f.read(p)
}

func (f *fakeStream) Write(p []byte) (int, error) {
	if f.write == nil {
		return len(p), nil
	}
	return f.write(p)
}

func call(fn func() error) error {
	if fn == nil {
		return nil
	}
	return fn()
}

func (f *fakeStream) CloseRead() error     { return call(f.closeRead) }
func (f *fakeStream) CloseWrite() error    { return call(f.closeWrite) }
func (f *fakeStream) Close() error         { return call(f.close) }
func (f *fakeStream) LocalAddr() net.Addr  { return service(hvsock.Loopback, 1) }
func (f *fakeStream) RemoteAddr() net.Addr { return f.remote }

func (f *fakeStream) SetReadDeadline(t time.Time) error {
	return call(func() error {
		if f.setRead == nil {
			return nil
		}
		return f.setRead(t)
	})
}

func (f *fakeStream) SetWriteDeadline(t time.Time) error {
	if f.setWrite == nil {
		return nil
	}
	return f.setWrite(t)
}

func (f *fakeStream) SetDeadline(time.Time) error { panic("a Conn sets both deadlines one by one") }

// A fakeListener is a listening socket made of functions.
type fakeListener struct {
	accept      func() (net.Conn, error)
	close       func() error
	setDeadline func(time.Time) error
	addr        net.Addr
}

func (f *fakeListener) Accept() (net.Conn, error) { return f.accept() }
func (f *fakeListener) Addr() net.Addr            { return f.addr }
func (f *fakeListener) Close() error              { return call(f.close) }
func (f *fakeListener) SetDeadline(t time.Time) error {
	if f.setDeadline == nil {
		return nil
	}
	return f.setDeadline(t)
}

// fakeSystem has no sockets: tests put in the functions they need.
func fakeSystem() system {
	return system{
		family: "AF_FAKE",
		errno:  posixErrno,
		addr:   func(a net.Addr) net.Addr { return a },
		admits: func(hvsock.Addr, net.Addr) bool { return true },
	}
}

// newFakeConn is a Conn over functions.
func newFakeConn(s system, f *fakeStream) *Conn {
	return newConn(s, f, service(hvsock.Loopback, 1), service(hvsock.Loopback, 2))
}

// localSockets are the socket calls of a system whose services are Unix sockets
// in one folder: real sockets for tests, wherever they run.
type localSockets struct {
	folder string
	wrap   func(*net.UnixConn) stream // how a library would show the socket
	code   func(error) error          // how a library would show an error

	mu   sync.Mutex
	next uint32 // port for listeners that want any
}

func newLocalSockets(t testing.TB) *localSockets {
	if runtime.GOOS == "windows" {
		t.Skip("the fakes of both systems start from errnos, and Unix sockets of Windows return other numbers")
	}
	return &localSockets{
		folder: t.TempDir(),
		next:   1024,
		wrap:   func(c *net.UnixConn) stream { return c },
		code:   func(err error) error { return err },
	}
}

func (l *localSockets) path(addr hvsock.Addr) *net.UnixAddr {
	port, _ := hvsock.PortFromServiceID(addr.ServiceID)
	return &net.UnixAddr{Net: "unix", Name: filepath.Join(l.folder, strconv.Itoa(int(port)))}
}

func (l *localSockets) dial(ctx context.Context, addr hvsock.Addr) (stream, error) {
	c, err := new(net.Dialer).DialContext(ctx, "unix", l.path(addr).Name)
	if errors.Is(err, syscall.ENOENT) {
		err = syscall.ECONNREFUSED // what a service that nobody serves is here
	}
	if err != nil {
		return nil, l.code(err)
	}
	return l.wrap(c.(*net.UnixConn)), nil
}

func (l *localSockets) listen(addr hvsock.Addr) (*localListener, error) {
	if wantsAnyPort(addr.ServiceID) {
		l.mu.Lock()
		addr.ServiceID = hvsock.ServiceIDFromPort(l.next)
		l.next++
		l.mu.Unlock()
	}
	raw, err := net.ListenUnix("unix", l.path(addr))
	if err != nil {
		return nil, l.code(err)
	}
	return &localListener{UnixListener: raw, sockets: l, addr: addr}, nil
}

type localListener struct {
	*net.UnixListener
	sockets *localSockets
	addr    hvsock.Addr
}

func (l *localListener) Addr() net.Addr { return l.addr }

func (l *localListener) Accept() (net.Conn, error) {
	c, err := l.AcceptUnix()
	if err != nil {
		return nil, l.sockets.code(err)
	}
	return l.sockets.wrap(c), nil
}

// newLocalSystem is sockets below the layer that Linux has.
func newLocalSystem(sockets *localSockets) system {
	s := fakeSystem()
	s.dial = sockets.dial
	s.listen = func(addr hvsock.Addr) (acceptor, error) {
		l, err := sockets.listen(addr)
		if err != nil {
			return nil, err
		}
		return l, nil
	}
	return s
}

// newWindowsLikeSystem is sockets below the layer that Windows has, in the
// manner of go-winio: no deadlines on listeners, dials that do not look at their
// context, numbers of Winsock, a timeout error of its own, and panics on empty
// reads.
func newWindowsLikeSystem(sockets *localSockets) system {
	sockets.wrap = func(c *net.UnixConn) stream { return &winioStream{c} }
	sockets.code = winioError
	return newHyperVSystem(hypervCalls{
		dial: func(_ context.Context, addr hvsock.Addr) (stream, error) {
			return sockets.dial(context.Background(), addr)
		},
		listen: func(addr hvsock.Addr) (rawListener, error) {
			l, err := sockets.listen(addr)
			if err != nil {
				return nil, err
			}
			// Not the *localListener, which can do more than go-winio's.
			return struct{ rawListener }{l}, nil
		},
		addr: func(a net.Addr) net.Addr { return a },
	})
}

// A winioStream shows a socket as go-winio does.
type winioStream struct{ *net.UnixConn }

func (w *winioStream) Read(p []byte) (int, error) {
	_ = p[0] // go-winio takes the address of it
	n, err := w.UnixConn.Read(p)
	return n, winioError(err)
}

func (w *winioStream) Write(p []byte) (int, error) {
	_ = p[0]
	n, err := w.UnixConn.Write(p)
	return n, winioError(err)
}

func (w *winioStream) Close() error {
	_ = w.UnixConn.Close()
	return nil // whatever happens, and also the second time
}

// winioTimeout is what the timeouts of older versions of go-winio were like.
type winioTimeout struct{}

func (winioTimeout) Error() string   { return "i/o timeout" }
func (winioTimeout) Timeout() bool   { return true }
func (winioTimeout) Temporary() bool { return true }

var winsockCodes = map[syscall.Errno]syscall.Errno{
	syscall.ECONNREFUSED: 10061,
	syscall.ECONNRESET:   10054,
	syscall.EPIPE:        10058,
	syscall.ENOTCONN:     10057,
	syscall.EADDRINUSE:   10048,
	syscall.EINVAL:       10022,
}

// winioError is err as go-winio would say it.
func winioError(err error) error {
	var errno syscall.Errno
	var timeout net.Error
	switch {
	case err == nil, err == io.EOF, errors.Is(err, net.ErrClosed):
		return err
	case errors.As(err, &errno):
		if code, ok := winsockCodes[errno]; ok {
			return &net.OpError{Op: "fake", Net: "hvsock", Err: code}
		}
	case errors.As(err, &timeout) && timeout.Timeout():
		return &net.OpError{Op: "fake", Net: "hvsock", Err: winioTimeout{}}
	}
	return err
}

// bothSystems runs a test below the layers of both operating systems.
func bothSystems(t *testing.T, test func(t *testing.T, s system)) {
	t.Run("linux", func(t *testing.T) { test(t, newLocalSystem(newLocalSockets(t))) })
	t.Run("windows", func(t *testing.T) { test(t, newWindowsLikeSystem(newLocalSockets(t))) })
}

// connect is a connection of s to itself; all of it is closed when the test ends.
func connect(t *testing.T, s system) (dialed, accepted *Conn) {
	t.Helper()
	l, err := s.listenOn(hvsock.Addr{VMID: hvsock.Loopback})
	require.NoError(t, err)
	defer l.Close()
	dialed, err = s.dialTo(context.Background(), l.Addr().(hvsock.Addr))
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

// requireOp wants a *net.OpError of the operation around target.
func requireOp(t testing.TB, err error, op string, target error) {
	t.Helper()
	var o *net.OpError
	require.ErrorAs(t, err, &o, "every error says which operation on which address failed")
	require.Equal(t, op, o.Op)
	require.Equal(t, "hvsock", o.Net)
	require.ErrorIs(t, err, target)
}
