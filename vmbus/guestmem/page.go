package guestmem

import (
	"fmt"
	"sync/atomic"
	"unsafe"
)

// PageSize is the size of a guest page in bytes. It is 4096 whatever the page
// size of the CPU. Source: vmbus-control.md section 0.
const PageSize = 4096

// A slab is one allocation (or mapping) that holds neighbouring pages. It lets
// Contiguous slice across pages without pointer arithmetic.
type slab struct {
	mem []byte // whole pages, 8-byte aligned
}

// A Page is one guest page. The pointer is its identity: a Memory returns the
// same *Page for a PFN for as long as the PFN is backed.
//
// Its methods may be called from any goroutine. They never fail; an offset that
// is misaligned or outside the page panics, because offsets are chosen by our
// own code.
type Page struct {
	data  *[PageSize]byte
	slab  *slab // the allocation data points into
	index int   // place of the page in the slab, in pages
}

// Bytes returns the 4096 bytes of the page for plain access. Bytes which the
// other side may be writing at the same moment must not be read this way.
func (p *Page) Bytes() []byte { return p.data[:] }

// Load32 loads the 32-bit word at offset off, in bytes, a multiple of 4.
func (p *Page) Load32(off int) uint32 { return atomic.LoadUint32(p.word32(off)) }

// Store32 stores the 32-bit word at offset off, in bytes, a multiple of 4.
func (p *Page) Store32(off int, v uint32) { atomic.StoreUint32(p.word32(off), v) }

// CompareAndSwap32 replaces the 32-bit word at offset off, in bytes, a multiple
// of 4, with next if it is old, and reports whether it was.
func (p *Page) CompareAndSwap32(off int, old, next uint32) bool {
	return atomic.CompareAndSwapUint32(p.word32(off), old, next)
}

// Or32 sets the bits of mask in the 32-bit word at offset off, in bytes, a
// multiple of 4, and returns the word as it was before.
func (p *Page) Or32(off int, mask uint32) (old uint32) {
	return atomic.OrUint32(p.word32(off), mask)
}

// And32 clears the bits outside mask in the 32-bit word at offset off, in bytes,
// a multiple of 4, and returns the word as it was before.
func (p *Page) And32(off int, mask uint32) (old uint32) {
	return atomic.AndUint32(p.word32(off), mask)
}

// Load64 loads the 64-bit word at offset off, in bytes, a multiple of 8.
func (p *Page) Load64(off int) uint64 { return atomic.LoadUint64(p.word64(off)) }

// Store64 stores the 64-bit word at offset off, in bytes, a multiple of 8.
func (p *Page) Store64(off int, v uint64) { atomic.StoreUint64(p.word64(off), v) }

// LineSet reports whether any bit is set in the 64 bytes at offset off, a
// multiple of 64. It loads each of the eight 64-bit words once, not all at once.
func (p *Page) LineSet(off int) bool {
	if uint(off) > PageSize-64 || off&63 != 0 {
		panic(offsetPanic{off, 64})
	}
	w := (*[8]uint64)(unsafe.Pointer(&p.data[off]))
	return atomic.LoadUint64(&w[0])|atomic.LoadUint64(&w[1])|atomic.LoadUint64(&w[2])|atomic.LoadUint64(&w[3])|
		atomic.LoadUint64(&w[4])|atomic.LoadUint64(&w[5])|atomic.LoadUint64(&w[6])|atomic.LoadUint64(&w[7]) != 0
}

func (p *Page) word32(off int) *uint32 {
	if uint(off) > PageSize-4 || off&3 != 0 {
		panic(offsetPanic{off, 4})
	}
	return (*uint32)(unsafe.Pointer(&p.data[off]))
}

func (p *Page) word64(off int) *uint64 {
	if uint(off) > PageSize-8 || off&7 != 0 {
		panic(offsetPanic{off, 8})
	}
	return (*uint64)(unsafe.Pointer(&p.data[off]))
}

// An offsetPanic is what a wrong offset panics with. Being a value that formats
// itself later, it leaves the methods above small enough to be inlined.
type offsetPanic struct{ off, wordBytes int }

func (p offsetPanic) Error() string {
	return fmt.Sprintf("guestmem: a %d-byte atomic access at offset %d of a page: "+
		"need a multiple of %d from 0 to %d; this is a bug of the caller",
		p.wordBytes, p.off, p.wordBytes, PageSize-p.wordBytes)
}

// Contiguous returns one slice over all pages if they are neighbours, in this
// order, in one allocation, and false if they are not (or if there are none).
// Only that is a fast path: neighbouring PFNs in separate allocations are not
// contiguous here, and pages with scattered PFNs may be.
func Contiguous(pages []*Page) ([]byte, bool) {
	if len(pages) == 0 {
		return nil, false
	}
	first := pages[0]
	for i, p := range pages {
		if p.slab != first.slab || p.index != first.index+i {
			return nil, false
		}
	}
	from, to := first.index*PageSize, (first.index+len(pages))*PageSize
	return first.slab.mem[from:to:to], true
}

// newSlab allocates zeroed memory for n pages. Asking for words, not bytes,
// makes the alignment part of the type.
func newSlab(n int) *slab {
	words := make([]uint64, n*PageSize/8)
	return &slab{mem: unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), n*PageSize)}
}

// page returns the page at index of the slab.
func (s *slab) page(index int) Page {
	return Page{data: (*[PageSize]byte)(s.mem[index*PageSize:]), slab: s, index: index}
}

// aligned reports whether the slab's memory can hold atomic 64-bit words.
func (s *slab) aligned() bool {
	return uintptr(unsafe.Pointer(unsafe.SliceData(s.mem)))%8 == 0
}
