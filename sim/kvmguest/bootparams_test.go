package kvmguest

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestLoad checks what the kernel will find, at the offsets of the boot protocol.
func TestLoad(t *testing.T) {
	le := binary.LittleEndian
	img, err := parseKernel("k", tinyBzImage(0x1000))
	require.NoError(t, err)
	initrd := []byte("an initramfs")
	ram := make([]byte, 32<<20)
	for i := range ram {
		ram[i] = 0xA5 // what an earlier boot left must not matter
	}
	g := program{image: img, initrd: initrd, commandLine: "console=ttyS0", cpus: 2}
	entry, err := g.load(ram)
	require.NoError(t, err)
	require.Equal(t, uint64(0x1000200), entry)

	p := ram[bootParamsAddress:][:pageBytes]
	require.Equal(t, uint32(headerMagic), le.Uint32(p[headerMagicAt:]), "the setup header of the image is passed on")
	require.Equal(t, byte(0xFF), p[typeOfLoaderAt])
	require.Equal(t, uint64(acpiAddress), le.Uint64(p[acpiRSDPAt:]))
	require.Equal(t, "console=ttyS0\x00", string(ram[le.Uint32(p[cmdLinePtrAt:]):][:14]), "the command line ends with a zero")
	at := le.Uint32(p[ramdiskImageAt:])
	require.Equal(t, uint32(len(initrd)), le.Uint32(p[ramdiskSizeAt:]))
	require.Equal(t, initrd, ram[at:][:len(initrd)])
	require.Zero(t, at%pageBytes, "Linux frees an initramfs in pages")
	require.GreaterOrEqual(t, uint64(at), img.end, "the kernel would overwrite what lies below")
	require.Equal(t, "RSD PTR ", string(ram[acpiAddress:][:8]))
	require.Equal(t, uint64(codeDescriptor), le.Uint64(ram[gdtAddress+bootCodeSelector:]), "the selector names the code descriptor")

	require.Equal(t, byte(3), p[e820EntriesAt])
	last := p[e820TableAt+2*e820EntryBytes:]
	require.Equal(t, uint64(len(ram)), le.Uint64(last)+le.Uint64(last[8:]), "the last range ends where RAM ends")
}

// TestCommandLineTooLong: the kernel would silently use a part of it.
func TestCommandLineTooLong(t *testing.T) {
	img, err := parseKernel("k", tinyBzImage(0x1000))
	require.NoError(t, err)
	g := program{image: img, commandLine: strings.Repeat("x", 2048), cpus: 1}
	_, err = g.load(make([]byte, 32<<20))
	require.ErrorContains(t, err, "2048 bytes, this kernel takes 2047")
}

// TestPlace: kernel and initramfs never overlap, and both are inside RAM, or a
// *MemoryError says how much would do.
func TestPlace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		img := &kernelImage{
			end:       rapid.Uint64Range(highMemory, 1<<32).Draw(t, "end"),
			initrdMax: rapid.SampledFrom([]uint64{0, 0x37FFFFFF, 0x7FFFFFFF, 0xFFFFFFFF}).Draw(t, "initrdMax"),
		}
		initrd := rapid.Uint64Range(0, 1<<30).Draw(t, "initrd")
		memory := rapid.Uint64Range(minMemoryBytes, maxMemoryBytes).Draw(t, "memory") &^ (pageBytes - 1)
		p, err := place(img, initrd, memory)
		if err != nil {
			var little *MemoryError
			require.ErrorAs(t, err, &little)
			return
		}
		require.LessOrEqual(t, img.end, memory)
		if initrd > 0 {
			require.GreaterOrEqual(t, p.initrdAt, img.end)
			require.LessOrEqual(t, p.initrdAt+initrd, memory)
			require.LessOrEqual(t, p.initrdAt+initrd-1, img.initrdMax)
		}
	})
}

func TestTooLittleMemory(t *testing.T) {
	_, err := place(&kernelImage{end: 60 << 20, initrdMax: elfInitrdMax}, 10<<20, 64<<20)
	require.ErrorContains(t, err, "64 MiB of memory is too little")
	require.ErrorContains(t, err, "at least 71 MiB", "60 + 10 and one page for alignment, rounded up")
}

// TestLayout: the boot structures do not overlap; an overlap would show as a
// triple fault without any hint.
func TestLayout(t *testing.T) {
	type area struct{ from, to uint64 }
	areas := []area{
		{gdtAddress, gdtAddress + uint64(len(descriptorTable()))},
		{bootParamsAddress, bootParamsAddress + pageBytes},
		{pageTableAddress, pageTableAddress + uint64(len(pageTables(pageTableAddress)))},
		{commandLineAt, commandLineAt + maxCommandLine},
		{acpiAddress, acpiAddress + uint64(len(acpiTables(acpiAddress, maxCPUs)))},
		{highMemory, highMemory},
	}
	for i, a := range areas[1:] {
		require.GreaterOrEqual(t, a.from, areas[i].to, "%+v overlaps %+v", a, areas[i])
	}
	require.LessOrEqual(t, uint64(commandLineAt+maxCommandLine), uint64(lowMemoryEnd), "the command line is in RAM")
	ranges := memoryMap(512 << 20)
	require.True(t, slices.IsSortedFunc(ranges, func(a, b e820Range) int { return int(a.address) - int(b.address) }))
}

// TestPageTables walks the tables as the processor does, at the ends and in the middle.
func TestPageTables(t *testing.T) {
	b := pageTables(pageTableAddress)
	entry := func(table uint64, index uint64) uint64 {
		return binary.LittleEndian.Uint64(b[table-pageTableAddress+8*index:])
	}
	for _, address := range []uint64{0, 0x1000200, 0x7FFFFFFF, 0xFFFFFFFF} {
		const addressMask = 0x000FFFFFFFFFF000
		pml4 := entry(pageTableAddress, address>>39&511)
		pdpt := entry(pml4&addressMask, address>>30&511)
		pd := entry(pdpt&addressMask, address>>21&511)
		require.NotZero(t, pd&pteHuge)
		require.Equal(t, address, pd&^(hugePageBytes-1)+address&(hugePageBytes-1), "the map is the identity")
	}
}
