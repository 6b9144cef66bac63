package campaign

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestInjectScenarios: the table has each kind of scenario file, each fault has a
// number or a reason, and a finding leaves a file that shows it.
func TestInjectScenarios(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	write("cores.txt", "connect quiet\n----\n")
	write("world.txt", "sim seed=1 guests=1\nguest1 call\nguest1 post\n")
	o := Options{Folder: filepath.Join(dir, "findings")}
	table, err := InjectScenarios(context.Background(), o, dir, 1)
	require.NoError(t, err)
	require.Len(t, table, 2)
	for _, row := range table {
		require.Len(t, row.Cells, len(Faults()))
		for n, c := range row.Cells {
			require.Equal(t, c.Done == 0, c.Why != "", "%s, %s", row.Scenario, Faults()[n])
			require.LessOrEqual(t, c.Done, row.Points)
		}
	}
	var b strings.Builder
	require.True(t, WriteScenarios(&b, table))
	require.Contains(t, b.String(), "nothing is offered")

	write("wrong.txt", "connect\n----\nnothing at all\n")
	table, err = InjectScenarios(context.Background(), o, filepath.Join(dir, "wrong.txt"), 1)
	require.NoError(t, err)
	b.Reset()
	require.False(t, WriteScenarios(&b, table), "a save that changes what is expected")
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	text, err := os.ReadFile(lines[len(lines)-1])
	require.NoError(t, err, "the last line is the path of what shows it")
	require.Contains(t, string(text), "VIOLATED invariant I-SAVE-ID")

	_, err = InjectScenarios(context.Background(), o, t.TempDir(), 1)
	require.ErrorContains(t, err, "has no scenario")
}

// A scenario with an attacker has no place for a legal fault; the others of its folder
// are gone through all the same.
func TestInjectScenariosHostile(t *testing.T) {
	const file = "../../../../sim/world/testdata/findings/reserved-close-never-answered.txt"
	table, err := InjectScenarios(t.Context(), Options{Folder: t.TempDir()}, file, 1)
	require.NoError(t, err)
	require.Len(t, table, 1)
	for _, c := range table[0].Cells {
		require.Zero(t, c.Done)
		require.Contains(t, c.Why, "attacker")
	}
}
