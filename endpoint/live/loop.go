package live

import "sync"

// A loop runs closures one after another on its own goroutine, and calls step
// after each batch until step has nothing left to do.
type loop struct {
	mu      sync.Mutex
	todo    []func()
	stopped bool

	wake chan struct{} // buffered, 1
	done chan struct{} // closed when the goroutine has ended
}

func newLoop() *loop {
	return &loop{wake: make(chan struct{}, 1), done: make(chan struct{})}
}

// do queues f. After stop it reports false and f will not run. The queue is
// bounded by its callers: one entry per API call in flight.
func (l *loop) do(f func()) bool {
	l.mu.Lock()
	if l.stopped {
		l.mu.Unlock()
		return false
	}
	l.todo = append(l.todo, f)
	l.mu.Unlock()
	l.kick()
	return true
}

// call runs f on the loop and waits for it. It must not be called on the loop.
// It reports false if the loop has stopped.
func (l *loop) call(f func()) bool {
	ran := make(chan struct{})
	if !l.do(func() { f(); close(ran) }) {
		return false
	}
	select {
	case <-ran:
		return true
	case <-l.done: // stopped before f's turn, or f was the last
		select {
		case <-ran:
			return true
		default:
			return false
		}
	}
}

// kick makes the loop look around.
func (l *loop) kick() {
	select {
	case l.wake <- struct{}{}:
	default: // it has been told already
	}
}

// stop ends the loop once what is queued has run. It may be called on the loop.
func (l *loop) stop() {
	l.mu.Lock()
	l.stopped = true
	l.mu.Unlock()
	l.kick()
}

// run is the loop itself; step reports whether it did anything.
func (l *loop) run(step func() bool) {
	defer close(l.done)
	for {
		f, stopped := l.next()
		switch {
		case f != nil:
			f()
			step()
		case stopped:
			return
		case !step():
			<-l.wake
		}
	}
}

func (l *loop) next() (f func(), stopped bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.todo) == 0 {
		return nil, l.stopped
	}
	f = l.todo[0]
	l.todo[0] = nil
	if l.todo = l.todo[1:]; len(l.todo) == 0 {
		l.todo = nil
	}
	return f, l.stopped
}
