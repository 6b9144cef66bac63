package synic_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// The registers of vmbus-control.md 9.2 at reset, per processor.
func TestResetValues(t *testing.T) {
	p := synic.NewPartition(guestmem.NewHeap(guestmem.HeapOptions{}), 2,
		synic.WithReferenceTime(func() uint64 { return 1234 }),
		synic.WithFrequencies(2_500_000_000, 200_000_000))
	want := map[uint32]uint64{
		synic.MSRGuestOSID:     0,
		synic.MSRHypercall:     0,
		synic.MSRVPIndex:       1,
		synic.MSRTimeRefCount:  1234,
		synic.MSRTSCFrequency:  2_500_000_000,
		synic.MSRAPICFrequency: 200_000_000,
		synic.MSRVPAssistPage:  0,
		synic.MSRSCONTROL:      0,
		synic.MSRSVERSION:      1,
		synic.MSRSIEFP:         0,
		synic.MSRSIMP:          0,
		synic.MSREOM:           0, // write-only: reads as zero
	}
	for n := range uint32(synic.SINTs) {
		want[synic.MSRSINT0+n] = masked
	}
	for msr, v := range want {
		got, err := p.ReadMSR(1, msr)
		require.NoError(t, err, "MSR %#x", msr)
		require.Equal(t, v, got, "MSR %#x", msr)
	}
}

// What is written is read back, reserved bits included, and only on that
// processor; GUEST_OS_ID and HYPERCALL belong to the partition.
func TestRegistersKeepWhatIsWritten(t *testing.T) {
	for _, tc := range []struct {
		name   string
		msr    uint32
		value  uint64
		shared bool
	}{
		{"GUEST_OS_ID, as Linux writes it", synic.MSRGuestOSID, 0x8100<<48 | 6<<32 | 1<<24, true},
		{"VP_ASSIST_PAGE, which Linux writes unconditionally", synic.MSRVPAssistPage, 0x1234000 | enable, false},
		{"SCONTROL", synic.MSRSCONTROL, enable, false},
		{"SIEFP with bits 1 to 11, which are preserved", synic.MSRSIEFP, 0x5000 | 0xABE, false},
		{"SIMP naming memory that does not exist", synic.MSRSIMP, 0xFFFF_F000 | enable, false},
		{"SINT0, masked with vector 0", synic.MSRSINT0, masked, false},
		{"SINT2 with the lowest vector", synic.MSRSINT0 + 2, 16, false},
		{"SINT15 with auto-EOI", synic.MSRSINT0 + 15, 1<<17 | 0xFF, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := synic.NewPartition(guestmem.NewHeap(guestmem.HeapOptions{}), 2)
			before, err := p.ReadMSR(1, tc.msr)
			require.NoError(t, err)
			require.NoError(t, p.WriteMSR(0, tc.msr, tc.value))
			got, err := p.ReadMSR(0, tc.msr)
			require.NoError(t, err)
			require.Equal(t, tc.value, got)
			other, err := p.ReadMSR(1, tc.msr)
			require.NoError(t, err)
			if tc.shared {
				before = tc.value
			}
			require.Equal(t, before, other, "the other processor")
		})
	}
}

// Each of these is a general protection fault in a guest.
func TestRefusedMSRAccesses(t *testing.T) {
	p := synic.NewPartition(guestmem.NewHeap(guestmem.HeapOptions{}), 1)
	for _, tc := range []struct {
		name  string
		msr   uint32
		value uint64
	}{
		{"VP_INDEX is read-only", synic.MSRVPIndex, 1},
		{"TIME_REF_COUNT is read-only", synic.MSRTimeRefCount, 1},
		{"the TSC frequency is read-only", synic.MSRTSCFrequency, 1},
		{"the APIC frequency is read-only", synic.MSRAPICFrequency, 1},
		{"SVERSION is read-only", synic.MSRSVERSION, 1},
		{"SINT vectors start at 16", synic.MSRSINT0 + 2, 15},
		{"SINT unmasked without a vector", synic.MSRSINT0 + 2, 0},
		{"behind SINT15", synic.MSRSINT0 + 16, vector},
		{"a synthetic timer, not advertised", 0x400000B0, 1},
		{"the reference TSC page, not advertised", 0x40000021, enable},
		{"not synthetic at all", 0xC0011028, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := p.WriteMSR(0, tc.msr, tc.value)
			require.ErrorIs(t, err, synic.ErrProtocol)
			var bad *synic.MSRError
			require.ErrorAs(t, err, &bad)
			require.Equal(t, tc.msr, bad.MSR)
			require.True(t, bad.Write)
		})
	}
	for _, msr := range []uint32{synic.MSRSINT0 + 16, 0x40000021, 0x400000B0, 0, 0x40000003,
		synic.MSRTSCFrequency, synic.MSRAPICFrequency} { // frequencies: no option was given
		_, err := p.ReadMSR(0, msr)
		require.ErrorIs(t, err, synic.ErrProtocol, "MSR %#x", msr)
	}
}

func TestNoSuchProcessor(t *testing.T) {
	p := synic.NewPartition(guestmem.NewHeap(guestmem.HeapOptions{}), 2)
	for _, vp := range []uint32{2, 0xFFFFFFFF} {
		_, err := p.ReadMSR(vp, synic.MSRSVERSION)
		require.ErrorIs(t, err, synic.ErrState)
		require.ErrorIs(t, p.WriteMSR(vp, synic.MSREOM, 0), synic.ErrState)
		var bad *synic.RangeError
		require.ErrorAs(t, p.Signal(synic.Target{VP: vp, SINT: 2}, 1), &bad)
		require.Equal(t, synic.RangeError{What: "VP", Value: int64(vp), Limit: 2}, *bad)
		require.ErrorIs(t, p.Post(synic.Target{VP: vp, SINT: 2}, nil), synic.ErrState)
	}
	require.Panics(t, func() { synic.NewPartition(guestmem.NewHeap(guestmem.HeapOptions{}), 0) })
}

// 9.2: a non-zero GUEST_OS_ID comes before the hypercall page, writing zero
// takes the page away, and a locked register keeps its value.
func TestHypercallRegister(t *testing.T) {
	p := synic.NewPartition(guestmem.NewHeap(guestmem.HeapOptions{}), 1)
	read := func() uint64 {
		v, err := p.ReadMSR(0, synic.MSRHypercall)
		require.NoError(t, err)
		return v
	}
	write := func(msr uint32, v uint64) { require.NoError(t, p.WriteMSR(0, msr, v)) }

	write(synic.MSRHypercall, 0x7000|enable)
	require.Equal(t, uint64(0x7000), read(), "a guest without identity cannot enable it")
	write(synic.MSRGuestOSID, 0x8100<<48)
	write(synic.MSRHypercall, 0x7000|enable)
	require.Equal(t, uint64(0x7000|enable), read())
	write(synic.MSRGuestOSID, 0)
	require.Equal(t, uint64(0x7000), read(), "shutdown disables the page")

	write(synic.MSRGuestOSID, 0x8100<<48)
	const locked = 2
	write(synic.MSRHypercall, 0x7000|enable|locked)
	require.ErrorIs(t, p.WriteMSR(0, synic.MSRHypercall, 0), synic.ErrProtocol)
	require.Equal(t, uint64(0x7000|enable|locked), read())
	p.Reset()
	write(synic.MSRHypercall, 0) // only a reset unlocks it
}

// The message and event-flag pages are overlays: a page that becomes one is
// empty, whatever the guest kept there; one that stays one keeps its content.
func TestOverlayPagesStartEmpty(t *testing.T) {
	for _, msr := range []uint32{synic.MSRSIMP, synic.MSRSIEFP} {
		heap := guestmem.NewHeap(guestmem.HeapOptions{})
		p := synic.NewPartition(heap, 1)
		block, err := heap.Alloc(2)
		require.NoError(t, err)
		for _, page := range block.Pages {
			page.Store64(0, 77)
			page.Store64(guestmem.PageSize-8, 77)
		}
		first, second := block.PFNs[0]<<12, block.PFNs[1]<<12

		require.NoError(t, p.WriteMSR(0, msr, first))
		require.Equal(t, uint64(77), block.Pages[0].Load64(0), "disabled: ordinary memory")
		require.NoError(t, p.WriteMSR(0, msr, first|enable))
		require.Equal(t, make([]byte, guestmem.PageSize), block.Pages[0].Bytes())
		block.Pages[0].Store64(0, 5)
		require.NoError(t, p.WriteMSR(0, msr, first|enable|0x10))
		require.Equal(t, uint64(5), block.Pages[0].Load64(0), "it has not moved")
		require.NoError(t, p.WriteMSR(0, msr, second|enable))
		require.Zero(t, block.Pages[1].Load64(0))
		require.Equal(t, uint64(5), block.Pages[0].Load64(0), "the old page is the guest's again")
	}
}

func TestResetTurnsTheSynICOff(t *testing.T) {
	g := newGuest(t, 2)
	irqs := g.interrupts()
	free := g.freeSlots()
	require.NoError(t, g.p.BindEvents(7, func(uint16) {}))
	g.p.Reset()

	for msr, want := range map[uint32]uint64{synic.MSRSCONTROL: 0, synic.MSRSIMP: 0, synic.MSRSIEFP: 0, synic.MSRSINT0 + 2: masked} {
		v, err := g.p.ReadMSR(1, msr)
		require.NoError(t, err)
		require.Equal(t, want, v, "MSR %#x", msr)
	}
	require.ErrorIs(t, g.p.Post(vmbusTarget, []byte("kept for later")), synic.ErrSlotBusy)
	require.Equal(t, synic.StatusSuccess, g.p.SignalEvent(7), "ports are the host's")

	g.write(t, 0, synic.MSRSIMP, g.simp[0])
	g.write(t, 0, synic.MSRSINT0+2, vector)
	require.Empty(t, free.drain(), "SCONTROL is still off")
	g.write(t, 0, synic.MSRSCONTROL, enable)
	require.Equal(t, []synic.Target{vmbusTarget}, free.drain(), "the restarted guest can have its message")
	require.Empty(t, irqs.drain())
}

func TestReferenceTimeCountsByDefault(t *testing.T) {
	p := synic.NewPartition(guestmem.NewHeap(guestmem.HeapOptions{}), 1)
	first, err := p.ReadMSR(0, synic.MSRTimeRefCount)
	require.NoError(t, err)
	second, err := p.ReadMSR(0, synic.MSRTimeRefCount)
	require.NoError(t, err)
	require.LessOrEqual(t, first, second)
	require.Less(t, second, uint64(600*10_000_000), "counted from the partition's start, in 100-ns units")
}

// Errors and names are for people: they say what, where and whose fault.
func TestErrorTexts(t *testing.T) {
	for _, tc := range []struct {
		err  error
		is   error
		text string
	}{
		{&synic.BusyError{Target: vmbusTarget, Why: synic.SlotOccupied}, synic.ErrSlotBusy,
			"synic: post to VP 0 SINT 2: the slot is occupied"},
		{&synic.LostError{Target: vmbusTarget, Flag: 9, Why: synic.SINTMasked}, synic.ErrSignalLost,
			"synic: signal flag 9 to VP 0 SINT 2: the SINT is masked"},
		{&synic.RangeError{What: "SINT", Value: 16, Limit: 16}, synic.ErrState,
			"synic: SINT 16: must be from 0 to 15"},
		{&synic.BindError{ID: 0x2003, Reason: "is bound already"}, synic.ErrState,
			"synic: connection 0x2003: is bound already"},
		{&synic.MSRError{VP: 1, MSR: 0x40000021, Write: true, Value: 1, Reason: "no such register"}, synic.ErrProtocol,
			"synic: VP 1 writes 0x1 to MSR 0x40000021: no such register"},
		{&synic.MSRError{VP: 1, MSR: 0x40000021, Reason: "no such register"}, synic.ErrProtocol,
			"synic: VP 1 reads MSR 0x40000021: no such register"},
		{synic.StatusInsufficientBuffers.Err(), synic.StatusInsufficientBuffers,
			"synic: hypercall: INSUFFICIENT_BUFFERS"},
		{synic.Status(999).Err(), synic.Status(999), "synic: hypercall: HV_STATUS(999)"},
	} {
		require.EqualError(t, tc.err, tc.text)
		require.ErrorIs(t, tc.err, tc.is)
	}
	require.NoError(t, synic.StatusSuccess.Err())
	require.False(t, errors.Is(&synic.BusyError{}, synic.ErrState), "a busy slot is nobody's fault")
	for why := synic.NoObstacle; why <= synic.SlotOccupied; why++ {
		require.NotContains(t, why.String(), "Obstacle", "every obstacle has a name")
	}
	require.Equal(t, "Obstacle(99)", synic.Obstacle(99).String())
}
