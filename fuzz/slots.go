package fuzz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"math/bits"

	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// A synicWorld is a guest with one processor, seen from both sides.
type synicWorld struct {
	partition  *synic.Partition
	to         synic.Target
	page       *guestmem.Page // of messages, then of event flags
	interrupts int
}

// newSynicWorld sets up what a guest sets up, with content in both pages.
func newSynicWorld(sint uint8, content []byte) (messages, events *synicWorld, err error) {
	heap := guestmem.NewHeap(guestmem.HeapOptions{})
	p := synic.NewPartition(heap, 1)
	messagePage, eventPage, err := setUpSynIC(heap, p, sint)
	if err != nil {
		return nil, nil, err
	}
	messages = &synicWorld{partition: p, to: synic.Target{SINT: sint}, page: messagePage}
	events = &synicWorld{partition: p, to: synic.Target{SINT: sint}, page: eventPage}
	copy(messagePage.Bytes(), content)
	copy(eventPage.Bytes(), content)
	p.SetInterrupt(func(uint32, uint8) {
		messages.interrupts++
		events.interrupts++
	})
	return messages, events, nil
}

// setUpSynIC does what a guest does on its first processor: message page, event
// page, one SINT, control.
func setUpSynIC(heap *guestmem.Heap, p *synic.Partition, sint uint8) (messages, events *guestmem.Page, err error) {
	const vector, enable = 0xF3, 1
	block, err := heap.Alloc(2)
	if err != nil {
		return nil, nil, err
	}
	for _, w := range []struct {
		msr   uint32
		value uint64
	}{
		{synic.MSRSIMP, block.PFNs[0]*guestmem.PageSize | enable},
		{synic.MSRSIEFP, block.PFNs[1]*guestmem.PageSize | enable},
		{synic.MSRSINT0 + uint32(sint), vector},
		{synic.MSRSCONTROL, enable},
	} {
		if err := p.WriteMSR(0, w.msr, w.value); err != nil {
			return nil, nil, err
		}
	}
	return block.Pages[0], block.Pages[1], nil
}

// Slots gives both halves of the SynIC a message page and an event page with
// arbitrary content: a SINT, a flag, a message behind its length, the content.
func Slots(data []byte) error {
	in := &input{data}
	sint, flag, payload := in.u8()%synic.SINTs, in.u16(), in.block()
	messages, events, err := newSynicWorld(sint, in.left)
	if err != nil {
		return violated("I-STATE-LEGAL", "%v", err)
	}
	if err := messages.post(payload); err != nil {
		return err
	}
	if err := messages.take(); err != nil {
		return err
	}
	if err := events.signal(flag); err != nil {
		return err
	}
	return events.scan()
}

// slot is the target's 256 bytes of a page.
func (w *synicWorld) slot(page []byte) []byte {
	return page[int(w.to.SINT)*synic.SlotBytes:][:synic.SlotBytes]
}

// post: an empty slot gets exactly the message, a full one the pending flag.
func (w *synicWorld) post(payload []byte) error {
	want := bytes.Clone(w.page.Bytes())
	slot := w.slot(want)
	interrupts := 0
	err := w.partition.Post(w.to, payload)
	switch {
	case len(payload) > synic.MaxPayloadBytes:
		if !errors.Is(err, synic.ErrState) {
			return violated("limit of a message", "%d bytes: %v", len(payload), err)
		}
	case binary.LittleEndian.Uint32(slot) != 0:
		if !errors.Is(err, synic.ErrSlotBusy) {
			return violated("whose fault", "the slot is full: %v", err)
		}
		slot[5] |= 1 // the pending flag, and nothing else
	default:
		if err != nil {
			return violated("whose fault", "the slot is empty: %v", err)
		}
		clear(slot)
		slot[0], slot[4] = 1, byte(len(payload))
		copy(slot[16:], payload)
		interrupts = 1
	}
	return w.compare("post", want, interrupts)
}

// take: a message is copied, and freeing it changes its type alone.
func (w *synicWorld) take() error {
	want := bytes.Clone(w.page.Bytes())
	slot := w.slot(want)
	full := binary.LittleEndian.Uint32(slot) != 0
	m, ok := synic.ReadSlot(w.page, w.to.SINT)
	if ok != full || synic.SlotFull(w.page, w.to.SINT) != full {
		return violated("GC-06", "type %x, read %v", slot[:4], ok)
	}
	if !bytes.Equal(want, w.page.Bytes()) {
		return violated("input is only read", "reading a slot changes the page")
	}
	if ok && (m.Type != binary.LittleEndian.Uint32(slot) || !bytes.Equal(m.Payload(), slot[16:16+min(int(slot[4]), synic.MaxPayloadBytes)])) {
		return violated("I-LEN", "%x was read as %d %x", slot, m.Type, m.Payload())
	}
	if pending := synic.FreeSlot(w.page, w.to.SINT); pending != (slot[5]&1 != 0) {
		return violated("L-READER", "flags %#x, pending %v", slot[5], pending)
	}
	clear(slot[:4])
	return w.compare("free", want, 0)
}

// signal: one bit, and one interrupt if it was clear.
func (w *synicWorld) signal(flag uint16) error {
	want := bytes.Clone(w.page.Bytes())
	w.interrupts = 0
	edges := 0
	err := w.partition.Signal(w.to, flag)
	if flag >= synic.FlagsPerSINT {
		if !errors.Is(err, synic.ErrState) {
			return violated("I-RELID-RANGE", "flag %d: %v", flag, err)
		}
		return w.compare("signal", want, 0)
	}
	if err != nil {
		return violated("whose fault", "%v", err)
	}
	flags := w.slot(want)
	if bit := byte(1) << (flag % 8); flags[flag/8]&bit == 0 {
		edges, flags[flag/8] = 1, flags[flag/8]|bit
	}
	return w.compare("signal", want, edges)
}

// scan: each set flag once, in rising order, and all are clear afterwards.
func (w *synicWorld) scan() error {
	want := bytes.Clone(w.page.Bytes())
	flags := w.slot(want)
	set, last := 0, -1
	for _, b := range flags {
		set += bits.OnesCount8(b)
	}
	ordered := true
	synic.ScanFlags(w.page, w.to.SINT, func(flag uint16) {
		ordered = ordered && int(flag) > last && flags[flag/8]&(1<<(flag%8)) != 0
		last = int(flag)
		set--
	})
	if !ordered || set != 0 {
		return violated("L-READER", "of %x: %d left over, in order %v", flags, set, ordered)
	}
	clear(flags)
	return w.compare("scan", want, w.interrupts)
}

func (w *synicWorld) compare(what string, want []byte, interrupts int) error {
	if !bytes.Equal(want, w.page.Bytes()) {
		return violated("I-ZERO-OUT", "%s of SINT %d leaves\n%x, want\n%x", what, w.to.SINT, w.slot(w.page.Bytes()), w.slot(want))
	}
	if what == "post" || what == "signal" {
		if w.interrupts != interrupts {
			return violated("I-SIGNAL-MIN", "%s raises %d interrupts, not %d", what, w.interrupts, interrupts)
		}
	}
	return nil
}

func slotSeeds(fs.FS) ([][]byte, error) {
	full := bytes.Repeat([]byte{0xFF}, guestmem.PageSize)
	at := func(sint int, b ...byte) []byte { return append(make([]byte, sint*synic.SlotBytes), b...) }
	return [][]byte{
		seed{2}.u16(3).block([]byte("hello")),
		seed{15}.u16(2047).block(make([]byte, 240)).bytes(full),
		seed{2}.u16(2048).block(make([]byte, 241)).bytes(at(2, 1, 0, 0, 0, 241, 1)),
		seed{2}.u16(0).block(nil).bytes(at(2, 0, 0, 0, 0, 255, 255)),
	}, nil
}

// Hypercalls runs any hypercall over any memory: the control word, the offset
// of the input in its page, the connection ids that the host listens on, the
// content.
func Hypercalls(data []byte) error {
	in := &input{data}
	control, inputOffset := in.u64(), in.u16()
	heap := guestmem.NewHeap(guestmem.HeapOptions{})
	block, err := heap.Alloc(1)
	if err != nil {
		return violated("I-STATE-LEGAL", "%v", err)
	}
	p := synic.NewPartition(heap, 1)
	off := int(inputOffset % guestmem.PageSize)
	page := block.Pages[0].Bytes()
	copy(page[off:], in.left)
	before := bytes.Clone(page)
	var calls []uint16
	var fault error
	listen := func(code uint16, check func() bool) {
		calls = append(calls, code)
		if !check() {
			fault = violated("I-SNAPSHOT", "call %#x with %x reached the host as something else", control, before[off:])
		}
	}
	err = p.BindMessages(4, func(payload []byte) synic.Status {
		listen(synic.CallPostMessage, func() bool {
			head := seed{}.u32(4).u32(0).u32(1).u32(uint32(len(payload)))
			return bytes.Equal(before[off:off+16], head) && bytes.Equal(before[off+16:off+16+len(payload)], payload)
		})
		return synic.StatusSuccess
	})
	if err == nil {
		err = p.BindEvents(0x2002, func(flag uint16) {
			listen(synic.CallSignalEvent, func() bool { return flag < synic.FlagsPerSINT })
		})
	}
	if err != nil {
		return violated("I-STATE-LEGAL", "%v", err)
	}
	parameter := block.PFNs[0]<<12 | uint64(off)
	if control&fastCall != 0 {
		parameter = uint64(inputOffset)
	}
	status := p.Hypercall(control, parameter)
	if fault == nil {
		fault = checkCalls(control, status, calls)
	}
	if fault == nil && !bytes.Equal(before, page) {
		fault = violated("input is only read", "%x became %x", before[off:], page[off:])
	}
	return fault
}

// fastCall is the bit of a hypercall's control word that says that the
// parameter is in a register. Source: Hyper-V TLFS, hypercall input value.
const fastCall = 1 << 16

// checkCalls: success means that the host was called, once, for what was asked.
func checkCalls(control, status uint64, calls []uint16) error {
	if ok := status == uint64(synic.StatusSuccess); len(calls) > 1 || ok != (len(calls) == 1) {
		return violated("HC-17", "control %#x: status %#x, %d calls", control, status, len(calls))
	}
	for _, code := range calls {
		want := uint64(code)
		if control != want && (code != synic.CallSignalEvent || control != want|fastCall) {
			return violated("HC-17", "control %#x is call %#x", control, want)
		}
	}
	return nil
}

func hypercallSeeds(fs.FS) ([][]byte, error) {
	return [][]byte{
		seed{}.u64(0x5C).u16(0).bytes(synic.AppendPostMessage(nil, 4, []byte("hello"))),
		seed{}.u64(0x5C).u16(8).bytes(synic.AppendPostMessage(nil, 5, make([]byte, 240))),
		seed{}.u64(0x5C).u16(0xF00).bytes(bytes.Repeat([]byte{0xFF}, 256)),
		seed{}.u64(0x5D).u16(0xFF8).u8(2, 0x20),
		seed{}.u64(0x5D | fastCall).u16(0x2002),
	}, nil
}
