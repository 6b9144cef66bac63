package hvsock

import (
	"context"
	"sync/atomic"
	"syscall"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// A loopback joins two sockets of one partition by a ring pair of its own. No
// VMBus message is exchanged: on real systems a loopback connection is another
// transport too (hvsock.md 4).
type loopback struct {
	mem       *guestmem.Heap
	ringPages int
	clock     live.Clock
	open      atomic.Int64
}

func newLoopback(ringPages int, clock live.Clock) *loopback {
	return &loopback{mem: guestmem.NewHeap(guestmem.HeapOptions{}), ringPages: ringPages, clock: clock}
}

func (l *loopback) len() int { return int(l.open.Load()) }

// dial connects to the listener for addr's service bound to the first of vmids.
func (l *loopback) dial(ctx context.Context, listeners *registry, rnd *random, addr Addr, vmids ...uuid.UUID) (*Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, dialError(Addr{}, addr, contextError(err))
	}
	local := Addr{Loopback, ServiceIDFromPort(rnd.port())}
	to := listeners.lookup(addr.ServiceID, vmids...)
	if to == nil || !to.reserve() {
		return nil, dialError(local, addr, syscall.ECONNREFUSED)
	}
	near, far, err := l.pair(local, addr)
	if err != nil {
		to.cancel()
		return nil, dialError(local, addr, syscall.ENOMEM)
	}
	if !to.push(far) {
		_ = far.Close()
	}
	return near, nil
}

// A loopPair is what both ends of a loopback connection share; the last of the
// two to close frees the pages.
type loopPair struct {
	loop  *loopback
	block *guestmem.Block
	conns [2]*Conn
	ended atomic.Int32
}

// pair returns the two ends of a new connection.
func (l *loopback) pair(local, remote Addr) (near, far *Conn, err error) {
	block, err := l.mem.Alloc(2 * l.ringPages)
	if err != nil {
		return nil, nil, err
	}
	p := &loopPair{loop: l, block: block}
	there, back := block.Pages[:l.ringPages], block.Pages[l.ringPages:]
	for _, ring := range [][]*guestmem.Page{there, back} {
		if err := ringbuffer.Init(ring); err != nil {
			return nil, nil, err
		}
	}
	for i, ends := range []struct {
		out, in       []*guestmem.Page
		local, remote Addr
	}{{there, back, local, remote}, {back, there, Addr{Loopback, remote.ServiceID}, local}} {
		w, err := ringbuffer.NewWriter(ends.out)
		if err != nil {
			return nil, nil, err
		}
		r, err := ringbuffer.NewReader(ends.in)
		if err != nil {
			return nil, nil, err
		}
		p.conns[i] = newConn(ends.local, ends.remote, link{
			in: channel.NewPipeReader(r), out: newPipeWriter(w),
			inPages: l.ringPages, outPages: l.ringPages,
			signal: func() { p.conns[1-i].doorbell() },
			events: func(e connEvent) { p.event(i, e) }, clock: l.clock,
		})
	}
	l.open.Add(1)
	return p.conns[0], p.conns[1], nil
}

// event handles what end i reports. The pair ends when both ends have closed;
// data for an end that has closed, or a broken ring, resets the other.
func (p *loopPair) event(i int, e connEvent) {
	switch e {
	case evLateData, evFault:
		p.conns[1-i].detach(detachReset)
	case evClosed:
		if p.ended.Add(1) < 2 {
			return
		}
		for _, c := range p.conns {
			c.detach(detachReset)
		}
		p.loop.mem.Free(p.block)
		p.loop.open.Add(-1)
	}
}
