package ringbuffer

import (
	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// A Writer is the sending end of one ring. Append stages packets, Commit
// publishes all of them with one store of the write index.
//
// The write index in shared memory is an output only: the Writer keeps its own
// copy and never looks at the shared one again, so the peer cannot move it.
// A Writer belongs to one goroutine at a time; it never blocks, never signals
// and, apart from error values, never allocates.
type Writer struct {
	data    area
	control *guestmem.Page

	committed uint32 // write index as published
	next      uint32 // write index once the staged packets are published
	read      uint32 // last valid read index seen; it can only lag behind, which errs towards full
	free      int    // raw free bytes between next and read

	staged  uint64 // packets between committed and next
	pending bool   // a pending size is stored
	err     error  // sticky *CorruptError
	stats   Stats
}

// NewWriter makes the sending end of the ring whose control page is pages[0].
// It continues at the indices found there, and sets the feature bit and clears
// the pending size: both words belong to the writer.
//
// Errors: *GeometryError for a page list that is no ring, *CorruptError
// (vmbus.ErrProtocol) for indices that are out of range or unaligned.
func NewWriter(pages []*guestmem.Page) (*Writer, error) {
	if err := checkGeometry(pages); err != nil {
		return nil, err
	}
	w := &Writer{data: newArea(pages[1:]), control: pages[0]}
	own := load32(w.control, offWriteIndex)
	if err := checkIndex(own, own, w.data.size); err != nil {
		return nil, err
	}
	read := load32(w.control, offReadIndex)
	if err := checkIndex(read, own, w.data.size); err != nil {
		return nil, err
	}
	w.committed, w.next, w.read = own, own, read
	w.free = w.data.freeBytes(own, read)
	w.control.Store32(offPendingSize, 0)
	w.control.Store32(offFeatures, featurePendingSize)
	return w, nil
}

// checkIndex refuses an index no honest end can have stored.
func checkIndex(index, own, size uint32) error {
	if index >= size || index%granuleBytes != 0 {
		return &CorruptError{Kind: InvalidRingPointer, Offset: own, Value: uint64(index), Limit: uint64(size)}
	}
	return nil
}

// DataBytes is the size of the data area.
func (w *Writer) DataBytes() int { return int(w.data.size) }

// MaxTotalBytes is the ring space of the largest packet the ring can ever
// take: one granule stays free, and the length field has 16 bits.
func (w *Writer) MaxTotalBytes() int {
	return min(int(w.data.size)-granuleBytes, MaxPacketBytes)
}

// Append stages one packet behind those already staged. head and body together
// are everything behind the descriptor; the first h.ExtBytes bytes of head are
// the descriptor extension, the rest is payload. Nothing is visible to the
// reader, and nothing is signalled, before Commit.
//
// A packet takes 24 + align8(len(head)+len(body)) bytes of ring, and is refused
// if it would leave none free, because equal indices mean empty.
// Errors: *FullError (ErrFull) if it does not fit now, *SizeError if it never
// can, *HeaderError for an impossible h, *CorruptError if the ring is dead.
// After an error the staged packets are as before.
// Source: Linux include/linux/hyperv.h, struct vmpacket_descriptor.
func (w *Writer) Append(h Header, head, body []byte) error {
	if h.Type != InBand || h.ExtBytes != 0 || h.Flags > FlagCompletion {
		if err := checkHeader(h, len(head)); err != nil {
			return err
		}
	}
	packetBytes := DescriptorBytes + roundUp8(len(head)+len(body))
	total := packetBytes + TrailerBytes
	if total >= w.free || total > MaxPacketBytes {
		if err := w.makeRoom(total); err != nil {
			return err
		}
	}
	at := w.next
	word := uint64(h.Type) | uint64(DescriptorBytes+h.ExtBytes)/granuleBytes<<16 |
		uint64(packetBytes)/granuleBytes<<32 | uint64(h.Flags)<<48
	if b := w.data.span(at); total <= len(b) {
		b = b[:total]
		// Zero the last granule first: what the body leaves of it is the
		// padding, which must not show old memory. An empty body leaves the
		// transaction id there, so that is stored afterwards.
		if !putback.On(putback.GC07) {
			le.PutUint64(b[packetBytes-granuleBytes:], 0)
		}
		le.PutUint64(b, word)
		le.PutUint64(b[8:], h.ID)
		copy(b[DescriptorBytes:], head)
		copy(b[DescriptorBytes+len(head):], body)
		le.PutUint64(b[packetBytes:], uint64(at)<<32)
	} else {
		w.scatter(at, word, h.ID, head, body)
	}
	w.stage(total)
	return nil
}

// AppendGranule is Append for the packets of pipes, of which there are many:
// in-band, without flags, transaction id 0, and with a payload of the granule
// first and body behind it. The bytes are those Append would write.
func (w *Writer) AppendGranule(first uint64, body []byte) error {
	total := granuleTotal(body)
	if total >= w.free || total > MaxPacketBytes {
		if err := w.makeRoom(total); err != nil {
			return err
		}
	}
	at := w.next
	if b := w.data.span(at); total <= len(b) {
		fillGranule(b[:total], at, first, body)
	} else {
		var head [granuleBytes]byte
		le.PutUint64(head[:], first)
		w.scatter(at, granuleWord(total), 0, head[:], body)
	}
	w.stage(total)
	return nil
}

// SendGranule is AppendGranule and Commit in one, which is how small messages
// leave: both have half of their work in common. Staged packets go with it.
func (w *Writer) SendGranule(first uint64, body []byte) (signal bool, err error) {
	total, at := granuleTotal(body), w.next
	b := w.data.span(at)
	if total >= w.free || total > len(b) || total > MaxPacketBytes || w.staged != 0 {
		if err := w.AppendGranule(first, body); err != nil {
			return false, err
		}
		return w.Commit(), nil
	}
	fillGranule(b[:total], at, first, body)
	w.free -= total
	w.next = w.data.wrap(at + uint32(total))
	return w.publish(at, 1, uint64(total)), nil
}

func granuleTotal(body []byte) int { return OverheadBytes + granuleBytes + roundUp8(len(body)) }

// granuleWord is the first word of the descriptor.
func granuleWord(total int) uint64 {
	return uint64(InBand) | DescriptorBytes/granuleBytes<<16 | uint64(total-TrailerBytes)/granuleBytes<<32
}

// fillGranule writes a packet of AppendGranule to b, which is as long as it.
func fillGranule(b []byte, at uint32, first uint64, body []byte) {
	// Arrays, because each slice costs a check: the last granule, which may be
	// padding (see Append), and the footer; then descriptor and first granule.
	end := (*[granuleBytes + TrailerBytes]byte)(b[len(b)-granuleBytes-TrailerBytes:])
	if !putback.On(putback.GC07) {
		le.PutUint64(end[:granuleBytes], 0)
	}
	le.PutUint64(end[granuleBytes:], uint64(at)<<32)
	head := (*[DescriptorBytes + granuleBytes]byte)(b)
	le.PutUint64(head[:], granuleWord(len(b)))
	le.PutUint64(head[granuleBytes:], 0)
	le.PutUint64(head[DescriptorBytes:], first)
	copy(b[len(head):], body)
}

// stage counts the packet of that size that was written at next.
func (w *Writer) stage(total int) {
	w.next = w.data.wrap(w.next + uint32(total))
	w.free -= total
	w.staged++
}

// scatter writes a packet that crosses the end of the ring or of a page, with
// the same bytes as the straight path.
func (w *Writer) scatter(at uint32, word, id uint64, head, body []byte) {
	d := &w.data
	bodyBytes := len(head) + len(body)
	footer := d.wrap(at + uint32(DescriptorBytes+roundUp8(bodyBytes)))
	d.store64(at, word)
	d.store64(d.wrap(at+8), id)
	if bodyBytes%granuleBytes != 0 { // padding: see Append
		d.store64(d.wrap(at+uint32(DescriptorBytes+roundUp8(bodyBytes)-granuleBytes)), 0)
	}
	to := d.copyIn(d.wrap(at+DescriptorBytes), head)
	d.copyIn(to, body)
	d.store64(footer, uint64(at)<<32)
}

// makeRoom decides about a packet that does not fit the cached view: never,
// not now, or after all, since the reader has moved on.
func (w *Writer) makeRoom(total int) error {
	if w.err != nil {
		return w.err
	}
	if limit := w.MaxTotalBytes(); total > limit {
		return &SizeError{Need: total, Max: limit}
	}
	free, err := w.FreeBytes()
	if err != nil {
		return err
	}
	if total >= free {
		return &FullError{Need: total, Free: free}
	}
	return nil
}

// FreeBytes is the raw free space behind the staged packets, from one fresh
// load of the read index. A packet fits if its total is less than that.
// The error is a *CorruptError if the index is impossible.
func (w *Writer) FreeBytes() (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if err := w.accept(load32(w.control, offReadIndex)); err != nil {
		return 0, err
	}
	return w.free, nil
}

// KnownFreeBytes is FreeBytes without a look at the shared read index: at least
// so much is free, as far as the last Commit saw. A dead Writer has no room.
func (w *Writer) KnownFreeBytes() int { return w.free }

// accept takes over a snapshot of the read index. Beyond being in range it may
// only have moved forward over published bytes: an index in front of the write
// index or behind the last snapshot would make unread packets free space.
func (w *Writer) accept(read uint32) error {
	err := checkIndex(read, w.committed, w.data.size)
	if err == nil && w.data.distance(read, w.committed) > w.data.distance(w.read, w.committed) {
		err = &CorruptError{Kind: InvalidRingPointer, Offset: w.committed, Value: uint64(read), Limit: uint64(w.data.size)}
	}
	if err != nil {
		w.kill(err)
		return err
	}
	w.read = read
	w.free = w.data.freeBytes(w.next, read)
	return nil
}

// kill makes the Writer dead. The cached view becomes a full ring, so that the
// fast path of Append needs no check of its own.
func (w *Writer) kill(err error) {
	w.err = err
	w.next = w.committed
	w.staged = 0
	w.read = w.data.wrap(w.committed + granuleBytes)
	w.free = granuleBytes
}

// Commit publishes the staged packets with one store of the write index and
// says whether the reader must be signalled: it is if the ring was empty when
// the first of them became visible and the reader has not masked signals.
//
// The order is W1 and W3: packet bytes, write index, mask, read index. With
// the sequentially consistent atomics of Go no other order can be observed,
// so either the reader sees the new index in its last look before sleeping, or
// this load sees its read index (or cleared mask) and signals.
func (w *Writer) Commit() (signal bool) {
	if w.next == w.committed {
		return false
	}
	return w.publish(w.committed, w.staged, uint64(w.data.distance(w.committed, w.next)))
}

// publish is Commit of that many packets and bytes behind old, the write index so
// far.
func (w *Writer) publish(old uint32, packets, bytes uint64) (signal bool) {
	w.control.Store32(offWriteIndex, w.next)
	mask := load32(w.control, offMask)
	read := load32(w.control, offReadIndex)
	w.stats.Packets += packets
	w.stats.Bytes += bytes
	w.committed, w.staged = w.next, 0
	if read != w.read && w.accept(read) != nil {
		return false
	}
	if putback.On(putback.RG05) {
		w.control.Store32(offMask, 0)
	}
	w.stats.PeakBytes = max(w.stats.PeakBytes, uint64(int(w.data.size)-w.free))
	if mask != 0 || read != old && !putback.On(putback.RG03) {
		w.stats.Suppressed++
		return false
	}
	w.stats.Signals++
	return true
}

// Revert forgets the staged packets; the reader never sees them.
func (w *Writer) Revert() {
	w.next = w.committed
	w.free = w.data.freeBytes(w.next, w.read)
	w.staged = 0
}

// SetPending announces that the writer waits until more than bytes are free,
// and looks once more: a true answer means there is room already, and the
// announcement is withdrawn. After false the reader signals when it crosses
// that mark, so the caller may sleep without losing a wake-up (W4: the pending
// size is stored before the read index is loaded).
//
// bytes is the total of the packet to be written (see PacketBytes). More than
// the ring can ever have free is a *SizeError: nobody would signal.
func (w *Writer) SetPending(bytes int) (ready bool, err error) {
	if w.err != nil {
		return false, w.err
	}
	if bytes < 0 || bytes > int(w.data.size)-granuleBytes {
		return false, &SizeError{Need: bytes, Max: int(w.data.size) - granuleBytes}
	}
	w.control.Store32(offPendingSize, uint32(bytes))
	w.pending = true
	free, err := w.FreeBytes()
	if err != nil {
		return false, err
	}
	if free > bytes {
		w.ClearPending()
		return true, nil
	}
	w.stats.FullWaits++
	return false, nil
}

// ClearPending withdraws the announcement of SetPending, if there is one.
// A stale one costs the peer needless signals.
func (w *Writer) ClearPending() {
	if w.pending {
		w.control.Store32(offPendingSize, 0)
		w.pending = false
	}
}

// Err is the corruption that ended the Writer, or nil.
func (w *Writer) Err() error { return w.err }

// Stats returns the counters so far. See Stats for who may call it.
func (w *Writer) Stats() Stats { return w.stats }
