package guestmem_test

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus/guestmem"
)

func TestRegionBounds(t *testing.T) {
	const first = 0x100
	mem := make([]byte, 300*guestmem.PageSize) // one description full, one partly
	r, err := guestmem.NewRegion(first, mem)
	require.NoError(t, err)
	require.Equal(t, uint64(first), r.FirstPFN())
	require.Equal(t, 300, r.Pages())

	for _, i := range []uint64{0, 1, 255, 256, 299} {
		p, err := r.Page(first + i)
		require.NoError(t, err)
		require.Same(t, &mem[i*guestmem.PageSize], &p.Bytes()[0], "it is the caller's memory")
		again, err := r.Page(first + i)
		require.NoError(t, err)
		require.Same(t, p, again, "a PFN has one *Page")
	}
	for _, pfn := range []uint64{0, first - 1, first + 300, first + 511, 1 << 40, 1<<52 | first, 1<<64 - 1} {
		_, err := r.Page(pfn)
		require.ErrorIs(t, err, guestmem.ErrNoPage, "PFN %#x", pfn)
	}
	require.NoError(t, r.Close(), "the memory is the caller's: nothing to do")
}

func TestNewRegionRefuses(t *testing.T) {
	mem := make([]byte, 3*guestmem.PageSize)
	for _, tc := range []struct {
		name     string
		firstPFN uint64
		mem      []byte
	}{
		{"no memory", 0, nil},
		{"part of a page", 0, mem[:guestmem.PageSize-8]},
		{"a page and a half", 0, mem[:guestmem.PageSize*3/2]},
		{"misaligned: atomic words would straddle", 0, mem[4 : 4+guestmem.PageSize]},
		{"an end above the address space", guestmem.MaxPFN, mem},
		{"an end that wraps", 1<<64 - 1, mem},
	} {
		_, err := guestmem.NewRegion(tc.firstPFN, tc.mem)
		require.ErrorIs(t, err, guestmem.ErrState, tc.name)
	}
	r, err := guestmem.NewRegion(guestmem.MaxPFN-2, mem)
	require.NoError(t, err, "the last pages there can be")
	_, err = r.Page(guestmem.MaxPFN)
	require.NoError(t, err)
}

// Two processors may name a page for the first time at once; a page has one
// address all the same.
func TestRegionFirstLookConcurrently(t *testing.T) {
	for range 50 {
		r, err := guestmem.NewRegion(0, make([]byte, 2*guestmem.PageSize))
		require.NoError(t, err)
		var seen [4]*guestmem.Page
		var wg sync.WaitGroup
		for i := range seen {
			wg.Go(func() { seen[i], _ = r.Page(1) })
		}
		wg.Wait()
		for _, p := range seen {
			require.NotNil(t, p)
			require.Same(t, seen[0], p)
		}
	}
}
