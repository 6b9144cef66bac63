package kvmguest

// CPUID leaves of Hyper-V. Source: Hyper-V TLFS, "Feature and Interface
// Discovery"; the choice of bits is what Linux needs and no more.
const (
	leafBasicFeatures = 1
	leafTopology      = 0x0B
	leafTopologyV2    = 0x1F
	leafAMDFeatures   = 0x80000001
	leafAMDTopology   = 0x8000001E

	leafHypervisorFirst = 0x40000000
	leafHypervisorLast  = 0x4000FFFF
	leafHyperVMax       = 0x40000006
)

// Bits of leaf 1.
const (
	ecxVMX            = 1 << 5
	ecxX2APIC         = 1 << 21 // absent: it would bring in Linux' Hyper-V IOMMU driver
	ecxHypervisor     = 1 << 31
	edxHyperthreading = 1 << 28
	ecxSVM            = 1 << 2  // leaf 0x80000001
	ecxTopologyExt    = 1 << 22 // leaf 0x80000001
)

// Bits of leaf 0x40000003, the partition's privileges.
const (
	eaxReferenceCounter = 1 << 1
	eaxSynIC            = 1 << 2
	eaxHypercallMSRs    = 1 << 5
	eaxVPIndex          = 1 << 6
	eaxReferenceTSC     = 1 << 9
	eaxFrequencyMSRs    = 1 << 11
	eaxInvariantTSC     = 1 << 15
	ebxPostMessages     = 1 << 4
	ebxSignalEvents     = 1 << 5
	edxFrequencyMSRs    = 1 << 8
)

// eaxDeprecateAutoEOI of leaf 0x40000004 is not advice here: without it Linux
// programs its interrupt with auto-EOI, which the in-kernel APIC of KVM cannot
// give to a SynIC in user space, and the guest hangs after the first message.
const eaxDeprecateAutoEOI = 1 << 9

// neverSpinNotify in leaf 0x40000004 EBX: do not tell about long spins.
const neverSpinNotify = 0xFFFFFFFF

// A build number in the range of Windows Server 2022; Linux only prints it.
const (
	hyperVBuild = 20348
	hyperVMajor = 10
)

// A cpuidEntry is one leaf in the form of struct kvm_cpuid_entry2, less its padding.
type cpuidEntry struct {
	Function, Index, Flags uint32
	EAX, EBX, ECX, EDX     uint32
}

// hyperVLeaves are the leaves 0x40000000 to 0x40000006.
func hyperVLeaves(cpus int) []cpuidEntry {
	leaf := func(n, eax, ebx, ecx, edx uint32) cpuidEntry {
		return cpuidEntry{Function: leafHypervisorFirst + n, EAX: eax, EBX: ebx, ECX: ecx, EDX: edx}
	}
	return []cpuidEntry{
		leaf(0, leafHyperVMax, 0x7263694D, 0x666F736F, 0x76482074), // "Microsoft Hv"
		leaf(1, 0x31237648, 0, 0, 0),                               // "Hv#1"
		leaf(2, hyperVBuild, hyperVMajor<<16, 0, 0),
		leaf(3,
			eaxReferenceCounter|eaxSynIC|eaxHypercallMSRs|eaxVPIndex|eaxReferenceTSC|eaxFrequencyMSRs|eaxInvariantTSC,
			ebxPostMessages|ebxSignalEvents, 0, edxFrequencyMSRs),
		leaf(4, eaxDeprecateAutoEOI, neverSpinNotify, 0, 0),
		leaf(5, uint32(cpus), uint32(cpus), 0, 0),
		leaf(6, 0, 0, 0, 0),
	}
}

// guestCPUID is what processor vp of cpus sees: the leaves that KVM supports,
// less its own paravirtual leaves and nested virtualization, plus Hyper-V's.
// Each processor is a core of its own whose APIC id is its index.
func guestCPUID(supported []cpuidEntry, vp uint32, cpus int) []cpuidEntry {
	out := make([]cpuidEntry, 0, len(supported)+leafHyperVMax-leafHypervisorFirst+1)
	for _, e := range supported {
		if e.Function >= leafHypervisorFirst && e.Function <= leafHypervisorLast {
			continue
		}
		switch e.Function {
		case leafBasicFeatures:
			e.ECX = e.ECX&^(ecxVMX|ecxX2APIC) | ecxHypervisor
			e.EBX = e.EBX&0x0000FFFF | uint32(cpus)<<16 | vp<<24
			e.EDX &^= edxHyperthreading
			if cpus > 1 {
				e.EDX |= edxHyperthreading
			}
		case leafTopology, leafTopologyV2:
			e.EDX = vp // x2APIC id; KVM gives the id of the processor that asked
		case leafAMDFeatures:
			e.ECX &^= ecxSVM | ecxTopologyExt
		case leafAMDTopology:
			continue // goes with ecxTopologyExt
		}
		out = append(out, e)
	}
	return append(out, hyperVLeaves(cpus)...)
}
