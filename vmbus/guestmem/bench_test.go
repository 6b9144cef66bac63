package guestmem_test

import (
	"testing"

	"github.com/hvlab/hvlab/vmbus/guestmem"
)

const ringPages = 10 // two rings of five pages, what a connection needs

// Ring set-up is on the dial path: a pooled block must cost little more than
// zeroing its 40 KiB.
func BenchmarkAllocFree(b *testing.B) {
	for _, layout := range []struct {
		name   string
		layout guestmem.Layout
	}{
		{"scattered-pfns", guestmem.ScatteredPFNs},
		{"scattered-pages", guestmem.ScatteredPages},
		{"contiguous", guestmem.ContiguousPages},
	} {
		b.Run(layout.name, func(b *testing.B) {
			h := guestmem.NewHeap(guestmem.HeapOptions{Layout: layout.layout})
			b.ReportAllocs()
			for b.Loop() {
				block, err := h.Alloc(ringPages)
				if err != nil {
					b.Fatal(err)
				}
				_ = h.Free(block)
			}
		})
	}
}

// What a block costs that is not pooled, for comparison.
func BenchmarkAllocFresh(b *testing.B) {
	h := guestmem.NewHeap(guestmem.HeapOptions{LimitPages: 1000 * ringPages})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := h.Alloc(ringPages); err != nil {
			h = guestmem.NewHeap(guestmem.HeapOptions{LimitPages: 1000 * ringPages})
		}
	}
}

func BenchmarkResolve(b *testing.B) {
	h := guestmem.NewHeap(guestmem.HeapOptions{})
	block, err := h.Alloc(ringPages)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := guestmem.Resolve(h, block.PFNs); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRegionPage(b *testing.B) {
	r, err := guestmem.NewRegion(0x100, make([]byte, 1024*guestmem.PageSize))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for i := uint64(0); b.Loop(); i++ {
		if _, err := r.Page(0x100 + i%1024); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoad32(b *testing.B) {
	p := newPage(b)
	for b.Loop() {
		_ = p.Load32(4)
	}
}

func BenchmarkContiguous(b *testing.B) {
	block, err := guestmem.NewHeap(guestmem.HeapOptions{}).Alloc(ringPages)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := guestmem.Contiguous(block.Pages); !ok {
			b.Fatal("one slab holds the block")
		}
	}
}

func newPage(t testing.TB) *guestmem.Page {
	block, err := guestmem.NewHeap(guestmem.HeapOptions{}).Alloc(1)
	if err != nil {
		t.Fatal(err)
	}
	return block.Pages[0]
}
