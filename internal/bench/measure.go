package main

import (
	"math"
	"regexp"
	"runtime"
	"time"
)

// A candidate is one implementation, ready to do the workload's operation.
type candidate struct {
	name string
	// run does the operation n times and returns when everything it set in
	// motion is over, so that nothing spills into the next candidate's turn.
	run   func(n int) error
	close func()
}

// A workload is an operation that several candidates can do.
type workload struct {
	name  string
	bytes int // per operation, for the report; 0 if none are moved
	once  bool
	open  func(only *regexp.Regexp) ([]candidate, error)
}

// A result is what one candidate needed in one process.
type result struct {
	Workload  string
	Candidate string
	NSPerOp   []float64 // by round
	Allocs    float64   // per operation, over all rounds
	Bytes     float64   `json:",omitempty"` // what idle measures
}

// measure lets the candidates of w take turns.
func measure(w workload, only *regexp.Regexp, o options) ([]result, error) {
	candidates, err := w.open(only)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, c := range candidates {
			c.close()
		}
	}()
	results := make([]result, len(candidates))
	turns := make([]int, len(candidates))
	mallocs := make([]uint64, len(candidates))
	for i, c := range candidates {
		results[i] = result{Workload: w.name, Candidate: c.name}
		if turns[i], err = calibrate(c, w.once, o.turn); err != nil {
			return nil, err
		}
	}
	rounds := o.rounds
	if w.once {
		rounds = (rounds + 2) / 3 // an operation is much longer than a turn
	}
	for round := range rounds {
		for turn := range candidates {
			i := (turn + round) % len(candidates) // nobody always follows the same one
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			if err := candidates[i].run(turns[i]); err != nil {
				return nil, err
			}
			ns := float64(time.Since(start).Nanoseconds())
			runtime.ReadMemStats(&after)
			mallocs[i] += after.Mallocs - before.Mallocs
			results[i].NSPerOp = append(results[i].NSPerOp, ns/float64(turns[i]))
		}
	}
	for i := range results {
		results[i].Allocs = float64(mallocs[i]) / float64(turns[i]*rounds)
	}
	return results, nil
}

// calibrate warms a candidate up and returns how many operations fill a turn. On
// a busy machine one look can be far too long, so the best of three counts.
func calibrate(c candidate, once bool, turn time.Duration) (int, error) {
	if once {
		return 1, c.run(1)
	}
	for n := 1; ; n *= 2 {
		best := time.Duration(math.MaxInt64)
		for range 3 {
			start := time.Now()
			if err := c.run(n); err != nil {
				return 0, err
			}
			if best = min(best, time.Since(start)); best < turn/2 {
				break
			}
		}
		if best >= turn/2 {
			return max(1, int(float64(n)*float64(turn)/float64(best))), nil
		}
	}
}
