package world

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestReservedChannels: some drivers open their channels as reserved ones, at all
// times and with all faults; answers get lost, and nothing else does.
func TestReservedChannels(t *testing.T) {
	seen := map[string]int{
		"OpenReservedChannel": 0, "OpenResult channel_id=1 open_id=0 status=0": 0, "CloseReservedChannel ": 0,
		"CloseReservedChannelResponse": 0, "the answer is lost": 0, "the host has not answered within": 0,
	}
	for seed := range uint64(40) {
		var trace bytes.Buffer
		requireNothing(t, Options{Seed: seed, Legal: true, Guests: 2, Trace: &trace})
		for text := range seen {
			seen[text] += bytes.Count(trace.Bytes(), []byte(text))
		}
	}
	for text, n := range seen {
		require.Positive(t, n, text)
	}
}

// TestDriversThatDoNotPoll: the host rings no doorbell of a reserved channel, so that
// a driver that waits for one waits for ever, and that is seen.
func TestDriversThatDoNotPoll(t *testing.T) {
	found := map[Invariant]int{}
	for seed := range uint64(60) {
		w, err := New(Options{Seed: seed, Guests: 2})
		require.NoError(t, err)
		w.blind = true
		for _, f := range w.Run().Findings {
			found[f.Invariant]++
		}
	}
	require.Positive(t, found[LiveReader]+found[LiveWriter], "%v", found)
}
