package hvsock

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// A loopback joins two sockets of one machine, a host or a guest with its
// containers, by a ring pair of its own. No VMBus message is exchanged: on real
// systems a loopback connection is another transport too (hvsock.md 4).
type loopback struct {
	mem       *guestmem.Heap
	ringPages int
	clock     live.Clock
	rnd       *random

	mu    sync.Mutex
	pairs []*loopPair // in the order in which they began
}

func newLoopback(ringPages int, clock live.Clock, rnd *random) *loopback {
	return &loopback{
		mem: guestmem.NewHeap(guestmem.HeapOptions{}), ringPages: ringPages, clock: clock, rnd: rnd,
	}
}

func (l *loopback) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.pairs)
}

// A hop is a connection within one machine: who dials what, and how each end
// calls itself and the other.
type hop struct {
	from, to *site
	listener *Listener // nil if nobody listens
	dialed   Addr      // what the dialer dials
	self     uuid.UUID // the dialer's VM id, as both ends call it
	accepted uuid.UUID // the acceptor's VM id, as it calls itself
}

// newHop is the connect from a site to a local target: the site itself, the root
// that hosts it, or the container child of the root.
func newHop(to target, from, root *site, child *Container, addr Addr, parent SiloParent) hop {
	h := hop{from: from, dialed: addr}
	switch to {
	case toSelf:
		h.to, h.self, h.accepted = from, Loopback, Loopback
		h.listener = from.listener(addr.ServiceID, fromSelf, from.id, parent)
	case toSiloHost:
		h.to, h.self, h.accepted = root, from.id, addr.VMID
		h.listener = root.listener(addr.ServiceID, fromChild, from.id, parent)
	case toChild:
		h.to, h.self, h.accepted = &child.site, SiloHost, addr.VMID
		h.listener = child.listener(addr.ServiceID, fromSiloHost, uuid.UUID{}, parent)
	}
	return h
}

// dial connects the ends of h.
func (l *loopback) dial(ctx context.Context, h hop) (*Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, dialError(Addr{}, h.dialed, contextError(err))
	}
	local := Addr{h.self, ServiceIDFromPort(l.rnd.port())}
	if h.listener == nil || !h.listener.reserve() {
		return nil, dialError(local, h.dialed, syscall.ECONNREFUSED)
	}
	near, far, err := l.pair(h, local)
	if err != nil {
		h.listener.cancel()
		return nil, dialError(local, h.dialed, syscall.ENOMEM)
	}
	if !h.listener.push(far) {
		_ = far.Close()
	}
	return near, nil
}

// A loopPair is what both ends of a loopback connection share; the last of the
// two to close frees the pages, or the end of the machine.
type loopPair struct {
	loop    *loopback
	service uuid.UUID
	sites   [2]*site // of the ends
	block   *guestmem.Block
	conns   [2]*Conn
	closed  atomic.Int32 // ends
	once    sync.Once    // for end
}

// cutOff ends the connections that are chosen, as their machine or service ends.
func (l *loopback) cutOff(chosen func(*loopPair) bool) {
	l.mu.Lock()
	all := slices.Clone(l.pairs)
	l.mu.Unlock()
	for _, p := range all {
		if chosen(p) {
			p.end()
		}
	}
}

// close ends every connection: the machine is gone.
func (l *loopback) close() { l.cutOff(func(*loopPair) bool { return true }) }

// closeSite closes every connection that has an end in s.
func (l *loopback) closeSite(s *site) {
	var ends []*Conn
	l.mu.Lock()
	for _, p := range l.pairs {
		for i := range p.sites {
			if p.sites[i] == s {
				ends = append(ends, p.conns[i])
			}
		}
	}
	l.mu.Unlock()
	for _, c := range ends {
		c.end(false)
	}
}

// pair returns the two ends of a new connection.
func (l *loopback) pair(h hop, local Addr) (near, far *Conn, err error) {
	block, err := l.mem.Alloc(2 * l.ringPages)
	if err != nil {
		return nil, nil, err
	}
	p := &loopPair{loop: l, block: block, service: h.dialed.ServiceID, sites: [2]*site{h.from, h.to}}
	if err := p.join(local, h.dialed, Addr{h.accepted, h.dialed.ServiceID}); err != nil {
		_ = l.mem.Free(block) // nobody else knows it
		return nil, nil, err
	}
	l.mu.Lock()
	l.pairs = append(l.pairs, p)
	l.mu.Unlock()
	return p.conns[0], p.conns[1], nil
}

// join makes the ends: the dialer's, and the acceptor's, which calls itself own.
func (p *loopPair) join(local, dialed, own Addr) error {
	pages := len(p.block.Pages) / 2
	there, back := p.block.Pages[:pages], p.block.Pages[pages:]
	for _, ring := range [][]*guestmem.Page{there, back} {
		if err := ringbuffer.Init(ring); err != nil {
			return err
		}
	}
	for i, ends := range []struct {
		out, in       []*guestmem.Page
		local, remote Addr
	}{{there, back, local, dialed}, {back, there, own, local}} {
		w, err := ringbuffer.NewWriter(ends.out)
		if err != nil {
			return err
		}
		r, err := ringbuffer.NewReader(ends.in)
		if err != nil {
			return err
		}
		p.conns[i] = newConn(ends.local, ends.remote, link{
			in: channel.NewPipeReader(r), out: newPipeWriter(w, 0),
			inPages: pages, outPages: pages,
			signal: func() { p.conns[1-i].doorbell() },
			events: func(e connEvent) { p.event(i, e) }, clock: p.loop.clock,
		})
	}
	return nil
}

// event handles what end i reports. The pair ends when both ends have closed;
// data for an end that has closed, or a broken ring, resets the other.
func (p *loopPair) event(i int, e connEvent) {
	switch e {
	case evLateData, evFault:
		p.conns[1-i].detach(detachReset)
	case evClosed:
		if p.closed.Add(1) == 2 {
			p.end()
		}
	}
}

// end takes the rings from both ends and frees the pages. An end that is still
// open finds its stream cut off. It may be called more than once.
func (p *loopPair) end() {
	p.once.Do(func() {
		for _, c := range p.conns {
			if !putback.On(putback.SS04) {
				c.detach(detachReset)
			}
		}
		p.loop.mem.Free(p.block)
		p.loop.mu.Lock()
		p.loop.pairs = slices.DeleteFunc(p.loop.pairs, func(o *loopPair) bool { return o == p })
		p.loop.mu.Unlock()
	})
}
