package guestmem_test

import (
	"bytes"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	_ "github.com/hvlab/hvlab/internal/fixedseed" // the same draws in every run
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

func yield() { runtime.Gosched() }

// By default a block looks like one of a real machine: PFNs in no order, no two
// of them neighbours.
func TestPFNsAreScattered(t *testing.T) {
	for seed := range uint64(50) {
		h := guestmem.NewHeap(guestmem.HeapOptions{Seed: seed})
		var all []uint64
		wide := 0
		for range 20 {
			block, err := h.Alloc(10)
			require.NoError(t, err)
			require.False(t, slices.IsSorted(block.PFNs), "sorted by chance: once in 10! blocks")
			for _, pfn := range block.PFNs {
				require.LessOrEqual(t, pfn, uint64(guestmem.MaxPFN))
				require.GreaterOrEqual(t, pfn, uint64(0x1000), "small numbers are never PFNs")
				if pfn > 1<<32 {
					wide++
				}
			}
			all = append(all, block.PFNs...)
		}
		slices.Sort(all)
		for i := range all[1:] {
			require.Greater(t, all[i+1]-all[i], uint64(1), "PFNs %#x and %#x", all[i], all[i+1])
		}
		require.Greater(t, wide, len(all)/4, "code that cuts PFNs to 32 bits must be found")
	}
}

func TestContiguousLayoutHasConsecutivePFNs(t *testing.T) {
	h := guestmem.NewHeap(guestmem.HeapOptions{Layout: guestmem.ContiguousPages})
	for range 3 {
		block, err := h.Alloc(5)
		require.NoError(t, err)
		for i := range block.PFNs {
			require.Equal(t, block.PFNs[0]+uint64(i), block.PFNs[i])
		}
	}
}

// A deterministic world must find the same pages in each run.
func TestSameSeedSamePFNs(t *testing.T) {
	script := func(seed uint64) (pfns []uint64) {
		h := guestmem.NewHeap(guestmem.HeapOptions{Seed: seed, LimitPages: 40})
		var blocks []*guestmem.Block
		for _, n := range []int{1, 10, 3, 10, 1, 12} {
			block, err := h.Alloc(n)
			require.NoError(t, err)
			blocks = append(blocks, block)
			pfns = append(pfns, block.PFNs...)
		}
		for _, i := range []int{3, 0, 1} {
			require.NoError(t, h.Free(blocks[i]))
		}
		for _, n := range []int{10, 5, 1} { // pooled, then over the limit: the pool is given up
			block, err := h.Alloc(n)
			require.NoError(t, err)
			pfns = append(pfns, block.PFNs...)
		}
		return pfns
	}
	require.Equal(t, script(7), script(7))
	require.NotEqual(t, script(7), script(8))
}

func TestFreedPagesDoNotResolve(t *testing.T) {
	h := guestmem.NewHeap(guestmem.HeapOptions{})
	block, err := h.Alloc(4)
	require.NoError(t, err)
	pages, err := guestmem.Resolve(h, block.PFNs)
	require.NoError(t, err)
	require.Equal(t, block.Pages, pages)

	require.NoError(t, h.Free(block))
	for _, pfn := range block.PFNs {
		_, err := h.Page(pfn)
		require.ErrorIs(t, err, guestmem.ErrNoPage)
	}
	_, err = guestmem.Resolve(h, block.PFNs)
	require.ErrorIs(t, err, guestmem.ErrNoPage, "Resolve keeps the cause")
	var missing *guestmem.PageError
	require.ErrorAs(t, err, &missing)
	require.Equal(t, block.PFNs[0], missing.PFN)
}

// Pooled memory goes to another channel: nothing of the last one may be in it.
func TestReusedPagesAreZero(t *testing.T) {
	for _, layout := range []guestmem.Layout{guestmem.ScatteredPFNs, guestmem.ScatteredPages, guestmem.ContiguousPages} {
		h := guestmem.NewHeap(guestmem.HeapOptions{Layout: layout})
		block, err := h.Alloc(3)
		require.NoError(t, err)
		for _, p := range block.Pages {
			copy(p.Bytes(), bytes.Repeat([]byte{0xA5}, guestmem.PageSize))
		}
		require.NoError(t, h.Free(block))
		again, err := h.Alloc(3)
		require.NoError(t, err)
		require.Same(t, block.Pages[0], again.Pages[0], "the memory is pooled")
		for _, p := range again.Pages {
			require.Equal(t, make([]byte, guestmem.PageSize), p.Bytes())
		}
	}
}

func TestFreeRefuses(t *testing.T) {
	h := guestmem.NewHeap(guestmem.HeapOptions{})
	block, err := h.Alloc(2)
	require.NoError(t, err)
	foreign, err := guestmem.NewHeap(guestmem.HeapOptions{}).Alloc(2)
	require.NoError(t, err)

	require.ErrorIs(t, h.Free(foreign), guestmem.ErrState, "another heap's block")
	require.ErrorIs(t, h.Free(nil), guestmem.ErrState)
	require.ErrorIs(t, h.Free(&guestmem.Block{PFNs: block.PFNs}), guestmem.ErrState, "a forged block")
	require.Equal(t, 2, h.InUsePages(), "a refused Free frees nothing")

	require.NoError(t, h.Free(block))
	require.ErrorIs(t, h.Free(block), guestmem.ErrState, "double free")
	successor, err := h.Alloc(2)
	require.NoError(t, err)
	require.ErrorIs(t, h.Free(block), guestmem.ErrState, "a stale block must not free its successor")
	_, err = h.Page(successor.PFNs[0])
	require.NoError(t, err)
}

func TestLimit(t *testing.T) {
	h := guestmem.NewHeap(guestmem.HeapOptions{LimitPages: 10})
	for _, n := range []int{0, -1} {
		_, err := h.Alloc(n)
		require.ErrorIs(t, err, guestmem.ErrState)
	}
	_, err := h.Alloc(11)
	require.ErrorIs(t, err, guestmem.ErrNoMemory)
	_, err = h.Alloc(1 << 62)
	require.ErrorIs(t, err, guestmem.ErrNoMemory, "no overflow, no allocation")

	var blocks []*guestmem.Block
	for range 5 {
		block, err := h.Alloc(2)
		require.NoError(t, err)
		blocks = append(blocks, block)
	}
	_, err = h.Alloc(1)
	var limit *guestmem.LimitError
	require.ErrorAs(t, err, &limit)
	require.Equal(t, guestmem.LimitError{Pages: 1, InUse: 10, Limit: 10}, *limit)

	for _, block := range blocks {
		require.NoError(t, h.Free(block))
	}
	require.Zero(t, h.InUsePages())
	block, err := h.Alloc(10)
	require.NoError(t, err, "blocks of other sizes in the pool must not count against the limit")
	require.Equal(t, 10, h.InUsePages())
	_, err = h.Page(blocks[0].PFNs[0])
	require.ErrorIs(t, err, guestmem.ErrNoPage)
	require.NoError(t, h.Free(block))
}

// A Block's owner may do what it likes with the slices.
func TestBlockSlicesAreTheOwners(t *testing.T) {
	h := guestmem.NewHeap(guestmem.HeapOptions{})
	block, err := h.Alloc(2)
	require.NoError(t, err)
	want := slices.Clone(block.PFNs)
	slices.Reverse(block.PFNs)
	block.Pages[0] = nil
	require.NoError(t, h.Free(block))
	again, err := h.Alloc(2)
	require.NoError(t, err)
	require.Equal(t, want, again.PFNs)
	require.NotNil(t, again.Pages[0])
}

// Whatever is allocated and freed, in whatever order, live pages are distinct,
// resolve to themselves, hold what their owner wrote, and are counted.
func TestHeapAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 60).Draw(t, "limit")
		h := guestmem.NewHeap(guestmem.HeapOptions{
			LimitPages: limit,
			Seed:       rapid.Uint64().Draw(t, "seed"),
			Layout:     guestmem.Layout(rapid.IntRange(0, 2).Draw(t, "layout")),
		})
		type owned struct {
			block *guestmem.Block
			mark  uint64
		}
		var live []owned
		inUse, mark := 0, uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"alloc": func(t *rapid.T) {
				n := rapid.IntRange(1, 12).Draw(t, "pages")
				block, err := h.Alloc(n)
				if n > limit-inUse {
					require.ErrorIs(t, err, guestmem.ErrNoMemory)
					return
				}
				require.NoError(t, err)
				mark++
				for _, p := range block.Pages {
					require.Zero(t, p.Load64(0))
					p.Store64(0, mark)
				}
				inUse += n
				live = append(live, owned{block, mark})
			},
			"free": func(t *rapid.T) {
				if len(live) == 0 {
					t.Skip("nothing to free")
				}
				i := rapid.IntRange(0, len(live)-1).Draw(t, "block")
				require.NoError(t, h.Free(live[i].block))
				inUse -= len(live[i].block.PFNs)
				live = slices.Delete(live, i, i+1)
			},
			"": func(t *rapid.T) {
				require.Equal(t, inUse, h.InUsePages())
				seen := map[uint64]bool{}
				for _, o := range live {
					for i, pfn := range o.block.PFNs {
						require.False(t, seen[pfn], "PFN %#x has two owners", pfn)
						seen[pfn] = true
						p, err := h.Page(pfn)
						require.NoError(t, err)
						require.Same(t, o.block.Pages[i], p)
						require.Equal(t, o.mark, p.Load64(0))
					}
				}
			},
		})
	})
}

// Many channels open and close at once, while a host resolves whatever it was
// told, including pages that have gone.
func TestHeapConcurrently(t *testing.T) {
	const workers, rounds, pages = 4, 300, 6
	h := guestmem.NewHeap(guestmem.HeapOptions{LimitPages: workers * pages})
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			var stale []uint64
			for i := range rounds {
				n := 1 + (w+i)%pages
				block, err := h.Alloc(n)
				if err != nil {
					t.Errorf("worker %d: %v", w, err)
					return
				}
				for _, p := range block.Pages {
					if p.Load64(8) != 0 {
						t.Error("a page came with another owner's data")
					}
					p.Store64(8, uint64(w)+1)
				}
				if _, err := guestmem.Resolve(h, block.PFNs); err != nil {
					t.Error(err)
				}
				for _, pfn := range stale {
					_, _ = h.Page(pfn) // may belong to anybody by now; it must not race
				}
				for _, p := range block.Pages {
					if p.Load64(8) != uint64(w)+1 {
						t.Error("two owners of a page")
					}
				}
				stale = block.PFNs
				if err := h.Free(block); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	require.Zero(t, h.InUsePages())
}

// Errors are for people: they say what and where.
func TestErrorTexts(t *testing.T) {
	h := guestmem.NewHeap(guestmem.HeapOptions{LimitPages: 4})
	_, err := h.Alloc(5)
	require.EqualError(t, err, "guestmem: cannot allocate 5 pages: 0 of 4 are in use")
	require.EqualError(t, h.Free(nil), "guestmem: Free: the block is not of this heap")
	_, err = guestmem.Resolve(h, []uint64{0x77})
	require.EqualError(t, err, "page 0 of 1: guestmem: PFN 0x77 is not backed")
}

// Ring set-up is on the dial path: a pooled block costs a Block and its two
// slices, and no memory for pages.
func TestPooledAllocIsCheap(t *testing.T) {
	h := guestmem.NewHeap(guestmem.HeapOptions{})
	perRun := testing.AllocsPerRun(100, func() {
		block, err := h.Alloc(ringPages)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Free(block); err != nil {
			t.Fatal(err)
		}
	})
	require.LessOrEqual(t, perRun, 3.0)
}
