package world

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// One goroutine runs a world: none is left behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestSeeds: some seeds, as `hvlab sim` runs many, find nothing.
func TestSeeds(t *testing.T) {
	for seed := range uint64(80) {
		requireNothing(t, Options{Seed: seed, Guests: 1 + int(seed%3)})
	}
}

// requireNothing runs o and shows the end of the trace if it finds something.
func requireNothing(t *testing.T, o Options) Result {
	t.Helper()
	r, err := Run(o)
	require.NoError(t, err)
	if len(r.Findings) > 0 {
		var b bytes.Buffer
		o.Trace = &b
		_, _ = Run(o)
		out := b.Bytes()
		t.Fatalf("seed %d: %v\n%s", o.Seed, r.Findings[0], out[max(0, len(out)-4000):])
	}
	return r
}

// TestSameSeedSameTrace: the trace of a run is a function of its options.
func TestSameSeedSameTrace(t *testing.T) {
	for _, o := range []Options{
		{Seed: 0, Guests: 2}, {Seed: 1, Guests: 2}, {Seed: 2, Guests: 2}, {Seed: 3, Guests: 2},
		{Seed: 3533, Legal: true}, // two lives of the guest had the same event flag: a map's order decided
	} {
		var first, second bytes.Buffer
		o.Trace = &first
		a, err := Run(o)
		require.NoError(t, err)
		o.Trace = &second
		b, err := Run(o)
		require.NoError(t, err)
		require.Equal(t, first.String(), second.String())
		require.Equal(t, a.Hash, b.Hash)
	}
}

// TestScenarioReplays: a run's scenario, read back, is the same run.
func TestScenarioReplays(t *testing.T) {
	r := requireNothing(t, Options{Seed: 3, Guests: 2})
	o, err := ParseScenario(r.Scenario())
	require.NoError(t, err)
	require.Equal(t, r.Script, o.Script)
	again := requireNothing(t, o)
	require.Equal(t, r.Hash, again.Hash)
}

// TestLegalFaults: whatever may always happen costs only what it must.
func TestLegalFaults(t *testing.T) {
	for seed := range uint64(80) {
		requireNothing(t, Options{Seed: seed, Guests: 1 + int(seed%3), Legal: true})
	}
}

// TestHostile: whatever an end of guest1's bus does, the other end and all other
// guests come to no harm.
func TestHostile(t *testing.T) {
	for seed := range uint64(80) {
		requireNothing(t, Options{Seed: seed, Guests: 2, Hostile: true})
	}
}
