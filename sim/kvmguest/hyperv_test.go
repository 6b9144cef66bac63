package kvmguest

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

func TestGuestCPUID(t *testing.T) {
	supported := []cpuidEntry{
		{Function: 0, EAX: 0x0D},
		{Function: leafBasicFeatures, EBX: 0x07_08_08_00, ECX: ecxVMX | ecxX2APIC, EDX: edxHyperthreading},
		{Function: leafTopology, Index: 1, EDX: 7},
		{Function: leafHypervisorFirst, EAX: 0x40000001, EBX: 0x4B4D564B}, // "KVMK"
		{Function: 0x40000001, EAX: 0x01007EFB},
		{Function: leafAMDFeatures, ECX: ecxSVM | 1},
	}
	leaves := map[uint32]cpuidEntry{}
	for _, e := range guestCPUID(supported, 1, 2) {
		_, twice := leaves[e.Function]
		require.False(t, twice, "leaf %#x must be there once: KVM would use the first", e.Function)
		leaves[e.Function] = e
	}
	le := binary.LittleEndian
	h := leaves[leafHypervisorFirst]
	name := le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, h.EBX), h.ECX), h.EDX)
	require.Equal(t, "Microsoft Hv", string(name))
	require.Equal(t, uint32(0x40000006), h.EAX)
	require.Equal(t, "Hv#1", string(le.AppendUint32(nil, leaves[0x40000001].EAX)))

	f := leaves[leafBasicFeatures]
	require.NotZero(t, f.ECX&ecxHypervisor, "Linux looks for a hypervisor only with this bit")
	require.Zero(t, f.ECX&(ecxX2APIC|ecxVMX))
	require.Equal(t, uint32(1), f.EBX>>24, "the APIC id is the VP index, not the host's")
	require.Equal(t, uint32(1), leaves[leafTopology].EDX)
	require.Equal(t, uint32(1), leaves[leafAMDFeatures].ECX, "no nested virtualization; other bits stay")

	privileges := leaves[0x40000003]
	require.Equal(t, uint32(0x8A66), privileges.EAX, "what Linux prints as 'privilege flags low'")
	require.Equal(t, uint32(0x30), privileges.EBX, "post messages and signal events; no root partition, no isolation")
	require.NotZero(t, leaves[0x40000004].EAX&eaxDeprecateAutoEOI, "without it the guest hangs after the first message")
}

// newMSRs is a register file over a real SynIC and a little memory.
func newMSRs(t *testing.T) (*msrFile, *guestmem.Region, *[]string) {
	t.Helper()
	memory, err := guestmem.NewRegion(0, make([]byte, 16*pageBytes))
	require.NoError(t, err)
	var notes []string
	return &msrFile{
		synic: synic.NewPartition(memory, 2), memory: memory, tscHz: 2_000_000_000,
		guestTSC: func(uint32) uint64 { return 3_000_000_000 },
		note:     func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) },
	}, memory, &notes
}

func TestMSRs(t *testing.T) {
	f, _, notes := newMSRs(t)
	read := func(vp, msr uint32) uint64 {
		v, ok := f.read(vp, msr)
		require.True(t, ok, "MSR %#x", msr)
		return v
	}
	require.Equal(t, uint64(1), read(1, synic.MSRVPIndex))
	require.Equal(t, uint64(1), read(0, synic.MSRSVERSION))
	require.Equal(t, uint64(2_000_000_000), read(0, synic.MSRTSCFrequency))
	require.Equal(t, uint64(apicHz), read(0, synic.MSRAPICFrequency))
	require.InDelta(t, 15_000_000, read(0, synic.MSRTimeRefCount), 1, "3e9 ticks of a 2 GHz counter are 1.5 s in units of 100 ns")
	require.Equal(t, msrFault, f.write(0, synic.MSRVPIndex, 5), "the VP index is read-only")
	require.Equal(t, msrFault, f.write(0, synic.MSRTSCFrequency, 5), "frequencies are read-only")
	require.Equal(t, msrDone, f.write(0, msrInvariantControl, 1))
	require.Equal(t, uint64(1), read(0, msrInvariantControl))
	require.Equal(t, msrDone, f.write(1, synic.MSRSINT0+2, 0xF3))
	require.Equal(t, uint64(0xF3), read(1, synic.MSRSINT0+2))
	require.Equal(t, uint64(1<<16), read(0, synic.MSRSINT0+2), "each processor has its own SINTs, masked at reset")
	require.Equal(t, msrResetVM, f.write(0, msrReset, 1))
	require.Len(t, *notes, 1, "all of these are known; the SynIC told about its read-only register")
	require.Zero(t, read(0, 0x40000F00))
	require.Equal(t, msrDone, f.write(0, 0xC0011028, 0x200), "probing an absent MSR must not stop the kernel")
	require.Len(t, *notes, 2, "the user hears of unknown synthetic MSRs only")
}

func TestHypercallPage(t *testing.T) {
	f, memory, _ := newMSRs(t)
	page, err := memory.Page(5)
	require.NoError(t, err)
	const enable = 5<<msrPFNShift | msrEnable
	require.Equal(t, msrDone, f.write(0, synic.MSRHypercall, enable))
	require.Zero(t, page.Bytes()[0], "a guest without an identity gets no hypercall page")
	require.Equal(t, msrDone, f.write(0, synic.MSRGuestOSID, 0x8100<<48))
	require.Equal(t, msrDone, f.write(0, synic.MSRHypercall, enable))
	require.Equal(t, []byte{0xE6, 0x3A, 0xC3}, page.Bytes()[:3], "out 0x3A, al; ret")
	require.Equal(t, msrFault, f.write(0, synic.MSRHypercall, 0xFFFF<<msrPFNShift|msrEnable), "a page outside memory")
}

func TestReferenceTSCPage(t *testing.T) {
	f, memory, _ := newMSRs(t)
	require.Equal(t, msrDone, f.write(0, msrReferenceTSC, 7<<msrPFNShift|msrEnable))
	page, err := memory.Page(7)
	require.NoError(t, err)
	le := binary.LittleEndian
	require.NotZero(t, le.Uint32(page.Bytes()), "sequence 0 would tell the guest to use the MSR")
	require.Equal(t, referenceScale(2_000_000_000), le.Uint64(page.Bytes()[8:]))
	require.Zero(t, referenceScale(0), "a clock of unknown rate must not panic")
}

func TestUnknownHypercallIsNoted(t *testing.T) {
	f, memory, notes := newMSRs(t)
	call := hypercallEntry(synic.NewPartition(memory, 1).Hypercall).noting(f.note)
	require.Equal(t, uint64(synic.StatusInvalidHypercallCode), call(0x8001, 0))
	require.Equal(t, uint64(synic.StatusInvalidConnectionID), call(1<<16|0x5D, 77), "signal of a port that nobody bound")
	require.Len(t, *notes, 1)
	require.Contains(t, (*notes)[0], "unknown hypercall 0x8001")
}
