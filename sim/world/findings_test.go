package world

import (
	"os"
	"path/filepath"
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
