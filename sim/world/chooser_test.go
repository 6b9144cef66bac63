package world

import (
	"testing"

	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
)

// TestExhaust: in a small world, one guest with rings of two pages, every order of
// a few choices is harmless: at the beginning, and when sockets are open.
func TestExhaust(t *testing.T) {
	for _, skip := range []int{0, 12, 24} {
		runs, _, last, err := Exhaust(Options{Seed: 3, Version: vmbus.Iron, RingPages: 2, Steps: 60, Guests: 1}, skip, 5, 400)
		require.NoError(t, err)
		require.Empty(t, last.Findings)
		require.Greater(t, runs, 20, "there is something to choose")
	}
}

// TestExhaustIsExhaustive: with two choices of two and three possibilities there
// are six runs.
func TestExhaustIsExhaustive(t *testing.T) {
	seen := map[[2]int]bool{}
	var taken []int
	for range 6 {
		p := &Path{Taken: taken}
		seen[[2]int{p.Draw(2), p.Draw(3)}] = true
		require.Zero(t, p.Draw(1), "no choice")
		require.Equal(t, []int{2, 3}, p.Wide)
		taken = []int{len(seen) / 3, len(seen) % 3}
	}
	require.Len(t, seen, 6)
}

// TestPrioritiesAreNotFair: the chooser starves some actors for long, which is what
// it is for, and still gets to everything.
func TestPrioritiesAreNotFair(t *testing.T) {
	steps := []Step{{Kind: GuestStep, Guest: 1}, {Kind: GuestStep, Guest: 2}, {Kind: HostStep, Guest: 1}}
	weights := []uint16{normalWeight, normalWeight, normalWeight}
	p := NewPriorities(1)
	count, longest, streak, last := [3]int{}, 0, 0, -1
	for range 3000 {
		at := p.Choose(steps, weights)
		count[at]++
		if streak++; at != last {
			streak, last = 1, at
		}
		longest = max(longest, streak)
	}
	require.Greater(t, longest, 20)
	for _, n := range count {
		require.Greater(t, n, 100)
	}
}
