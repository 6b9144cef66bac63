package native

import (
	"net"
	"os"
	"sync"
	"time"

	"github.com/hvlab/hvlab/internal/putback"
)

// An acceptQueue gives deadlines to a listener that has none: goroutines wait in
// its Accept, and callers wait for the goroutines. What such a goroutine accepts
// for a caller that has left is kept for the next.
//
// There are never more goroutines than callers were there at the same time, and
// none before the first; Close ends them all.
type acceptQueue struct {
	listener rawListener

	mu       sync.Mutex
	changed  sync.Cond // on mu
	accepted []accepted
	callers  int // in Accept
	running  int // goroutines
	closed   bool
	deadline time.Time
	alarm    *time.Timer // wakes callers at the deadline
}

type accepted struct {
	conn net.Conn
	err  error
}

func newAcceptQueue(l rawListener) *acceptQueue {
	q := &acceptQueue{listener: l}
	q.changed.L = &q.mu
	return q
}

func (q *acceptQueue) Addr() net.Addr { return q.listener.Addr() }

// Accept returns what the listener's Accept does, or net.ErrClosed, or
// os.ErrDeadlineExceeded.
func (q *acceptQueue) Accept() (net.Conn, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.callers++
	defer func() { q.callers-- }()
	for {
		switch {
		case q.closed:
			return nil, net.ErrClosed
		case !q.deadline.IsZero() && !time.Now().Before(q.deadline):
			return nil, os.ErrDeadlineExceeded
		case len(q.accepted) > 0:
			a := q.accepted[0]
			q.accepted[0] = accepted{} // the array must not keep it alive
			q.accepted = q.accepted[1:]
			return a.conn, a.err
		}
		if q.running < q.callers {
			q.running++
			go q.acceptOne()
		}
		q.changed.Wait()
	}
}

func (q *acceptQueue) acceptOne() {
	c, err := q.listener.Accept()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running--
	if q.closed && err == nil {
		_ = c.Close() // nobody has it
		return
	}
	q.accepted = append(q.accepted, accepted{c, err})
	q.changed.Broadcast()
}

func (q *acceptQueue) SetDeadline(t time.Time) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return net.ErrClosed
	}
	q.deadline = t
	if q.alarm != nil {
		q.alarm.Stop()
	}
	if !t.IsZero() {
		q.alarm = time.AfterFunc(time.Until(t), q.changed.Broadcast)
	}
	q.changed.Broadcast()
	return nil
}

// Close closes the listener and what nobody has accepted.
func (q *acceptQueue) Close() error {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return net.ErrClosed
	}
	q.closed = true
	if putback.On(putback.GO01) {
		q.mu.Unlock()
		return nil
	}
	orphans := q.accepted
	q.accepted = nil
	if q.alarm != nil {
		q.alarm.Stop()
	}
	q.changed.Broadcast()
	q.mu.Unlock()
	err := q.listener.Close() // makes the goroutines' Accepts return
	for _, a := range orphans {
		if a.err == nil {
			_ = a.conn.Close() // nobody has it
		}
	}
	return err
}
