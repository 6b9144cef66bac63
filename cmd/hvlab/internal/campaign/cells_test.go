package campaign

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hvlab/hvlab/sim/world"
	"github.com/stretchr/testify/require"
)

// oneScenario is a folder with the smallest scenario there is.
func oneScenario(t *testing.T) string {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "connect.txt"), []byte("connect quiet\n----\n"), 0o644))
	return dir
}

// TestCover: every kind of run has a column, and few runs visit less than the list
// of unvisited cells promises, which is said.
func TestCover(t *testing.T) {
	o := Options{First: 1, Last: 1, Shard: Shard{0, 1}, Jobs: 1, Folder: t.TempDir(), World: world.Options{Steps: 20, Guests: 2}}
	c, err := Cover(context.Background(), o, oneScenario(t))
	require.NoError(t, err)
	require.Equal(t, []string{"plain", "legal", "hostile", "injected", "scenarios"}, c.Kinds)
	require.Empty(t, c.Found)
	require.Equal(t, c.Kinds, c.by("host connection: Contacts in Disconnected"), "every run connects")
	var b strings.Builder
	require.False(t, c.Write(&b))
	require.Contains(t, b.String(), "is not visited, and not in the list")
	require.NotContains(t, b.String(), "the list says", "so few runs visit nothing that is rare")
}

// TestInjectPairs: each fault comes before and after each other one.
func TestInjectPairs(t *testing.T) {
	p, err := InjectPairs(context.Background(), Options{Folder: t.TempDir(), Jobs: 2}, oneScenario(t))
	require.NoError(t, err)
	require.Len(t, p.Runs, len(Faults())*len(Faults()))
	require.Positive(t, p.Done[[2]string{"save", "reset"}])
	require.Zero(t, p.Done[[2]string{"rescind", "save"}], "nothing is offered")
	var b strings.Builder
	require.True(t, p.Write(&b), b.String())
}
