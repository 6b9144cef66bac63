package kvmguest

import (
	"encoding/binary"
	"fmt"
)

// Offsets in boot_params that are not in the setup header of the image.
// Source: Linux Documentation/arch/x86/zero-page.rst.
const (
	acpiRSDPAt      = 0x070 // u64
	e820EntriesAt   = 0x1E8 // u8
	typeOfLoaderAt  = 0x210 // u8
	ramdiskImageAt  = 0x218 // u32
	ramdiskSizeAt   = 0x21C // u32
	cmdLinePtrAt    = 0x228 // u32
	e820TableAt     = 0x2D0 // entries of e820EntryBytes
	e820EntryBytes  = 20
	loaderUndefined = 0xFF // type_of_loader: no id assigned

	// kernelAlignment is written for an ELF kernel, which has no header to copy it from.
	kernelAlignment = 0x1000000
)

// Types of an E820 range. Source: ACPI specification, "Address Range Types".
const (
	e820RAM      = 1
	e820Reserved = 2
)

type e820Range struct {
	address, bytes uint64
	kind           uint32
}

// memoryMap is what the guest is told about its RAM: the low 640 KiB less the
// extended BIOS data area, the ACPI tables, and everything from 1 MiB on.
func memoryMap(memoryBytes uint64) []e820Range {
	return []e820Range{
		{0, lowMemoryEnd, e820RAM},
		{acpiAddress, acpiEnd - acpiAddress, e820Reserved},
		{highMemory, memoryBytes - highMemory, e820RAM},
	}
}

// A placement says where the parts of one boot lie in guest memory.
type placement struct {
	initrdAt uint64 // 0 without an initramfs
}

// place puts the initramfs as high as the kernel allows, on a page, and checks
// that kernel and initramfs fit. The error is a *MemoryError.
func place(img *kernelImage, initrdBytes, memoryBytes uint64) (placement, error) {
	var p placement
	need := img.end + initrdBytes + pageBytes // the page is what alignment may cost
	if initrdBytes == 0 {
		need = img.end
	}
	if need > memoryBytes {
		return p, &MemoryError{HaveBytes: int64(memoryBytes), NeedBytes: int64(need)}
	}
	if initrdBytes == 0 {
		return p, nil
	}
	top := min(memoryBytes, img.initrdMax+1)
	if top < initrdBytes || (top-initrdBytes)&^(pageBytes-1) < img.end {
		return p, &MemoryError{HaveBytes: int64(top), NeedBytes: int64(need)}
	}
	p.initrdAt = (top - initrdBytes) &^ (pageBytes - 1)
	return p, nil
}

// bootParams builds the page that RSI points to when the kernel is entered.
func bootParams(img *kernelImage, at placement, initrdBytes, memoryBytes uint64) []byte {
	le := binary.LittleEndian
	p := make([]byte, pageBytes)
	if img.setupHeader != nil {
		copy(p[setupHeaderAt:], img.setupHeader)
	} else {
		le.PutUint16(p[bootFlagAt:], bootFlag)
		le.PutUint32(p[headerMagicAt:], headerMagic)
		le.PutUint16(p[bootVersionAt:], minBootVersion)
		p[loadFlagsAt] = loadedHigh
		le.PutUint32(p[kernelAlignmentAt:], kernelAlignment)
	}
	p[typeOfLoaderAt] = loaderUndefined
	le.PutUint32(p[ramdiskImageAt:], uint32(at.initrdAt))
	le.PutUint32(p[ramdiskSizeAt:], uint32(initrdBytes))
	le.PutUint32(p[cmdLinePtrAt:], commandLineAt)
	le.PutUint64(p[acpiRSDPAt:], acpiAddress)

	ranges := memoryMap(memoryBytes)
	p[e820EntriesAt] = byte(len(ranges))
	for i, r := range ranges {
		e := p[e820TableAt+i*e820EntryBytes:]
		le.PutUint64(e[0:], r.address)
		le.PutUint64(e[8:], r.bytes)
		le.PutUint32(e[16:], r.kind)
	}
	return p
}

// A program is everything that a boot writes into guest memory.
type program struct {
	image       *kernelImage
	initrd      []byte
	commandLine string
	cpus        int
}

// load writes the whole boot state into ram, which may hold what an earlier boot
// left. It returns the guest physical address of the first instruction. The error is a
// *MemoryError or an *OptionError.
func (g *program) load(ram []byte) (entry uint64, err error) {
	if limit := min(g.image.maxCommandLineSize, maxCommandLine-1); uint64(len(g.commandLine)) > limit {
		return 0, &OptionError{"Append", fmt.Sprintf("%d bytes, this kernel takes %d", len(g.commandLine), limit)}
	}
	at, err := place(g.image, uint64(len(g.initrd)), uint64(len(ram)))
	if err != nil {
		return 0, err
	}
	for _, s := range g.image.segments {
		n := copy(ram[s.address:], s.data)
		clear(ram[s.address+uint64(n) : s.address+s.memBytes])
	}
	clear(ram[:highMemory])
	copy(ram[at.initrdAt:], g.initrd)
	copy(ram[commandLineAt:], g.commandLine)
	copy(ram[bootParamsAddress:], bootParams(g.image, at, uint64(len(g.initrd)), uint64(len(ram))))
	copy(ram[gdtAddress:], descriptorTable())
	copy(ram[pageTableAddress:], pageTables(pageTableAddress))
	copy(ram[acpiAddress:acpiEnd], acpiTables(acpiAddress, g.cpus))
	return g.image.entry, nil
}
