package ringbuffer

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestNoAllocations: the data path allocates nothing, on any layout, wrapping
// or not; also with an extension, once its buffer has grown, and when waiting.
func TestNoAllocations(t *testing.T) {
	ext := AppendTransferPages(nil, TransferPageSet{TransferRanges: make([]TransferRange, 4)})
	body, buf := make([]byte, 900), make([]byte, 1024)
	for layout := range pageLayouts {
		w, r, _ := newRing(t, layout, 1, 0)
		allocs := testing.AllocsPerRun(200, func() {
			if w.Append(Header{Type: InBand}, nil, body) != nil ||
				w.Append(Header{Type: TransferPages, ExtBytes: len(ext)}, ext, body) != nil {
				panic("append")
			}
			w.Commit()
			if _, err := w.SetPending(4000); err != nil {
				panic(err)
			}
			for range 2 {
				if _, _, err := r.Next(buf); err != nil {
					panic(err)
				}
			}
			if _, err := r.Peek(); err != ErrEmpty {
				panic(err)
			}
			r.Commit()
			w.ClearPending()
		})
		require.Zero(t, allocs, pageLayouts[layout].name)
	}
}

// TestRequestorNoAllocations: a table that has grown serves for ever.
func TestRequestorNoAllocations(t *testing.T) {
	q := NewRequestor[int](4)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		id, err := q.Begin(1)
		if err != nil {
			panic(err)
		}
		if _, err := q.Complete(id); err != nil {
			panic(err)
		}
	}))
}
