package campaign

import (
	"context"
	"testing"

	"github.com/hvlab/hvlab/sim/world"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestShards: every seed is in exactly one shard, also if there are fewer seeds
// than shards.
func TestShards(t *testing.T) {
	for _, seeds := range []uint64{1, 2, 3, 7, 8, 9} {
		for _, count := range []int{1, 2, 3, 8} {
			sum := uint64(0)
			for index := range count {
				sum += Shard{index, count}.size(seeds)
			}
			require.Equal(t, seeds, sum, "%d seeds, %d shards", seeds, count)
		}
	}
	for _, bad := range []string{"1", "1/0", "2/2", "-1/2", "a/b", "0/2/3"} {
		_, err := ParseShard(bad)
		require.Error(t, err, bad)
	}
}

// TestRun: shards add up, whoever does the work; the sum is that of all at once.
func TestRun(t *testing.T) {
	run := func(s Shard, jobs int) Report {
		r, err := Run(context.Background(), Options{
			First: 1, Last: 9, Shard: s, Jobs: jobs, Folder: t.TempDir(), World: world.Options{Steps: 60, Guests: 1, Legal: true},
		})
		require.NoError(t, err)
		return r
	}
	whole := run(Shard{0, 1}, 1)
	parts := Merge([]Report{run(Shard{0, 2}, 2), run(Shard{1, 2}, 2)})
	require.EqualValues(t, 9, whole.Runs)
	require.Equal(t, whole.Runs, parts.Runs)
	require.Equal(t, whole.Steps, parts.Steps, "a seed's run is the same everywhere")
	require.Equal(t, whole.Exercised, parts.Exercised)
}

// TestInterrupted: what was done so far is in the report.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r, err := Run(ctx, Options{First: 1, Last: 9, Shard: Shard{0, 1}, Jobs: 2, World: world.Options{Steps: 10}})
	require.NoError(t, err)
	require.True(t, r.Interrupted)
	require.Zero(t, r.Runs)
}
