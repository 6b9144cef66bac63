package native

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/stretchr/testify/require"
)

// newFakeAcceptListener is a Listener whose accepts are results, one after the
// other; then it is closed.
func newFakeAcceptListener(t *testing.T, s system, results ...accepted) *Listener {
	i := 0
	s.listen = func(addr hvsock.Addr) (acceptor, error) {
		return &fakeListener{addr: addr, accept: func() (net.Conn, error) {
			if i == len(results) {
				return nil, net.ErrClosed
			}
			i++
			return results[i-1].conn, results[i-1].err
		}}, nil
	}
	l, err := s.listenOn(service(hvsock.Wildcard, 5000))
	require.NoError(t, err)
	return l
}

// faults.md GO-03: a connection that ended in the queue, or a signal, is not the
// listener's end.
func TestAcceptPassesOverBrokenConnections(t *testing.T) {
	l := newFakeAcceptListener(t, fakeSystem(), accepted{nil, syscall.ECONNABORTED}, accepted{nil, syscall.EINTR}, accepted{&fakeStream{}, nil})
	c, err := l.Accept()
	require.NoError(t, err)
	require.Equal(t, l.Addr(), c.LocalAddr(), "the local address of an accepted connection is its service")

	// AcceptEx reports a queued connection that was reset as a failed accept.
	l = newFakeAcceptListener(t, newHyperVSystem(hypervCalls{addr: fakeSystem().addr}), accepted{nil, syscall.Errno(10054)}, accepted{nil, syscall.EMFILE})
	_, err = l.Accept()
	requireOp(t, err, "accept", syscall.EMFILE)
}

// ... but a listener that only ever fails must not spin.
func TestAcceptGivesUp(t *testing.T) {
	broken := make([]accepted, 2*maxBrokenAccepts)
	for i := range broken {
		broken[i].err = syscall.ECONNABORTED
	}
	_, err := newFakeAcceptListener(t, fakeSystem(), broken...).Accept()
	requireOp(t, err, "accept", syscall.ECONNABORTED)
}

// faults.md GO-01.
func TestCloseWakesAccept(t *testing.T) {
	bothSystems(t, func(t *testing.T, s system) {
		l, err := s.listenOn(hvsock.Addr{VMID: hvsock.Loopback})
		require.NoError(t, err)
		const accepts = 3
		started, errs := make(chan struct{}), make(chan error)
		for range accepts {
			go func() {
				started <- struct{}{}
				_, err := l.Accept()
				errs <- err
			}()
		}
		for range accepts {
			<-started
		}
		require.NoError(t, l.Close())
		for range accepts {
			requireOp(t, <-errs, "accept", net.ErrClosed)
		}
		requireOp(t, l.Close(), "close", net.ErrClosed)
		requireOp(t, l.SetDeadline(time.Now()), "set", net.ErrClosed)
		_, err = l.Accept()
		requireOp(t, err, "accept", net.ErrClosed)
	})
}

func TestAcceptDeadline(t *testing.T) {
	bothSystems(t, func(t *testing.T, s system) {
		l, err := s.listenOn(hvsock.Addr{VMID: hvsock.Loopback})
		require.NoError(t, err)
		defer l.Close()
		require.NoError(t, l.SetDeadline(time.Now().Add(time.Millisecond)))
		_, err = l.Accept()
		requireOp(t, err, "accept", os.ErrDeadlineExceeded)
		_, err = l.Accept()
		requireOp(t, err, "accept", os.ErrDeadlineExceeded) // stays so
		require.NoError(t, l.SetDeadline(time.Time{}))

		// The connection comes while nobody is in Accept; with go-winio one
		// goroutine still is.
		c, err := s.dialTo(context.Background(), l.Addr().(hvsock.Addr))
		require.NoError(t, err)
		defer c.Close()
		a, err := l.Accept()
		require.NoError(t, err, "a deadline is not sticky, and loses no connection")
		require.NoError(t, a.Close())
	})
}

func TestListenErrors(t *testing.T) {
	bothSystems(t, func(t *testing.T, s system) {
		l, err := s.listenOn(hvsock.Addr{VMID: hvsock.Loopback})
		require.NoError(t, err)
		defer l.Close()
		_, err = s.listenOn(l.Addr().(hvsock.Addr))
		requireOp(t, err, "listen", syscall.EADDRINUSE)
		require.Equal(t, l.Addr(), err.(*net.OpError).Addr)
	})
}

func TestListenerShowsTheRealPort(t *testing.T) {
	for _, real := range []net.Addr{
		service(hvsock.Wildcard, 4711),
		hvsock.VSockAddr{CID: 3, Port: 4711}, // a guest's own CID has no VM id
	} {
		s := fakeSystem()
		s.listen = func(hvsock.Addr) (acceptor, error) { return &fakeListener{addr: real}, nil }
		l, err := s.listenOn(hvsock.Addr{VMID: hvsock.Parent})
		require.NoError(t, err)
		require.Equal(t, service(hvsock.Parent, 4711), l.Addr(), "the VM id asked for, with the port given")
	}
}

func TestListenerClosesWhatItDoesNotAdmit(t *testing.T) {
	closed := 0
	stranger := &fakeStream{remote: service(hvsock.Loopback, 1), close: func() error { closed++; return nil }}
	host := &fakeStream{remote: service(hvsock.Parent, 2)}
	s := fakeSystem()
	s.admits = func(asked hvsock.Addr, remote net.Addr) bool { return asked.VMID == remote.(hvsock.Addr).VMID }
	i, all := 0, []net.Conn{stranger, host}
	s.listen = func(addr hvsock.Addr) (acceptor, error) {
		return &fakeListener{addr: addr, accept: func() (net.Conn, error) { i++; return all[i-1], nil }}, nil
	}
	l, err := s.listenOn(service(hvsock.Parent, 5000))
	require.NoError(t, err)
	c, err := l.Accept()
	require.NoError(t, err)
	require.Equal(t, host.remote, c.RemoteAddr())
	require.Equal(t, 1, closed)
}

func TestListenerErrorsOfTheLibrary(t *testing.T) {
	fail := func(time.Time) error { return syscall.EINVAL }
	s := fakeSystem()
	s.listen = func(addr hvsock.Addr) (acceptor, error) {
		return &fakeListener{addr: addr, setDeadline: fail, close: func() error { return syscall.EIO }}, nil
	}
	l, err := s.listenOn(service(hvsock.Loopback, 1))
	require.NoError(t, err)
	requireOp(t, l.SetDeadline(time.Now()), "set", syscall.EINVAL)
	requireOp(t, l.Close(), "close", syscall.EIO)
}

// A blockingListener accepts what is put in, as go-winio's listener does.
type blockingListener struct {
	in       chan accepted
	accepts  sync.Map // goroutines in Accept, by number
	shutdown chan struct{}
}

func newBlockingListener() *blockingListener {
	return &blockingListener{in: make(chan accepted), shutdown: make(chan struct{})}
}

func (b *blockingListener) Accept() (net.Conn, error) {
	key := new(int)
	b.accepts.Store(key, true)
	defer b.accepts.Delete(key)
	select {
	case a := <-b.in:
		return a.conn, a.err
	case <-b.shutdown:
		return nil, net.ErrClosed
	}
}

func (b *blockingListener) inAccept() int {
	n := 0
	b.accepts.Range(func(any, any) bool { n++; return true })
	return n
}

func (b *blockingListener) Addr() net.Addr { return service(hvsock.Loopback, 1) }
func (b *blockingListener) Close() error   { close(b.shutdown); return nil }

func TestAcceptQueueWaitsOnlyForCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		raw := newBlockingListener()
		q := newAcceptQueue(raw)
		synctest.Wait()
		require.Zero(t, raw.inAccept(), "nobody accepts before Accept")

		require.NoError(t, q.SetDeadline(time.Now().Add(time.Second)))
		const callers = 3
		var left sync.WaitGroup
		for range callers {
			left.Go(func() {
				_, err := q.Accept()
				require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			})
		}
		synctest.Wait()
		require.Equal(t, callers, raw.inAccept(), "each caller can get its own connection")
		left.Wait()
		require.Equal(t, callers, raw.inAccept(), "they stay, as an accept cannot be called off")

		require.NoError(t, q.SetDeadline(time.Time{}))
		first, second := &fakeStream{}, &fakeStream{}
		raw.in <- accepted{first, nil}
		raw.in <- accepted{second, nil}
		synctest.Wait()
		c, err := q.Accept()
		require.NoError(t, err)
		require.NotNil(t, c, "what came while nobody asked is kept")

		closed := 0
		for _, f := range []*fakeStream{first, second} {
			if f != c {
				f.close = func() error { closed++; return nil }
			}
		}
		require.NoError(t, q.Close())
		synctest.Wait()
		require.Zero(t, raw.inAccept(), "Close ends every goroutine")
		require.Equal(t, 1, closed, "and what nobody accepted")
		require.ErrorIs(t, q.Close(), net.ErrClosed)
		require.ErrorIs(t, q.SetDeadline(time.Time{}), net.ErrClosed)
	})
}

// An accept that ends after Close must not leak its connection.
func TestAcceptQueueClosesLateConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := make(chan struct{})
		deliver := make(chan struct{})
		q := newAcceptQueue(&fakeListener{
			addr: service(hvsock.Loopback, 1),
			accept: func() (net.Conn, error) {
				<-deliver
				return &fakeStream{close: func() error { close(closed); return nil }}, nil
			},
		})
		go func() {
			_, err := q.Accept()
			require.ErrorIs(t, err, net.ErrClosed)
		}()
		synctest.Wait()
		require.NoError(t, q.Close())
		close(deliver)
		<-closed
	})
}

// An error of one accept goes to one caller; the next starts anew.
func TestAcceptQueueHandsErrorsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		raw := newBlockingListener()
		q := newAcceptQueue(raw)
		go func() { raw.in <- accepted{nil, io.ErrUnexpectedEOF} }()
		_, err := q.Accept()
		require.True(t, errors.Is(err, io.ErrUnexpectedEOF))
		want := &fakeStream{}
		go func() { raw.in <- accepted{want, nil} }()
		c, err := q.Accept()
		require.NoError(t, err)
		require.Same(t, want, c)
		require.NoError(t, q.Close())
	})
}
