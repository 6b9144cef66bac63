package kvmguest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus"
)

// tinyBzImage is a valid image with codeBytes bytes of code and one setup sector.
func tinyBzImage(codeBytes int) []byte {
	le := binary.LittleEndian
	b := make([]byte, 2*sectorBytes+codeBytes)
	b[setupSectsAt] = 1
	le.PutUint32(b[sysSizeAt:], uint32(codeBytes/paragraphBytes))
	le.PutUint16(b[bootFlagAt:], bootFlag)
	b[jumpOffsetAt] = 0x66 // as in Linux 6: the header ends at 0x268
	le.PutUint32(b[headerMagicAt:], headerMagic)
	le.PutUint16(b[bootVersionAt:], 0x020F)
	b[loadFlagsAt] = loadedHigh
	le.PutUint32(b[initrdAddrMaxAt:], 0x7FFFFFFF)
	le.PutUint16(b[xloadFlagsAt:], xlfKernel64)
	le.PutUint32(b[cmdlineSizeAt:], 2047)
	le.PutUint64(b[prefAddressAt:], 0x1000000)
	le.PutUint32(b[initSizeAt:], 0x100000)
	for i := range codeBytes {
		b[2*sectorBytes+i] = byte(i)
	}
	return b
}

// tinyELF is a valid kernel of one segment: code at address, memBytes in memory.
func tinyELF(address uint64, code []byte, memBytes uint64) []byte {
	const codeAt = elfHeaderBytes + elfProgramHeaderBytes
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Entry: address,
		Phoff: elfHeaderBytes, Ehsize: elfHeaderBytes, Phentsize: elfProgramHeaderBytes, Phnum: 1,
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	p := elf.Prog64{
		Type: uint32(elf.PT_LOAD), Off: codeAt, Vaddr: address, Paddr: address,
		Filesz: uint64(len(code)), Memsz: memBytes,
	}
	var b bytes.Buffer
	for _, v := range []any{h, p, code} {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

func TestParseBzImage(t *testing.T) {
	img, err := parseKernel("k", tinyBzImage(0x1000))
	require.NoError(t, err)
	require.Equal(t, uint64(0x1000200), img.entry, "64-bit entry: load address + 0x200")
	require.Equal(t, uint64(0x1100000), img.end, "init_size says how much the kernel overwrites, not the size of the file")
	require.Len(t, img.segments[0].data, 0x1000)
	require.Equal(t, byte(1), img.segments[0].data[1], "code starts after the setup sectors")
	require.Len(t, img.setupHeader, 0x268-setupHeaderAt)
}

func TestParseELF(t *testing.T) {
	img, err := parseKernel("k", tinyELF(0x1000000, []byte{0xF4}, 0x5000))
	require.NoError(t, err)
	require.Equal(t, uint64(0x1000000), img.entry)
	require.Equal(t, uint64(0x1005000), img.end, "memory counts, not file size: the rest is zeroes")
}

// TestBadImages names what is wrong with an image, so that the user knows what to do.
func TestBadImages(t *testing.T) {
	bz := func(change func(b []byte)) []byte {
		b := tinyBzImage(0x1000)
		change(b)
		return b
	}
	le := binary.LittleEndian
	tests := []struct {
		name, want string
		image      []byte
	}{
		{"text", "neither a bzImage", []byte("hello")},
		{"gzip", "compressed", []byte{0x1F, 0x8B, 8, 0}},
		{"boot sector only", "truncated bzImage", tinyBzImage(0)[:sectorBytes+4]},
		{"no Linux header", "without a Linux setup header", bz(func(b []byte) { b[headerMagicAt] = 0 })},
		{"old protocol", "boot protocol 2.11", bz(func(b []byte) { le.PutUint16(b[bootVersionAt:], 0x020B) })},
		{"32-bit", "32-bit kernel", bz(func(b []byte) { b[xloadFlagsAt] = 0 })},
		{"zImage", "32-bit kernel", bz(func(b []byte) { b[loadFlagsAt] = 0 })},
		{"half a file", "truncated bzImage: 2048 bytes of code, the header announces 4096", tinyBzImage(0x1000)[:2*sectorBytes+0x800]},
		{"no code", "entry is at 512", tinyBzImage(0x100)},
		{"load address", "above 3 GiB", bz(func(b []byte) { le.PutUint64(b[prefAddressAt:], 1<<40) })},
		{"ELF header", "truncated ELF header", []byte(elf.ELFMAG)},
		{"ELF code", "truncated ELF file", tinyELF(0x1000000, make([]byte, 100), 100)[:150]},
		{"ELF program headers", "truncated ELF file", tinyELF(0x1000000, nil, 100)[:100]},
		{"ELF low", "under 1 MiB", tinyELF(0x1000, []byte{0xF4}, 1)},
		{"ELF sizes", "100 bytes in the file and 1 in memory", tinyELF(0x1000000, make([]byte, 100), 1)},
		{"ELF empty", "lies in no loaded segment", tinyELF(0x1000000, nil, 100)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := parseKernel("some/kernel", test.image)
			var bad *ImageError
			require.ErrorAs(t, err, &bad)
			require.ErrorIs(t, err, vmbus.ErrState, "a bad file is the caller's choice, not the guest's fault")
			require.ErrorContains(t, err, test.want)
			require.ErrorContains(t, err, "some/kernel")
		})
	}
}

// TestTruncatedAnywhere cuts valid images at every length: an error, never a panic.
func TestTruncatedAnywhere(t *testing.T) {
	for name, image := range map[string][]byte{"bzImage": tinyBzImage(0x400), "ELF": tinyELF(0x1000000, make([]byte, 64), 64)} {
		for n := range len(image) - paragraphBytes { // fewer than a paragraph may be missing, see parseBzImage
			if _, err := parseKernel(name, image[:n]); err == nil {
				t.Fatalf("%s cut to %d of %d bytes was accepted", name, n, len(image))
			}
		}
	}
}

func TestReadImage(t *testing.T) {
	dir := t.TempDir()
	_, err := readImage(filepath.Join(dir, "absent"))
	require.ErrorIs(t, err, os.ErrNotExist)
	empty := filepath.Join(dir, "empty")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	_, err = readImage(empty)
	require.ErrorContains(t, err, "empty", "an interrupted download leaves such a file")
}

// FuzzParseKernel: what is accepted can be loaded into RAM that is large enough
// by the parser's own account, and the first instruction is inside it.
func FuzzParseKernel(f *testing.F) {
	f.Add(tinyBzImage(0x400))
	f.Add(tinyELF(0x1000000, []byte{0xF4}, 0x5000))
	f.Add(tinyELF(0x100000, make([]byte, 200), 200))
	ram := make([]byte, 64<<20)
	f.Fuzz(func(t *testing.T, b []byte) {
		img, err := parseKernel("fuzz", b)
		if err != nil {
			return
		}
		g := program{image: img, initrd: []byte("initrd"), commandLine: "", cpus: 1}
		entry, err := g.load(ram)
		if err != nil {
			return // needs more than this RAM, or takes no command line at all
		}
		if entry < highMemory || entry >= img.end || img.end > uint64(len(ram)) {
			t.Fatalf("entry %#x, end %#x", entry, img.end)
		}
	})
}
