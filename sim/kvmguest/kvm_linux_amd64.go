package kvmguest

import (
	"bytes"
	"encoding/binary"
)

// KVM requests. Source: Linux include/uapi/linux/kvm.h.
const (
	kvmGetAPIVersion       = 0xAE00
	kvmCreateVM            = 0xAE01
	kvmCheckExtension      = 0xAE03
	kvmGetVCPUMapSize      = 0xAE04
	kvmGetSupportedCPUID   = 0xC008AE05
	kvmCreateVCPU          = 0xAE41
	kvmSetUserMemoryRegion = 0x4020AE46
	kvmSetTSSAddr          = 0xAE47
	kvmSetIdentityMapAddr  = 0x4008AE48
	kvmCreateIRQChip       = 0xAE60
	kvmIRQLine             = 0x4008AE61
	kvmCreatePIT2          = 0x4040AE77
	kvmRun                 = 0xAE80
	kvmGetRegs             = 0x8090AE81
	kvmSetRegs             = 0x4090AE82
	kvmGetSRegs            = 0x8138AE83
	kvmSetSRegs            = 0x4138AE84
	kvmGetMSRs             = 0xC008AE88
	kvmSetCPUID2           = 0x4008AE90
	kvmGetTSCKHz           = 0xAEA3
	kvmEnableCap           = 0x4068AEA3
	kvmSignalMSI           = 0x4020AEA5
	kvmSetMSRFilter        = 0x4188AEC6

	kvmAPIVersion = 12

	capUserMemory    = 3
	capIRQChip       = 0
	capPIT2          = 33
	capSignalMSI     = 77
	capImmediateExit = 136
	capUserSpaceMSR  = 188
	capMSRFilter     = 189

	msrExitInvalid = 1 << 0
	msrExitUnknown = 1 << 1
	msrExitFilter  = 1 << 2

	msrFilterRead  = 1 << 0
	msrFilterWrite = 1 << 1

	pitSpeakerDummy = 1 // port 0x61 answered in the kernel

	cpuidEntriesMax = 256
)

// Reasons of a KVM_RUN exit.
const (
	exitUnknown       = 0
	exitIO            = 2
	exitHLT           = 5
	exitMMIO          = 6
	exitShutdown      = 8
	exitFailEntry     = 9
	exitInterrupted   = 10
	exitInternalError = 17
	exitSystemEvent   = 24
	exitReadMSR       = 29
	exitWriteMSR      = 30
)

// Offsets in struct kvm_run, which is shared with the kernel.
const (
	runImmediateExit = 1
	runExitReason    = 8
	runUnion         = 32
)

// The structures below have the kernel's layout; encode and decode copy them.

type memoryRegion struct {
	Slot, Flags    uint32
	GuestAddress   uint64
	Bytes          uint64
	ProcessAddress uint64
}

type enableCap struct {
	Cap, Flags uint32
	Args       [4]uint64
	_          [64]byte
}

type kvmMSRFilterRange struct {
	Flags, Count, First uint32
	_                   uint32
	Bitmap              uint64
}

type kvmMSRFilter struct {
	Flags  uint32 // 0: MSRs outside the ranges are allowed
	_      uint32
	Ranges [16]kvmMSRFilterRange
}

type pitConfig struct {
	Flags uint32
	_     [15]uint32
}

type irqLevel struct{ IRQ, Level uint32 }

type messageInterrupt struct {
	AddressLow, AddressHigh, Data, Flags, DeviceID uint32
	_                                              [12]byte
}

type kvmRegs struct {
	RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP uint64
	R8, R9, R10, R11, R12, R13, R14, R15   uint64
	RIP, RFLAGS                            uint64
}

type kvmSegment struct {
	Base                                               uint64
	Limit                                              uint32
	Selector                                           uint16
	Type, Present, DPL, DB, S, L, G, Available, Unused byte
	_                                                  byte
}

type kvmDescriptorTable struct {
	Base  uint64
	Limit uint16
	_     [3]uint16
}

type kvmSRegs struct {
	CS, DS, ES, FS, GS, SS, TR, LDT kvmSegment
	GDT, IDT                        kvmDescriptorTable
	CR0, CR2, CR3, CR4, CR8         uint64
	EFER, APICBase                  uint64
	InterruptBitmap                 [4]uint64
}

type kvmCPUIDEntry struct {
	cpuidEntry
	_ [3]uint32
}

type kvmMSREntry struct {
	Index, _ uint32
	Data     uint64
}

// encode is the memory image of the structure v points to.
func encode(v any) []byte {
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
		panic("kvmguest: " + err.Error()) // only for a type without a fixed size
	}
	return b.Bytes()
}

// decode copies the memory image b into the structure v points to.
func decode(b []byte, v any) {
	if err := binary.Read(bytes.NewReader(b), binary.LittleEndian, v); err != nil {
		panic("kvmguest: " + err.Error()) // b was made by encode of the same type
	}
}

// supportedCPUID asks /dev/kvm for the leaves that its guests may see.
func supportedCPUID(kvm int) ([]cpuidEntry, error) {
	const headBytes = 8
	size := binary.Size(kvmCPUIDEntry{})
	b := make([]byte, headBytes+cpuidEntriesMax*size)
	binary.LittleEndian.PutUint32(b, cpuidEntriesMax)
	if err := ioctlBytes(kvm, "KVM_GET_SUPPORTED_CPUID", kvmGetSupportedCPUID, b); err != nil {
		return nil, err
	}
	n := min(int(binary.LittleEndian.Uint32(b)), cpuidEntriesMax)
	out := make([]cpuidEntry, n)
	for i := range out {
		var e kvmCPUIDEntry
		decode(b[headBytes+i*size:], &e)
		out[i] = e.cpuidEntry
	}
	return out, nil
}

// setCPUID gives a processor its leaves.
func setCPUID(vcpu int, entries []cpuidEntry) error {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(entries)))
	for _, e := range entries {
		b = append(b, encode(&kvmCPUIDEntry{cpuidEntry: e})...)
	}
	return ioctlBytes(vcpu, "KVM_SET_CPUID2", kvmSetCPUID2, b)
}

// readMSR reads one MSR of a processor that is not running.
func readMSR(vcpu int, msr uint32) (uint64, error) {
	const headBytes = 8
	b := binary.LittleEndian.AppendUint64(nil, 1)
	b = append(b, encode(&kvmMSREntry{Index: msr})...)
	if err := ioctlBytes(vcpu, "KVM_GET_MSRS", kvmGetMSRs, b); err != nil {
		return 0, err
	}
	var e kvmMSREntry
	decode(b[headBytes:], &e)
	return e.Data, nil
}
