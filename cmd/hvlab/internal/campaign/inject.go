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

// An Injection is what came of one fault, injected at every step of every run in
// turn.
type Injection struct {
	Fault    string    `json:"fault"`
	Places   int       `json:"places"` // steps before which it was tried
	Done     int       `json:"done"`   // where it was possible
	Steps    uint64    `json:"steps"`
	Findings []Finding `json:"findings"`
}

// Inject runs the seeds of o without faults, then each of them again with one
// fault, for each fault and each step before which it can happen.
func Inject(ctx context.Context, o Options) ([]Injection, error) {
	var table []Injection
	for _, s := range world.Injections(1) {
		row := Injection{Fault: s.Name(), Findings: []Finding{}}
		for seed := o.First; seed <= o.Last && ctx.Err() == nil; seed++ {
			w := o.World
			w.Seed = seed
			base, err := world.Run(w)
			if err != nil {
				return nil, err
			}
			if err := row.everywhere(ctx, o, base, s); err != nil {
				return nil, err
			}
		}
		table = append(table, row)
	}
	return table, ctx.Err()
}

// everywhere injects s before each step of base.
func (row *Injection) everywhere(ctx context.Context, o Options, base world.Result, s world.Step) error {
	var mu sync.Mutex
	var first error
	places := make(chan int)
	var workers sync.WaitGroup
	for range o.Jobs {
		workers.Go(func() {
			for at := range places {
				r, done, err := world.Inject(base, at, s)
				mu.Lock()
				if err == nil {
					err = row.add(o, r, done)
				}
				if first == nil {
					first = err
				}
				mu.Unlock()
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

func (row *Injection) add(o Options, r world.Result, done bool) error {
	row.Places++
	row.Steps += uint64(r.Steps)
	if done {
		row.Done++
	}
	if len(r.Findings) == 0 || len(row.Findings) >= maxFindings {
		return nil
	}
	short := world.Shrink(r, o.ShrinkTries)
	f := Finding{Seed: r.Options.Seed, Invariant: short.Findings[0].Invariant.String(), Text: short.Findings[0].String(), Steps: len(short.Script)}
	f.Path = filepath.Join(o.Folder, fmt.Sprintf("%s-%s-seed%d-%d.txt", row.Fault, f.Invariant, f.Seed, row.Places))
	row.Findings = append(row.Findings, f)
	if err := os.MkdirAll(o.Folder, 0o755); err != nil {
		return err
	}
	return os.WriteFile(f.Path, []byte(short.Scenario()), 0o644)
}

// WriteInjections prints the table, and reports whether nothing was found.
func WriteInjections(to io.Writer, table []Injection) (clean bool) {
	clean = true
	fmt.Fprintf(to, "%-10s %8s %8s %12s %9s\n", "fault", "places", "done", "steps", "findings")
	for _, row := range table {
		fmt.Fprintf(to, "%-10s %8d %8d %12d %9d\n", row.Fault, row.Places, row.Done, row.Steps, len(row.Findings))
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
