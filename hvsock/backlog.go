package hvsock

import (
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/internal/putback"
)

const (
	// defaultBacklog is how many connections wait for Accept if nothing else
	// was asked for.
	defaultBacklog = 128
	// maxBacklog is how many may wait at most (faults.md 5).
	maxBacklog = 4096
)

// A Listener is a net.Listener for one service. Connections queue in it from
// the moment they are promised a place (reserve) until Accept.
type Listener struct {
	addr    Addr
	onClose func()

	mu       sync.Mutex
	backlog  int
	changed  sync.Cond // on mu: a connection, the end, or a deadline
	queue    []*Conn
	reserved int // places promised to connections that are not open yet
	closed   bool
	deadline deadline

	sockopts optionSet
	family   OptionFamily // set before anybody has the listener
}

// newListener makes a listener that calls onClose, if not nil, when it is
// closed. backlog is the number of connections that may wait; 0 means
// defaultBacklog, and more than maxBacklog means that.
func newListener(addr Addr, backlog int, clock live.Clock, onClose func()) *Listener {
	if backlog <= 0 {
		backlog = defaultBacklog
	}
	if onClose == nil {
		onClose = func() {}
	}
	l := &Listener{addr: addr, backlog: min(backlog, maxBacklog), onClose: onClose, deadline: deadline{clock: clock}}
	l.changed.L = &l.mu
	return l
}

// Addr is the address bound to, an Addr. It stays valid after Close.
func (l *Listener) Addr() net.Addr { return l.addr }

// Accept waits for the next connection, a *Conn. The other end may be gone
// already: that is for its first Read to find out.
//
// Errors are *net.OpError around net.ErrClosed, once the listener is closed, or
// os.ErrDeadlineExceeded.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.AcceptHVSock()
	if err != nil {
		return nil, err // not c: a nil *Conn is not a nil net.Conn
	}
	return c, nil
}

// AcceptHVSock is Accept for callers that want a *Conn.
func (l *Listener) AcceptHVSock() (*Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		c, err := l.acceptNow()
		if err != syscall.EAGAIN {
			return c, err
		}
		l.changed.Wait()
	}
}

// TryAccept is AcceptHVSock for callers that cannot wait: with nobody in the
// queue it returns an error around EAGAIN.
func (l *Listener) TryAccept() (*Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, err := l.acceptNow()
	if err == syscall.EAGAIN {
		return nil, localError("accept", l.addr, systemCall("accept", err))
	}
	return c, err
}

// Waiting returns how many connections Accept would return at once, and how many
// places are promised to connections that are not open yet. Together they never
// exceed the backlog.
func (l *Listener) Waiting() (queued, promised int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue), l.reserved
}

// acceptNow takes a connection from the queue; a bare EAGAIN means to wait. l.mu
// is held.
func (l *Listener) acceptNow() (*Conn, error) {
	switch {
	case l.closed:
		return nil, localError("accept", l.addr, net.ErrClosed)
	case l.deadline.expired:
		return nil, localError("accept", l.addr, os.ErrDeadlineExceeded)
	case len(l.queue) > 0:
		c := l.queue[0]
		l.queue[0] = nil // the array must not keep it alive
		l.queue = l.queue[1:]
		return c, nil
	}
	return nil, syscall.EAGAIN
}

// SetDeadline makes blocked and future Accepts fail with os.ErrDeadlineExceeded
// from t on; the zero time means never.
func (l *Listener) SetDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return localError("set", l.addr, net.ErrClosed)
	}
	expired, wait := l.deadline.set(t)
	if expired {
		l.changed.Broadcast()
	}
	if wait > 0 {
		l.deadline.timer = l.deadline.clock.AfterFunc(wait, l.expire)
	}
	return nil
}

// expire runs when the timer of the deadline fires.
func (l *Listener) expire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.deadline.check() {
		l.changed.Broadcast()
	}
}

// SetBacklog changes how many connections may wait for Accept, as another
// listen(2) does on a listening socket; less than 1 means 1, since with 0 nothing
// would ever arrive. Connections that wait already are kept.
func (l *Listener) SetBacklog(connections int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.backlog = max(1, min(connections, maxBacklog))
}

// Close stops listening: blocked Accepts return net.ErrClosed, connections
// nobody has accepted are closed, accepted ones live on. Called again, it
// returns net.ErrClosed.
func (l *Listener) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return localError("close", l.addr, net.ErrClosed)
	}
	l.closed = true
	l.deadline.stop()
	orphans := l.queue
	l.queue = nil
	l.changed.Broadcast()
	if putback.On(putback.HV08) {
		defer l.mu.Unlock()
	} else {
		l.mu.Unlock()
	}
	// Without the lock: lock order is listener before connection, and nothing
	// is nested that need not be.
	l.onClose()
	if putback.On(putback.SS08) {
		return nil
	}
	for _, c := range orphans {
		_ = c.Close() // nobody else has it
	}
	return nil
}

// reserve promises a place in the queue to a connection that is about to be
// opened; false means that there is none, or no listener any more. push or
// cancel must follow.
func (l *Listener) reserve() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed && !putback.On(putback.SS05) || l.reserved+len(l.queue) >= l.backlog {
		return false
	}
	l.reserved++
	return true
}

// cancel gives a promised place back.
func (l *Listener) cancel() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reserved--
}

// push queues a connection in its promised place. After false the listener is
// closed and the connection is the caller's to close.
func (l *Listener) push(c *Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reserved--
	if l.closed && !putback.On(putback.SS05) {
		return false
	}
	c.sockopts.inherit(&l.sockopts)
	l.queue = append(l.queue, c)
	l.changed.Signal()
	return true
}
