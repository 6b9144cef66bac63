package decode

import (
	"errors"
	"fmt"

	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// controlPage is the words of a ring's control page. Source: ringbuffer.md 2.
type controlPage struct {
	WriteIndex    uint32     `wire:"write_index"`
	ReadIndex     uint32     `wire:"read_index"`
	InterruptMask uint32     `wire:"interrupt_mask"`
	PendingSend   uint32     `wire:"pending_send_sz"`
	Reserved      [48]byte   `wire:"reserved"`
	Features      uint32     `wire:"feature_bits"`
	Rest          [4020]byte `wire:"reserved"`
	Interrupts    uint64     `wire:"interrupt_count"`
}

// A ring is ring memory while it is being explained.
type ring struct {
	*explainer
	size    int // data bytes
	control controlPage
	reader  *ringbuffer.Reader
	at      int // data offset of the packet being explained
	packets int
	framing Framing
}

// ring explains the input as a control page and data pages.
func (e *explainer) ring() error {
	r := &ring{explainer: e, framing: e.o.Framing}
	if !r.explainControl() {
		return nil
	}
	if err := r.open(); err != nil {
		return err
	}
	if r.reader == nil {
		return nil
	}
	if r.framing == GuessFraming {
		if err := r.guessFraming(); err != nil {
			return err
		}
	}
	for r.packet() {
	}
	r.free()
	return nil
}

// explainControl explains the control page, and reports whether it is all there
// and data pages follow.
func (r *ring) explainControl() bool {
	r.part(sectionControl, "control page")
	decodePacked(r.in, &r.control)
	next := 0
	for _, f := range vmbus.FieldsOf(&r.control, 0) {
		if f.Offset+f.Bytes > len(r.in) {
			break
		}
		next = f.Offset + f.Bytes
		value, meaning := r.word(f)
		r.field(f.Offset, f.Bytes, f.Name, value, meaning)
	}
	data := len(r.in) - guestmem.PageSize
	switch {
	case next < guestmem.PageSize:
		r.problem(next, fmt.Sprintf("have %d bytes, the control page alone has %d", len(r.in), guestmem.PageSize))
		r.bad(next, len(r.in)-next, "cut short")
		return false
	case data < guestmem.PageSize || data%guestmem.PageSize != 0:
		whole := data / guestmem.PageSize * guestmem.PageSize
		r.problem(guestmem.PageSize, fmt.Sprintf("a ring has whole data pages, here are %d and %d bytes: what the indices count is not known", data/guestmem.PageSize, data-whole))
		r.part(sectionSpace, "data, %d bytes", data)
		r.bad(guestmem.PageSize, data, "data")
		return false
	}
	r.size = data
	return true
}

// word is what a word of the control page says.
func (r *ring) word(f vmbus.Field) (value, meaning string) {
	n := number(f.Value)
	switch f.Name {
	case "write_index", "read_index":
		return hexOf(n), map[string]string{"w": "the writer's: next byte to write", "r": "the reader's: next byte to read"}[f.Name[:1]]
	case "interrupt_mask":
		return fmt.Sprint(n), map[bool]string{true: "signals on", false: "signals off: the writer must not signal for data"}[n == 0]
	case "pending_send_sz":
		return fmt.Sprint(n), map[bool]string{true: "the writer does not wait", false: "the writer waits for that many bytes"}[n == 0]
	case "feature_bits":
		return hexOf(n), map[bool]string{true: "pending_send_sz is stored and looked at", false: "pending_send_sz is not used"}[n&1 != 0]
	case "interrupt_count":
		return fmt.Sprint(n), "signals of the guest, if it counts them (2.1)"
	}
	b := r.in[f.Offset : f.Offset+f.Bytes]
	return "", unlessZero(b, "should be zero; receivers ignore it")
}

// open copies the ring into pages and puts a reader there, which checks the
// indices. A ring that cannot be read leaves no reader.
func (r *ring) open() error {
	pages, err := copyPages(r.in)
	if err != nil {
		return err
	}
	var corrupt *ringbuffer.CorruptError
	reader, err := ringbuffer.NewReader(pages)
	if errors.As(err, &corrupt) {
		r.refuseIndex(1, corrupt)
		return nil
	}
	if _, err := reader.Readable(); errors.As(err, &corrupt) {
		r.refuseIndex(0, corrupt)
		return nil
	}
	r.reader = reader
	r.at = int(r.control.ReadIndex)
	unread := r.unread()
	free := r.size - unread
	r.note("%s of data, %s unread, %s free", amount(r.size, "byte"), grouped(unread), grouped(free))
	r.note("largest packet now %s, with its footer; a ring is never filled completely", amount(max(0, free-8), "byte"))
	return nil
}

// copyPages is a copy of memory as pages of their own.
func copyPages(b []byte) ([]*guestmem.Page, error) {
	n := len(b) / guestmem.PageSize
	block, err := guestmem.NewHeap(guestmem.HeapOptions{LimitPages: n}).Alloc(n)
	if err != nil {
		return nil, err
	}
	for i, p := range block.Pages {
		copy(p.Bytes(), b[i*guestmem.PageSize:])
	}
	return block.Pages, nil
}

// refuseIndex marks the index that field n of the control page holds as wrong.
func (r *ring) refuseIndex(n int, err *ringbuffer.CorruptError) {
	f := &r.last().Fields[n]
	f.Bad = true
	r.problem(f.Offset, reason(err))
	r.part(sectionSpace, "data, %d bytes", r.size)
	r.bad(guestmem.PageSize, r.size, "data")
}

// unread is how many bytes lie between the packet being explained and the write
// index.
func (r *ring) unread() int {
	n := int(r.control.WriteIndex) - r.at
	if n < 0 {
		n += r.size
	}
	return n
}

// span adds n bytes at data offset at, in two fields if they pass the end of the
// ring. It returns the first.
func (r *ring) span(at, n int, name, value, meaning string, mark func(*Field)) {
	for n > 0 {
		at %= r.size
		here := min(n, r.size-at)
		mark(r.field(guestmem.PageSize+at, here, name, value, meaning))
		at, n = at+here, n-here
		value, meaning = "", "behind the end of the ring: continued at its start"
	}
}

func plain(*Field)    {}
func broken(f *Field) { f.Bad = true }
func dumped(f *Field) { f.Dump = true }

// stop makes n bytes from the current packet's byte off on a problem, and with
// them all that is unread behind.
func (r *ring) stop(off int, reason string) {
	at := (r.at + off) % r.size
	r.problem(guestmem.PageSize+at, reason)
	r.span(at, r.unread()-off, "not understood", "", "", broken)
	r.at = int(r.control.WriteIndex)
}

// packet explains the oldest unread packet and steps past it; false if there is
// none, or none that makes sense.
func (r *ring) packet() bool {
	h, err := r.reader.Peek()
	var corrupt *ringbuffer.CorruptError
	if errors.As(err, &corrupt) {
		r.refusePacket(corrupt)
		return false
	}
	if err != nil { // ringbuffer.ErrEmpty
		return false
	}
	r.packets++
	p := packet{ring: r, Header: h}
	if !p.explain() {
		return false
	}
	r.reader.Advance()
	r.at = (r.at + h.TotalBytes()) % r.size
	return true
}

// refusePacket explains as much of a packet as the reader has accepted.
func (r *ring) refusePacket(corrupt *ringbuffer.CorruptError) {
	r.part(sectionPacket, "packet %d at data offset %#x", r.packets+1, r.at)
	if corrupt.Kind == ringbuffer.InvalidDataAvailable || corrupt.Kind == ringbuffer.InvalidRingPointer {
		r.stop(0, reason(corrupt))
		return
	}
	var d descriptor
	decodePacked(r.bytes(0, ringbuffer.DescriptorBytes), &d)
	wrong := map[ringbuffer.CorruptKind]string{
		ringbuffer.InvalidDescriptorLengths: d.wrongLength(r.unread()),
		ringbuffer.InvalidDescriptorFlags:   "flags",
		ringbuffer.InvalidDescriptorType:    "type",
	}[corrupt.Kind]
	off := r.descriptor(&d, wrong)
	if wrong == "" { // the ranges
		x := extension{ring: r, off: off, end: int(d.Offset8) * granuleBytes}
		r.extension(&x, ringbuffer.PacketType(d.Type))
		off = x.off
	}
	r.stop(off, reason(corrupt))
}

// reason is what a reader found, in words. The numbers of a CorruptError mean
// something else for each kind.
func reason(e *ringbuffer.CorruptError) string {
	why := e.Error()
	switch e.Kind {
	case ringbuffer.InvalidRingPointer:
		why = fmt.Sprintf("index %#x is no multiple of 8 below the %#x bytes of data", e.Value, e.Limit)
	case ringbuffer.InvalidDataAvailable:
		why = fmt.Sprintf("%d bytes are unread, a descriptor takes %d", e.Value, e.Limit)
	case ringbuffer.InvalidDescriptorLengths:
		why = fmt.Sprintf("offset8 %d and len8 %d do not fit: 2 <= offset8 <= len8, len8*8 and a footer of 8 are at most the %d bytes unread, and ranges need room", e.Value&0xFFFF, e.Value>>16, e.Limit)
	case ringbuffer.InvalidDescriptorFlags:
		why = fmt.Sprintf("flags %#x: only bit 0 has a meaning", e.Value)
	case ringbuffer.InvalidDescriptorType:
		why = fmt.Sprintf("packet type %d does not travel on rings", e.Value)
	case ringbuffer.InvalidDescriptorGpaDirectRangeCount:
		why = "a GPA-direct packet without ranges"
	case ringbuffer.InvalidDescriptorRanges:
		why = "the ranges do not fit their extension, or one begins behind its first page"
	}
	return fmt.Sprintf("%s (%v)", why, e.Kind)
}

// bytes copies n bytes of the current packet from its byte off on.
func (r *ring) bytes(off, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = r.in[guestmem.PageSize+(r.at+off+i)%r.size]
	}
	return b
}

// free explains the bytes that no unread packet occupies.
func (r *ring) free() {
	n := r.size - (int(r.control.WriteIndex)-int(r.control.ReadIndex)+r.size)%r.size
	r.part(sectionSpace, "free space, %s from data offset %#x", amount(n, "byte"), r.control.WriteIndex)
	at := int(r.control.WriteIndex)
	r.span(at, n, "free", "", "what packets left that were read, or nothing yet", plain)
}
