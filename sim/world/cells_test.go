package world

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestUnvisited: the list of cells that no run visits names cells that there are,
// each once, and why. Whether it is right is for hvlab sim -cells to say, which
// .ci/long does.
func TestUnvisited(t *testing.T) {
	exist := map[string]bool{}
	for _, c := range Cells() {
		require.False(t, exist[CellName(c)], CellName(c))
		exist[CellName(c)] = true
	}
	listed := unvisited()
	require.NotEmpty(t, listed)
	for name, why := range listed {
		require.True(t, exist[name], "%q is no cell", name)
		require.Greater(t, len(why), 20, "%q has no reason", name)
	}
	require.Less(t, len(listed), len(exist)*2/3, "a list that excuses nearly everything says nothing")
}
