package world

import "testing"

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
