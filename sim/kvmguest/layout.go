package kvmguest

// Guest physical addresses below 1 MiB, in the order in which they lie. The
// kernel owns all of this after it has copied what it needs; until then an
// overlap shows as a triple fault with no further hint.
const (
	gdtAddress        = 0x1000 // segment descriptors of the entry state
	bootParamsAddress = 0x2000 // one page, "zero page"
	pageTableAddress  = 0x3000 // PML4, PDPT, then four page directories
	commandLineAt     = 0x10000
	maxCommandLine    = 0x10000 // bytes including the terminating zero; kernels accept less

	lowMemoryEnd = 0x9FC00 // where a PC's extended BIOS data begins: end of low RAM
	acpiAddress  = 0xE0000 // RSDP and tables: 16-byte aligned and inside the area that Linux scans
	acpiEnd      = 0x100000
	highMemory   = 0x100000
)

// Addresses of the platform. The APICs are emulated by KVM at their standard
// places; the MMIO window only exists in ACPI, for VMBus devices with MMIO.
const (
	localAPICAddress = 0xFEE00000
	ioAPICAddress    = 0xFEC00000
	mmioWindowStart  = 0xF0000000
	mmioWindowBytes  = 0x08000000

	// KVM needs four pages of guest physical space on Intel; below 4 GiB, away from everything.
	identityMapAddress = 0xFFFBC000
	tssAddress         = 0xFFFBD000
)

// pageBytes is the size of a guest page.
const pageBytes = 4096

// I/O ports.
const (
	serialPort     = 0x3F8 // COM1, 8 ports
	keyboardPort   = 0x64  // writing 0xFE resets the machine
	powerEventPort = 0x600 // ACPI PM1a event block: status, enable
	powerPort      = 0x604 // ACPI PM1a control: sleep type and enable
	resetPort      = 0xCF9 // reset control of PC chipsets

	// hypercallPort is the port that the hypercall page writes to. 0x7E would
	// collide with a KVM quirk that advances RIP differently.
	hypercallPort = 0x3A
)

// Interrupt lines.
const (
	serialIRQ = 4
	sciIRQ    = 9
)

// apicHz is the local APIC timer's input clock under KVM (one cycle a nanosecond).
const apicHz = 1_000_000_000
