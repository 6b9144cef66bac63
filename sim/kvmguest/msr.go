package kvmguest

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"sync"

	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// Synthetic MSRs answered here; the SynIC's go to the synic.GuestPort.
// Source: Hyper-V TLFS, "Virtual Processor Registers" and "Timers".
const (
	msrGuestOSID      = 0x40000000
	msrHypercall      = 0x40000001
	msrVPIndex        = 0x40000002
	msrReset          = 0x40000003
	msrReferenceCount = 0x40000020
	msrReferenceTSC   = 0x40000021
	msrTSCFrequency   = 0x40000022
	msrAPICFrequency  = 0x40000023
	msrVPAssistPage   = 0x40000073

	msrSCONTROL   = 0x40000080
	msrSIEFP      = 0x40000082
	msrSIMP       = 0x40000083
	msrSINT0      = 0x40000090
	msrSynICFirst = msrSCONTROL
	msrSynICLast  = 0x4000009F // SINT15

	// The range that KVM must not answer itself; see kvm filter.
	msrFilterFirst = 0x40000000
	msrFilterCount = 0x1000
)

// Fields that the page-valued MSRs share.
const (
	msrEnable   = 1 << 0
	msrPFNShift = 12
)

// hypercallCode is the hypercall page: out hypercallPort, al; ret. The port
// exit is the hypercall, since no VMCALL reaches user space.
var hypercallCode = []byte{0xE6, hypercallPort, 0xC3}

// referenceHz is the rate of the partition's reference time: 100 ns units.
const referenceHz = 10_000_000

// An msrFile answers the synthetic MSRs of one VM. Safe for use by several
// virtual processors.
type msrFile struct {
	synic    synic.GuestPort
	memory   guestmem.Memory
	tscHz    uint64                 // of the guest's TSC
	guestTSC func(vp uint32) uint64 // the TSC as that processor reads it
	note     func(format string, args ...any)

	mu           sync.Mutex
	guestOSID    uint64
	hypercall    uint64
	referenceTSC uint64
	vpAssist     map[uint32]uint64
}

// A msrEffect is what a write asks of the run loop.
type msrEffect int

const (
	msrDone  msrEffect = iota
	msrFault           // inject #GP
	msrResetVM
)

// read returns the value of msr, or false for #GP. Unknown MSRs read as zero:
// what the kernel probes must not stop it, and Options.Log hears of it.
func (f *msrFile) read(vp, msr uint32) (uint64, bool) {
	if msr >= msrSynICFirst && msr <= msrSynICLast {
		v, err := f.synic.ReadMSR(vp, msr)
		return v, err == nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch msr {
	case msrGuestOSID:
		return f.guestOSID, true
	case msrHypercall:
		return f.hypercall, true
	case msrVPIndex:
		return uint64(vp), true
	case msrReferenceCount:
		hi, _ := bits.Mul64(f.guestTSC(vp), f.referenceScale())
		return hi, true
	case msrReferenceTSC:
		return f.referenceTSC, true
	case msrTSCFrequency:
		return f.tscHz, true
	case msrAPICFrequency:
		return apicHz, true
	case msrVPAssistPage:
		return f.vpAssist[vp], true
	}
	f.note("read of unknown MSR %#x: answered 0", msr)
	return 0, true
}

// write stores v in msr.
func (f *msrFile) write(vp, msr uint32, v uint64) msrEffect {
	if msr >= msrSynICFirst && msr <= msrSynICLast {
		if err := f.synic.WriteMSR(vp, msr, v); err != nil {
			f.note("write of %#x to MSR %#x: %v", v, msr, err)
			return msrFault
		}
		return msrDone
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch msr {
	case msrGuestOSID:
		f.guestOSID = v
		if v == 0 { // a guest that shuts down takes its hypercall page back
			f.hypercall &^= msrEnable
		}
		return msrDone
	case msrHypercall:
		return f.writeHypercall(v)
	case msrReset:
		if v&1 != 0 {
			return msrResetVM
		}
		return msrDone
	case msrReferenceTSC:
		f.referenceTSC = v
		return f.fillPage(v, f.referencePage())
	case msrVPAssistPage:
		f.vpAssist[vp] = v
		return msrDone
	case msrVPIndex, msrReferenceCount, msrTSCFrequency, msrAPICFrequency:
		return msrFault // read-only
	}
	f.note("write of %#x to unknown MSR %#x: ignored", v, msr)
	return msrDone
}

// writeHypercall enables the hypercall page. It stays disabled until the guest
// has said who it is (TLFS, "Establishing the Hypercall Interface").
func (f *msrFile) writeHypercall(v uint64) msrEffect {
	if f.guestOSID == 0 {
		v &^= msrEnable
	}
	f.hypercall = v
	return f.fillPage(v, hypercallCode)
}

// fillPage writes contents to the page that the MSR value v names, if it is
// enabled there. A page outside the guest's RAM is a fault of the guest.
func (f *msrFile) fillPage(v uint64, contents []byte) msrEffect {
	if v&msrEnable == 0 {
		return msrDone
	}
	page, err := f.memory.Page(v >> msrPFNShift)
	if err != nil {
		f.note("page of MSR value %#x: %v", v, err)
		return msrFault
	}
	clear(page.Bytes())
	copy(page.Bytes(), contents)
	return msrDone
}

// referenceScale turns TSC ticks into reference time: time = tsc * scale >> 64.
func (f *msrFile) referenceScale() uint64 {
	if f.tscHz <= referenceHz { // no real TSC is that slow; Div64 would panic
		return 0
	}
	scale, _ := bits.Div64(referenceHz, 0, f.tscHz)
	return scale
}

// referencePage is the reference TSC page: sequence, scale and offset. The
// guest's TSC starts at zero when the VM does, so the offset is zero.
// Source: Hyper-V TLFS, "Partition Reference TSC Mechanism".
func (f *msrFile) referencePage() []byte {
	const valid = 1 // any sequence but 0
	b := binary.LittleEndian.AppendUint64(nil, valid)
	b = binary.LittleEndian.AppendUint64(b, f.referenceScale())
	return binary.LittleEndian.AppendUint64(b, 0)
}

// newMSRFile returns the registers of a machine that was just switched on.
func newMSRFile(port synic.GuestPort, memory guestmem.Memory, tscHz uint64, guestTSC func(vp uint32) uint64, note func(string, ...any)) *msrFile {
	return &msrFile{
		synic: port, memory: memory, tscHz: tscHz, guestTSC: guestTSC, note: note,
		vpAssist: make(map[uint32]uint64),
	}
}

// resetSynIC writes the initial values to the SynIC registers of all processors.
func resetSynIC(port synic.GuestPort, vps int) error {
	const sintMasked = 1 << 16
	for vp := range uint32(vps) {
		for _, msr := range []uint32{msrSCONTROL, msrSIEFP, msrSIMP} {
			if err := port.WriteMSR(vp, msr, 0); err != nil {
				return fmt.Errorf("kvmguest: reset of MSR %#x: %w", msr, err)
			}
		}
		for msr := uint32(msrSINT0); msr <= msrSynICLast; msr++ {
			if err := port.WriteMSR(vp, msr, sintMasked); err != nil {
				return fmt.Errorf("kvmguest: reset of MSR %#x: %w", msr, err)
			}
		}
	}
	return nil
}
