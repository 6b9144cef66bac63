package kvmguest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
)

var elfMagic = []byte(elf.ELFMAG)

// Sizes fixed by the ELF64 format.
const (
	elfHeaderBytes        = 64
	elfProgramHeaderBytes = 56
)

// An uncompressed kernel has no setup header that would tell these; the values
// are those of every 64-bit kernel (Linux arch/x86/boot/header.S, COMMAND_LINE_SIZE).
const (
	elfInitrdMax      = 0x7FFFFFFF
	elfMaxCommandLine = 2047
)

// parseELF checks an uncompressed x86-64 kernel (vmlinux). Its entry point and
// the physical addresses of its PT_LOAD segments are used as they are. It
// returns a problem in words, or "".
// Source: System V ABI, "Object Files"; Linux arch/x86/kernel/vmlinux.lds.S.
func parseELF(b []byte) (img *kernelImage, problem string) {
	var h elf.Header64
	if len(b) < elfHeaderBytes {
		return nil, fmt.Sprintf("truncated ELF header: %d bytes of %d", len(b), elfHeaderBytes)
	}
	if elf.Class(b[elf.EI_CLASS]) != elf.ELFCLASS64 || elf.Data(b[elf.EI_DATA]) != elf.ELFDATA2LSB {
		return nil, "no 64-bit entry: a 64-bit little-endian ELF file is needed"
	}
	if err := binary.Read(bytes.NewReader(b), binary.LittleEndian, &h); err != nil {
		return nil, "bad ELF header: " + err.Error()
	}
	switch {
	case elf.Machine(h.Machine) != elf.EM_X86_64:
		return nil, fmt.Sprintf("no 64-bit entry: ELF machine %s, x86-64 is needed", elf.Machine(h.Machine))
	case elf.Type(h.Type) != elf.ET_EXEC:
		return nil, fmt.Sprintf("ELF type %s is no kernel: an executable vmlinux is needed", elf.Type(h.Type))
	case h.Phentsize != elfProgramHeaderBytes || h.Phnum == 0 || h.Phnum > maxSegments:
		return nil, fmt.Sprintf("%d ELF program headers of %d bytes: 1 to %d of %d bytes are needed", h.Phnum, h.Phentsize, maxSegments, elfProgramHeaderBytes)
	case !within(h.Phoff, uint64(h.Phnum)*elfProgramHeaderBytes, len(b)):
		return nil, "truncated ELF file: the program headers lie behind its end"
	}
	segments, problem := loadSegments(b, h)
	if problem != "" {
		return nil, problem
	}
	end, problem := checkSegments(segments)
	if problem != "" {
		return nil, problem
	}
	if !entryInside(segments, h.Entry) {
		return nil, fmt.Sprintf("the ELF entry %#x lies in no loaded segment", h.Entry)
	}
	return &kernelImage{
		segments: segments, entry: h.Entry, end: end,
		initrdMax: elfInitrdMax, maxCommandLineSize: elfMaxCommandLine,
	}, ""
}

// loadSegments collects the PT_LOAD segments; the program headers are inside b.
func loadSegments(b []byte, h elf.Header64) (segments []segment, problem string) {
	for i := range uint64(h.Phnum) {
		var p elf.Prog64
		at := h.Phoff + i*elfProgramHeaderBytes
		if err := binary.Read(bytes.NewReader(b[at:at+elfProgramHeaderBytes]), binary.LittleEndian, &p); err != nil {
			return nil, "bad ELF program header: " + err.Error()
		}
		if elf.ProgType(p.Type) != elf.PT_LOAD || p.Memsz == 0 {
			continue
		}
		if p.Filesz > p.Memsz {
			return nil, fmt.Sprintf("ELF segment %d has %d bytes in the file and %d in memory", i, p.Filesz, p.Memsz)
		}
		if !within(p.Off, p.Filesz, len(b)) {
			return nil, fmt.Sprintf("truncated ELF file: segment %d ends at %d, the file at %d", i, p.Off+p.Filesz, len(b))
		}
		segments = append(segments, segment{address: p.Paddr, data: b[p.Off : p.Off+p.Filesz], memBytes: p.Memsz})
	}
	if len(segments) == 0 {
		return nil, "the ELF file has nothing to load"
	}
	return segments, ""
}

// within reports whether n bytes from offset at lie in a file of size bytes; no
// sum can overflow.
func within(at, n uint64, size int) bool {
	return at <= uint64(size) && n <= uint64(size)-at
}

// entryInside reports whether entry is in the file part of a segment.
func entryInside(segments []segment, entry uint64) bool {
	for _, s := range segments {
		if entry >= s.address && entry-s.address < uint64(len(s.data)) {
			return true
		}
	}
	return false
}
