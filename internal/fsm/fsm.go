// Package fsm holds transition tables: a state machine is data, an absent edge
// is an error, and the whole state x event matrix can be printed as a golden
// file. It is used by the cores of floors 2 to 4 and imports only the standard
// library.
package fsm

import (
	"fmt"
	"strings"
	"sync/atomic"
)

// An Edge is one legal cell of a table: event On in state From.
type Edge[S, E comparable] struct {
	From S
	On   E
}

// A Table is one state machine. States and Events list every value in the
// order in which the matrix shows them; Edges holds the legal cells.
type Table[S, E comparable] struct {
	Name   string
	States []S
	Events []E
	Edges  map[Edge[S, E]]S

	visits atomic.Pointer[[]atomic.Uint64] // nil unless somebody counts
}

// Next returns the state after event e in state s, or an *EdgeError when the
// table has no such edge.
func (t *Table[S, E]) Next(s S, e E) (S, error) {
	to, ok := t.To(s, e)
	if !ok {
		return s, &EdgeError{Machine: t.Name, State: fmt.Sprint(s), Event: fmt.Sprint(e)}
	}
	return to, nil
}

// To is Next for callers to whom an absent edge is nothing to report: it returns
// s and false then.
func (t *Table[S, E]) To(s S, e E) (S, bool) {
	if visits := t.visits.Load(); visits != nil {
		t.visit(visits, s, e)
	}
	to, ok := t.Edges[Edge[S, E]{s, e}]
	if !ok {
		return s, false
	}
	return to, true
}

// An EdgeError reports an event that is illegal in the current state. Whose
// fault it is depends on who caused the event, so the caller wraps it.
type EdgeError struct {
	Machine, State, Event string
}

// Error names machine, event and state.
func (e *EdgeError) Error() string {
	return fmt.Sprintf("%s: %s is illegal in state %s", e.Machine, e.Event, e.State)
}

// Matrix prints the table as text, one row per state and one column per event;
// "-" marks an absent edge. It is the format of testdata/table.
func (t *Table[S, E]) Matrix() string {
	rows := [][]string{{t.Name}}
	for _, e := range t.Events {
		rows[0] = append(rows[0], fmt.Sprint(e))
	}
	for _, s := range t.States {
		row := []string{fmt.Sprint(s)}
		for _, e := range t.Events {
			to, ok := t.Edges[Edge[S, E]{s, e}]
			if !ok {
				row = append(row, "-")
				continue
			}
			row = append(row, fmt.Sprint(to))
		}
		rows = append(rows, row)
	}
	return align(rows)
}

// Mermaid prints the table as a Mermaid state diagram.
func (t *Table[S, E]) Mermaid() string {
	var b strings.Builder
	b.WriteString("stateDiagram-v2\n")
	for _, s := range t.States {
		for _, e := range t.Events {
			if to, ok := t.Edges[Edge[S, E]{s, e}]; ok {
				fmt.Fprintf(&b, "    %v --> %v: %v\n", s, to, e)
			}
		}
	}
	return b.String()
}

// Check returns an error when an edge uses a state or an event that is not
// listed, or a state other than the first cannot be reached.
func (t *Table[S, E]) Check() error {
	states, events, reached := map[S]bool{}, map[E]bool{}, map[S]bool{}
	for _, s := range t.States {
		states[s] = true
	}
	for _, e := range t.Events {
		events[e] = true
	}
	for edge, to := range t.Edges {
		if !states[edge.From] || !states[to] || !events[edge.On] {
			return fmt.Errorf("%s: edge %v on %v to %v uses an unlisted state or event", t.Name, edge.From, edge.On, to)
		}
		if edge.From != to {
			reached[to] = true
		}
	}
	for _, s := range t.States[1:] {
		if !reached[s] {
			return fmt.Errorf("%s: state %v cannot be reached", t.Name, s)
		}
	}
	return nil
}

// align pads the columns of rows to equal width.
func align(rows [][]string) string {
	width := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, c := range r {
			width[i] = max(width[i], len(c))
		}
	}
	var b strings.Builder
	for _, r := range rows {
		line := ""
		for i, c := range r {
			line += fmt.Sprintf("%-*s  ", width[i], c)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return b.String()
}
