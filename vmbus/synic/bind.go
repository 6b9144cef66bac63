package synic

import (
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
)

// portBuckets is the number of chains in a port table. A bus has at most 2047
// channels with a port each, so a chain has two or three.
const portBuckets = 1 << portBucketBits

const portBucketBits = 10

// A portTable finds a port by its id. Finding is on the data path and takes no
// lock; changes take mu.
type portTable struct {
	mu      sync.Mutex
	buckets [portBuckets]atomic.Pointer[port]
}

// A port is one binding of a connection id. Either messages or events is set.
type port struct {
	id       ConnectionID
	messages func(payload []byte) Status
	events   func(flag uint16)
	next     atomic.Pointer[port] // of the chain; still followed by readers after removal

	state   atomic.Int64  // running calls, plus portClosed
	drained chan struct{} // closed when the port is closed and the last call has ended
	once    sync.Once
}

const portClosed = 1 << 32

// BindMessages implements Port.
func (p *Partition) BindMessages(id ConnectionID, fn func(payload []byte) Status) error {
	if fn == nil {
		return &BindError{id, "no function"}
	}
	return p.ports.add(&port{id: id, messages: fn})
}

// BindEvents implements Port.
func (p *Partition) BindEvents(id ConnectionID, fn func(flag uint16)) error {
	if fn == nil {
		return &BindError{id, "no function"}
	}
	return p.ports.add(&port{id: id, events: fn})
}

// Unbind implements Port.
func (p *Partition) Unbind(id ConnectionID) {
	port := p.ports.find(id)
	if port == nil {
		return
	}
	if !port.close() && !insideCall() {
		<-port.drained
	}
	// Only now, so that of two goroutines that unbind at once both wait.
	p.ports.remove(port)
}

func (t *portTable) bucket(id ConnectionID) *atomic.Pointer[port] {
	return &t.buckets[uint32(id)*0x9E3779B1>>(32-portBucketBits)] // Fibonacci hashing
}

func (t *portTable) find(id ConnectionID) *port {
	p := t.bucket(id).Load()
	for p != nil && p.id != id {
		p = p.next.Load()
	}
	return p
}

func (t *portTable) add(p *port) error {
	if p.id>>connectionIDBits != 0 {
		return &RangeError{"connection id", int64(p.id), 1 << connectionIDBits}
	}
	p.drained = make(chan struct{})
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.find(p.id) != nil {
		return &BindError{p.id, "is bound already"}
	}
	head := t.bucket(p.id)
	p.next.Store(head.Load())
	head.Store(p)
	return nil
}

// remove takes p out of the table, if it is still there. A reader that stands on
// p goes on to the rest of the chain.
func (t *portTable) remove(p *port) {
	t.mu.Lock()
	defer t.mu.Unlock()
	link := t.bucket(p.id)
	for at := link.Load(); at != nil; at = link.Load() {
		if at == p {
			link.Store(p.next.Load())
			return
		}
		link = &at.next
	}
}

// call runs the port's function, unless the port is closed. insideCall looks for
// it by name, so it must have a frame of its own.
//
//go:noinline
func (p *port) call(payload []byte, flag uint16) Status {
	defer p.leave() // also if the function panics or ends the goroutine
	if p.state.Add(1)&portClosed != 0 {
		return StatusInvalidConnectionID
	}
	if p.messages != nil {
		return p.messages(payload)
	}
	p.events(flag)
	return StatusSuccess
}

func (p *port) leave() {
	if p.state.Add(-1) == portClosed {
		p.finish()
	}
}

// close lets no further call start, and reports whether none is running.
func (p *port) close() bool {
	if p.state.Or(portClosed)&^portClosed != 0 {
		return false
	}
	p.finish()
	return true
}

// finish is reached again by calls that find the port closed.
func (p *port) finish() { p.once.Do(func() { close(p.drained) }) }

// insideCall reports whether the goroutine is running a port's function. Go has
// no cheaper way to tell that leaves the data path alone, and this one runs
// only if an Unbind finds a call running.
func insideCall() bool {
	pcs := make([]uintptr, 64)
	for {
		n := runtime.Callers(2, pcs)
		if n < len(pcs) {
			pcs = pcs[:n]
			break
		}
		pcs = make([]uintptr, 2*len(pcs))
	}
	for frames := runtime.CallersFrames(pcs); ; {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, "/vmbus/synic.(*port).call") {
			return true
		}
		if !more {
			return false
		}
	}
}
