package fuzz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"

	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// Offsets in a ring's control page. Source: ringbuffer.md 2.
const (
	offWriteIndex  = 0
	offReadIndex   = 4
	offMask        = 8
	offPendingSize = 12
	offFeatures    = 64
)

// ringLayouts are the ways in which a ring's pages can lie in memory.
var ringLayouts = []guestmem.Layout{guestmem.ContiguousPages, guestmem.ScatteredPages}

// newPages returns a control page and dataPages data pages.
func newPages(layout guestmem.Layout, dataPages int) []*guestmem.Page {
	block, err := guestmem.NewHeap(guestmem.HeapOptions{Layout: layout}).Alloc(1 + dataPages)
	if err != nil {
		panic(err) // a few pages always fit
	}
	return block.Pages
}

// poke copies data into the data area from byte at on, around its end.
func poke(pages []*guestmem.Page, at int, data []byte) {
	size := (len(pages) - 1) * guestmem.PageSize
	for i := range min(len(data), size) {
		p := (at + i) % size
		pages[1+p/guestmem.PageSize].Bytes()[p%guestmem.PageSize] = data[i]
	}
}

// A ringState is what a hostile writer left for a reader.
type ringState struct {
	dataPages                      int
	read, write, pending, features uint32
	data                           []byte // from the read index on
}

// ringState takes a byte for the size, then the control words, then data.
func (in *input) ringState() ringState {
	s := ringState{dataPages: 1 + int(in.u8()%3), read: in.u32(), write: in.u32(), pending: in.u32(), features: in.u32()}
	s.data = in.bytes(s.dataPages * guestmem.PageSize)
	return s
}

// seed is the input that ringState reads as s.
func (s ringState) seed() seed {
	return seed{byte(s.dataPages - 1)}.u32(s.read).u32(s.write).u32(s.pending).u32(s.features).bytes(s.data)
}

func (s ringState) pages(layout guestmem.Layout) []*guestmem.Page {
	pages := newPages(layout, s.dataPages)
	size := uint32(s.dataPages * guestmem.PageSize)
	poke(pages, int(s.read%size), s.data)
	pages[0].Store32(offReadIndex, s.read)
	pages[0].Store32(offWriteIndex, s.write)
	pages[0].Store32(offPendingSize, s.pending)
	pages[0].Store32(offFeatures, s.features)
	return pages
}

// A ringOutcome is everything a reader got out of a ring.
type ringOutcome struct {
	headers []ringbuffer.Header
	body    []byte // extensions and payloads
	signal  bool
	end     string // the error that ended it
}

func (o *ringOutcome) equal(p *ringOutcome) bool {
	if len(o.headers) != len(p.headers) {
		return false
	}
	for i := range o.headers {
		if o.headers[i] != p.headers[i] {
			return false
		}
	}
	return bytes.Equal(o.body, p.body) && o.signal == p.signal && o.end == p.end
}

// RingReader reads a ring whose data area and control words are arbitrary, over
// contiguous and scattered pages, and once more along the fast path.
func RingReader(data []byte) error {
	s := (&input{data}).ringState()
	var outcomes []*ringOutcome
	for _, layout := range ringLayouts {
		o, err := readRing(s, s.pages(layout))
		if err != nil || o == nil {
			return err
		}
		outcomes = append(outcomes, o)
	}
	if !outcomes[0].equal(outcomes[1]) {
		return violated("scattered as contiguous", "%+v\n%+v", outcomes[0], outcomes[1])
	}
	for _, layout := range ringLayouts {
		o := runRing(s.pages(layout))
		if len(o.headers) != len(outcomes[0].headers) || o.signal != outcomes[0].signal || o.end != outcomes[0].end {
			return violated("fast as slow", "%+v\n%+v", outcomes[0], o)
		}
	}
	return nil
}

// readRing reads packet by packet. It returns nil, nil if there is no Reader for
// such a ring.
func readRing(s ringState, pages []*guestmem.Page) (*ringOutcome, error) {
	size := uint32(s.dataPages * guestmem.PageSize)
	r, err := ringbuffer.NewReader(pages)
	if err != nil {
		if !errors.Is(err, vmbus.ErrProtocol) || s.read < size && s.read%8 == 0 {
			return nil, violated("I-INDEX", "read index %d is refused: %v", s.read, err)
		}
		return nil, nil
	}
	o := &ringOutcome{}
	var taken uint32
	for {
		h, err := r.Peek()
		if err != nil {
			o.end = err.Error()
			if err := checkEnd(r, err, s, taken, pages); err != nil {
				return nil, err
			}
			break
		}
		buf := make([]byte, h.PayloadBytes)
		if n := r.CopyPayload(buf, 0); n != len(buf) {
			return nil, violated("I-LEN", "%d of %d payload bytes", n, len(buf))
		}
		o.headers = append(o.headers, h)
		o.body = append(append(o.body, r.Extension()...), buf...)
		taken += uint32(h.TotalBytes())
		r.Advance()
		if taken > size-8 {
			return nil, violated("I-INDEX", "%d bytes were read of a ring of %d", taken, size)
		}
		if again, _ := r.Peek(); len(o.headers) > int(size)/ringbuffer.OverheadBytes {
			return nil, violated("I-PREFIX", "a packet is read twice: %+v", again)
		}
	}
	o.signal = r.Commit()
	want := s.read
	if r.Err() == nil {
		want = (s.read + taken) % size
	}
	if got := pages[0].Load32(offReadIndex); got != want && (r.Err() == nil || got != (s.read+taken)%size) {
		return nil, violated("I-INDEX", "the read index is %d after %d bytes from %d", got, taken, s.read)
	}
	if got := pages[0].Load32(offWriteIndex); got != s.write {
		return nil, violated("I-INDEX", "the peer's index was %d and is %d", s.write, got)
	}
	return o, nil
}

// checkEnd: a ring is read to the byte, or dead for good whatever it becomes.
func checkEnd(r *ringbuffer.Reader, err error, s ringState, taken uint32, pages []*guestmem.Page) error {
	size := uint32(s.dataPages * guestmem.PageSize)
	if errors.Is(err, ringbuffer.ErrEmpty) {
		if (s.read+taken)%size != s.write {
			return violated("I-PREFIX", "read from %d, %d bytes; empty, and the write index is %d", s.read, taken, s.write)
		}
		return nil
	}
	if !errors.Is(err, vmbus.ErrProtocol) || r.Err() == nil {
		return violated("whose fault", "%v, %v", err, r.Err())
	}
	pages[0].Store32(offWriteIndex, pages[0].Load32(offReadIndex)) // an empty ring is valid
	if _, again := r.Peek(); again == nil || again.Error() != err.Error() {
		return violated("I-CORRUPT-STICKY", "%v, and then %v", err, again)
	}
	pages[0].Store32(offWriteIndex, s.write)
	return nil
}

// runRing reads with Run, SmallPacket and Skip where they serve, and packet by
// packet elsewhere.
func runRing(pages []*guestmem.Page) *ringOutcome {
	o := &ringOutcome{}
	r, err := ringbuffer.NewReader(pages)
	if err != nil {
		panic(err) // the same pages were taken before
	}
	for {
		run := r.Run()
		packets, n := 0, 0
		for n < len(run) {
			packetBytes, _, ok := ringbuffer.SmallPacket(run[n:])
			if !ok {
				break
			}
			packets, n = packets+1, n+packetBytes
			o.headers = append(o.headers, ringbuffer.Header{})
		}
		r.Skip(packets, n)
		if packets > 0 {
			continue
		}
		if err := r.Hold(); err != nil {
			o.end = err.Error()
			break
		}
		o.headers = append(o.headers, ringbuffer.Header{})
		r.Advance()
	}
	o.signal = r.Commit()
	return o
}

func ringReaderSeeds(vectors fs.FS) ([][]byte, error) {
	var seeds [][]byte
	for _, line := range FaultLines("ring") {
		b := line.Parts[0]
		for _, at := range []uint32{0, 4088} { // the second wraps around in the descriptor
			s := ringState{dataPages: 1, read: at, write: (at + uint32(len(b))) % 4096, features: 1, data: b}
			seeds = append(seeds, s.seed())
		}
	}
	for _, line := range FaultLines("word") {
		pages := newPages(guestmem.ContiguousPages, 1)
		le := binary.LittleEndian
		pages[0].Store32(int(le.Uint32(line.Parts[0])), le.Uint32(line.Parts[0][4:]))
		s := ringState{dataPages: 1, write: pages[0].Load32(offWriteIndex), pending: pages[0].Load32(offPendingSize), features: 1 | pages[0].Load32(offFeatures)}
		seeds = append(seeds, s.seed())
	}
	recorded, err := ringVectors(vectors)
	for _, v := range recorded {
		s := ringState{dataPages: 1, read: uint32(v.offset), write: uint32(v.offset+len(v.data)) % 4096, features: 1, data: v.data}
		seeds = append(seeds, s.seed())
		s.dataPages, s.read, s.write, s.pending = 2, 8192-8, uint32(len(v.data)-8), 100 // over the end of two pages
		seeds = append(seeds, s.seed())
	}
	return seeds, err
}
