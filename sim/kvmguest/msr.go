package kvmguest

import (
	"encoding/binary"
	"math/bits"
	"sync"

	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// Synthetic MSRs that are the monitor's business; the others are the
// synic.GuestPort's. Source: Hyper-V TLFS, "Virtual Processor Registers",
// "Timers" and "Reference TSC".
const (
	msrReset            = 0x40000003
	msrReferenceTSC     = 0x40000021
	msrInvariantControl = 0x40000118 // bit 0: the guest relies on the invariant TSC

	// The range that KVM must not answer itself.
	msrFilterFirst = 0x40000000
	msrFilterCount = 0x1000
)

// Fields that the page-valued MSRs share.
const (
	msrEnable   = 1 << 0
	msrPFNShift = 12
)

// referenceHz is the rate of the partition's reference time: 100 ns units.
const referenceHz = 10_000_000

// An msrFile answers the synthetic MSRs of one VM. Safe for use by several
// virtual processors.
type msrFile struct {
	synic    synic.GuestPort
	memory   guestmem.Memory
	tscHz    uint64                 // of the guest's TSC
	guestTSC func(vp uint32) uint64 // the TSC as that processor reads it
	note     noteFunc

	mu               sync.Mutex
	referenceTSC     uint64
	invariantControl uint64
}

// An msrEffect is what a write asks of the run loop.
type msrEffect int

const (
	msrDone  msrEffect = iota
	msrFault           // inject #GP
	msrResetVM
)

// ofSynIC reports whether the synic.GuestPort has the register.
func ofSynIC(msr uint32) bool {
	switch msr {
	case synic.MSRGuestOSID, synic.MSRHypercall, synic.MSRVPIndex, synic.MSRVPAssistPage:
		return true
	}
	return msr >= synic.MSRSCONTROL && msr <= synic.MSREOM || msr >= synic.MSRSINT0 && msr < synic.MSRSINT0+synic.SINTs
}

// synthetic reports whether msr is in the hypervisor's range.
func synthetic(msr uint32) bool { return msr >= msrFilterFirst && msr < msrFilterFirst+msrFilterCount }

// read returns the value of msr, or false for #GP. Unknown MSRs read as zero:
// what the kernel probes must not stop it. Options.Log hears of synthetic ones;
// the others are features of some processor model that KVM does not emulate.
func (f *msrFile) read(vp, msr uint32) (uint64, bool) {
	if ofSynIC(msr) {
		v, err := f.synic.ReadMSR(vp, msr)
		return v, err == nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch msr {
	case synic.MSRTimeRefCount:
		hi, _ := bits.Mul64(f.guestTSC(vp), referenceScale(f.tscHz))
		return hi, true
	case synic.MSRTSCFrequency:
		return f.tscHz, true
	case synic.MSRAPICFrequency:
		return apicHz, true
	case msrReset:
		return 0, true
	case msrReferenceTSC:
		return f.referenceTSC, true
	case msrInvariantControl:
		return f.invariantControl, true
	}
	if synthetic(msr) {
		f.note("read of unknown MSR %#x: answered 0", msr)
	}
	return 0, true
}

// write stores v in msr.
func (f *msrFile) write(vp, msr uint32, v uint64) msrEffect {
	if ofSynIC(msr) {
		return f.writeSynIC(vp, msr, v)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch msr {
	case synic.MSRTimeRefCount, synic.MSRTSCFrequency, synic.MSRAPICFrequency:
		return msrFault // read-only
	case msrReset:
		if v&1 != 0 {
			return msrResetVM
		}
		return msrDone
	case msrReferenceTSC:
		f.referenceTSC = v
		return f.fillPage(v, referencePage(f.tscHz))
	case msrInvariantControl:
		f.invariantControl = v & 1
		return msrDone
	}
	if synthetic(msr) {
		f.note("write of %#x to unknown MSR %#x: ignored", v, msr)
	}
	return msrDone
}

// writeSynIC passes a write on. The SynIC decides whether the hypercall page
// becomes enabled; if so, its code is written here.
func (f *msrFile) writeSynIC(vp, msr uint32, v uint64) msrEffect {
	if err := f.synic.WriteMSR(vp, msr, v); err != nil {
		f.note("write of %#x to MSR %#x: %v", v, msr, err)
		return msrFault
	}
	if msr != synic.MSRHypercall {
		return msrDone
	}
	now, err := f.synic.ReadMSR(vp, msr)
	if err != nil {
		return msrFault
	}
	return f.fillPage(now, hypercallCode)
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

// referenceScale turns ticks of a TSC of tscHz into reference time: time is
// tsc * scale >> 64.
func referenceScale(tscHz uint64) uint64 {
	if tscHz <= referenceHz { // no real TSC is that slow; Div64 would panic
		return 0
	}
	scale, _ := bits.Div64(referenceHz, 0, tscHz)
	return scale
}

// referencePage is the reference TSC page: sequence, scale and offset. The
// guest's TSC starts at zero when the VM does, so the offset is zero.
// Source: Hyper-V TLFS, "Partition Reference TSC Mechanism".
func referencePage(tscHz uint64) []byte {
	const valid = 1 // any sequence but 0
	b := binary.LittleEndian.AppendUint64(nil, valid)
	b = binary.LittleEndian.AppendUint64(b, referenceScale(tscHz))
	return binary.LittleEndian.AppendUint64(b, 0)
}
