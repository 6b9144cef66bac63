package guestmem

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Layout says how a Heap places the pages of one block.
type Layout int

const (
	// ScatteredPFNs places a block in one slab, so that Contiguous succeeds,
	// under PFNs in no order and never consecutive. The default.
	ScatteredPFNs Layout = iota
	// ScatteredPages gives each page a slab of its own as well, as a
	// fragmented machine would: Contiguous fails for two pages or more.
	ScatteredPages
	// ContiguousPages places a block in one slab under consecutive PFNs.
	ContiguousPages
)

// HeapOptions are the choices of a Heap. The zero value works.
type HeapOptions struct {
	LimitPages int    // most pages in use at once; 0 means DefaultLimitPages
	Seed       uint64 // the same seed and the same calls give the same PFNs
	Layout     Layout
	// Fail is asked before each Alloc of that many pages whether to fail as if the
	// limit were reached; nil never does. Tests use it.
	Fail func(pages int) bool
}

// A Heap is the memory of a simulated guest: the guest allocates blocks of
// pages, the host resolves their PFNs. It may be used from any goroutine.
//
// Freed blocks are kept and handed out again, zeroed, under the same PFNs,
// because ring set-up is on the dial path and fresh memory would dominate it.
type Heap struct {
	limit  int
	layout Layout
	seed   uint64
	fail   func(pages int) bool

	mu     sync.RWMutex
	pages  map[uint64]entry // every page that exists, live or pooled
	free   map[int][]*unit  // pooled units by number of pages, last freed last
	inUse  int              // pages
	pooled int              // pages
	next   uint64           // number of PFNs drawn so far
}

// A unit is the memory of a block. It outlives the block: a Block is made anew
// for each Alloc, so that a stale Block can never free its successor.
type unit struct {
	pfns  []uint64
	pages []*Page
	slabs []*slab
	live  atomic.Bool // its PFNs resolve
	owner *Block      // the one that may free it; guarded by Heap.mu
}

type entry struct {
	page *Page
	unit *unit
}

// A Block is a number of pages that belong together. Its owner may change the
// slices; the Heap has its own.
type Block struct {
	PFNs  []uint64 // PFNs[i] names Pages[i]
	Pages []*Page

	heap  *Heap
	unit  *unit
	freed atomic.Bool
}

// NewHeap returns an empty Heap. A limit above MaxLimitPages is lowered to it.
func NewHeap(o HeapOptions) *Heap {
	if o.LimitPages <= 0 {
		o.LimitPages = DefaultLimitPages
	}
	return &Heap{
		limit:  min(o.LimitPages, MaxLimitPages),
		layout: o.Layout,
		seed:   o.Seed,
		fail:   o.Fail,
		pages:  make(map[uint64]entry),
		free:   make(map[int][]*unit),
	}
}

// Alloc returns a block of n zeroed pages. The error matches ErrState if n is
// not positive and ErrNoMemory if the limit would be exceeded.
func (h *Heap) Alloc(n int) (*Block, error) {
	if n <= 0 {
		return nil, &StateError{Op: "Alloc", Reason: "a block has at least one page"}
	}
	if h.fail != nil && h.fail(n) {
		return nil, &LimitError{Pages: n, InUse: h.InUsePages(), Limit: h.limit}
	}
	u, fresh, err := h.take(n)
	if err != nil {
		return nil, err
	}
	if !fresh { // outside the lock: it is the larger part of the work
		for _, s := range u.slabs {
			clear(s.mem)
		}
	}
	return h.own(u), nil
}

// own makes the block of a unit. A block of that unit that somebody still has may
// not free it any more.
func (h *Heap) own(u *unit) *Block {
	b := &Block{PFNs: slices.Clone(u.pfns), Pages: slices.Clone(u.pages), heap: h, unit: u}
	h.mu.Lock()
	defer h.mu.Unlock()
	u.owner = b
	u.live.Store(true)
	return b
}

// Free returns a block to the heap: its PFNs resolve no longer. Whoever still
// holds its pages shares them with the next owner, as on a real machine. The
// error matches ErrState if the block was freed before or is another heap's.
func (h *Heap) Free(b *Block) error {
	if b == nil || b.heap != h {
		return &StateError{Op: "Free", Reason: "the block is not of this heap"}
	}
	if b.freed.Swap(true) {
		return &StateError{Op: "Free", Reason: "the block was freed before"}
	}
	u, n := b.unit, len(b.unit.pages)
	h.mu.Lock()
	defer h.mu.Unlock()
	if u.owner != b {
		return &StateError{Op: "Free", Reason: "somebody else has adopted the block"}
	}
	u.owner = nil
	u.live.Store(false)
	h.free[n] = append(h.free[n], u)
	h.inUse -= n
	h.pooled += n
	return nil
}

// InUsePages returns the number of pages allocated and not freed.
func (h *Heap) InUsePages() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.inUse
}

// Page returns the page with this PFN, if it is allocated now. The error
// matches ErrNoPage.
func (h *Heap) Page(pfn uint64) (*Page, error) {
	h.mu.RLock()
	e, ok := h.pages[pfn]
	h.mu.RUnlock()
	if !ok || !e.unit.live.Load() {
		return nil, &PageError{PFN: pfn}
	}
	return e.page, nil
}

// take finds or makes a unit of n pages and counts it as in use. A fresh one is
// zero already.
func (h *Heap) take(n int) (u *unit, fresh bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n > h.limit-h.inUse {
		return nil, false, &LimitError{Pages: n, InUse: h.inUse, Limit: h.limit}
	}
	h.inUse += n
	if pool := h.free[n]; len(pool) > 0 {
		u = pool[len(pool)-1]
		pool[len(pool)-1] = nil
		h.free[n] = pool[:len(pool)-1]
		h.pooled -= n
		return u, false, nil
	}
	if h.inUse+h.pooled > h.limit {
		h.drain()
	}
	return h.grow(n), true, nil
}

// drain gives the pooled memory up. It drops all of it: which unit went first
// must not depend on the order of a map, and it happens only near the limit.
func (h *Heap) drain() {
	for n, pool := range h.free {
		for _, u := range pool {
			for _, pfn := range u.pfns {
				delete(h.pages, pfn)
			}
		}
		delete(h.free, n)
	}
	h.pooled = 0
}

// grow makes a new unit of n pages.
func (h *Heap) grow(n int) *unit {
	u := &unit{pfns: make([]uint64, n), pages: make([]*Page, n)}
	pages := make([]Page, n)
	for i := range pages {
		index := i
		if h.layout == ScatteredPages {
			index = 0
			u.slabs = append(u.slabs, newSlab(1))
		} else if i == 0 {
			u.slabs = append(u.slabs, newSlab(n))
		}
		pages[i] = u.slabs[len(u.slabs)-1].page(index)
		u.pages[i] = &pages[i]
		u.pfns[i] = h.draw()
		h.pages[u.pfns[i]] = entry{&pages[i], u}
	}
	return u
}

// draw returns a PFN that no existing page has.
func (h *Heap) draw() uint64 {
	for {
		n := h.next
		h.next++
		pfn := heapFirstPFN + n
		if h.layout != ContiguousPages {
			pfn = scatter(h.seed, uint32(n))
		}
		if _, taken := h.pages[pfn]; !taken { // after 2^32 pages, or by a block that was put there
			return pfn
		}
	}
}

// scatter maps page number n to its PFN: a permutation of the 32-bit numbers,
// keyed by the seed, stretched by three so that no two PFNs are consecutive.
// Most PFNs need more than 32 bits, which finds code that cuts them short.
func scatter(seed uint64, n uint32) uint64 {
	l, r := uint16(n>>16), uint16(n)
	for round := range uint64(4) { // a Feistel network is a permutation whatever mix is
		l, r = r, l^uint16(mix(seed+round<<32+uint64(r)))
	}
	p := uint64(l)<<16 | uint64(r)
	return heapFirstPFN + 3*p + mix(seed^p)&1
}

// mix spreads the bits of x over the result (the finalizer of SplitMix64).
func mix(x uint64) uint64 {
	x += 0x9E3779B97F4A7C15
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}
