package fsm

import (
	"fmt"
	"slices"
	"sync/atomic"
)

// A Cell is one cell of a table and how often it was visited since Count.
type Cell struct {
	Table, State, Event string
	Legal               bool
	Visits              uint64
}

// Counted is a table of any type, for those who ask which of its cells are ever
// visited.
type Counted interface {
	Count()
	Cells() []Cell
}

// Count makes the table count visits of its cells, in all machines that use it,
// from now on. Without it a visit costs one load.
func (t *Table[S, E]) Count() {
	cells := make([]atomic.Uint64, len(t.States)*len(t.Events))
	t.visits.CompareAndSwap(nil, &cells)
}

// Cells returns every cell, row by row.
func (t *Table[S, E]) Cells() (list []Cell) {
	visits := t.visits.Load()
	for i, s := range t.States {
		for j, e := range t.Events {
			_, legal := t.Edges[Edge[S, E]{s, e}]
			c := Cell{Table: t.Name, State: fmt.Sprint(s), Event: fmt.Sprint(e), Legal: legal}
			if visits != nil {
				c.Visits = (*visits)[i*len(t.Events)+j].Load()
			}
			list = append(list, c)
		}
	}
	return list
}

// visit counts a cell.
func (t *Table[S, E]) visit(visits *[]atomic.Uint64, s S, e E) {
	i, j := slices.Index(t.States, s), slices.Index(t.Events, e)
	if i >= 0 && j >= 0 {
		(*visits)[i*len(t.Events)+j].Add(1)
	}
}
