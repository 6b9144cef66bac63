package guestmem

import (
	"sync"
	"sync/atomic"
)

// leafPages is the number of pages whose descriptions are made together, on the
// first look at one of them: 6 KiB. The directory of a 4 GiB virtual machine
// then takes 32 KiB.
const leafPages = 256

type leaf [leafPages]Page

// A Region is memory that somebody else owns, as consecutive guest pages: the
// RAM of a virtual machine, or a mapping shared with another process.
type Region struct {
	first uint64 // PFN of the first page
	count uint64 // pages
	slab  *slab
	dir   []atomic.Pointer[leaf] // filled on demand

	closeOnce sync.Once
	unmap     func() error // nil if the caller owns the memory
	closeErr  error
}

// NewRegion returns a Region over mem, which holds whole pages starting with
// PFN firstPFN. The memory stays the caller's, who must keep it mapped for as
// long as the Region or a Page of it is used.
//
// The error matches ErrState if mem is empty, not a multiple of PageSize, not
// aligned to 8 bytes, or ends above MaxPFN.
func NewRegion(firstPFN uint64, mem []byte) (*Region, error) {
	count := uint64(len(mem) / PageSize)
	r := &Region{first: firstPFN, count: count, slab: &slab{mem: mem}}
	switch {
	case len(mem) == 0 || len(mem)%PageSize != 0:
		return nil, &StateError{Op: "NewRegion", Reason: "the memory is not a positive number of whole pages"}
	case !r.slab.aligned():
		return nil, &StateError{Op: "NewRegion", Reason: "the memory is not aligned to 8 bytes"}
	case firstPFN > MaxPFN || count > MaxPFN+1-firstPFN:
		return nil, &StateError{Op: "NewRegion", Reason: "the memory ends above MaxPFN"}
	}
	r.dir = make([]atomic.Pointer[leaf], (count+leafPages-1)/leafPages)
	return r, nil
}

// FirstPFN returns the PFN of the first page.
func (r *Region) FirstPFN() uint64 { return r.first }

// Pages returns the number of pages.
func (r *Region) Pages() int { return int(r.count) }

// Page returns the page with this PFN. The error matches ErrNoPage.
func (r *Region) Page(pfn uint64) (*Page, error) {
	i := pfn - r.first // wraps to a huge number below the region
	if i >= r.count {
		return nil, &PageError{PFN: pfn}
	}
	l := r.dir[i/leafPages].Load()
	if l == nil {
		l = r.describe(i / leafPages)
	}
	return &l[i%leafPages], nil
}

// describe makes leaf n. Of two goroutines that do so at once, one wins and
// both use its result, for a page has one address.
func (r *Region) describe(n uint64) *leaf {
	l := new(leaf)
	for i := range min(leafPages, r.count-n*leafPages) {
		l[i] = r.slab.page(int(n*leafPages + i))
	}
	if r.dir[n].CompareAndSwap(nil, l) {
		return l
	}
	return r.dir[n].Load()
}

// Close unmaps memory that MapShared mapped. Any later access to a page of it
// faults, so every user must be gone. For other Regions it does nothing.
func (r *Region) Close() error {
	r.closeOnce.Do(func() {
		if r.unmap != nil {
			r.closeErr = r.unmap()
		}
	})
	return r.closeErr
}
