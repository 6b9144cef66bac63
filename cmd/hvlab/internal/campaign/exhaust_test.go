package campaign

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/hvlab/hvlab/sim/world"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
)

// TestExhaust: a run of 8 steps has four windows of two choices, small enough for
// every order.
func TestExhaust(t *testing.T) {
	w := world.Options{Steps: 8, Guests: 1, Version: vmbus.Iron, RingPages: 2}
	x, err := Exhaust(context.Background(), Options{First: 3, Last: 3, World: w, Jobs: 2, Folder: t.TempDir()}, 2)
	require.NoError(t, err)
	require.Equal(t, 4, x.Windows)
	require.Equal(t, 4, x.Complete)
	require.Greater(t, x.Runs, x.Windows, "there is something to choose")
	var b strings.Builder
	require.True(t, x.Write(&b), b.String())
}

// TestFindingsComeLast: whoever reads the last line of a report has the path of a
// scenario.
func TestFindingsComeLast(t *testing.T) {
	f := Finding{Seed: 17, Invariant: "I-STREAM", Text: "29 I-STREAM after step 3", Steps: 2, Path: "findings/I-STREAM-seed17.txt"}
	r := Report{Seeds: "1-20", Findings: []Finding{f}}
	var report, injected, exhausted strings.Builder
	r.WriteText(&report)
	require.False(t, WriteInjections(&injected, []Injection{{Fault: "reset", Findings: []Finding{f}}}))
	require.False(t, (&Exhausted{Findings: []Finding{f}}).Write(&exhausted))
	for _, text := range []string{report.String(), injected.String(), exhausted.String()} {
		require.True(t, strings.HasSuffix(text, "\n"+f.Path+"\n"), text)
		require.Contains(t, text, "hvlab sim -v -replay "+f.Path)
	}
}

// The largest seed is a seed: a loop that counts beyond it begins anew and never ends.
func TestLastSeedOfAll(t *testing.T) {
	o := Options{First: math.MaxUint64 - 1, Last: math.MaxUint64}
	require.Equal(t, []uint64{math.MaxUint64 - 1, math.MaxUint64}, slices.Collect(o.seeds(t.Context())))
}
