package ringbuffer

import (
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus"
)

// hostileWord draws a value a peer might store in a control word: valid, almost
// valid, wild.
func hostileWord(rng *rand.Rand) uint32 {
	switch rng.IntN(4) {
	case 0:
		return uint32(rng.IntN(512)) * 8
	case 1:
		return uint32(rng.IntN(4096 + 16))
	case 2:
		return rng.Uint32()
	default:
		return 0
	}
}

// TestHostileControlPage lets a peer store any value in any control word while
// both ends work: every call ends with data or with a protocol error, and
// nothing panics. The words are atomic on both sides, so the race detector must
// stay quiet. (Hostile data: TestHostileData, built without the detector.)
func TestHostileControlPage(t *testing.T) {
	const rounds = 300
	for round := range uint64(rounds) {
		w, r, pages := newRing(t, int(round)%len(pageLayouts), 1, 0)
		var stop atomic.Bool
		var peer sync.WaitGroup
		peer.Go(func() {
			rng := rand.New(rand.NewPCG(round, 1))
			for !stop.Load() {
				v := hostileWord(rng)
				switch rng.IntN(5) {
				case 0:
					pages[0].Store32(offWriteIndex, v)
				case 1:
					pages[0].Store32(offReadIndex, v)
				case 2:
					pages[0].Store32(offMask, v)
				case 3:
					pages[0].Store32(offPendingSize, v)
				case 4:
					pages[0].Store32(offFeatures, v)
				}
			}
		})
		body, buf := make([]byte, 200), make([]byte, 4096)
		for range 200 {
			checkOutcome(t, w.Append(Header{Type: InBand}, nil, body))
			w.Commit()
			_, err := w.SetPending(1000)
			checkOutcome(t, err)
			w.ClearPending()
			_, _, err = r.Next(buf)
			checkOutcome(t, err)
			_, err = r.Readable()
			checkOutcome(t, err)
			r.Mask()
			r.Unmask()
			r.Commit()
			if w.Err() != nil && r.Err() != nil {
				break
			}
		}
		stop.Store(true)
		peer.Wait()
	}
}

// checkOutcome accepts what a call may end with whatever the peer does.
func checkOutcome(t testing.TB, err error) {
	t.Helper()
	var size *SizeError
	if err == nil || errors.Is(err, vmbus.ErrProtocol) || errors.Is(err, ErrEmpty) || errors.Is(err, ErrFull) || errors.As(err, &size) {
		return
	}
	require.NoError(t, err)
}
