package guestmem

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHeapSaveAndRestore(t *testing.T) {
	for _, layout := range []Layout{ScatteredPFNs, ScatteredPages, ContiguousPages} {
		h := NewHeap(HeapOptions{Layout: layout, Seed: 5})
		first, err := h.Alloc(3)
		require.NoError(t, err)
		freed, err := h.Alloc(2)
		require.NoError(t, err)
		require.NoError(t, h.Free(freed))
		second, err := h.Alloc(1)
		require.NoError(t, err)
		first.Pages[1].Store32(8, 77)

		saved := h.Save()
		require.Len(t, saved, 2, "a freed block is not in use")
		r := NewHeap(HeapOptions{Layout: layout, Seed: 5})
		require.NoError(t, r.Restore(saved))
		require.Equal(t, saved, r.Save())
		require.Equal(t, 4, r.InUsePages())
		p, err := r.Page(first.PFNs[1])
		require.NoError(t, err)
		require.EqualValues(t, 77, p.Load32(8))
		first.Pages[1].Store32(8, 78)
		require.EqualValues(t, 77, p.Load32(8), "it is a copy")

		more, err := r.Alloc(3)
		require.NoError(t, err)
		for _, pfn := range more.PFNs { // the same seed draws the same numbers again
			require.NotContains(t, append(first.PFNs, second.PFNs...), pfn)
		}
		b, err := r.Adopt(first.PFNs)
		require.NoError(t, err)
		require.EqualValues(t, 77, b.Pages[1].Load32(8))
		again, err := r.Adopt(first.PFNs)
		require.NoError(t, err)
		require.ErrorIs(t, r.Free(b), ErrState, "its place was taken")
		require.NoError(t, r.Free(again))
		require.ErrorIs(t, r.Free(again), ErrState)
		_, err = r.Adopt(first.PFNs)
		require.ErrorIs(t, err, ErrNoPage, "it is free")
		_, err = r.Page(first.PFNs[0])
		require.ErrorIs(t, err, ErrNoPage)
	}
}

func TestHeapRestoreRefusals(t *testing.T) {
	page := make([]byte, PageSize)
	for name, blocks := range map[string][]SavedBlock{
		"no pages":      {{}},
		"page missing":  {{PFNs: []uint64{1, 2}, Pages: [][]byte{page}}},
		"short page":    {{PFNs: []uint64{1}, Pages: [][]byte{page[1:]}}},
		"twice":         {{PFNs: []uint64{1, 1}, Pages: [][]byte{nil, nil}}},
		"of two blocks": {{PFNs: []uint64{1}, Pages: [][]byte{nil}}, {PFNs: []uint64{1}, Pages: [][]byte{nil}}},
		"too many":      {{PFNs: []uint64{1, 2, 3, 4}, Pages: make([][]byte, 4)}},
	} {
		require.Error(t, NewHeap(HeapOptions{LimitPages: 3}).Restore(blocks), name)
	}
	h := NewHeap(HeapOptions{})
	b, err := h.Alloc(2)
	require.NoError(t, err)
	require.ErrorIs(t, h.Restore(nil), ErrState, "it is in use")
	for _, pfns := range [][]uint64{nil, {99}, b.PFNs[:1], {b.PFNs[1], b.PFNs[0]}} {
		_, err := h.Adopt(pfns)
		require.Error(t, err)
	}
	require.NoError(t, h.Free(b))
}
