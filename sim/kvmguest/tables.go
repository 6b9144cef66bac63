package kvmguest

import "encoding/binary"

// Selectors that the 64-bit boot protocol demands.
// Source: Linux Documentation/arch/x86/boot.rst, "64-bit Boot Protocol".
const (
	bootCodeSelector = 0x10
	bootDataSelector = 0x18
)

// Segment descriptors: flat, present, ring 0, accessed; code is 64-bit.
const (
	codeDescriptor = 0x00AF9B000000FFFF
	dataDescriptor = 0x00CF93000000FFFF
)

// descriptorTable is the GDT at gdtAddress: null, unused, code, data.
func descriptorTable() []byte {
	var b []byte
	for _, d := range []uint64{0, 0, codeDescriptor, dataDescriptor} {
		b = binary.LittleEndian.AppendUint64(b, d)
	}
	return b
}

// Bits of a page table entry.
const (
	ptePresent  = 1 << 0
	pteWritable = 1 << 1
	pteHuge     = 1 << 7 // in a page directory: a 2 MiB page
)

const (
	entriesPerTable = 512
	hugePageBytes   = 2 << 20
	directories     = 4 // GiB mapped
)

// pageTables maps the first 4 GiB onto themselves in 2 MiB pages: PML4, PDPT
// and four page directories, in that order from address on. The kernel builds
// its own tables at once; it only has to reach its image and boot_params.
func pageTables(address uint64) []byte {
	b := make([]byte, (2+directories)*pageBytes)
	put := func(table, index int, v uint64) {
		binary.LittleEndian.PutUint64(b[table*pageBytes+index*8:], v)
	}
	put(0, 0, address+1*pageBytes|ptePresent|pteWritable)
	for d := range directories {
		put(1, d, address+uint64(2+d)*pageBytes|ptePresent|pteWritable)
		for i := range entriesPerTable {
			to := uint64(d*entriesPerTable+i) * hugePageBytes
			put(2+d, i, to|ptePresent|pteWritable|pteHuge)
		}
	}
	return b
}
