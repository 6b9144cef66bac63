package kvmguest

import (
	"encoding/binary"
	"fmt"
)

// Offsets in the first sectors of a bzImage. The same offsets hold in boot_params.
// Source: Linux Documentation/arch/x86/boot.rst, "Details of Header Fields".
const (
	setupHeaderAt      = 0x1F1 // first byte of the setup header
	setupSectsAt       = 0x1F1 // u8: 512-byte sectors of real-mode code after the first; 0 means 4
	sysSizeAt          = 0x1F4 // u32: protected-mode code in 16-byte paragraphs
	bootFlagAt         = 0x1FE // u16: 0xAA55
	headerMagicAt      = 0x202 // "HdrS"
	bootVersionAt      = 0x206 // u16: major << 8 | minor
	jumpOffsetAt       = 0x201 // u8: the header ends this many bytes after headerMagicAt
	loadFlagsAt        = 0x211 // u8
	initrdAddrMaxAt    = 0x22C // u32
	kernelAlignmentAt  = 0x230 // u32
	relocatableAt      = 0x234 // u8
	xloadFlagsAt       = 0x236 // u16
	cmdlineSizeAt      = 0x238 // u32, without the terminating zero
	prefAddressAt      = 0x258 // u64
	initSizeAt         = 0x260 // u32: linear memory needed from the load address on
	minBzImageBytes    = 0x264 // through init_size
	setupHeaderMaxEnd  = 0x290 // where boot_params goes on with other fields
	bootFlag           = 0xAA55
	headerMagic        = 0x53726448 // "HdrS"
	minBootVersion     = 0x020C     // the first with xloadflags
	loadedHigh         = 1 << 0     // loadflags: protected-mode code belongs at or above 1 MiB
	xlfKernel64        = 1 << 0     // xloadflags: 64-bit entry at load address + 0x200
	entry64Offset      = 0x200
	paragraphBytes     = 16
	sectorBytes        = 512
	defaultSetupSects  = 4
	defaultLoadAddress = highMemory
)

func hasBootFlag(b []byte) bool {
	return len(b) >= headerMagicAt && binary.LittleEndian.Uint16(b[bootFlagAt:]) == bootFlag
}

// parseBzImage checks a bzImage. It returns a problem in words, or "".
// Source: Linux Documentation/arch/x86/boot.rst, "64-bit Boot Protocol".
func parseBzImage(b []byte) (img *kernelImage, problem string) {
	le := binary.LittleEndian
	if len(b) < minBzImageBytes {
		return nil, fmt.Sprintf("truncated bzImage: %d bytes, the header alone needs %d", len(b), minBzImageBytes)
	}
	if le.Uint32(b[headerMagicAt:]) != headerMagic {
		return nil, "a boot sector without a Linux setup header"
	}
	if v := le.Uint16(b[bootVersionAt:]); v < minBootVersion {
		return nil, fmt.Sprintf("boot protocol %d.%02d is too old, no 64-bit entry: 2.12 or newer (Linux 3.8) is needed", v>>8, v&0xFF)
	}
	if le.Uint16(b[xloadFlagsAt:])&xlfKernel64 == 0 || b[loadFlagsAt]&loadedHigh == 0 {
		return nil, "no 64-bit entry: this is a 32-bit kernel"
	}
	setupSects := int(b[setupSectsAt])
	if setupSects == 0 {
		setupSects = defaultSetupSects
	}
	setupBytes := (setupSects + 1) * sectorBytes
	codeBytes := int64(le.Uint32(b[sysSizeAt:])) * paragraphBytes
	if codeBytes <= entry64Offset {
		return nil, fmt.Sprintf("bzImage with %d bytes of code, its entry is at %d", codeBytes, entry64Offset)
	}
	// sysSize is rounded up to a paragraph, so up to 15 bytes may be missing in good files.
	if have := int64(len(b) - setupBytes); have <= codeBytes-paragraphBytes {
		return nil, fmt.Sprintf("truncated bzImage: %d bytes of code, the header announces %d", max(have, 0), codeBytes)
	}
	code := b[setupBytes:]
	if int64(len(code)) > codeBytes {
		code = code[:codeBytes] // what follows is a signature
	}

	load := le.Uint64(b[prefAddressAt:])
	if load < highMemory {
		load = defaultLoadAddress
	}
	segments := []segment{{address: load, data: code, memBytes: max(uint64(len(code)), uint64(le.Uint32(b[initSizeAt:])))}}
	end, problem := checkSegments(segments)
	if problem != "" {
		return nil, problem
	}
	headerEnd := min(headerMagicAt+int(b[jumpOffsetAt]), setupHeaderMaxEnd, len(b))
	return &kernelImage{
		segments:           segments,
		entry:              load + entry64Offset,
		end:                end,
		setupHeader:        b[setupHeaderAt:headerEnd],
		initrdMax:          uint64(le.Uint32(b[initrdAddrMaxAt:])),
		maxCommandLineSize: uint64(le.Uint32(b[cmdlineSizeAt:])),
	}, ""
}
