package synic

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// TestSaveAndRestore: a message in its slot and a flag that is set survive, the
// slot stays occupied, and a Post that is refused is told when it is free.
func TestSaveAndRestore(t *testing.T) {
	mem := guestmem.NewHeap(guestmem.HeapOptions{})
	block, err := mem.Alloc(2)
	require.NoError(t, err)
	p := NewPartition(mem, 2)
	for msr, v := range map[uint32]uint64{
		MSRGuestOSID: 7, MSRHypercall: 0x1001, MSRSCONTROL: 1, MSRSINT0 + 2: 0xF3,
		MSRSIMP: block.PFNs[0]<<12 | 1, MSRSIEFP: block.PFNs[1]<<12 | 1,
	} {
		require.NoError(t, p.WriteMSR(1, msr, v))
	}
	to := Target{VP: 1, SINT: 2}
	require.NoError(t, p.Post(to, []byte("hello")))
	require.NoError(t, p.Signal(to, 5))
	r := p.Save()

	copied := guestmem.NewHeap(guestmem.HeapOptions{})
	require.NoError(t, copied.Restore(mem.Save()))
	q := NewPartition(copied, 2)
	var free []Target
	q.SlotFree(func(t Target) { free = append(free, t) })
	require.ErrorIs(t, q.Post(to, nil), ErrSlotBusy, "nothing is set up")
	require.NoError(t, q.Restore(r))
	require.Equal(t, r, q.Save())
	require.Empty(t, free)
	require.ErrorIs(t, q.Post(to, nil), ErrSlotBusy)
	page, err := copied.Page(block.PFNs[0])
	require.NoError(t, err)
	m, ok := ReadSlot(page, 2)
	require.True(t, ok)
	require.Equal(t, []byte("hello"), m.Payload())
	require.True(t, FreeSlot(page, 2), "somebody waits")
	require.NoError(t, q.WriteMSR(1, MSREOM, 0))
	require.Equal(t, []Target{to}, free)
	events, err := copied.Page(block.PFNs[1])
	require.NoError(t, err)
	var flags []uint16
	ScanFlags(events, 2, func(f uint16) { flags = append(flags, f) })
	require.Equal(t, []uint16{5}, flags)

	require.ErrorIs(t, NewPartition(mem, 1).Restore(r), ErrState, "N10: another number of processors")
	r.VPs[0].SINT[3] = 5
	var msr *MSRError
	require.ErrorAs(t, q.Restore(r), &msr, "a vector below 16")
}
