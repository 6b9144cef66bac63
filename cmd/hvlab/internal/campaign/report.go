package campaign

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/hvlab/hvlab/sim/world"
)

// A Report is what a campaign found. It is JSON as it stands.
type Report struct {
	Seeds       string            `json:"seeds"`
	Shard       string            `json:"shard,omitempty"`
	Planned     uint64            `json:"planned"` // runs
	Runs        uint64            `json:"runs"`
	Steps       uint64            `json:"steps"`
	Seconds     float64           `json:"seconds"`
	Exercised   map[string]uint64 `json:"exercised"` // by the id of the invariant
	Cells       map[string]uint64 `json:"cells"`     // visits, by table, state and event
	Findings    []Finding         `json:"findings"`
	Interrupted bool              `json:"interrupted,omitempty"`
	// Elsewhere says of invariants that these runs cannot put at stake what does.
	Elsewhere map[string]string `json:"elsewhere,omitempty"`
}

// A Finding is a violated invariant and the scenario that shows it.
type Finding struct {
	Seed      uint64 `json:"seed"`
	Invariant string `json:"invariant"`
	Text      string `json:"text"`
	Steps     int    `json:"steps"` // of the shortened scenario
	Path      string `json:"path"`
}

func newReport(o Options) Report {
	r := Report{
		Seeds:     fmt.Sprintf("%d-%d", o.First, o.Last),
		Planned:   o.Shard.size(o.Last - o.First + 1),
		Exercised: map[string]uint64{},
		Cells:     map[string]uint64{},
		Findings:  []Finding{},
		Elsewhere: map[string]string{},
	}
	for i := world.Invariant(1); i <= world.Invariants; i++ {
		if why := cmp.Or(world.HeldElsewhere(i), o.World.Needs(i)); why != "" {
			r.Elsewhere[i.String()] = why
		}
	}
	if o.Shard.Count > 1 {
		r.Shard = fmt.Sprintf("%d/%d", o.Shard.Index, o.Shard.Count)
	}
	return r
}

func (r *Report) add(run world.Result, f *Finding) {
	r.Runs++
	r.Steps += uint64(run.Steps)
	for i := world.Invariant(1); i <= world.Invariants; i++ {
		r.Exercised[i.String()] += run.Exercised[i]
	}
	if f != nil {
		r.Findings = append(r.Findings, *f)
	}
}

func (r *Report) clone() Report {
	c := *r
	c.Exercised, c.Cells, c.Findings = maps.Clone(r.Exercised), maps.Clone(r.Cells), slices.Clone(r.Findings)
	slices.SortFunc(c.Findings, func(a, b Finding) int { return cmp.Compare(a.Seed, b.Seed) })
	return c
}

// Merge adds up the reports of several machines.
func Merge(all []Report) Report {
	total := Report{Elsewhere: map[string]string{}, Exercised: map[string]uint64{}, Cells: map[string]uint64{}, Findings: []Finding{}}
	for i, r := range all {
		if i == 0 {
			total.Seeds = r.Seeds
		} else if total.Seeds != r.Seeds {
			total.Seeds += ", " + r.Seeds
		}
		total.Planned += r.Planned
		total.Runs += r.Runs
		total.Steps += r.Steps
		total.Seconds = max(total.Seconds, r.Seconds)
		for k, n := range r.Exercised {
			total.Exercised[k] += n
		}
		for k, n := range r.Cells {
			total.Cells[k] += n
		}
		total.Findings = append(total.Findings, r.Findings...)
		for k, why := range r.Elsewhere {
			total.Elsewhere[k] = why
		}
		total.Interrupted = total.Interrupted || r.Interrupted
	}
	return total.clone()
}

// ReadFile reads a report that Write with JSON has made.
func ReadFile(path string) (r Report, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("%s is no report of hvlab sim -json: %w", path, err)
	}
	return r, nil
}

// WriteJSON prints the report as one JSON object.
func (r Report) WriteJSON(to io.Writer) error {
	e := json.NewEncoder(to)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// enoughRuns is how many runs put everything at stake that they can.
const enoughRuns = 1000

// Missing is the invariants that no run has exercised, apart from those that these
// runs cannot: then the workload is at fault. Few runs need not exercise all.
func (r Report) Missing() (never []string) {
	if r.Runs < enoughRuns {
		return nil
	}
	for i := world.Invariant(1); i <= world.Invariants; i++ {
		if r.Exercised[i.String()] == 0 && r.Elsewhere[i.String()] == "" {
			never = append(never, i.String())
		}
	}
	return never
}

// WriteText prints the report as a table for people.
func (r Report) WriteText(to io.Writer) {
	rate := float64(r.Steps) / max(r.Seconds, 1e-9)
	fmt.Fprintf(to, "seeds       %s", r.Seeds)
	if r.Shard != "" {
		fmt.Fprintf(to, ", shard %s", r.Shard)
	}
	fmt.Fprintf(to, "\nruns        %d of %d\nsteps       %d in %.1f s, %.0f steps/s\n", r.Runs, r.Planned, r.Steps, r.Seconds, rate)
	exercised := 0
	for i := world.Invariant(1); i <= world.Invariants; i++ {
		if r.Exercised[i.String()] > 0 {
			exercised++
		}
	}
	fmt.Fprintf(to, "invariants  %d of %d exercised\n", exercised, world.Invariants)
	r.writeCells(to)
	fmt.Fprintf(to, "findings    %d\n\n", len(r.Findings))
	for i := world.Invariant(1); i <= world.Invariants; i++ {
		note := ""
		if n := r.Exercised[i.String()]; n == 0 {
			note = "never"
			if why := r.Elsewhere[i.String()]; why != "" {
				note = "not here: " + why
			}
		} else {
			note = fmt.Sprint(n)
		}
		fmt.Fprintf(to, "  %2d  %-26s %s\n", int(i), i, note)
	}
	writeFindings(to, r.Findings)
}

// writeCells prints how much of the transition tables was visited, and which legal
// cells were not.
func (r Report) writeCells(to io.Writer) {
	legal, seenLegal, illegal, seenIllegal := 0, 0, 0, 0
	var missing []string
	for _, c := range world.Cells() {
		name := world.CellName(c)
		seen := r.Cells[name] > 0
		switch {
		case c.Legal && seen:
			legal, seenLegal = legal+1, seenLegal+1
		case c.Legal:
			legal++
			if why, listed := world.WhyUnvisited(name); listed {
				name += " (" + why + ")"
			}
			missing = append(missing, name)
		case seen:
			illegal, seenIllegal = illegal+1, seenIllegal+1
		default:
			illegal++
		}
	}
	fmt.Fprintf(to, "cells       %d of %d legal and %d of %d illegal ones of the transition tables visited\n", seenLegal, legal, seenIllegal, illegal)
	for _, name := range missing {
		fmt.Fprintf(to, "            not %s\n", name)
	}
}
