// Package campaign runs many seeds of sim/world on all cores, and makes one
// report of what they found. Reports of several machines merge.
package campaign

import (
	"context"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hvlab/hvlab/sim/world"
)

// Options describe a campaign.
type Options struct {
	First, Last uint64 // seeds, both included
	Shard       Shard
	World       world.Options
	Jobs        int
	Folder      string       // where the scenarios of findings go
	Progress    func(Report) // called about once a second, on one goroutine; may be nil
	ShrinkTries int
}

// seeds are those from First to Last, which may be the largest there is, until ctx
// ends.
func (o Options) seeds(ctx context.Context) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for seed := o.First; seed <= o.Last && ctx.Err() == nil && yield(seed) && seed < o.Last; seed++ {
		}
	}
}

// maxFindings ends a campaign early: more of the same tells nothing.
const maxFindings = 20

// twiceEvery is how many seeds have one that is run twice, to compare.
const twiceEvery = 32

// A job is a campaign that is running.
type job struct {
	opts   Options
	next   atomic.Uint64 // index of the next seed of this shard
	mu     sync.Mutex
	report Report
}

// Run runs the seeds of o's shard until they are done or ctx ends. The error says
// why a scenario could not be written.
func Run(ctx context.Context, o Options) (Report, error) {
	world.CountCells()
	j := &job{opts: o, report: newReport(o)}
	start := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var workers sync.WaitGroup
	errs := make(chan error, o.Jobs)
	for range o.Jobs {
		workers.Go(func() {
			if err := j.work(ctx); err != nil {
				errs <- err
				cancel()
			}
		})
	}
	ended := make(chan struct{})
	go func() { workers.Wait(); close(ended) }()
	j.watch(ended, start)
	r := j.snapshot(start)
	r.Interrupted = ctx.Err() != nil && len(errs) == 0 && r.Runs < r.Planned && len(r.Findings) < maxFindings
	select {
	case err := <-errs:
		return r, err
	default:
		return r, nil
	}
}

// watch reports progress until ended.
func (j *job) watch(ended <-chan struct{}, start time.Time) {
	ticks := time.NewTicker(time.Second)
	defer ticks.Stop()
	for {
		select {
		case <-ended:
			return
		case <-ticks.C:
			if j.opts.Progress != nil {
				j.opts.Progress(j.snapshot(start))
			}
		}
	}
}

func (j *job) snapshot(start time.Time) Report {
	j.mu.Lock()
	defer j.mu.Unlock()
	r := j.report.clone()
	r.Seconds = time.Since(start).Seconds()
	for _, c := range world.Cells() {
		if c.Visits > 0 {
			r.Cells[world.CellName(c)] = c.Visits
		}
	}
	return r
}

// work runs seeds until there are none.
func (j *job) work(ctx context.Context) error {
	for ctx.Err() == nil {
		seed, ok := j.take()
		if !ok {
			return nil
		}
		o := j.opts.World
		o.Seed = seed
		r, err := world.Run(o)
		if err != nil {
			return err
		}
		if seed%twiceEvery == 0 && len(r.Findings) == 0 {
			again, err := world.Run(o)
			if err != nil {
				return err
			}
			r.Same(again)
			if o.Hostile && o.Guests > 1 {
				if err := isolate(&r); err != nil {
					return err
				}
			}
		}
		if err := j.done(r); err != nil {
			return err
		}
	}
	return nil
}

// isolate compares the neighbour of r's attacker with one that has none.
func isolate(r *world.Result) error {
	apart, err := world.Isolated(r.Options)
	r.Exercised[world.Isolation] += apart.Exercised[world.Isolation]
	r.Findings = append(r.Findings, apart.Findings...)
	return err
}

// take returns the next seed of this shard.
func (j *job) take() (uint64, bool) {
	j.mu.Lock()
	full := len(j.report.Findings) >= maxFindings
	j.mu.Unlock()
	n := j.next.Add(1) - 1
	seed := j.opts.First + n*uint64(j.opts.Shard.Count) + uint64(j.opts.Shard.Index)
	return seed, !full && n < j.report.Planned && seed <= j.opts.Last
}

// done adds a run to the report.
func (j *job) done(r world.Result) error {
	var f *Finding
	if len(r.Findings) > 0 {
		short := world.Shrink(r, j.opts.ShrinkTries)
		f = &Finding{Seed: r.Options.Seed, Invariant: short.Findings[0].Invariant.String(), Text: short.Findings[0].String(), Steps: len(short.Script)}
		f.Path = filepath.Join(j.opts.Folder, fmt.Sprintf("%s-seed%d.txt", f.Invariant, f.Seed))
		if err := os.MkdirAll(j.opts.Folder, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(f.Path, []byte(short.Scenario()), 0o644); err != nil {
			return err
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.report.add(r, f)
	return nil
}
