package main

import (
	"encoding/binary"
	"regexp"
	"sync/atomic"

	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

const (
	ringContiguous = "ring"
	ringScattered  = "ring scattered"
	ringFloor      = "floor"
)

// openPackets: one packet written and read on one goroutine, each with its own
// commit, over rings of 5 pages; and the least that Go code could do for that.
func openPackets(payloadBytes int, only *regexp.Regexp) ([]candidate, error) {
	var all []candidate
	for _, layout := range []struct {
		name   string
		layout guestmem.Layout
	}{{ringContiguous, guestmem.ContiguousPages}, {ringScattered, guestmem.ScatteredPages}} {
		if !only.MatchString(layout.name) {
			continue
		}
		block, err := guestmem.NewHeap(guestmem.HeapOptions{Layout: layout.layout, Seed: 1}).Alloc(5)
		if err != nil {
			return nil, err
		}
		c, err := openPacket(block.Pages, payloadBytes)
		if err != nil {
			return nil, err
		}
		c.name = layout.name
		all = append(all, c)
	}
	if only.MatchString(ringFloor) {
		all = append(all, openFloor(payloadBytes))
	}
	return all, nil
}

func openPacket(pages []*guestmem.Page, payloadBytes int) (candidate, error) {
	if err := ringbuffer.Init(pages); err != nil {
		return candidate{}, err
	}
	w, err := ringbuffer.NewWriter(pages)
	if err != nil {
		return candidate{}, err
	}
	r, err := ringbuffer.NewReader(pages)
	if err != nil {
		return candidate{}, err
	}
	payload, buf := make([]byte, payloadBytes), make([]byte, payloadBytes)
	return candidate{
		run: func(n int) error {
			for range n {
				if err := w.Append(ringbuffer.Header{Type: ringbuffer.InBand}, nil, payload); err != nil {
					return err
				}
				w.Commit()
				if _, _, err := r.Next(buf); err != nil {
					return err
				}
				r.Commit()
			}
			return nil
		},
		close: func() {},
	}, nil
}

// openFloor does what no ring can leave out: descriptor, payload and footer in,
// index stored, the other index loaded; index and descriptor loaded, payload
// out, index stored, two words loaded. Nothing is checked and nothing wraps.
func openFloor(payloadBytes int) candidate {
	ring := make([]byte, 16<<10)
	payload, buf := make([]byte, payloadBytes), make([]byte, payloadBytes)
	var control [16]atomic.Uint32 // in one page, as in a ring
	total := uint32(24 + payloadBytes)
	le := binary.LittleEndian
	return candidate{
		name: ringFloor,
		run: func(n int) error {
			at, seen := uint32(0), uint32(0)
			for range n {
				if at+total > uint32(len(ring)) {
					at = 0
				}
				b := ring[at : at+total]
				le.PutUint64(b, uint64(total)<<32|6)
				le.PutUint64(b[8:], 0)
				copy(b[16:], payload)
				le.PutUint64(b[16+payloadBytes:], uint64(at)<<32)
				control[0].Store(at + total)
				seen += control[1].Load()

				end := control[0].Load()
				seen += uint32(le.Uint64(b)) + uint32(le.Uint64(b[8:]))
				copy(buf, b[16:16+payloadBytes])
				control[1].Store(end)
				seen += control[3].Load()
				at = end
			}
			control[8].Store(seen)
			return nil
		},
		close: func() {},
	}
}
