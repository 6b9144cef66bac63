//go:build !hvlab_mutate && !js

package channel

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMutatedLoads runs TestPipeMutate, which needs a build with a hook before every
// load, so that a plain go test does not leave it out.
func TestMutatedLoads(t *testing.T) {
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("the go command, which builds the hook in, is not in the path")
	}
	out, err := exec.Command(tool, "test", "-tags", "hvlab_mutate", "-run", "^TestPipeMutate$", "-v", ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: TestPipeMutate ", "it did run")
}
