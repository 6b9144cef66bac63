package world

import (
	_ "embed" // unvisited.txt
	"strings"
	"sync"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/internal/fsm"
	"github.com/hvlab/hvlab/offers"
)

// tables are the transition tables that everything moves by.
func tables() []fsm.Counted {
	return append([]fsm.Counted{
		&endpoint.HostTransitions, &endpoint.GuestTransitions, &endpoint.PauseTransitions,
		&offers.HostTransitions, &offers.GuestTransitions,
		&channel.OpenTransitions, &channel.GuestTransitions, &channel.GPADLTransitions,
	}, hvsock.Tables()...)
}

// CountCells makes all worlds of this process count which cells of the transition
// tables they visit.
func CountCells() {
	for _, t := range tables() {
		t.Count()
	}
}

// Cells returns every cell of every transition table with its visits since
// CountCells, by all worlds of this process.
func Cells() (all []fsm.Cell) {
	for _, t := range tables() {
		all = append(all, t.Cells()...)
	}
	return all
}

// CellName names a cell: "host channel: GuestOpens in Closed".
func CellName(c fsm.Cell) string { return c.Table + ": " + c.Event + " in " + c.State }

// WhyUnvisited says why no run visits a cell, and what does; false if one should.
// The list is unvisited.txt.
func WhyUnvisited(cell string) (why string, listed bool) {
	why, listed = unvisited()[cell]
	return why, listed
}

//go:embed unvisited.txt
var unvisitedText string

// unvisited is unvisited.txt by cell: a line that begins with "=" is the reason of
// the cells below it.
var unvisited = sync.OnceValue(func() map[string]string {
	list, why := map[string]string{}, ""
	for line := range strings.Lines(unvisitedText) {
		line = strings.TrimSpace(line)
		if reason, ok := strings.CutPrefix(line, "="); ok {
			why = strings.TrimSpace(reason)
		} else if line != "" && !strings.HasPrefix(line, "#") {
			list[line] = why
		}
	}
	return list
})
