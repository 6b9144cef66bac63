package world

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestFindings: what was found once stays found. Each file of testdata/findings is
// the shortened run of a fault that has been mended since, named after it; its
// comment says what was violated.
func TestFindings(t *testing.T) {
	files, err := filepath.Glob("testdata/findings/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			text, err := os.ReadFile(f)
			require.NoError(t, err)
			o, err := ParseScenario(string(text))
			require.NoError(t, err)
			r, err := Run(o)
			require.NoError(t, err)
			require.Empty(t, r.Findings)
			require.NotEmpty(t, r.Script, "something of the script is still possible")
		})
	}
}

// TestCatalogue: rows of the fault catalogue as scripts of sockets, for hvlab sim
// -inject -scenarios to put faults into. Without a fault nothing is found and every
// line is possible.
func TestCatalogue(t *testing.T) {
	files, err := filepath.Glob("testdata/catalogue/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			text, err := os.ReadFile(f)
			require.NoError(t, err)
			o, err := ParseScenario(string(text))
			require.NoError(t, err)
			r, err := Run(o)
			require.NoError(t, err)
			require.Empty(t, r.Findings)
			left := r.Script
			for _, s := range o.Script {
				at := slices.Index(left, s)
				require.True(t, s.Kind == Settle || at >= 0, "%v was not possible", s)
				left = left[at+1:]
			}
		})
	}
}
