package campaign

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hvlab/hvlab/sim/world"
)

// An Injection is what came of one fault, injected at every step of every run in
// turn.
type Injection struct {
	Fault    string
	Places   int            // steps before which it was tried
	Done     int            // where it was possible
	Not      map[string]int // why it was not, elsewhere
	Steps    uint64
	Findings []Finding
}

// Inject runs the seeds of o without faults, then each of them again with one
// fault, for each fault and each step before which it can happen. When ctx ends the
// table has what was done so far.
func Inject(ctx context.Context, o Options) ([]Injection, error) {
	faults := world.Injections(1)
	i := &injections{o: o, table: make([]Injection, len(faults)), start: time.Now()}
	for n, s := range faults {
		i.table[n] = Injection{Fault: s.Name(), Not: map[string]int{}, Findings: []Finding{}}
	}
	i.planned = (o.Last - o.First + 1) * uint64(len(faults)) * uint64(max(o.World.Steps, 1))
	for seed := range o.seeds(ctx) {
		w := o.World
		w.Seed = seed
		base, err := world.Run(w)
		if err != nil {
			return i.table, err
		}
		if len(base.Findings) > 0 {
			return i.table, fmt.Errorf("seed %d has a finding without any fault: %v", seed, base.Findings[0])
		}
		for n, s := range faults {
			if err := i.everywhere(ctx, &i.table[n], base, s); err != nil {
				return i.table, err
			}
		}
	}
	return i.table, ctx.Err()
}

// injections is Inject while it runs.
type injections struct {
	o       Options
	start   time.Time
	planned uint64 // runs, about

	mu    sync.Mutex
	table []Injection
	sum   Report
	told  time.Time
}

// everywhere injects s before each step of base.
func (i *injections) everywhere(ctx context.Context, row *Injection, base world.Result, s world.Step) error {
	var first error
	places := make(chan int)
	var workers sync.WaitGroup
	for range i.o.Jobs {
		workers.Go(func() {
			for at := range places {
				r, why, err := world.Inject(base, at, s)
				i.mu.Lock()
				if err == nil {
					err = row.add(i.o, r, at, why)
					i.progress(r)
				}
				if first == nil {
					first = err
				}
				i.mu.Unlock()
			}
		})
	}
	for at := 0; at <= len(base.Script) && ctx.Err() == nil; at++ {
		places <- at
	}
	close(places)
	workers.Wait()
	return first
}

// progress tells about once a second how far it is.
func (i *injections) progress(r world.Result) {
	i.sum.Runs++
	i.sum.Steps += uint64(r.Steps)
	i.sum.Planned = max(i.planned, i.sum.Runs)
	for _, f := range r.Findings {
		i.sum.Findings = append(i.sum.Findings, Finding{Text: f.String()})
	}
	if now := time.Now(); i.o.Progress != nil && now.Sub(i.told) >= time.Second {
		i.told, i.sum.Seconds = now, now.Sub(i.start).Seconds()
		i.o.Progress(i.sum)
	}
}

// add counts the run with the fault before step at; why says why there was none.
func (row *Injection) add(o Options, r world.Result, at int, why string) error {
	row.Places++
	row.Steps += uint64(r.Steps)
	if why == "" {
		row.Done++
	} else {
		row.Not[why]++
	}
	if len(r.Findings) == 0 || len(row.Findings) >= maxFindings {
		return nil
	}
	short := world.Shrink(r, o.ShrinkTries)
	f := Finding{Seed: r.Options.Seed, Invariant: short.Findings[0].Invariant.String(), Text: short.Findings[0].String(), Steps: len(short.Script)}
	f.Path = filepath.Join(o.Folder, fmt.Sprintf("%s-%s-seed%d-%d.txt", row.Fault, f.Invariant, f.Seed, at))
	row.Findings = append(row.Findings, f)
	if err := os.MkdirAll(o.Folder, 0o755); err != nil {
		return err
	}
	return os.WriteFile(f.Path, []byte(short.Scenario()), 0o644)
}

// WriteInjections prints the table, and reports whether nothing was found. Places
// where a fault was not possible are counted with the reason.
func WriteInjections(to io.Writer, table []Injection) (clean bool) {
	clean = true
	fmt.Fprintf(to, "%-10s %8s %8s %12s %9s\n", "fault", "places", "done", "steps", "findings")
	for _, row := range table {
		fmt.Fprintf(to, "%-10s %8d %8d %12d %9d\n", row.Fault, row.Places, row.Done, row.Steps, len(row.Findings))
	}
	for _, row := range table {
		for _, why := range slices.Sorted(maps.Keys(row.Not)) {
			fmt.Fprintf(to, "no %s before %d steps: %s\n", row.Fault, row.Not[why], why)
		}
	}
	for _, row := range table {
		for _, f := range row.Findings {
			fmt.Fprintf(to, "\nseed %d with %s: %s\n    %d steps; replay with: hvlab sim -v -replay %s\n", f.Seed, row.Fault, f.Text, f.Steps, f.Path)
			clean = false
		}
	}
	for _, row := range table {
		for _, f := range row.Findings {
			fmt.Fprintln(to, f.Path)
		}
	}
	return clean
}
