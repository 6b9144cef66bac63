package main

import (
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
)

// A bareRing is the limit that hvlab is held against: the least a ring with
// packets can be that several goroutines may use and that wakes who sleeps. It
// writes descriptors and footers, has a lock at each end and two indices, and
// waits as hvlab does, which is the best of the ways that were tried. It has no
// hypervisor between its ends, checks nothing its peer wrote, counts nothing, and
// knows neither deadlines nor errors.
type bareRing struct {
	data    []byte
	control [16]atomic.Uint32 // write and read index, in one cache line as in a ring

	writing struct {
		sync.Mutex
		at, free uint32
	}
	reading struct {
		sync.Mutex
		at, committed, taken uint32 // taken: of the packet at at
	}
	full, empty sleeper
	closed      atomic.Bool
}

// bareChunkBytes is hvlab's.
const bareChunkBytes = 4088

// bareReserveBytes stay free: a packet's overhead, a FIN and a granule, as in hvlab.
const bareReserveBytes = 72

func newBareRing(pages int) *bareRing {
	r := &bareRing{data: make([]byte, (pages-1)*4096)}
	r.writing.free = uint32(len(r.data))
	r.full.wakeup, r.empty.wakeup = make(chan struct{}, 1), make(chan struct{}, 1)
	return r
}

func (r *bareRing) wrap(at uint32) uint32 {
	if at >= uint32(len(r.data)) {
		at -= uint32(len(r.data))
	}
	return at
}

func (r *bareRing) distance(from, to uint32) uint32 { return r.wrap(to + uint32(len(r.data)) - from) }

// word is where a granule at an offset that may have run past the end lies.
func (r *bareRing) word(at uint32) []byte { return r.data[r.wrap(at):] }

func (r *bareRing) put(p []byte) {
	le, w := binary.LittleEndian, &r.writing
	padded := (uint32(len(p)) + 7) &^ 7
	le.PutUint64(r.word(w.at), uint64(padded+24)/8<<32|2<<16|6)
	le.PutUint64(r.word(w.at+8), 0)
	le.PutUint64(r.word(w.at+16), uint64(len(p))<<32|1)
	le.PutUint64(r.word(w.at+24+padded), uint64(w.at)<<32)
	if n := copy(r.word(w.at+24), p); n < len(p) {
		copy(r.data, p[n:])
	}
	w.at, w.free = r.wrap(w.at+32+padded), w.free-32-padded
}

func (r *bareRing) Write(p []byte) (int, error) {
	w := &r.writing
	w.Lock()
	for left, yields := p, 0; len(left) > 0; {
		if w.free <= bareReserveBytes || len(left) > int(w.free-bareReserveBytes) {
			w.free = uint32(len(r.data)) - r.distance(r.control[1].Load(), w.at)
		}
		for len(left) > 0 && w.free > bareReserveBytes {
			n := min(len(left), bareChunkBytes, int(w.free-bareReserveBytes))
			r.put(left[:n])
			left, yields = left[n:], 0
		}
		r.control[0].Store(w.at)
		r.empty.wake()
		if len(left) == 0 {
			break
		}
		w.Unlock()
		if yields++; yields < 3 {
			runtime.Gosched()
		} else if r.full.arm(); r.distance(r.control[1].Load(), w.at) == uint32(len(r.data))-w.free {
			<-r.full.wakeup
		}
		w.Lock()
	}
	w.Unlock()
	return len(p), nil
}

func (r *bareRing) Read(p []byte) (n int, err error) {
	le, d := binary.LittleEndian, &r.reading
	d.Lock()
	defer d.Unlock()
	for yielded := false; ; {
		end := r.control[0].Load()
		for n < len(p) && d.at != end {
			size := uint32(le.Uint64(r.word(d.at+16)) >> 32)
			total := uint32(le.Uint64(r.word(d.at))>>32)*8 + 8
			want := min(size-d.taken, uint32(len(p)-n))
			if m := uint32(copy(p[n:n+int(want)], r.word(d.at+24+d.taken))); m < want {
				copy(p[n+int(m):n+int(want)], r.data)
			}
			n += int(want)
			if d.taken += want; d.taken == size {
				d.at, d.taken = r.wrap(d.at+total), 0
			}
		}
		switch {
		case n > 0:
			if held := r.distance(d.committed, d.at); d.at == end || int(held) >= len(r.data)/2 {
				r.control[1].Store(d.at)
				d.committed = d.at
				r.full.wake()
			}
			return n, nil
		case r.closed.Load():
			return 0, io.EOF
		case !yielded:
			yielded = true
			runtime.Gosched()
		default:
			if r.empty.arm(); r.control[0].Load() == end && !r.closed.Load() {
				d.Unlock()
				<-r.empty.wakeup
				d.Lock()
			}
		}
	}
}

// A sleeper is where one goroutine sleeps. A token may be left over, so whoever
// wakes looks again.
type sleeper struct {
	asleep atomic.Bool
	wakeup chan struct{}
}

func (s *sleeper) arm() { s.asleep.Store(true) }

func (s *sleeper) wake() {
	if s.asleep.Load() && s.asleep.CompareAndSwap(true, false) {
		select {
		case s.wakeup <- struct{}{}:
		default:
		}
	}
}

// A bareConn is a connection of two bareRings, as far as the workloads use one.
type bareConn struct {
	net.Conn // none
	in, out  *bareRing
}

func (c bareConn) Read(p []byte) (int, error)  { return c.in.Read(p) }
func (c bareConn) Write(p []byte) (int, error) { return c.out.Write(p) }

func (c bareConn) Close() error {
	for _, r := range []*bareRing{c.in, c.out} {
		r.closed.Store(true)
		r.empty.wake()
	}
	return nil
}

func openBare(ringPages int) (*transport, error) {
	there, back := newBareRing(ringPages), newBareRing(ringPages)
	return &transport{
		dial:   func() (net.Conn, error) { return bareConn{in: back, out: there}, nil },
		accept: func() (net.Conn, error) { return bareConn{in: there, out: back}, nil },
		settle: func() {},
		close:  func() {},
	}, nil
}
