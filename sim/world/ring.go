package world

import (
	"encoding/binary"
	"slices"

	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// Words of a ring's control page. Source: ringbuffer.md 3.
const (
	wordWrite    = 0x00
	wordRead     = 0x04
	wordMask     = 0x08
	wordPending  = 0x0C
	wordFeatures = 0x40

	descriptorBytes = 16
	trailerBytes    = 8
)

// A ring is a model of one ring, as an observer of the shared memory sees it.
type ring struct {
	pages  []*guestmem.Page
	size   uint32
	writer side
	now    ringWords
	ends   []uint32 // where the packets that are in the ring end
	count  uint64   // packets ever written
	fin    bool     // an empty pipe packet was written
}

type ringWords struct{ write, read, mask, pending, features uint32 }

func newRing(pages []*guestmem.Page, writer side) *ring {
	r := &ring{pages: pages, size: uint32(len(pages)-1) * guestmem.PageSize, writer: writer}
	r.now = r.load()
	return r
}

func (r *ring) load() ringWords {
	c := r.pages[0]
	return ringWords{c.Load32(wordWrite), c.Load32(wordRead), c.Load32(wordMask), c.Load32(wordPending), c.Load32(wordFeatures)}
}

func (r *ring) used(w ringWords) uint32 { return (w.write + r.size - w.read) % r.size }

func (r *ring) word64(at uint32) uint64 {
	at %= r.size
	return binary.LittleEndian.Uint64(r.pages[1+at/guestmem.PageSize].Bytes()[at%guestmem.PageSize:])
}

// checkRings looks at every ring that is shared: what changed in this step, who
// may have changed it, and whether the doorbell was rung as it must be.
func (w *World) checkRings() {
	for _, m := range w.machines {
		for _, c := range m.view.order {
			c.wanted, c.looked = 0, false
			for _, r := range c.rings {
				w.checkRing(m, c, r)
			}
			if c.looked {
				w.checkSignal(m, c)
			}
		}
		if m.attacked() {
			continue // nobody follows when its guest hears of a GpadlTorndown and uses the pages again
		}
		for _, d := range m.view.dead {
			if m.attacked() {
				break
			}
			if d.ring.load() != d.ring.now {
				w.fail(GPADLMem, "guest%d: a ring of GPADL %#x has changed after GpadlTorndown", m.number, uint32(d.gpadl))
				return
			}
			w.hit(GPADLMem)
		}
	}
}

func (w *World) checkRing(m *machine, c *channelView, r *ring) {
	was, now := r.now, r.load()
	if was == now {
		return
	}
	r.now = now
	if m.attacked() {
		return
	}
	id := c.offer.Channel
	wrote := was.write != now.write || was.pending != now.pending || was.features != now.features
	freed := was.read != now.read || was.mask != now.mask
	if w.actor == hostSide && !c.opened {
		w.fail(GPADLMem, "guest%d channel %d: the host uses rings of a channel it has not opened", m.number, id)
		return
	}
	if wrote && w.actor != r.writer || freed && w.actor != r.writer.other() {
		w.fail(Index, "guest%d channel %d: the %v changed words of the %v: %+v, then %+v", m.number, id, w.actor, w.actor.other(), was, now)
		return
	}
	if now.write >= r.size || now.read >= r.size || now.write%8 != 0 || now.read%8 != 0 {
		w.fail(Index, "guest%d channel %d: impossible indices %+v in a ring of %d bytes", m.number, id, now, r.size)
		return
	}
	if was.write != now.write {
		w.checkWritten(m, c, r, was)
	}
	if was.read != now.read {
		w.checkFreed(m, c, r, was)
	}
	// Linux and OpenVMM reckon the free space each in its own way.
	linux := r.size - (now.write - now.read)
	if now.write < now.read {
		linux = now.read - now.write
	}
	openvmm := (now.read + r.size - now.write - 8) % r.size
	if r.used(now)+openvmm+8 != r.size || linux != openvmm+8 {
		w.fail(Free, "guest%d channel %d: %d free and %d used of %d", m.number, id, openvmm, r.used(now), r.size)
		return
	}
	w.hit(Free)
	w.hit(Index)
}

// checkWritten walks over the packets that were published.
func (w *World) checkWritten(m *machine, c *channelView, r *ring, was ringWords) {
	id := c.offer.Channel
	left := (r.now.write + r.size - was.write) % r.size
	if left > r.size-8-r.used(was) {
		w.fail(Index, "guest%d channel %d: %d bytes written into %d free ones", m.number, id, left, r.size-8-r.used(was))
		return
	}
	at := was.write
	for left > 0 {
		d := r.word64(at)
		packet := uint32(d>>32&0xFFFF) * 8
		if packet < descriptorBytes || packet+trailerBytes > left {
			w.fail(Index, "guest%d channel %d: a packet of %d bytes at %d, with %d bytes published", m.number, id, packet, at, left)
			return
		}
		if r.word64(at+packet) != uint64(at)<<32 {
			w.fail(ZeroOut, "guest%d channel %d: the trailer of the packet at %d is %#x", m.number, id, at, r.word64(at+packet))
			return
		}
		w.checkPipe(m, c, r, at, packet)
		at = (at + packet + trailerBytes) % r.size
		left -= packet + trailerBytes
		r.ends = append(r.ends, at)
		r.count++
	}
	c.want(was.read == was.write && was.mask == 0)
}

// want notes whether something that one call did calls for a doorbell.
func (c *channelView) want(doorbell bool) {
	c.looked = true
	if doorbell {
		c.wanted++
	}
}

// checkPipe looks into a pipe packet of a socket.
func (w *World) checkPipe(m *machine, c *channelView, r *ring, at, packet uint32) {
	if c.offer.Flags&offerTLNPI == 0 || packet < descriptorBytes+8 {
		return
	}
	n := uint32(r.word64(at+descriptorBytes) >> 32)
	if n > packet-descriptorBytes-8 || n > 16384 {
		w.fail(Len, "guest%d channel %d: a pipe packet says %d bytes and has %d", m.number, c.offer.Channel, n, packet-descriptorBytes-8)
		return
	}
	r.fin = r.fin || n == 0
	if pad := n % 8; pad != 0 {
		if r.word64(at+descriptorBytes+8+n-pad)>>(8*pad) != 0 {
			w.fail(ZeroOut, "guest%d channel %d: the padding of the packet at %d is not zero", m.number, c.offer.Channel, at)
			return
		}
	}
	w.hit(ZeroOut)
}

// checkFreed looks whether the reader stopped between two packets.
func (w *World) checkFreed(m *machine, c *channelView, r *ring, was ringWords) {
	at := slices.Index(r.ends, r.now.read)
	if at < 0 {
		w.fail(Index, "guest%d channel %d: the reader has gone from %d to %d, where no packet ends", m.number, c.offer.Channel, was.read, r.now.read)
		return
	}
	r.ends = append(r.ends[:0], r.ends[at+1:]...)
	before, after := r.size-r.used(was), r.size-r.used(r.now)
	limit := was.pending &^ 7
	c.want(was.pending != 0 && was.features&1 != 0 && before <= limit && after > limit)
}

// checkSignal compares the doorbells of this step with what the rules want: data
// in an empty ring and space for a waiting writer ring the same one.
func (w *World) checkSignal(m *machine, c *channelView) {
	if w.current.Kind != App || w.current.Op == opSave || m.version < oldestDoorbells {
		return // a step of the bus may do both, and more; a save does all there is to do
	}
	if c.offer.MonitorAllocated != 0 && w.actor == guestSide {
		return // it is a bit in a page
	}
	if c.polls && w.actor == hostSide {
		return // there is no doorbell
	}
	got := 0
	for _, s := range w.signals {
		if s.m == m && s.from == w.actor && (s.from == hostSide && s.id == c.flag || s.from == guestSide && s.id == c.bell) {
			got++
		}
	}
	switch {
	case c.wanted > 0 && got == 0:
		w.fail(SignalMin, "guest%d channel %d: nobody was told: %+v, %+v", m.number, c.offer.Channel, c.rings[0].now, c.rings[1].now)
	case got > max(c.wanted, 1):
		w.fail(SignalMin, "guest%d channel %d: %d doorbells, %d wanted", m.number, c.offer.Channel, got, c.wanted)
	default:
		w.hit(SignalMin)
	}
}

// signalled is told that an end rang a doorbell.
func (w *World) signalled(m *machine, from side, id uint64) {
	w.signals = append(w.signals, rung{m, from, id})
	w.mix(id)
	if w.o.Trace != nil {
		w.note("doorbell of the %v of guest%d: %d", from, m.number, id)
	}
}
