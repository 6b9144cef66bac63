package hvsock

import (
	"sync"
	"syscall"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/endpoint/live"
)

// maxListeners bounds the listeners of one side (faults.md 5).
const maxListeners = 1024

// A listenerTable holds the listeners of one partition: one per (VM id, service).
type listenerTable struct {
	mu     sync.Mutex
	closed bool
	byKey  map[Addr]*Listener
	names  portAllocator
	family OptionFamily // of its listeners' options
	clock  live.Clock
}

func newListenerTable(names portAllocator, clock live.Clock, family OptionFamily) *listenerTable {
	return &listenerTable{byKey: map[Addr]*Listener{}, names: names, clock: clock, family: family}
}

// open is listen with the errors of net.
func (r *listenerTable) open(addr Addr, backlog int) (*Listener, error) {
	l, err := r.listen(addr, backlog)
	if err != nil {
		return nil, listenError(addr, err)
	}
	return l, nil
}

// listen binds a listener to addr. A nil service, or port 0, picks a free port.
// Errors are bare errnos.
func (r *listenerTable) listen(addr Addr, backlog int) (*Listener, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, syscall.ENODEV
	}
	if port, ok := PortFromServiceID(addr.ServiceID); addr.ServiceID == uuid.Nil || ok && port == 0 {
		var err error
		if addr.ServiceID, err = r.names.pick(func(id uuid.UUID) bool { return r.byKey[Addr{addr.VMID, id}] != nil }); err != nil {
			return nil, err
		}
	}
	if r.byKey[addr] != nil {
		return nil, syscall.EADDRINUSE
	}
	if len(r.byKey) >= maxListeners {
		return nil, syscall.EADDRNOTAVAIL
	}
	l := newListener(addr, backlog, r.clock, func() { r.remove(addr) })
	l.family = r.family
	r.byKey[addr] = l
	return l, nil
}

func (r *listenerTable) remove(addr Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byKey, addr)
}

// lookup returns the listener for service that is bound to the first of vmids
// that has one: a specific bind wins over a wildcard (hvsock.md 4).
func (r *listenerTable) lookup(service uuid.UUID, vmids ...uuid.UUID) *Listener {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range vmids {
		if l := r.byKey[Addr{id, service}]; l != nil {
			return l
		}
	}
	return nil
}

// closeAll closes every listener, and there will be no new one.
func (r *listenerTable) closeAll() {
	r.mu.Lock()
	r.closed = true
	var list []*Listener
	for _, l := range r.byKey {
		list = append(list, l)
	}
	r.mu.Unlock()
	for _, l := range list {
		_ = l.Close() // closed meanwhile is closed too
	}
}

// len returns the number of listeners.
func (r *listenerTable) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.byKey)
}
