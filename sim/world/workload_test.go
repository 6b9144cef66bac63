package world

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestStandardWorkload: the three kinds of runs together put every invariant at
// stake but those that something else holds, which HeldElsewhere names. One that
// never was is a fault of the workload.
func TestStandardWorkload(t *testing.T) {
	var exercised [Invariants + 1]uint64
	for seed := range uint64(60) {
		for _, o := range []Options{{Seed: seed}, {Seed: seed, Legal: true}, {Seed: seed, Hostile: true}} {
			o.Guests = 2
			r := requireNothing(t, o)
			if seed == 0 {
				r.Same(requireNothing(t, o))
			}
			for i, n := range r.Exercised {
				exercised[i] += n
			}
		}
	}
	for i := Invariant(1); i <= Invariants; i++ {
		if exercised[i] == 0 && HeldElsewhere(i) == "" {
			t.Errorf("%d %v was never at stake", int(i), i)
		}
	}
}

// TestLostSignalsAreFound: in a world that loses doorbells where nobody looks again
// somebody waits for ever, and that is seen. The invariants could not fail else.
func TestLostSignalsAreFound(t *testing.T) {
	found := map[Invariant]int{}
	for seed := range uint64(40) {
		w, err := New(Options{Seed: seed})
		require.NoError(t, err)
		w.loseEvery = 7
		for _, f := range w.Run().Findings {
			found[f.Invariant]++
		}
	}
	require.Positive(t, found[LiveReader]+found[LiveWriter], "%v", found)
	for i := range found {
		require.Contains(t, []Invariant{LiveReader, LiveWriter, LiveCalls, LiveClose, CloseGrace, NoLivelock}, i,
			"nothing else is wrong with it; a monitored channel that is not closed is looked at for ever")
	}
}
