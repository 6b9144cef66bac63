package synic_test

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// FuzzSlot gives both halves a message page and an event-flag page with
// arbitrary content, and holds them to more than "no crash": each half either
// leaves a page as it was or changes exactly what the protocol says.
func FuzzSlot(f *testing.F) {
	f.Add([]byte{}, uint8(2), []byte("hello"), uint16(3))
	f.Add(bytes.Repeat([]byte{0xFF}, 4096), uint8(15), make([]byte, 240), uint16(2047))
	f.Add(append(make([]byte, 512), 1, 0, 0, 0, 241, 1), uint8(2), make([]byte, 241), uint16(2048))
	f.Add(append(make([]byte, 512), 0, 0, 0, 0, 255, 255), uint8(2), []byte{}, uint16(0))
	f.Fuzz(func(t *testing.T, content []byte, sint uint8, payload []byte, flag uint16) {
		g := newGuest(t, 1)
		sint %= synic.SINTs
		to := synic.Target{VP: 0, SINT: sint}
		g.write(t, 0, synic.MSRSINT0+uint32(sint), vector)
		copy(g.messages[0].Bytes(), content)
		copy(g.events[0].Bytes(), content)
		irqs := g.interrupts()

		fuzzPost(t, g, to, payload)
		require.Len(t, irqs.drain(), map[bool]int{true: 1}[len(payload) <= 240 && slotType(content, sint) == 0])
		fuzzTake(t, g.messages[0], sint)
		fuzzSignal(t, g, to, flag)
		fuzzScan(t, g.events[0], sint)
	})
}

func slotType(content []byte, sint uint8) uint32 {
	var page [guestmem.PageSize]byte
	copy(page[:], content)
	return binary.LittleEndian.Uint32(page[int(sint)*256:])
}

func fuzzPost(t *testing.T, g *guest, to synic.Target, payload []byte) {
	page := g.messages[0].Bytes()
	want := bytes.Clone(page)
	slot := want[int(to.SINT)*256:][:256]
	err := g.p.Post(to, payload)
	switch {
	case len(payload) > synic.MaxPayloadBytes:
		require.ErrorIs(t, err, synic.ErrState)
	case binary.LittleEndian.Uint32(slot) != 0:
		require.ErrorIs(t, err, synic.ErrSlotBusy)
		slot[5] |= 1 // the pending flag, and nothing else
	default:
		require.NoError(t, err)
		clear(slot)
		slot[0], slot[4] = 1, byte(len(payload))
		copy(slot[16:], payload)
	}
	require.Equal(t, want, page)
}

func fuzzTake(t *testing.T, page *guestmem.Page, sint uint8) {
	want := bytes.Clone(page.Bytes())
	slot := want[int(sint)*256:][:256]
	m, ok := synic.ReadSlot(page, sint)
	require.Equal(t, binary.LittleEndian.Uint32(slot) != 0, ok)
	require.Equal(t, ok, synic.SlotFull(page, sint))
	require.Equal(t, want, page.Bytes(), "reading changes nothing")
	if ok {
		require.Equal(t, binary.LittleEndian.Uint32(slot), m.Type)
		require.Equal(t, slot[16:16+min(int(slot[4]), 240)], m.Payload())
	}
	pending := synic.FreeSlot(page, sint)
	require.Equal(t, slot[5]&1 == 1, pending)
	copy(slot, []byte{0, 0, 0, 0})
	require.Equal(t, want, page.Bytes(), "only the type changes")
}

func fuzzSignal(t *testing.T, g *guest, to synic.Target, flag uint16) {
	page := g.events[0].Bytes()
	want := bytes.Clone(page)
	irqs := g.interrupts()
	err := g.p.Signal(to, flag)
	edge := 0
	if flag < synic.FlagsPerSINT {
		require.NoError(t, err)
		at, bit := int(to.SINT)*256+int(flag)/8, byte(1)<<(flag%8)
		if want[at]&bit == 0 {
			edge = 1
		}
		want[at] |= bit
	} else {
		require.ErrorIs(t, err, synic.ErrState)
	}
	require.Equal(t, want, page)
	require.Len(t, irqs.drain(), edge)
}

func fuzzScan(t *testing.T, page *guestmem.Page, sint uint8) {
	want := bytes.Clone(page.Bytes())
	flags := want[int(sint)*256:][:256]
	set := 0
	for _, b := range flags {
		set += bits.OnesCount8(b)
	}
	last := -1
	synic.ScanFlags(page, sint, func(flag uint16) {
		require.Greater(t, int(flag), last, "rising order")
		require.NotZero(t, flags[flag/8]&(1<<(flag%8)), "flag %d was not set", flag)
		last = int(flag)
		set--
	})
	require.Zero(t, set, "each set flag is reported")
	clear(flags)
	require.Equal(t, want, page.Bytes())
}

// FuzzHypercall runs any hypercall over any memory. Whatever reaches the host
// must have been asked for in the form that vmbus-control.md 9.6 allows.
func FuzzHypercall(f *testing.F) {
	f.Add(uint64(0x5C), uint16(0), synic.AppendPostMessage(nil, 4, []byte("hello")))
	f.Add(uint64(0x5D), uint16(0xFF8), []byte{2, 0x20})
	f.Add(uint64(0x1005D), uint16(0x2002), []byte{})
	f.Add(uint64(0x5C), uint16(0xF00), bytes.Repeat([]byte{0xFF}, 256))
	f.Fuzz(func(t *testing.T, control uint64, input uint16, content []byte) {
		heap := guestmem.NewHeap(guestmem.HeapOptions{})
		p := synic.NewPartition(heap, 1)
		block, err := heap.Alloc(1)
		require.NoError(t, err)
		off := int(input % guestmem.PageSize)
		copy(block.Pages[0].Bytes()[off:], content)
		before := bytes.Clone(block.Pages[0].Bytes())
		var messages, events int
		require.NoError(t, p.BindMessages(4, func(payload []byte) synic.Status {
			messages++
			require.Equal(t, before[off+16:off+16+len(payload)], payload)
			require.Equal(t, []byte{4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, byte(len(payload)), 0, 0, 0}, before[off:off+16])
			return synic.StatusSuccess
		}))
		require.NoError(t, p.BindEvents(0x2002, func(flag uint16) {
			events++
			require.Less(t, flag, uint16(synic.FlagsPerSINT))
		}))
		rdx := block.PFNs[0]<<12 | uint64(off)
		if control&(1<<16) != 0 {
			rdx = uint64(input)
		}
		ok := p.Hypercall(control, rdx) == uint64(synic.StatusSuccess)
		require.Equal(t, ok, messages+events == 1, "success means that the host was called, once")
		require.LessOrEqual(t, messages+events, 1)
		if messages == 1 {
			require.Equal(t, uint64(synic.CallPostMessage), control, "the memory form only")
		}
		if events == 1 {
			require.Equal(t, uint64(synic.CallSignalEvent), control&^(1<<16))
		}
		require.Equal(t, before, block.Pages[0].Bytes(), "input is only read")
	})
}
