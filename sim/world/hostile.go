package world

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"

	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// What a hostile peer does beside what an honest one does; Arg says how. Which end
// of guest1's bus is hostile is a matter of the seed: see World.attacker.
const (
	hostileNone   uint8 = iota
	hostilePost         // a message out of nowhere (HG1-6, HG10, HH1-5, HH10-12)
	hostileWord         // a word of a ring's control page (HG8, HH8)
	hostileData         // bytes of a ring (HG9, HH9)
	hostileSignal       // a doorbell that is not its own (HG11, HH11)
	hostileSlot         // bytes of the pages of the interrupt controller (HH9)
	hostileMute         // it does nothing any more, for ever (HG7, HH7)
	hostileVanish       // a guest is gone between two steps, and comes back with no memory of it (HG14)
)

var hostileNames = [...]string{"", "post", "word", "data", "signal", "slot", "mute", "vanish"}

// attacker is the hostile end of guest1's bus; neither unless Options.Hostile.
func (w *World) attacker() side {
	switch {
	case !w.o.Hostile:
		return neither
	case w.o.Seed/2%2 == 0:
		return guestSide
	}
	return hostSide
}

// attacked reports whether the rules do not bind both ends of this bus.
func (m *machine) attacked() bool { return m.w.o.Hostile && m.number == 1 }

// enableHostile lists what the attacker could do.
func (w *World) enableHostile() {
	m := w.machines[0]
	if m.mute {
		return
	}
	for _, op := range []uint8{hostilePost, hostilePost, hostileWord, hostileData, hostileSignal} {
		w.add(Step{Kind: Hostile, Op: op, Guest: 1}, rareWeight)
	}
	if w.rarely() {
		w.add(Step{Kind: Hostile, Op: hostileSlot, Guest: 1}, rareWeight)
		if w.attacker() == guestSide && !m.down {
			w.add(Step{Kind: Hostile, Op: hostileVanish, Guest: 1}, rareWeight)
		}
	}
	if w.result.Steps%256 == 255 {
		w.add(Step{Kind: Hostile, Op: hostileMute, Guest: 1}, rareWeight)
	}
}

// doHostile does a hostile step. Its Arg seeds all it needs.
func (w *World) doHostile(s Step) {
	m := w.machine(s.Guest)
	if m == nil || !m.attacked() {
		return
	}
	w.actor = w.attacker()
	if w.leak {
		w.machines[1].host.Rescind(1)
	}
	r := rand.New(rand.NewPCG(s.Arg, 0x686F7374696C65))
	switch s.Op {
	case hostilePost:
		m.forge(r)
	case hostileWord:
		if c := pick(r, m.view.order); c != nil {
			off := [...]int{wordWrite, wordRead, wordMask, wordPending, wordFeatures}[r.IntN(5)]
			ring := c.rings[r.IntN(2)]
			ring.pages[0].Store32(off, forgedWord(r, ring))
		}
	case hostileData:
		if c := pick(r, m.view.order); c != nil {
			m.scribble(r, c.rings[r.IntN(2)])
		}
	case hostileSignal:
		for range 1 + r.IntN(8) {
			if w.actor == guestSide {
				m.port.Partition.SignalEvent(r.Uint64N(4)<<32 | (uint64(vmbus.LegacyEventConnection) | uint64(r.IntN(6)) | uint64(r.IntN(3))<<12))
			} else {
				_ = m.port.Partition.Signal(synic.Target{VP: uint32(r.IntN(3)), SINT: synic.MessageSINT}, uint16(r.IntN(8)))
			}
		}
	case hostileSlot:
		m.scribbleSlots(r)
	case hostileMute:
		m.mute = true
	case hostileVanish:
		if w.actor == guestSide && !m.down {
			m.die("vanished")
		}
	}
	for _, d := range m.devices { // who polls sees it
		if guest := d.ends[1]; d.reserved && guest != nil {
			guest.wake()
		}
	}
}

// pick chooses one of a list; nil of an empty one.
func pick[T any](r *rand.Rand, list []*T) *T {
	if len(list) == 0 {
		return nil
	}
	return list[r.IntN(len(list))]
}

// forgedWord is a value for a word of a control page: near what may be there, at
// the limits, or anything.
func forgedWord(r *rand.Rand, ring *ring) uint32 {
	now := ring.load()
	near := [...]uint32{0, 1, 4, 8, now.write, now.read, now.write + 8, now.read - 8, ring.size - 8, ring.size, ring.size + 8, ^uint32(0), r.Uint32()}
	return near[r.IntN(len(near))]
}

// scribble changes a word of the ring's data: where a descriptor is, if there is
// one, since random places are rarely looked at.
func (m *machine) scribble(r *rand.Rand, ring *ring) {
	at := r.Uint32N(ring.size) &^ 7
	if r.IntN(2) == 0 {
		at = (ring.load().read%ring.size + uint32(r.IntN(4))*8) % ring.size &^ 7
	}
	page := ring.pages[1+at/guestmem.PageSize].Bytes()[at%guestmem.PageSize:]
	word := binary.LittleEndian.Uint64(page)
	switch r.IntN(4) {
	case 0:
		word ^= 1 << r.IntN(64)
	case 1:
		word = r.Uint64()
	case 2:
		word = uint64(r.IntN(12)) | uint64(r.IntN(5))<<16 | uint64(r.IntN(9))<<32 | uint64(r.IntN(4))<<48 // nearly a descriptor
	default:
		word = word&0xFFFFFFFF | uint64([...]uint32{0, 1, 16384, 16385, 1 << 31, ^uint32(0)}[r.IntN(6)])<<32 // nearly a pipe header
	}
	binary.LittleEndian.PutUint64(page, word)
}

// scribbleSlots changes words of the first pages of the guest: its message and
// event pages, which the host writes too.
func (m *machine) scribbleSlots(r *rand.Rand) {
	for _, msr := range []uint32{synic.MSRSIMP, synic.MSRSIEFP} {
		v, err := m.port.ReadMSR(uint32(r.IntN(vps)), msr)
		if err != nil {
			continue
		}
		page, err := m.memory.heap.Page(v / guestmem.PageSize)
		if err != nil {
			continue
		}
		for range 1 + r.IntN(4) {
			page.Store32(synic.MessageSINT*synic.SlotBytes+r.IntN(synic.SlotBytes/4)*4, forgedNumber(r))
		}
	}
}

// forge posts a message that nobody honest would.
func (m *machine) forge(r *rand.Rand) {
	dir := vmbus.GuestToHost
	if m.w.actor == hostSide {
		dir = vmbus.HostToGuest
	}
	payload := forgedMessage(r, dir)
	if n := len(m.overheard); n > 0 && r.IntN(2) == 0 { // one that was right once, as it was or nearly so
		payload = bytes.Clone(m.overheard[r.IntN(n)])
		if at := 8 + 4*r.IntN(8); r.IntN(3) == 0 && at+4 <= len(payload) {
			binary.LittleEndian.PutUint32(payload[at:], forgedNumber(r))
		}
	}
	m.w.note("forged: % x", payload)
	if dir == vmbus.HostToGuest {
		_ = m.port.Partition.Post(synic.Target{VP: uint32(r.IntN(vps)), SINT: synic.MessageSINT}, payload)
		return
	}
	ports := [...]synic.ConnectionID{1, 1, 1, 4, 4, 5, 0}
	m.port.Partition.PostMessage(synic.AppendPostMessage(nil, ports[r.IntN(len(ports))], payload))
}

// maxOverheard is how many messages of its own end the attacker repeats.
const maxOverheard = 64

// overhear keeps a message of the attacker's end, for it to be said again.
func (m *machine) overhear(from side, payload []byte) {
	if !m.attacked() || m.w.attacker() != from {
		return
	}
	if len(m.overheard) == maxOverheard {
		m.overheard = m.overheard[1:]
	}
	m.overheard = append(m.overheard, bytes.Clone(payload))
}

// forgedMessage is a message of direction dir, now and then of the other one:
// types, ids and counts are near what honest ends use, the length may be wrong.
func forgedMessage(r *rand.Rand, dir vmbus.Direction) []byte {
	var types []vmbus.Type
	for t := vmbus.TypeOfferChannel; t <= vmbus.TypeResume+1; t++ {
		if t.Direction() == dir || r.IntN(30) == 0 {
			types = append(types, t)
		}
	}
	b := make([]byte, synic.MaxPayloadBytes)
	binary.LittleEndian.PutUint32(b, uint32(types[r.IntN(len(types))]))
	for at := 8; at < len(b); at += 4 {
		binary.LittleEndian.PutUint32(b[at:], forgedNumber(r))
	}
	if binary.LittleEndian.Uint32(b) == uint32(vmbus.TypeGPADLHeader) && r.IntN(2) == 0 { // one that can be complete
		binary.LittleEndian.PutUint32(b[16:], 1<<16|uint32(8+8*r.IntN(6)))
		binary.LittleEndian.PutUint64(b[20:], uint64(guestmem.PageSize*r.IntN(6)))
	}
	switch r.IntN(6) {
	case 0:
		b = b[:r.IntN(len(b)+1)]
	case 1:
		b = b[:8+4*r.IntN(12)]
	}
	return b
}

// forgedNumber is a number as it stands in messages: small ids, ids of GPADLs,
// versions, limits, or anything.
func forgedNumber(r *rand.Rand) uint32 {
	switch r.IntN(8) {
	case 0:
		return 0
	case 1, 2, 3:
		return uint32(r.IntN(6))
	case 4:
		return 0xE1E10 + uint32(r.IntN(6))
	case 5:
		all := vmbus.Versions()
		return uint32(all[r.IntN(len(all))])
	case 6:
		return [...]uint32{2047, 2048, 1 << 16, 1<<31 - 1, ^uint32(0)}[r.IntN(5)]
	}
	return r.Uint32()
}

// checkBounds looks at what the honest end of an attacked bus holds.
func (w *World) checkBounds() {
	for _, m := range w.machines {
		u := m.host.Usage()
		if u.Channels > vmbus.MaxChannels || u.GPADLs > maxGPADLs || u.Requests > maxRequests {
			w.fail(Mem, "guest%d makes the host hold %+v", m.number, u)
			return
		}
		w.hit(Mem)
	}
}

// Limits of what one guest can make its host hold. Source: faults.md 5.
const (
	maxGPADLs   = 4096
	maxRequests = 16
)
