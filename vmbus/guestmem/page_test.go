package guestmem_test

import (
	"encoding/binary"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/hvlab/hvlab/vmbus/guestmem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The words of the protocol are little-endian: an atomic word and the bytes
// under it must be the same thing, at the first and at the last offset.
func TestWordsAreLittleEndianBytes(t *testing.T) {
	for _, off := range []int{0, 8, guestmem.PageSize - 8} {
		p := newPage(t)
		p.Store64(off, 0x0807060504030201)
		require.Equal(t, []byte{1, 2, 3, 4, 5, 6, 7, 8}, p.Bytes()[off:off+8])
		require.Equal(t, uint32(0x04030201), p.Load32(off))
		require.Equal(t, uint32(0x08070605), p.Load32(off+4), "32-bit words need only be aligned to 4")
		binary.LittleEndian.PutUint32(p.Bytes()[off+4:], 0xCAFE)
		require.Equal(t, uint64(0xCAFE_04030201), p.Load64(off))
	}
}

func TestReadModifyWriteReturnsTheOldWord(t *testing.T) {
	p := newPage(t)
	require.Zero(t, p.Or32(12, 0b0110), "the word before the first bit was set")
	require.Equal(t, uint32(0b0110), p.Or32(12, 0b0011))
	require.Equal(t, uint32(0b0111), p.And32(12, 0b0101), "Or32 had set all three")
	require.False(t, p.CompareAndSwap32(12, 7, 1), "And32 had cleared one of them")
	require.True(t, p.CompareAndSwap32(12, 5, 9))
	require.Equal(t, uint32(9), p.Load32(12))
	require.Zero(t, p.Load32(8), "the word before is another one")
	require.Zero(t, p.Load32(16), "the word behind is another one")
}

// A line is 64 bytes: a bit in any of them is found, and none in its neighbours.
func TestLineSet(t *testing.T) {
	for _, off := range []int{0, 64, guestmem.PageSize - 64} {
		for bit := range 512 {
			p := newPage(t)
			p.Bytes()[off+bit/8] = 1 << (bit % 8)
			require.True(t, p.LineSet(off))
			require.False(t, p.LineSet((off+64)%guestmem.PageSize), "the line behind is another one")
		}
	}
}

// Offsets are our own: a wrong one is a bug, and must not become an access to
// something else.
func TestBadOffsetsPanic(t *testing.T) {
	p := newPage(t)
	ops32 := map[string]func(int){
		"Load32":           func(off int) { p.Load32(off) },
		"Store32":          func(off int) { p.Store32(off, 1) },
		"Or32":             func(off int) { p.Or32(off, 1) },
		"And32":            func(off int) { p.And32(off, 1) },
		"CompareAndSwap32": func(off int) { p.CompareAndSwap32(off, 0, 1) },
	}
	ops64 := map[string]func(int){
		"Load64":  func(off int) { p.Load64(off) },
		"Store64": func(off int) { p.Store64(off, 1) },
	}
	lines := map[string]func(int){"LineSet": func(off int) { p.LineSet(off) }}
	check := func(ops map[string]func(int), wordBytes int, offsets ...int) {
		for name, op := range ops {
			for _, off := range offsets {
				want := fmt.Sprintf("guestmem: a %d-byte atomic access at offset %d of a page: "+
					"need a multiple of %d from 0 to %d; this is a bug of the caller",
					wordBytes, off, wordBytes, guestmem.PageSize-wordBytes)
				require.PanicsWithError(t, want, func() { op(off) }, name)
			}
		}
	}
	check(ops32, 4, -4, -1, 1, 2, 3, 4093, 4094, 4096, 8192, -1<<63, 1<<62)
	check(ops64, 8, -8, -1, 1, 4, 4092, 4089, 4096, -1<<63, 1<<62)
	check(lines, 64, -64, -1, 8, 32, 4033, 4096, -1<<63, 1<<62)
	require.Equal(t, make([]byte, guestmem.PageSize), p.Bytes(), "a refused store stores nothing")
}

// Contiguity is a matter of allocations, not of PFNs.
func TestContiguous(t *testing.T) {
	alloc := func(layout guestmem.Layout, n int) []*guestmem.Page {
		block, err := guestmem.NewHeap(guestmem.HeapOptions{Layout: layout}).Alloc(n)
		require.NoError(t, err)
		return block.Pages
	}
	one := alloc(guestmem.ScatteredPFNs, 4)
	other := alloc(guestmem.ContiguousPages, 4)
	region, err := guestmem.NewRegion(7, make([]byte, 4*guestmem.PageSize))
	require.NoError(t, err)
	inRegion, err := guestmem.Resolve(region, []uint64{8, 9})
	require.NoError(t, err)

	for _, tc := range []struct {
		name  string
		pages []*guestmem.Page
		want  bool
	}{
		{"nothing", nil, false},
		{"a single page", one[2:3], true},
		{"a block with scattered PFNs", one, true},
		{"a block with consecutive PFNs", other, true},
		{"the end of a block", one[1:], true},
		{"pages of a region", inRegion, true},
		{"the last page of a block", one[3:], true},
		{"each page a slab", alloc(guestmem.ScatteredPages, 2), false},
		{"out of order", []*guestmem.Page{one[1], one[0]}, false},
		{"the same page twice, as a hostile GPADL may have it", []*guestmem.Page{one[0], one[0]}, false},
		{"a gap", []*guestmem.Page{one[0], one[2]}, false},
		{"two allocations", []*guestmem.Page{one[0], other[1]}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			mem, ok := guestmem.Contiguous(tc.pages)
			require.Equal(t, tc.want, ok)
			if !ok {
				require.Nil(t, mem)
				return
			}
			require.Len(t, mem, len(tc.pages)*guestmem.PageSize)
			require.Equal(t, len(mem), cap(mem), "an append must not run into the next page")
			for i, p := range tc.pages {
				require.Same(t, &p.Bytes()[0], &mem[i*guestmem.PageSize], "page %d", i)
			}
		})
	}
}

// The message-passing pattern every ring relies on, for the race detector:
// plain bytes, handed over by an atomic word.
func TestAWordHandsBytesOver(t *testing.T) {
	const rounds = 2000
	p := newPage(t)
	var wg sync.WaitGroup
	turn := func(mine, theirs uint32, byteOff int) {
		for i := range rounds {
			for p.Load32(0) != mine+2*uint32(i) {
				yield()
			}
			p.Bytes()[byteOff]++
			p.Bytes()[100]++ // shared: the word says whose turn it is
			p.Store32(0, theirs+2*uint32(i))
		}
	}
	wg.Go(func() { turn(0, 1, 64) })
	wg.Go(func() { turn(1, 2, 65) })
	wg.Wait()
	require.Equal(t, uint32(2*rounds), p.Load32(0))
	total := 2 * rounds // a variable: the byte wraps
	require.Equal(t, byte(total), p.Bytes()[100], "every increment was seen by the other side")
}
