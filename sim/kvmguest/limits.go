package kvmguest

// Limits on what a caller or an image file may ask for.
const (
	// maxImageBytes bounds a kernel or initramfs file, which is read whole.
	// Distribution initramfs images are some tens of MiB.
	maxImageBytes = 1 << 30

	// minMemoryBytes leaves room for the boot structures and the smallest kernel.
	minMemoryBytes = 32 << 20

	// maxMemoryBytes keeps RAM in one piece below the devices at 0xE0000000.
	maxMemoryBytes = 3 << 30

	// maxCPUs keeps every APIC id in one byte of the MADT with room to spare.
	maxCPUs = 16

	// maxSegments bounds the program headers of an ELF kernel; Linux has 4 or 5.
	maxSegments = 64

	// maxNotes bounds the different unusual events that one run reports through Options.Log.
	maxNotes = 64

	// maxConsoleInputBytes bounds typed bytes that the guest has not read yet.
	maxConsoleInputBytes = 4096
)
