package ringbuffer

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hvlab/hvlab/vmbus"
)

// TestRequestorModel compares the table with a map: ids are never 0, never in
// use twice, single-use, and an unknown one changes nothing (RG-15, RG-16).
func TestRequestorModel(t *testing.T) {
	const limit = 5
	rapid.Check(t, func(t *rapid.T) {
		q := NewRequestor[int](limit)
		waiting := map[uint64]int{}
		var dropped uint64
		for i := range rapid.IntRange(1, 60).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "begin") {
				id, err := q.Begin(i)
				if len(waiting) == limit {
					require.ErrorIs(t, err, ErrFull, "try again")
					continue
				}
				require.NoError(t, err)
				require.NotZero(t, id, "Hyper-V does not complete a request with id 0")
				require.LessOrEqual(t, id, uint64(limit), "an id is a slot, never an address")
				require.NotContains(t, waiting, id)
				waiting[id] = i
				continue
			}
			id := rapid.SampledFrom([]uint64{0, 1, 2, 3, 4, 5, 6, 1<<64 - 1, 1<<64 - 2, 1<<64 - 3}).Draw(t, "id")
			want, known := waiting[id]
			delete(waiting, id)
			if rapid.Bool().Draw(t, "abandon") {
				got, ok := q.Abandon(id)
				require.Equal(t, known, ok)
				require.Equal(t, want, got)
				continue
			}
			got, err := q.Complete(id)
			require.Equal(t, want, got)
			if !known {
				require.ErrorIs(t, err, vmbus.ErrProtocol)
				dropped++
			}
		}
		require.Equal(t, len(waiting), q.Waiting())
		require.Equal(t, dropped, q.Dropped())
	})
}

// TestRequestorDefaultLimit: 1024 transactions and not one more (faults.md 5).
func TestRequestorDefaultLimit(t *testing.T) {
	q := NewRequestor[string](0)
	for range DefaultTransactions {
		_, err := q.Begin("request")
		require.NoError(t, err)
	}
	var limit *LimitError
	_, err := q.Begin("one more")
	require.ErrorAs(t, err, &limit)
	require.Equal(t, 1024, limit.Limit)
}
