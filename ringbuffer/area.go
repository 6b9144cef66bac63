package ringbuffer

import (
	"encoding/binary"

	"github.com/hvlab/hvlab/vmbus/guestmem"
)

var le = binary.LittleEndian

// area is the data pages of a ring seen as a byte array of size bytes in which
// everything is placed modulo size. Data is accessed plainly: the atomics on
// the indices order it (W1, R1, R2, W2), and the Go memory model forbids a
// compiler to let one plain load be seen as two different values.
//
// How the memory is reached is chosen once: flat when all pages are
// neighbours, else page by page. Either way a place in the ring is one branch
// and one slice away; there is no interface call.
type area struct {
	flat  []byte // nil when the pages are scattered
	pages []*[guestmem.PageSize]byte
	size  uint32 // bytes, multiple of the page size, at most 1<<30
}

func newArea(pages []*guestmem.Page) area {
	a := area{size: uint32(len(pages) * guestmem.PageSize)}
	if flat, ok := guestmem.Contiguous(pages); ok {
		a.flat = flat
		return a
	}
	a.pages = make([]*[guestmem.PageSize]byte, len(pages))
	for i, p := range pages {
		a.pages[i] = (*[guestmem.PageSize]byte)(p.Bytes())
	}
	return a
}

// span is the memory from at to the end of the piece at lies in: the ring's
// end, or the page's. It holds at least one granule if at is aligned.
func (a *area) span(at uint32) []byte {
	if a.flat != nil {
		return a.flat[at:]
	}
	return a.pages[at/guestmem.PageSize][at%guestmem.PageSize:]
}

// wrap brings an offset that has run at most one ring too far back into it.
// An index equal to size is out of range too, and becomes 0.
func (a *area) wrap(at uint32) uint32 {
	if at >= a.size {
		at -= a.size
	}
	return at
}

// distance is how many bytes lie between index from and index to, going
// forward. Equal indices mean an empty ring: 0.
func (a *area) distance(from, to uint32) uint32 {
	if to >= from {
		return to - from
	}
	return a.size - from + to
}

// freeBytes is the raw free space between a write and a read index: size if
// the ring is empty, never 0.
func (a *area) freeBytes(write, read uint32) int { return int(a.size - a.distance(read, write)) }

// load64 loads the granule at an aligned offset.
func (a *area) load64(at uint32) uint64 {
	b := a.span(at)
	if mutating {
		mutate(b[:granuleBytes])
	}
	return le.Uint64(b)
}

// store64 stores the granule at an aligned offset.
func (a *area) store64(at uint32, v uint64) { le.PutUint64(a.span(at), v) }

// copyIn writes b at offset at and returns the offset behind it.
func (a *area) copyIn(at uint32, b []byte) uint32 {
	for len(b) > 0 {
		n := copy(a.span(at), b)
		b = b[n:]
		at = a.wrap(at + uint32(n))
	}
	return at
}

// copyOut fills dst from offset at. dst is at most size bytes long.
func (a *area) copyOut(dst []byte, at uint32) {
	for len(dst) > 0 {
		b := a.span(at)
		if mutating {
			mutate(b[:min(len(b), len(dst))])
		}
		n := copy(dst, b)
		dst = dst[n:]
		at = a.wrap(at + uint32(n))
	}
}
