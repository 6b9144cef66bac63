package hvsocktest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// loopback is a transport made of real rings: the sockets of a host that dials
// itself.
func loopback(t *testing.T) Transport {
	stack := hvsock.NewHostStack(hvsock.HostOptions{Seed: 1})
	t.Cleanup(func() {
		stack.Close()
		sockets, listeners := stack.Usage()
		require.Zero(t, sockets, "sockets left open")
		require.Zero(t, listeners, "listeners left open")
	})
	var port atomic.Uint32
	return Over("host loopback", stack.Listen, stack.Dial, func() (bind, dial hvsock.Addr) {
		a := hvsock.Addr{VMID: hvsock.Loopback, ServiceID: hvsock.ServiceIDFromPort(5000 + port.Add(1))}
		return a, a
	})
}

func TestLoopback(t *testing.T) { Run(t, loopback(t)) }

// Every behaviour names its source and says what it promises; names are unique,
// since subtests and deviations go by them.
func TestBehaviours(t *testing.T) {
	seen := map[string]bool{}
	for _, b := range Behaviours() {
		require.False(t, seen[b.Name], b.Name)
		seen[b.Name] = true
		require.NotContains(t, b.Name, " ")
		require.NotEmpty(t, b.Promise)
		require.True(t, strings.HasPrefix(b.Section, "hvsock.md ") || strings.HasPrefix(b.Section, "faults.md "), b.Section)
	}
}

// A brokenConn is a Conn with one fault.
type brokenConn struct {
	Conn
	read       func(Conn, []byte) (int, error)
	write      func(Conn, []byte) (int, error)
	close      func(Conn) error
	closeRead  func(Conn) error
	closeWrite func(Conn) error
	deadline   func(Conn, time.Time) error
}

func (c *brokenConn) Read(b []byte) (int, error) {
	if c.read != nil {
		return c.read(c.Conn, b)
	}
	return c.Conn.Read(b)
}

func (c *brokenConn) Write(b []byte) (int, error) {
	if c.write != nil {
		return c.write(c.Conn, b)
	}
	return c.Conn.Write(b)
}

func (c *brokenConn) Close() error {
	if c.close != nil {
		return c.close(c.Conn)
	}
	return c.Conn.Close()
}

func (c *brokenConn) CloseRead() error {
	if c.closeRead != nil {
		return c.closeRead(c.Conn)
	}
	return c.Conn.CloseRead()
}

func (c *brokenConn) CloseWrite() error {
	if c.closeWrite != nil {
		return c.closeWrite(c.Conn)
	}
	return c.Conn.CloseWrite()
}

func (c *brokenConn) SetReadDeadline(t time.Time) error {
	if c.deadline != nil {
		return c.deadline(c.Conn, t)
	}
	return c.Conn.SetReadDeadline(t)
}

// A brokenListener wraps what it accepts.
type brokenListener struct {
	Listener
	wrap       func(Conn) Conn
	closeTwice bool
}

func (l *brokenListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.wrap(c.(Conn)), nil
}

func (l *brokenListener) Close() error {
	err := l.Listener.Close()
	if l.closeTwice {
		return nil
	}
	return err
}

// breakConns is tr with every Conn of both ends wrapped.
func breakConns(tr Transport, wrap func(Conn) Conn) Transport {
	listen, dial := tr.Listen, tr.Dial
	tr.Listen = func(a hvsock.Addr) (Listener, error) {
		l, err := listen(a)
		if err != nil {
			return nil, err
		}
		return &brokenListener{Listener: l, wrap: wrap}, nil
	}
	tr.Dial = func(ctx context.Context, a hvsock.Addr) (Conn, error) {
		c, err := dial(ctx, a)
		if err != nil {
			return nil, err
		}
		return wrap(c), nil
	}
	return tr
}

// brokenConns are faults of a Conn, and the behaviour that is about each.
var brokenConns = map[string]struct {
	caught string
	wrap   func(Conn) Conn
}{
	"empty write is a FIN": {"EmptyWrite", func(c Conn) Conn {
		return &brokenConn{Conn: c, write: func(c Conn, b []byte) (int, error) {
			if len(b) == 0 {
				return 0, c.CloseWrite()
			}
			return c.Write(b)
		}}
	}},
	"a byte is changed": {"Echo", func(c Conn) Conn {
		return &brokenConn{Conn: c, write: func(c Conn, b []byte) (int, error) {
			b = append([]byte{}, b...)
			if len(b) > 100 {
				b[99]++
			}
			return c.Write(b)
		}}
	}},
	"large writes are cut": {"WriteSizes", func(c Conn) Conn {
		return &brokenConn{Conn: c, write: func(c Conn, b []byte) (int, error) { return c.Write(b[:min(len(b), 8192)]) }}
	}},
	"end of stream is wrapped": {"EOFLatch", func(c Conn) Conn {
		return &brokenConn{Conn: c, read: func(c Conn, b []byte) (int, error) {
			n, err := c.Read(b)
			if err != nil {
				err = fmt.Errorf("read: %w", err)
			}
			return n, err
		}}
	}},
	"CloseWrite closes": {"HalfClose", func(c Conn) Conn {
		return &brokenConn{Conn: c, closeWrite: Conn.Close}
	}},
	"CloseWrite fails the second time": {"WriteAfterCloseWrite", func(c Conn) Conn {
		var done atomic.Bool
		return &brokenConn{Conn: c, closeWrite: func(c Conn) error {
			if done.Swap(true) {
				return syscall.EPIPE
			}
			return c.CloseWrite()
		}}
	}},
	"CloseRead does nothing": {"CloseRead", func(c Conn) Conn {
		return &brokenConn{Conn: c, closeRead: func(Conn) error { return nil }}
	}},
	"Close may be called twice": {"AfterClose", func(c Conn) Conn {
		return &brokenConn{Conn: c, close: func(c Conn) error { _ = c.Close(); return nil }}
	}},
	"read deadlines are ignored when past": {"DeadlinePast", func(c Conn) Conn {
		return &brokenConn{Conn: c, deadline: func(c Conn, t time.Time) error { return nil },
			read: func(c Conn, b []byte) (int, error) { return len(b), nil }}
	}},
	"timeouts are not timeouts": {"DeadlineBlocked", func(c Conn) Conn {
		return &brokenConn{Conn: c, read: func(c Conn, b []byte) (int, error) {
			n, err := c.Read(b)
			if err != nil {
				err = errors.New("timed out")
			}
			return n, err
		}}
	}},
	"a Read waits for a full buffer": {"ReadReturnsEarly", func(c Conn) Conn {
		return &brokenConn{Conn: c, read: func(c Conn, b []byte) (int, error) { return io.ReadFull(c, b) }}
	}},
	"CloseRead wakes nobody": {"CloseReadUnblocks", func(c Conn) Conn {
		return &brokenConn{Conn: c, closeRead: func(Conn) error { return nil }}
	}},
	"CloseWrite wakes nobody": {"CloseWriteUnblocks", func(c Conn) Conn {
		return &brokenConn{Conn: c, closeWrite: func(Conn) error { return nil }}
	}},
	"every second byte read is lost": {"ConcurrentReads", func(c Conn) Conn {
		return &brokenConn{Conn: c, read: func(c Conn, b []byte) (int, error) {
			n, err := c.Read(b)
			return (n + 1) / 2, err
		}}
	}},
	"closed is EOF": {"CloseUnblocks", func(c Conn) Conn {
		return &brokenConn{Conn: c, read: func(c Conn, b []byte) (int, error) {
			n, err := c.Read(b)
			if errors.Is(err, net.ErrClosed) {
				err = io.EOF
			}
			return n, err
		}}
	}},
}

// The suite has teeth: each fault is found by the behaviour that is about it.
func TestFaultsOfConns(t *testing.T) {
	for name, fault := range brokenConns {
		t.Run(name, func(t *testing.T) {
			tr := breakConns(loopback(t), fault.wrap)
			tr.Patience = 500 * time.Millisecond // some faults are calls that hang
			requireCaught(t, tr, fault.caught)
		})
	}
}

func TestFaultsOfTransports(t *testing.T) {
	t.Run("refusal is a timeout", func(t *testing.T) {
		tr := loopback(t)
		dial := tr.Dial
		tr.Dial = func(ctx context.Context, a hvsock.Addr) (Conn, error) {
			c, err := dial(ctx, a)
			if errors.Is(err, syscall.ECONNREFUSED) {
				err = &net.OpError{Op: "dial", Addr: a, Err: syscall.ETIMEDOUT}
			}
			return c, err
		}
		requireCaught(t, tr, "NoListener")
	})
	t.Run("listener closes twice", func(t *testing.T) {
		tr := loopback(t)
		listen := tr.Listen
		tr.Listen = func(a hvsock.Addr) (Listener, error) {
			l, err := listen(a)
			if err != nil {
				return nil, err
			}
			return &brokenListener{Listener: l, wrap: func(c Conn) Conn { return c }, closeTwice: true}, nil
		}
		requireCaught(t, tr, "ListenerCloseTwice")
	})
	t.Run("no half-close", func(t *testing.T) {
		tr := loopback(t)
		listen := tr.Listen
		tr.Listen = func(a hvsock.Addr) (Listener, error) {
			l, err := listen(a)
			if err != nil {
				return nil, err
			}
			return plainListener{l}, nil
		}
		requireCaught(t, tr, "Echo")
	})
}

// A profile is looked at: a guest that sends nothing on CloseWrite breaks a
// promise of all others, and keeps its own.
func TestFaultsAgainstProfile(t *testing.T) {
	silent := func(c Conn) Conn { return &brokenConn{Conn: c, closeWrite: func(Conn) error { return nil }} }
	tr := breakConns(loopback(t), silent)
	tr.Patience = 500 * time.Millisecond
	requireCaught(t, tr, "EOFLatch")
	tr.Patience = 0
	tr.Dialer, tr.Acceptor = hvsock.FreeBSD, hvsock.FreeBSD
	for _, b := range Behaviours() {
		if b.Name == "EOFLatch" {
			require.NoError(t, b.Check(tr))
		}
	}
	requireCaught(t, func() Transport { tr := loopback(t); tr.Dialer = hvsock.FreeBSD; return tr }(), "EOFLatch")
}

// A plainListener accepts nothing but net.Conns.
type plainListener struct{ Listener }

func (l plainListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return struct{ net.Conn }{c}, nil
}

// requireCaught runs the behaviour that should find the fault.
func requireCaught(t *testing.T, tr Transport, name string) {
	t.Helper()
	for _, b := range Behaviours() {
		if b.Name != name {
			continue
		}
		err := b.Check(tr)
		var failure *FailureError
		require.ErrorAs(t, err, &failure)
		require.Equal(t, name, failure.Behaviour.Name)
		require.Contains(t, err.Error(), b.Section)
		return
	}
	t.Fatalf("no behaviour is called %s", name)
}

// Over must not hide that a dial or listen has failed.
func TestOverNil(t *testing.T) {
	tr := Over("nowhere",
		func(hvsock.Addr) (*hvsock.Listener, error) { return nil, syscall.ENODEV },
		func(context.Context, hvsock.Addr) (*hvsock.Conn, error) { return nil, syscall.ENODEV },
		func() (a, b hvsock.Addr) { return })
	l, err := tr.Listen(hvsock.Addr{})
	require.Nil(t, l)
	require.Equal(t, syscall.ENODEV, err)
	c, err := tr.Dial(context.Background(), hvsock.Addr{})
	require.Nil(t, c)
	require.Equal(t, syscall.ENODEV, err)
}

// A known deviation is skipped with its reason, and nothing else is.
func TestDeviations(t *testing.T) {
	tr := loopback(t)
	tr.Deviations = map[string]string{}
	for _, b := range Behaviours() {
		if b.Name != "Echo" {
			tr.Deviations[b.Name] = "this test is about skipping"
		}
	}
	dials := 0
	dial := tr.Dial
	tr.Dial = func(ctx context.Context, a hvsock.Addr) (Conn, error) {
		dials++
		return dial(ctx, a)
	}
	Run(t, tr)
	require.Equal(t, 2, dials, "Echo runs each way, nothing else runs")
}
