package campaign

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/hvlab/hvlab/sim/world"
)

// windowRuns bounds how many orders of one window are tried.
const windowRuns = 2_000

// Exhausted is what came of trying every order of a few choices in a row, at
// every place of some runs.
type Exhausted struct {
	Depth    int // choices in a row: a window
	Windows  int // that were gone through
	Complete int // in which every order was tried, and not only the first windowRuns
	Runs     int
	Findings []Finding
}

// Exhaust goes through the runs of o's seeds: at their beginning, after depth
// choices, after twice as many and so on it tries every order of the next depth
// ones. It is for small worlds, of one guest and few steps. When ctx ends the result
// is what was done so far.
func Exhaust(ctx context.Context, o Options, depth int) (*Exhausted, error) {
	type window struct {
		seed uint64
		skip int
	}
	x := &Exhausted{Depth: depth}
	var mu sync.Mutex
	var first error
	work := make(chan window)
	var workers sync.WaitGroup
	for range max(o.Jobs, 1) {
		workers.Go(func() {
			for at := range work {
				w := o.World
				w.Seed = at.seed
				runs, all, last, err := world.Exhaust(w, at.skip, depth, windowRuns)
				mu.Lock()
				if err == nil {
					err = x.add(o, runs, all, last)
				}
				if first == nil {
					first = err
				}
				mu.Unlock()
			}
		})
	}
	for seed := range o.seeds(ctx) {
		for skip := 0; skip < o.World.Steps && ctx.Err() == nil; skip += depth {
			work <- window{seed, skip}
		}
	}
	close(work)
	workers.Wait()
	if first == nil {
		first = ctx.Err()
	}
	return x, first
}

// add counts a window; all says that its last run was the last there is.
func (x *Exhausted) add(o Options, runs int, all bool, last world.Result) error {
	x.Windows++
	x.Runs += runs
	if all {
		x.Complete++
	}
	if len(last.Findings) == 0 || len(x.Findings) >= maxFindings {
		return nil
	}
	last.Options.Chooser = nil // a scenario needs none
	short := world.Shrink(last, o.ShrinkTries)
	f := Finding{Seed: last.Options.Seed, Invariant: short.Findings[0].Invariant.String(), Text: short.Findings[0].String(), Steps: len(short.Script)}
	f.Path = filepath.Join(o.Folder, fmt.Sprintf("exhaust-%s-seed%d-%d.txt", f.Invariant, f.Seed, len(x.Findings)+1))
	x.Findings = append(x.Findings, f)
	if err := os.MkdirAll(o.Folder, 0o755); err != nil {
		return err
	}
	return os.WriteFile(f.Path, []byte(short.Scenario()), 0o644)
}

// Write prints the result, and reports whether nothing was found.
func (x *Exhausted) Write(to io.Writer) bool {
	fmt.Fprintf(to, "%d windows of %d choices, %d of them in every order and the rest in %d; %d runs, %d findings\n",
		x.Windows, x.Depth, x.Complete, windowRuns, x.Runs, len(x.Findings))
	writeFindings(to, x.Findings)
	return len(x.Findings) == 0
}

// writeFindings prints findings, and last of all the scenarios that show them.
func writeFindings(to io.Writer, all []Finding) {
	for _, f := range all {
		fmt.Fprintf(to, "\nseed %d: %s\n    %d steps; replay with: hvlab sim -v -replay %s\n", f.Seed, f.Text, f.Steps, f.Path)
	}
	if len(all) > 0 {
		fmt.Fprintln(to)
	}
	for _, f := range all {
		fmt.Fprintln(to, f.Path)
	}
}
