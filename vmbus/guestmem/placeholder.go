// PLACEHOLDER by the lead so that others compile: the owner of this folder deletes this file.
package guestmem

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"
)

const PageSize = 4096

type Page struct {
	b    *[PageSize]byte
	slab []byte
	idx  int
}

func (p *Page) Bytes() []byte         { return p.b[:] }
func (p *Page) w32(off int) *uint32   { return (*uint32)(unsafe.Pointer(&p.b[off])) }
func (p *Page) w64(off int) *uint64   { return (*uint64)(unsafe.Pointer(&p.b[off])) }
func (p *Page) Load32(off int) uint32 { return atomic.LoadUint32(p.w32(off)) }
func (p *Page) Store32(off int, v uint32) {
	atomic.StoreUint32(p.w32(off), v)
}
func (p *Page) CompareAndSwap32(off int, o, n uint32) bool {
	return atomic.CompareAndSwapUint32(p.w32(off), o, n)
}
func (p *Page) Or32(off int, v uint32) uint32  { return atomic.OrUint32(p.w32(off), v) }
func (p *Page) And32(off int, v uint32) uint32 { return atomic.AndUint32(p.w32(off), v) }
func (p *Page) Load64(off int) uint64          { return atomic.LoadUint64(p.w64(off)) }
func (p *Page) Store64(off int, v uint64)      { atomic.StoreUint64(p.w64(off), v) }

type Memory interface {
	Page(pfn uint64) (*Page, error)
}

var ErrNoPage = errors.New("no page")

func Resolve(m Memory, pfns []uint64) ([]*Page, error) {
	var l []*Page
	for _, n := range pfns {
		p, err := m.Page(n)
		if err != nil {
			return nil, err
		}
		l = append(l, p)
	}
	return l, nil
}
func Contiguous(pages []*Page) ([]byte, bool) {
	for i, p := range pages {
		if &p.slab[0] != &pages[0].slab[0] || p.idx != pages[0].idx+i {
			return nil, false
		}
	}
	s := pages[0]
	return s.slab[s.idx*PageSize : (s.idx+len(pages))*PageSize], true
}

type Layout int

const (
	ScatteredPFNs Layout = iota
	ScatteredPages
	ContiguousPages
)

type HeapOptions struct {
	LimitPages int
	Seed       uint64
	Layout     Layout
}
type Heap struct {
	mu    sync.RWMutex
	pages map[uint64]*Page
	next  uint64
}
type Block struct {
	PFNs  []uint64
	Pages []*Page
}

func NewHeap(HeapOptions) *Heap { return &Heap{pages: map[uint64]*Page{}, next: 0x100} }
func (h *Heap) Page(pfn uint64) (*Page, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if p := h.pages[pfn]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("%w %#x", ErrNoPage, pfn)
}
func (h *Heap) Alloc(n int) (*Block, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	words := make([]uint64, n*PageSize/8)
	slab := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), n*PageSize)
	b := &Block{}
	for i := range n {
		p := &Page{b: (*[PageSize]byte)(slab[i*PageSize:]), slab: slab, idx: i}
		h.pages[h.next] = p
		b.PFNs = append(b.PFNs, h.next)
		b.Pages = append(b.Pages, p)
		h.next += 3
	}
	return b, nil
}
func (h *Heap) Free(b *Block) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range b.PFNs {
		delete(h.pages, n)
	}
	return nil
}
func (h *Heap) InUsePages() int { h.mu.RLock(); defer h.mu.RUnlock(); return len(h.pages) }

// Region placeholder.
type Region struct {
	first uint64
	pages []*Page
}

func NewRegion(first uint64, mem []byte) (*Region, error) {
	r := &Region{first: first}
	for i := range len(mem) / PageSize {
		r.pages = append(r.pages, &Page{b: (*[PageSize]byte)(mem[i*PageSize:]), slab: mem, idx: i})
	}
	return r, nil
}
func (r *Region) Page(pfn uint64) (*Page, error) {
	if pfn < r.first || pfn-r.first >= uint64(len(r.pages)) {
		return nil, ErrNoPage
	}
	return r.pages[pfn-r.first], nil
}
