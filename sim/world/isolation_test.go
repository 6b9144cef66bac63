package world

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestIsolation: a guest beside an attacker does, byte for byte, what it does
// without one (I-ISOLATION, HG and HH of the fault model).
func TestIsolation(t *testing.T) {
	compared := uint64(0)
	for seed := range uint64(60) {
		r, err := Isolated(Options{Seed: seed, Guests: 2, Hostile: true})
		require.NoError(t, err)
		require.Empty(t, r.Findings, "seed %d", seed)
		compared += r.Exercised[Isolation]
	}
	require.EqualValues(t, 60+60, compared, "once by its promises, and once by its trace")
}

// TestIsolationSees: a hostile step that reaches the neighbour is found out.
func TestIsolationSees(t *testing.T) {
	found := map[Invariant]int{}
	for seed := range uint64(30) {
		r, err := isolated(Options{Seed: seed, Guests: 2, Hostile: true}, func(w *World) { w.leak = true })
		require.NoError(t, err)
		for _, f := range r.Findings {
			found[f.Invariant]++
		}
	}
	require.Greater(t, found[Isolation], 5, "the neighbour had a channel that was rescinded: %v", found)
}
