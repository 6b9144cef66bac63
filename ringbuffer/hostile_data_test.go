//go:build !race

// The peer of this file stores plain bytes under the reader's copies: a data
// race, as hostile peers cause them and as the detector would rightly report.

package ringbuffer

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestHostileData rewrites descriptors, extensions and payloads while they are
// parsed: no panic, no access outside the ring, and ranges that were accepted
// stay consistent with themselves.
func TestHostileData(t *testing.T) {
	ext, err := AppendGPADirect(nil, []GPARange{{ByteCount: 8192, ByteOffset: 8, PFNs: []uint64{1, 2, 3}}})
	require.NoError(t, err)
	for round := range uint64(200) {
		w, r, pages := newRing(t, int(round)%len(pageLayouts), 1, 4000)
		data := make([][]byte, len(pages)-1)
		for i, p := range pages[1:] {
			data[i] = p.Bytes()
		}
		var stop atomic.Bool
		var peer sync.WaitGroup
		peer.Go(func() {
			rng := rand.New(rand.NewPCG(round, 2))
			for !stop.Load() {
				page := data[rng.IntN(len(data))]
				at := rng.IntN(512) * 8
				le.PutUint64(page[at:], uint64(rng.IntN(16))|uint64(rng.IntN(12))<<16|uint64(rng.IntN(80))<<32|uint64(rng.IntN(3))<<48)
				page[rng.IntN(4096)] = byte(rng.Uint32())
			}
		})
		buf := make([]byte, 4096)
		for i := range 300 {
			h := Header{Type: InBand}
			if i%2 == 0 {
				h = Header{Type: GPADirect, Flags: FlagCompletion, ExtBytes: len(ext)}
			}
			checkOutcome(t, w.Append(h, ext[:h.ExtBytes], buf[:100]))
			w.Commit()
			h, err := r.Peek()
			checkOutcome(t, err)
			if err != nil {
				break
			}
			require.LessOrEqual(t, h.TotalBytes(), 4096)
			require.LessOrEqual(t, r.CopyPayload(buf, 0), h.PayloadBytes)
			if h.Type == GPADirect {
				ranges, err := ParseGPADirect(r.Extension())
				require.NoError(t, err, "what Peek accepted is what is parsed")
				require.NotEmpty(t, ranges)
			}
			r.Advance()
			r.Commit()
		}
		stop.Store(true)
		peer.Wait()
	}
}
