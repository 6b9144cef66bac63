package guestmem

const (
	// DefaultLimitPages is the limit of a Heap whose options name none: 1 GiB,
	// room for 2047 channels with the largest rings Linux opens, in pages.
	DefaultLimitPages = 1 << 18

	// MaxLimitPages is the highest limit of a Heap (16 GiB), in pages.
	MaxLimitPages = 1 << 22

	// MaxPFN is the highest PFN: physical addresses of x86-64 have 52 bits.
	MaxPFN = 1<<40 - 1

	// heapFirstPFN keeps a Heap's pages clear of the first 16 MiB, so that a
	// zero or a small number read as a PFN by mistake resolves to nothing.
	heapFirstPFN = 0x1000
)
