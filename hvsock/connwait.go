package hvsock

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/internal/putback"
)

// A half is what the two directions of a Conn have in common: the lock that
// makes its holder the only user of one ring end, the turn of the call in
// progress, and the place where that call sleeps.
//
// The lock is held while bytes are copied, and while a reader yields, never while
// sleeping. The turn outlives it: a call that has to sleep, or to signal in the
// middle, gives up the lock and stays busy, so that the bytes of one Write stay
// together and there is only ever one sleeper. Close, detach, doorbell and
// deadlines take the lock without waiting for the turn.
//
// A sleeper calls arm, which sets sleeping, looks at the ring once more, unlocks and receives
// from wakeup; that is the one channel for everything that can happen, since a
// select over several costs twice as much. Whoever has changed something, the
// ring or a flag under the lock, calls wake. Both sides first store, then look,
// so no wake-up is lost; a surplus one only makes the sleeper look again.
type half struct {
	mu       sync.Mutex
	busy     bool      // a call holds the turn although mu may be free
	held     bool      // no call may go on: see hold
	holder   bool      // hold has the turn itself
	waiting  int       // calls that wait for the turn
	turn     sync.Cond // on mu; unlike a second Mutex it lets a synctest bubble go idle
	sleeping atomic.Bool
	armed    bool          // TryRead or TryWrite has left sleeping set; guarded by mu
	recheck  live.Timer    // likewise: looks again for a TryWrite whose peer may not signal; may be nil
	notify   func()        // told what would end a sleep, for TryRead and TryWrite; may be nil
	wakeup   chan struct{} // holds one token; made by arm, before sleeping is set

	deadline deadline // guarded by mu
	closed   bool     // the Conn's user has no way to the ring any more: Close, or File
	gone     bool     // nor has anybody: the connection is closed
	shut     bool     // CloseRead or CloseWrite was called
	end      error    // what the ring ended with, for ever: io.EOF, a reset or a fault

	signals uint64 // times the peer was signalled
	sleeps  uint64 // times a call slept
}

// init must be called before use.
func (h *half) init(clock live.Clock) {
	h.deadline.clock = clock
	h.turn.L = &h.mu
}

// lock takes the lock for a call that may sleep, when it is its turn.
func (h *half) lock() {
	h.mu.Lock()
	if h.busy {
		h.awaitTurn()
	}
}

func (h *half) awaitTurn() {
	h.waiting++
	for h.busy {
		h.turn.Wait()
	}
	h.waiting--
}

// hold keeps every call from the ring until release: when it returns, those in
// progress stand still and later ones wait. It takes the turn if nobody has it. A
// deadline that passes meanwhile is noticed at release.
func (h *half) hold() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held = true; !h.busy {
		h.busy, h.holder = true, true
	}
}

// release ends hold.
func (h *half) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held = false; h.holder {
		h.busy, h.holder = false, false
	}
	if putback.On(putback.SS09) {
		return
	}
	h.turn.Broadcast()
	h.wake() // whoever sleeps may have missed something
}

// awaitRelease stops a call that has the turn while the half is held.
func (h *half) awaitRelease() {
	for h.held {
		h.turn.Wait()
	}
}

// unlock ends the turn and gives up the lock.
func (h *half) unlock() {
	h.endTurn()
	h.mu.Unlock()
}

// endTurn ends the turn and keeps the lock.
func (h *half) endTurn() {
	h.busy = false
	if h.waiting > 0 {
		h.turn.Signal()
	}
}

// pause gives up the lock, but not the turn, for a call of signal.
func (h *half) pause(signal func()) {
	h.busy = true
	h.mu.Unlock()
	signal()
	h.mu.Lock()
	h.awaitRelease()
}

// yield gives up the lock, but not the turn, and lets other goroutines run, after
// a call of signal if that is not nil.
func (h *half) yield(signal func()) {
	h.busy = true
	h.mu.Unlock()
	if signal != nil {
		signal()
	}
	runtime.Gosched()
	h.mu.Lock()
	h.awaitRelease()
}

// arm announces a sleep; a look at the ring must follow, and then sleep, or
// sleeping must be cleared. The channel is made by the first, since most halves
// never sleep, and belongs to the synctest bubble of the caller.
func (h *half) arm() {
	if h.wakeup == nil {
		h.wakeup = make(chan struct{}, 1)
	}
	h.sleeping.Store(true)
}

// sleep gives up the lock, but not the turn, until wake is called, after a call
// of signal if that is not nil. The caller has called arm and looked again
// since.
func (h *half) sleep(signal func()) {
	h.busy = true
	h.sleeps++
	h.mu.Unlock()
	if signal != nil {
		signal()
	}
	<-h.wakeup
	h.mu.Lock()
	h.awaitRelease()
	if h.sleeping.Load() { // an old token: whoever wakes a sleeper clears it
		h.sleeping.Store(false)
	}
}

// wake ends a sleep, if there is one. It never blocks.
func (h *half) wake() {
	if h.sleeping.Load() && h.sleeping.CompareAndSwap(true, false) {
		select {
		case h.wakeup <- struct{}{}:
		default: // a token nobody has taken yet does as well
		}
		if h.notify != nil {
			h.notify()
		}
	}
}

// setDeadline replaces the deadline; false means that the Conn is closed.
func (h *half) setDeadline(t time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	expired, wait := h.deadline.set(t)
	if expired {
		h.wake()
	}
	if wait > 0 {
		h.deadline.timer = h.deadline.clock.AfterFunc(wait, h.expire)
	}
	return true
}

// expire runs when the timer of a deadline fires.
func (h *half) expire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.deadline.check() {
		h.wake()
	}
}
