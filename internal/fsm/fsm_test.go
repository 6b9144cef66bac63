package fsm

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

var door = Table[string, string]{
	Name:   "door",
	States: []string{"shut", "open"},
	Events: []string{"push", "pull"},
	Edges: map[Edge[string, string]]string{
		{From: "shut", On: "push"}: "open",
		{From: "open", On: "pull"}: "shut",
	},
}

func TestNext(t *testing.T) {
	to, err := door.Next("shut", "push")
	require.NoError(t, err)
	require.Equal(t, "open", to)

	to, err = door.Next("shut", "pull")
	var edge *EdgeError
	require.True(t, errors.As(err, &edge), "an absent edge is an error, never a no-op")
	require.Equal(t, EdgeError{"door", "shut", "pull"}, *edge)
	require.Equal(t, "shut", to, "an illegal event changes nothing")
}

func TestRenderings(t *testing.T) {
	require.Equal(t, "door  push  pull\nshut  open  -\nopen  -     shut\n", door.Matrix())
	require.Equal(t, "stateDiagram-v2\n    shut --> open: push\n    open --> shut: pull\n", door.Mermaid())
}

func TestCheckFindsMistakes(t *testing.T) {
	require.NoError(t, door.Check())
	unlisted := Table[string, string]{Name: "door", States: door.States, Events: door.Events}
	unlisted.Edges = map[Edge[string, string]]string{{From: "ajar", On: "push"}: "open"}
	require.ErrorContains(t, unlisted.Check(), "unlisted", "ajar is no state")
	dead := Table[string, string]{Name: "door", States: door.States, Events: door.Events}
	dead.Edges = map[Edge[string, string]]string{{From: "open", On: "pull"}: "shut"}
	require.ErrorContains(t, dead.Check(), "reached", "nothing leads to open")
}

// TestCells: a cell counts from Count on, illegal ones too.
func TestCells(t *testing.T) {
	counted := Table[string, string]{Name: "door", States: door.States, Events: door.Events, Edges: door.Edges}
	_, _ = counted.Next("shut", "push")
	counted.Count()
	_, _ = counted.Next("shut", "push")
	_, _ = counted.Next("shut", "pull")
	counted.Count() // changes nothing
	require.Equal(t, []Cell{
		{"door", "shut", "push", true, 1}, {"door", "shut", "pull", false, 1},
		{"door", "open", "push", false, 0}, {"door", "open", "pull", true, 0},
	}, counted.Cells())
}
