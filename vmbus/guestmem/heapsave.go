package guestmem

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// A SavedBlock is a block of a Heap with its contents.
type SavedBlock struct {
	PFNs  []uint64
	Pages [][]byte // PageSize bytes each; empty for a page of zeros
}

// Save returns the blocks in use, by their first PFN. A plain write to a page
// meanwhile is a data race: nobody may be using a ring.
func (h *Heap) Save() []SavedBlock {
	h.mu.RLock()
	defer h.mu.RUnlock()
	var list []SavedBlock
	for pfn, e := range h.pages {
		if pfn != e.unit.pfns[0] || !e.unit.live.Load() {
			continue
		}
		b := SavedBlock{PFNs: slices.Clone(e.unit.pfns)}
		for _, p := range e.unit.pages {
			b.Pages = append(b.Pages, contents(p))
		}
		list = append(list, b)
	}
	slices.SortFunc(list, func(a, b SavedBlock) int { return cmp.Compare(a.PFNs[0], b.PFNs[0]) })
	return list
}

// contents copies a page, unless it is all zero. It loads words, atomically, since
// a signal that is still on its way may set a bit meanwhile.
func contents(p *Page) []byte {
	var b []byte
	for off := 0; off < PageSize; off += 8 {
		w := p.Load64(off)
		if w != 0 && b == nil {
			b = make([]byte, PageSize)
		}
		if w != 0 {
			binary.LittleEndian.PutUint64(b[off:], w)
		}
	}
	return b
}

// Restore puts blocks into a new heap, under the PFNs they had. They belong to
// nobody until Adopt. The error matches ErrState if the heap was used, ErrNoMemory
// if its limit would be exceeded, and ErrNoPage if a block makes no sense; the
// heap is then useless.
func (h *Heap) Restore(blocks []SavedBlock) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.pages) > 0 {
		return &StateError{Op: "Restore", Reason: "the heap has pages already"}
	}
	for _, b := range blocks {
		n := len(b.PFNs)
		if n == 0 || len(b.Pages) != n {
			return &StateError{Op: "Restore", Reason: "a block has no pages, or not one for each page number"}
		}
		if n > h.limit-h.inUse {
			return &LimitError{Pages: n, InUse: h.inUse, Limit: h.limit}
		}
		if err := h.put(b); err != nil {
			return err
		}
		h.inUse += n
	}
	return nil
}

// put makes the unit of a saved block.
func (h *Heap) put(b SavedBlock) error {
	u := &unit{pfns: slices.Clone(b.PFNs), pages: make([]*Page, len(b.PFNs))}
	pages := make([]Page, len(b.PFNs))
	for i, pfn := range b.PFNs {
		if _, taken := h.pages[pfn]; taken || len(b.Pages[i]) != 0 && len(b.Pages[i]) != PageSize {
			return &PageError{PFN: pfn}
		}
		index := i
		if h.layout == ScatteredPages {
			index = 0
			u.slabs = append(u.slabs, newSlab(1))
		} else if i == 0 {
			u.slabs = append(u.slabs, newSlab(len(b.PFNs)))
		}
		pages[i] = u.slabs[len(u.slabs)-1].page(index)
		copy(pages[i].Bytes(), b.Pages[i])
		u.pages[i] = &pages[i]
		h.pages[pfn] = entry{&pages[i], u}
	}
	u.live.Store(true)
	return nil
}

// Adopt returns the block in use that has exactly these PFNs, in this order: for
// whoever takes over from its owner, whose own Block can free it no longer. The
// error matches ErrNoPage if there is none.
func (h *Heap) Adopt(pfns []uint64) (*Block, error) {
	if len(pfns) == 0 {
		return nil, &StateError{Op: "Adopt", Reason: "a block has at least one page"}
	}
	h.mu.RLock()
	e, ok := h.pages[pfns[0]]
	h.mu.RUnlock()
	if !ok || !e.unit.live.Load() || !slices.Equal(e.unit.pfns, pfns) {
		return nil, &PageError{PFN: pfns[0]}
	}
	return h.own(e.unit), nil
}
