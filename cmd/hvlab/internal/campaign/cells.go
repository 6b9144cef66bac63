package campaign

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/hvlab/hvlab/sim/world"
)

// Coverage is which cells of the transition tables were visited, and by which kind
// of run.
type Coverage struct {
	Kinds  []string            // of runs
	Visits map[string][]uint64 // by the name of a cell: visits of each kind
	Steps  []uint64            // of each kind
	Found  []string            // what was violated meanwhile
	Wrong  []string            // what the list of unvisited cells says and is not so
	legal  map[string]bool
}

// Cover runs the seeds of o plainly, with legal faults and with hostile peers, puts
// faults into the first few of them, and into the scenarios of a folder.
func Cover(ctx context.Context, o Options, scenarios string) (*Coverage, error) {
	c := &Coverage{Visits: map[string][]uint64{}, legal: map[string]bool{}}
	world.CountCells()
	before := c.count()
	phase := func(kind string, run func() (uint64, error)) error {
		steps, err := run()
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		c.Kinds, c.Steps = append(c.Kinds, kind), append(c.Steps, steps)
		after := c.count()
		for name, n := range after {
			c.Visits[name] = append(c.Visits[name], n-before[name])
		}
		before = after
		return ctx.Err()
	}
	seeds := func(change func(*world.Options)) func() (uint64, error) {
		return func() (uint64, error) {
			p := o
			change(&p.World)
			r, err := Run(ctx, p)
			for _, f := range r.Findings {
				c.Found = append(c.Found, f.Text+"\n"+f.Path)
			}
			return r.Steps, err
		}
	}
	if err := phase("plain", seeds(func(w *world.Options) {})); err != nil {
		return c, err
	}
	if err := phase("legal", seeds(func(w *world.Options) { w.Legal = true })); err != nil {
		return c, err
	}
	if err := phase("hostile", seeds(func(w *world.Options) { w.Hostile = true })); err != nil {
		return c, err
	}
	if err := phase("injected", func() (steps uint64, err error) {
		p := o
		p.Last = min(o.First+injectedSeeds-1, o.Last)
		table, err := Inject(ctx, p)
		for _, row := range table {
			steps += row.Steps
			for _, f := range row.Findings {
				c.Found = append(c.Found, f.Text+"\n"+f.Path)
			}
		}
		return steps, err
	}); err != nil {
		return c, err
	}
	err := phase("scenarios", func() (steps uint64, err error) {
		table, err := InjectScenarios(ctx, o, scenarios, 1)
		for _, row := range table {
			for _, cell := range row.Cells {
				steps += uint64(row.Points * row.Points)
				for _, f := range cell.Findings {
					c.Found = append(c.Found, f.Text+"\n"+f.Path)
				}
			}
		}
		return steps, err
	})
	c.judge()
	return c, err
}

// injectedSeeds is how many seeds have faults put before each of their steps.
const injectedSeeds = 2

// count returns the visits of each cell so far.
func (c *Coverage) count() map[string]uint64 {
	visits := map[string]uint64{}
	for _, cell := range world.Cells() {
		name := world.CellName(cell)
		visits[name] = cell.Visits
		c.legal[name] = cell.Legal
	}
	return visits
}

// by names the kinds of runs that visited a cell.
func (c *Coverage) by(name string) (kinds []string) {
	for i, n := range c.Visits[name] {
		if n > 0 {
			kinds = append(kinds, c.Kinds[i])
		}
	}
	return kinds
}

// judge compares with the list of cells that no run visits.
func (c *Coverage) judge() {
	for _, name := range slices.Sorted(maps.Keys(c.Visits)) {
		why, listed := world.WhyUnvisited(name)
		by := c.by(name)
		switch {
		case listed && len(by) > 0 && !strings.HasPrefix(why, "rarely: "):
			c.Wrong = append(c.Wrong, fmt.Sprintf("%s is visited (%s), the list says %q", name, strings.Join(by, ", "), why))
		case !listed && len(by) == 0:
			c.Wrong = append(c.Wrong, name+" is not visited, and not in the list")
		}
	}
}

// Write prints the table and what is wrong with the list; it reports whether all is
// well.
func (c *Coverage) Write(to io.Writer) bool {
	names := slices.Sorted(maps.Keys(c.Visits))
	for _, legal := range []bool{true, false} {
		all, seen := 0, 0
		for _, name := range names {
			if c.legal[name] != legal {
				continue
			}
			if all++; len(c.by(name)) > 0 {
				seen++
			}
		}
		kind := map[bool]string{true: "legal", false: "illegal"}[legal]
		fmt.Fprintf(to, "%d of %d %s cells visited\n", seen, all, kind)
		for i, run := range c.Kinds {
			n := 0
			for _, name := range names {
				if c.legal[name] == legal && c.Visits[name][i] > 0 {
					n++
				}
			}
			fmt.Fprintf(to, "    %-10s %4d in %d steps\n", run, n, c.Steps[i])
		}
	}
	fmt.Fprintf(to, "\n%-64s %s\n", "cell", "visited by")
	for _, name := range names {
		text := strings.Join(c.by(name), " ")
		if why, listed := world.WhyUnvisited(name); listed && text == "" {
			text = "- " + why
		}
		mark := " "
		if !c.legal[name] {
			mark = "!"
		}
		fmt.Fprintf(to, "%s %-62s %s\n", mark, name, text)
	}
	for _, w := range c.Wrong {
		fmt.Fprintln(to, "WRONG:", w)
	}
	for _, f := range c.Found {
		fmt.Fprintf(to, "\n%s\n", f)
	}
	return len(c.Wrong)+len(c.Found) == 0
}
