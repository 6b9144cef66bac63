package ringbuffer

import (
	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// A Reader is the receiving end of one ring. Peek looks at the oldest unread
// packet, Advance steps past it, Commit returns the space of all packets
// stepped past with one store of the read index.
//
// Nothing in shared memory is trusted: the write index is loaded once per
// decision and checked, a descriptor is loaded once and decided on from the
// copy, range lists are copied before they are parsed, and the Reader's own
// index is never read back. Only payload is left to the user to distrust.
// A Reader belongs to one goroutine at a time, never blocks, never signals.
type Reader struct {
	data    area
	control *guestmem.Page

	committed uint32 // read index as published
	next      uint32 // first packet not stepped past
	write     uint32 // last valid write index seen; what it covers stays ours until released

	held     bool   // head describes the packet at next
	head     Header // checked copy of its descriptor
	ext      []byte // private copy of its extension, reused
	advanced uint64 // packets between committed and next
	anyFree  bool   // see SignalOnAnyFree
	err      error  // sticky *CorruptError
	stats    Stats
}

// NewReader makes the receiving end of the ring whose control page is pages[0].
// It continues at the read index found there and leaves signals unmasked. The
// peer's index is looked at by the first Peek.
//
// Errors: *GeometryError for a page list that is no ring, *CorruptError
// (vmbus.ErrProtocol) for a read index that is out of range or unaligned.
func NewReader(pages []*guestmem.Page) (*Reader, error) {
	if err := checkGeometry(pages); err != nil {
		return nil, err
	}
	r := &Reader{data: newArea(pages[1:]), control: pages[0]}
	own := load32(r.control, offReadIndex)
	if err := checkIndex(own, own, r.data.size); err != nil {
		return nil, err
	}
	r.committed, r.next, r.write = own, own, own
	r.control.Store32(offMask, 0)
	return r, nil
}

// SignalOnAnyFree makes Commit ask for a signal whenever it frees space and the
// writer has stored any pending size, instead of only when the free space
// crosses it: for peers known to store a size that is not what they wait for.
func (r *Reader) SignalOnAnyFree(on bool) { r.anyFree = on }

// DataBytes is the size of the data area.
func (r *Reader) DataBytes() int { return int(r.data.size) }

// Peek returns the header of the oldest unread packet. The packet stays where
// it is until Advance; until then Peek gives the same answer without touching
// shared memory. Errors: those of Hold.
func (r *Reader) Peek() (Header, error) {
	if err := r.Hold(); err != nil {
		return Header{}, err
	}
	return r.head, nil
}

// Hold is Peek for the data path: it leaves the header where Held finds it,
// since returning a struct of this size costs as much as the checks.
//
// Errors: ErrEmpty if no packet is waiting; otherwise a *CorruptError
// (vmbus.ErrProtocol), after which the Reader is dead. The write index is
// loaded again only when everything it covered has been stepped past.
func (r *Reader) Hold() error {
	if r.held {
		return nil
	}
	if r.next == r.write {
		if err := r.refresh(); err != nil {
			return err
		}
	}
	at := r.next
	available := r.data.distance(at, r.write)
	if available < DescriptorBytes {
		return r.corrupt(InvalidDataAvailable, uint64(available), DescriptorBytes)
	}
	b := r.data.span(at)
	if mutating {
		mutate(b[:granuleBytes])
	}
	word := le.Uint64(b)
	if len(b) >= DescriptorBytes {
		if mutating {
			mutate(b[granuleBytes:DescriptorBytes])
		}
		r.head.ID = le.Uint64(b[granuleBytes:])
	} else {
		r.head.ID = r.data.load64(r.data.wrap(at + 8))
	}
	offset8, len8 := uint32(word>>16&0xFFFF), uint32(word>>32&0xFFFF)
	if offset8 < 2 || offset8 > len8 && !putback.On(putback.RG09) || len8*granuleBytes+TrailerBytes > available && !putback.On(putback.RG10) {
		return r.corrupt(InvalidDescriptorLengths, uint64(offset8)|uint64(len8)<<16, uint64(available))
	}
	r.head.Type = PacketType(word & 0xFFFF)
	r.head.Flags = uint16(word >> 48)
	r.head.ExtBytes = int(offset8*granuleBytes - DescriptorBytes)
	r.head.PayloadBytes = int((len8 - offset8) * granuleBytes)
	if r.head.Type != InBand || r.head.Flags > FlagCompletion {
		if err := r.inspect(offset8, len8); err != nil {
			return err
		}
	}
	r.held = true
	return nil
}

// Held is the header of the packet Hold or Peek found: the Reader's checked
// copy, to be read only, and only until Advance.
func (r *Reader) Held() *Header { return &r.head }

// Refresh makes Run cover what has arrived, with one load of the write index, if
// everything known was stepped past; otherwise it touches nothing. Errors: those
// of Hold that concern the index, ErrEmpty included.
func (r *Reader) Refresh() error {
	if r.held || r.next != r.write {
		return nil
	}
	return r.refresh()
}

// refresh loads the write index after everything known was stepped past.
func (r *Reader) refresh() error {
	if r.err != nil {
		return r.err
	}
	write := load32(r.control, offWriteIndex)
	if write == r.next { // as it was, and that was accepted
		return ErrEmpty
	}
	return r.accept(write)
}

// accept takes over a snapshot of the write index. Beyond being in range it may
// only have moved forward: a writer cannot take published bytes back.
func (r *Reader) accept(write uint32) error {
	err := checkIndex(write, r.next, r.data.size)
	unread := r.data.distance(r.committed, write)
	if err != nil || unread < r.data.distance(r.committed, r.write) {
		return r.corrupt(InvalidRingPointer, uint64(write), uint64(r.data.size))
	}
	r.write = write
	r.stats.PeakBytes = max(r.stats.PeakBytes, uint64(unread))
	return nil
}

// inspect does the checks an in-band packet without odd flags does not need, in
// the order known readers do them: flags, type, then what the type demands. An
// extension no type asks for is harmless: offset8 says where the payload is.
func (r *Reader) inspect(offset8, len8 uint32) error {
	head := &r.head
	if head.Flags > FlagCompletion {
		return r.corrupt(InvalidDescriptorFlags, uint64(head.Flags), uint64(FlagCompletion))
	}
	switch head.Type {
	case InBand, Completion:
		return nil
	case TransferPages, GPADirect:
	default:
		return r.corrupt(InvalidDescriptorType, uint64(head.Type), 0)
	}
	if head.ExtBytes < rangesHeadBytes && !putback.On(putback.RG11) {
		available := r.data.distance(r.next, r.write)
		return r.corrupt(InvalidDescriptorLengths, uint64(offset8)|uint64(len8)<<16, uint64(available))
	}
	if cap(r.ext) < head.ExtBytes {
		r.ext = make([]byte, head.ExtBytes) // at most what is in the ring
	}
	r.ext = r.ext[:head.ExtBytes]
	r.data.copyOut(r.ext, r.data.wrap(r.next+DescriptorBytes))
	if fault := checkRanges(head.Type, r.ext); fault != nil {
		return r.corrupt(fault.Kind, fault.Value, fault.Limit)
	}
	return nil
}

// corrupt makes the Reader dead: the held packet is gone, and the cached view is
// an empty ring with nothing to release or to step back to, so that every later
// look ends in refresh and the memory is not touched again.
func (r *Reader) corrupt(kind CorruptKind, value, limit uint64) error {
	r.err = &CorruptError{Kind: kind, Offset: r.next, Value: value, Limit: limit}
	r.held = false
	r.committed, r.write, r.advanced = r.next, r.next, 0
	return r.err
}

// Extension is the descriptor extension of the peeked packet: the private copy
// whose ranges were checked. It is valid until the next Peek after Advance, and
// empty for types without ranges.
func (r *Reader) Extension() []byte {
	if !r.held || r.head.Type != TransferPages && r.head.Type != GPADirect {
		return nil
	}
	return r.ext
}

// payloadAt is the ring offset of byte off of the peeked packet's payload.
func (r *Reader) payloadAt(off int) uint32 {
	return r.data.wrap(r.next + uint32(DescriptorBytes+r.head.ExtBytes+off))
}

// CopyPayload copies the peeked packet's payload from byte off into dst and
// returns how many bytes that were: the smaller of len(dst) and what is left.
// It is 0 without a peeked packet.
func (r *Reader) CopyPayload(dst []byte, off int) int {
	if !r.held || off < 0 || off >= r.head.PayloadBytes {
		return 0
	}
	n := min(len(dst), r.head.PayloadBytes-off)
	at := r.payloadAt(off)
	if b := r.data.span(at); n <= len(b) {
		if mutating {
			mutate(b[:n])
		}
		copy(dst, b[:n])
	} else {
		r.data.copyOut(dst[:n], at)
	}
	return n
}

// Word loads the granule at byte off of the peeked packet's payload, a multiple
// of 8, with one load. ok is false if the payload has no such granule.
func (r *Reader) Word(off int) (word uint64, ok bool) {
	if !r.held || off < 0 || off >= r.head.PayloadBytes || off%granuleBytes != 0 {
		return 0, false
	}
	return r.data.load64(r.payloadAt(off)), true
}

// View is the peeked packet's payload from byte off to where it ends or its
// memory stops being contiguous. It is ring memory: the peer may still change
// it, so every byte must be used at most once; and it is the writer's again
// after the Commit that follows Advance.
func (r *Reader) View(off int) []byte {
	if !r.held || off < 0 || off >= r.head.PayloadBytes {
		return nil
	}
	b := r.data.span(r.payloadAt(off))
	n := min(len(b), r.head.PayloadBytes-off)
	return b[:n:n]
}

// SetWord stores a granule at byte off of the peeked packet's payload. Until
// the packet is released its bytes belong to the reader, who may note there for
// a successor how far it came; the pipe does that when it is saved.
//
// Errors: *SequenceError without a peeked packet, *BufferError if the payload
// has no such granule.
func (r *Reader) SetWord(off int, word uint64) error {
	if !r.held {
		return &SequenceError{Op: "SetWord"}
	}
	if off < 0 || off >= r.head.PayloadBytes || off%granuleBytes != 0 {
		return &BufferError{Need: off + granuleBytes, Have: r.head.PayloadBytes}
	}
	r.data.store64(r.payloadAt(off), word)
	return nil
}

// Advance steps past the peeked packet without freeing it; Commit returns the
// space to the writer. Without a peeked packet it does nothing.
func (r *Reader) Advance() {
	if !r.held {
		return
	}
	// TotalBytes was proven to be at most the available bytes, so one wrap is
	// enough to bring the index back into the ring.
	if putback.Built {
		if putback.On(putback.RG07) {
			r.head.PayloadBytes = int(r.data.load64(r.next)>>32&0xFFFF)*granuleBytes - DescriptorBytes - r.head.ExtBytes
		}
	}
	r.next = r.data.wrap(r.next + uint32(r.head.TotalBytes()))
	r.held = false
	r.advanced++
}

// Run is the memory, in one piece, of unread packets that is known already: it
// starts with the oldest packet's descriptor, and may end within a packet. It is
// empty while a packet is held, and when only a look at the write index could
// tell (see Hold). What is true of View is true of Run, for descriptors too.
//
// With SmallPacket and Skip it is for readers of many small packets, to whom
// each call per packet is a considerable part of the whole.
func (r *Reader) Run() []byte {
	if r.held {
		return nil
	}
	b := r.data.span(r.next)
	return b[:min(len(b), int(r.data.distance(r.next, r.write)))]
}

// SmallPacket checks the first packet of what is left of a Run. packetBytes is
// what to go on by, footer included; first is the first granule of the payload,
// which starts behind the descriptor. Both are loaded once and must not be loaded
// again. ok is false if anything is out of the ordinary, the run's end and an
// empty payload included. That is not judged here: Skip what came before, and
// Hold will tell.
func SmallPacket(run []byte) (packetBytes int, first uint64, ok bool) {
	if len(run) < OverheadBytes+granuleBytes {
		return 0, 0, false
	}
	if mutating {
		mutate(run[:granuleBytes])
	}
	word := le.Uint64(run)
	packetBytes = int(word>>32&0xFFFF)*granuleBytes + TrailerBytes
	// In-band, offset8 = 2, at most FlagCompletion. Since the payload has a
	// granule, so small a len8 that offset8 would be wrong is excluded too.
	if word&^(0xFFFF<<32|uint64(FlagCompletion)<<48) != uint64(InBand)|2<<16 ||
		packetBytes < OverheadBytes+granuleBytes || packetBytes > len(run) {
		return 0, 0, false
	}
	if mutating {
		mutate(run[DescriptorBytes : DescriptorBytes+granuleBytes])
	}
	return packetBytes, le.Uint64(run[DescriptorBytes:]), true
}

// CopyRun copies a part of a Run, all of which must fit into dst.
func CopyRun(dst, run []byte) {
	if mutating {
		mutate(run)
	}
	copy(dst, run)
}

// Skip steps past packets at the start of the Run, which together take that
// many bytes of it, without freeing them.
func (r *Reader) Skip(packets, bytes int) {
	if r.held || bytes < 0 || bytes > int(r.data.distance(r.next, r.write)) {
		return
	}
	r.next = r.data.wrap(r.next + uint32(bytes))
	r.advanced += uint64(packets)
}

// Next copies the oldest unread packet's payload into buf and steps past it
// without freeing it; Commit returns the space to the writer.
//
// Errors: those of Peek; *BufferError if buf is shorter than the payload, which
// then stays unread: nothing is cut short. No shared byte is read twice.
func (r *Reader) Next(buf []byte) (Header, int, error) {
	if err := r.Hold(); err != nil {
		return Header{}, 0, err
	}
	if r.head.PayloadBytes > len(buf) {
		return r.head, 0, &BufferError{Need: r.head.PayloadBytes, Have: len(buf)}
	}
	n := r.CopyPayload(buf, 0)
	r.Advance()
	return r.head, n, nil
}

// Uncommitted is how many bytes were stepped past and not yet released.
func (r *Reader) Uncommitted() int { return int(r.data.distance(r.committed, r.next)) }

// Drained says whether everything known to be in the ring was stepped past. It
// touches no shared memory, so more may have arrived: see Readable.
func (r *Reader) Drained() bool { return r.next == r.write }

// WriterWaits says whether the writer has stored a pending size, from a fresh
// load. A reader that releases lazily must look before it leaves the ring.
func (r *Reader) WriterWaits() bool { return load32(r.control, offPendingSize) != 0 }

// Commit releases the packets stepped past with one store of the read index and
// says whether the writer must be signalled: it is if it waits for a number of
// bytes and this release makes the raw free space cross that number.
//
// The order is R2 and R5: packet loads, read index, pending size, write index.
// Either the writer sees the new read index in its last look before sleeping,
// or this load sees its pending size. The interrupt mask plays no part here.
func (r *Reader) Commit() (signal bool) {
	freed := r.data.distance(r.committed, r.next)
	if freed == 0 {
		return false
	}
	quiet := putback.On(putback.RG01) && (load32(r.control, offPendingSize) == 0 || load32(r.control, offMask) != 0)
	r.control.Store32(offReadIndex, r.next)
	features := load32(r.control, offFeatures)
	pending := load32(r.control, offPendingSize)
	r.committed = r.next
	r.stats.Packets += r.advanced
	r.stats.Bytes += uint64(freed)
	r.advanced = 0
	if features&featurePendingSize == 0 || pending == 0 || !r.crosses(freed, pending) || quiet {
		r.stats.Suppressed++
		return false
	}
	r.stats.Signals++
	return true
}

// crosses applies the rule for freed space: before at most the pending size was
// free, now more is. Equal is not enough, since one granule stays empty. Some
// writers store the data size less one and mean "when empty"; rounded down to
// granules that is reachable.
func (r *Reader) crosses(freed, pending uint32) bool {
	if r.anyFree && !putback.On(putback.RG06) {
		return true
	}
	if r.err != nil || r.accept(load32(r.control, offWriteIndex)) != nil {
		return false // reported by the next Peek
	}
	// The writer may already have filled what was just released, so the free
	// space before, reckoned back from now, can come out negative.
	now := r.data.freeBytes(r.write, r.committed)
	limit := int(pending &^ (granuleBytes - 1))
	return now-int(freed) <= limit && now > limit
}

// Revert steps back to the last Commit: the packets stepped past since are
// unread again, and so is a peeked one.
func (r *Reader) Revert() {
	r.next = r.committed
	r.held = false
	r.advanced = 0
}

// Mask tells the writer not to signal new packets. It only saves signals: call
// it when starting to drain, and never sleep before Unmask returned false.
func (r *Reader) Mask() { r.control.Store32(offMask, 1) }

// Unmask allows signals again and reports whether there is more to read, from a
// load of the write index after the store (R3). After true the writer may have
// kept quiet about it, so the caller must read on instead of sleeping.
// Commit first, or the writer finds the ring not empty and keeps quiet too.
func (r *Reader) Unmask() (more bool) {
	r.control.Store32(offMask, 0)
	if putback.Built {
		if putback.On(putback.RG04) {
			return false
		}
	}
	return load32(r.control, offWriteIndex) != r.next
}

// Readable takes a fresh look at the write index and says whether a packet is
// waiting. It is the last thing to ask before sleeping, after Commit (R6: read
// index stored, then write index loaded): after false the writer finds the ring
// empty and will signal.
func (r *Reader) Readable() (bool, error) {
	if r.err != nil {
		return false, r.err
	}
	if r.held {
		return true, nil
	}
	if err := r.accept(load32(r.control, offWriteIndex)); err != nil {
		return false, err
	}
	return r.next != r.write, nil
}

// Err is the corruption that ended the Reader, or nil.
func (r *Reader) Err() error { return r.err }

// Stats returns the counters so far. See Stats for who may call it.
func (r *Reader) Stats() Stats { return r.stats }
