package live

import "sync"

// A loop runs closures one after another and settles after each: it carries out
// what the core wants. It does so on its own goroutine, or, if it is manual, when
// its owner says so.
type loop struct {
	machine machine
	manual  bool

	mu      sync.Mutex
	todo    fifo[func()]
	stopped bool
	frozen  bool

	wake chan struct{} // buffered, 1
	done chan struct{} // closed when the loop has ended
}

// A machine is what a loop drives: the running host or guest. Each method does
// one thing, if there is one to do, and reports whether it did.
type machine interface {
	actOne() bool     // carry out the core's oldest wish
	postOne() bool    // post the core's oldest message
	receiveOne() bool // hand the core the oldest message that has arrived
}

func newLoop(m machine, manual bool) *loop {
	return &loop{machine: m, manual: manual, wake: make(chan struct{}, 1), done: make(chan struct{})}
}

// start begins to run; a manual loop has no goroutine.
func (l *loop) start() {
	if !l.manual {
		go l.run()
	}
}

// startWith begins to run with f, and returns when f has.
func (l *loop) startWith(f func()) {
	if l.manual {
		f()
		return
	}
	ran := make(chan struct{})
	l.do(func() { f(); close(ran) })
	l.start()
	<-ran
}

// do queues f. After stop it reports false and f will not run. The queue is
// bounded by its callers: one entry per API call in flight.
func (l *loop) do(f func()) bool {
	l.mu.Lock()
	if l.stopped {
		l.mu.Unlock()
		return false
	}
	l.todo.push(f)
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
	for l.manual && l.callOne() {
		l.settle()
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

// look runs f, which changes nothing, and waits for it; on a manual loop without
// doing anything else. It reports false if the loop has stopped.
func (l *loop) look(f func()) bool {
	if !l.manual {
		return l.visit(f)
	}
	if l.stopped {
		return false
	}
	f()
	return true
}

// visit is call that a frozen loop does not delay: nothing runs there, so f does on
// the spot. It must not make the machine do anything then.
func (l *loop) visit(f func()) bool {
	l.mu.Lock()
	if l.frozen {
		defer l.mu.Unlock() // until then it stays frozen
		f()
		return true
	}
	l.mu.Unlock()
	return l.call(f)
}

// freeze makes the loop do nothing until thaw; what is asked of it waits. It
// reports false if the loop has stopped.
func (l *loop) freeze() bool {
	if l.frozenNow() {
		return true
	}
	return l.call(func() {
		l.settle()
		l.mu.Lock()
		l.frozen = !l.stopped
		l.mu.Unlock()
	})
}

// thaw ends it; the loop goes on where it was.
func (l *loop) thaw() {
	l.mu.Lock()
	l.frozen = false
	l.mu.Unlock()
	l.kick()
}

func (l *loop) frozenNow() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.frozen
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
	first := !l.stopped
	l.stopped, l.frozen = true, false
	l.mu.Unlock()
	if l.manual && first {
		close(l.done)
	}
	l.kick()
}

// run is the loop's goroutine. Every call that waits comes before the next
// message: what a callback has asked for has happened by then. Calls that are made
// meanwhile do not keep messages out.
func (l *loop) run() {
	defer close(l.done)
	for {
		for n := l.waiting(); n > 0 && !l.frozenNow() && l.callOne(); n-- {
			if !l.frozenNow() { // the call may have been freeze
				l.settle()
			}
		}
		if l.frozenNow() {
			<-l.wake
			continue
		}
		if l.ended() {
			return
		}
		l.settle()
		if !l.machine.receiveOne() {
			<-l.wake
		}
	}
}

// settle does what the core wants of its driver.
func (l *loop) settle() {
	for l.machine.actOne() {
	}
	for l.machine.postOne() {
	}
}

// callOne runs the oldest closure.
func (l *loop) callOne() bool {
	l.mu.Lock()
	if l.todo.len() == 0 {
		l.mu.Unlock()
		return false
	}
	f := *l.todo.front()
	l.todo.pop()
	l.mu.Unlock()
	f()
	return true
}

// ended reports whether the loop was stopped and has nothing left to run.
func (l *loop) ended() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stopped && l.todo.len() == 0
}

func (l *loop) waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.todo.len()
}
