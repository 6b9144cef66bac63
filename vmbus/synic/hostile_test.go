package synic_test

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// A guest may point both registers at one page. Its flags then land in the slot
// and its messages in the flags; that is its problem alone.
func TestMessagesAndEventsOnOnePage(t *testing.T) {
	g := newGuest(t, 2)
	g.write(t, 0, synic.MSRSIEFP, g.simp[0])
	require.NoError(t, g.p.Signal(vmbusTarget, 0))
	require.ErrorIs(t, g.p.Post(vmbusTarget, nil), synic.ErrSlotBusy, "flag 0 is a bit of the message type")
	synic.FreeSlot(g.messages[0], 2)
	require.NoError(t, g.p.Post(vmbusTarget, []byte("fits again")))
	require.NoError(t, g.p.Post(synic.Target{VP: 1, SINT: 2}, nil), "the other processor works")
	require.NoError(t, g.p.Signal(synic.Target{VP: 1, SINT: 2}, 5))
}

// Registers at memory that does not exist, or has been given back.
func TestRegistersAtNoMemory(t *testing.T) {
	heap := guestmem.NewHeap(guestmem.HeapOptions{})
	p := synic.NewPartition(heap, 1)
	block, err := heap.Alloc(1)
	require.NoError(t, err)
	require.NoError(t, heap.Free(block))
	require.NoError(t, p.WriteMSR(0, synic.MSRSCONTROL, enable))
	require.NoError(t, p.WriteMSR(0, synic.MSRSINT0+2, vector))
	for _, v := range []uint64{enable, 1<<64 - 1, block.PFNs[0]<<12 | enable} {
		require.NoError(t, p.WriteMSR(0, synic.MSRSIMP, v))
		require.NoError(t, p.WriteMSR(0, synic.MSRSIEFP, v))
		require.ErrorIs(t, p.Post(vmbusTarget, nil), synic.ErrSlotBusy)
		require.ErrorIs(t, p.Signal(vmbusTarget, 1), synic.ErrSignalLost)
		require.NoError(t, p.WriteMSR(0, synic.MSREOM, 0))
	}
}

// A guest that marks its own slots as used, or sets the pending flag for ever,
// gets no messages, or sends EOMs for nothing.
func TestGuestWritesItsOwnSlot(t *testing.T) {
	g := newGuest(t, 1)
	free := g.freeSlots()
	g.messages[0].Store32(2*256, 0xFFFFFFFF)
	require.ErrorIs(t, g.p.Post(vmbusTarget, nil), synic.ErrSlotBusy)
	for range 1000 {
		g.write(t, 0, synic.MSREOM, 0)
	}
	require.Empty(t, free.drain(), "an EOM storm wakes nobody while the slot is full")
	require.Equal(t, uint32(0xFFFFFFFF), g.messages[0].Load32(2*256), "and nothing is overwritten")

	g.messages[0].Store32(2*256+4, 0xFFFFFFFF)
	require.True(t, synic.FreeSlot(g.messages[0], 2))
	g.write(t, 0, synic.MSREOM, 0)
	require.Len(t, free.drain(), 1)
	require.NoError(t, g.p.Post(vmbusTarget, []byte("whole")))
	m, ok := synic.ReadSlot(g.messages[0], 2)
	require.True(t, ok)
	require.Equal(t, "whole", string(m.Payload()))
}

// Everything at once: one side posts and signals, the other moves its pages,
// masks its SINTs, scribbles on slots and flags, sends EOMs, reads what it finds
// and makes hypercalls out of its message page. Nothing may race, panic or hang,
// and afterwards the partition must be as good as new.
func TestHostileGuestStorm(t *testing.T) {
	const steps = 4000
	heap := guestmem.NewHeap(guestmem.HeapOptions{})
	p := synic.NewPartition(heap, 2)
	block, err := heap.Alloc(3)
	require.NoError(t, err)
	require.NoError(t, p.BindMessages(4, func([]byte) synic.Status { return synic.StatusSuccess }))
	require.NoError(t, p.BindEvents(0x2002, func(uint16) {}))
	p.SlotFree(func(to synic.Target) { _ = p.Post(to, []byte("again")) })
	var interrupts atomic.Int64
	p.SetInterrupt(func(uint32, uint8) { interrupts.Add(1) })

	var wg sync.WaitGroup
	for worker := range uint64(2) {
		wg.Go(func() { // the guest, on two processors
			rnd := rand.New(rand.NewPCG(1, worker))
			for range steps {
				hostileStep(p, block, rnd, uint32(worker))
			}
		})
	}
	wg.Go(func() { // the host
		rnd := rand.New(rand.NewPCG(2, 0))
		for range steps {
			to := synic.Target{VP: rnd.Uint32N(2), SINT: uint8(rnd.UintN(synic.SINTs))}
			_ = p.Post(to, make([]byte, rnd.UintN(241)))
			_ = p.Signal(to, uint16(rnd.UintN(synic.FlagsPerSINT)))
		}
	})
	wg.Wait()

	p.SlotFree(nil)
	for _, w := range [][2]uint64{
		{synic.MSRSCONTROL, 0}, {synic.MSRSIMP, 0}, {synic.MSRSIMP, block.PFNs[0]<<12 | enable},
		{synic.MSRSINT0 + 2, vector}, {synic.MSRSCONTROL, enable},
	} {
		require.NoError(t, p.WriteMSR(1, uint32(w[0]), w[1]))
	}
	before := interrupts.Load()
	require.NoError(t, p.Post(synic.Target{VP: 1, SINT: 2}, []byte("recovered")))
	require.Equal(t, before+1, interrupts.Load())
	m, ok := synic.ReadSlot(block.Pages[0], 2)
	require.True(t, ok)
	require.Equal(t, "recovered", string(m.Payload()))
}

func hostileStep(p *synic.Partition, block *guestmem.Block, rnd *rand.Rand, vp uint32) {
	i := rnd.IntN(len(block.Pages))
	page, pfn := block.Pages[i], block.PFNs[i]
	sint := uint8(rnd.UintN(synic.SINTs))
	switch rnd.IntN(10) {
	case 0:
		_ = p.WriteMSR(vp, synic.MSRSIMP, pfn<<12|rnd.Uint64()&1)
	case 1:
		_ = p.WriteMSR(vp, synic.MSRSIEFP, pfn<<12|rnd.Uint64()&1)
	case 2:
		_ = p.WriteMSR(vp, synic.MSRSINT0+uint32(sint), rnd.Uint64()&(masked|0xFF))
	case 3:
		_ = p.WriteMSR(vp, synic.MSRSCONTROL, enable)
	case 4:
		page.Store64(rnd.IntN(512)*8, rnd.Uint64())
	case 5:
		_ = p.WriteMSR(vp, synic.MSREOM, rnd.Uint64())
	case 6:
		if m, ok := synic.ReadSlot(page, sint); ok && len(m.Payload()) <= synic.MaxPayloadBytes {
			synic.FreeSlot(page, sint)
		}
	case 7:
		synic.ScanFlags(page, sint, func(uint16) {})
	case 8:
		p.Hypercall(synic.CallPostMessage, pfn<<12|rnd.Uint64()&0xF00)
	case 9:
		p.Hypercall(synic.CallSignalEvent, pfn<<12|rnd.Uint64()&0xFF8)
	}
}
