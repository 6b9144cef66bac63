package world

import (
	"math/rand/v2"
)

// A Chooser decides what happens.
type Chooser interface {
	// Choose picks one of steps, which is not empty, by its index. A step of
	// twice the weight should be picked twice as often.
	Choose(steps []Step, weights []uint16) int
	// Draw picks a number from 0 to n-1: how much an application writes, say.
	Draw(n int) int
}

// A Random chooser picks by weight.
type Random struct{ rng rand.PCG }

// NewRandom returns a Random chooser; the same seed makes the same choices.
func NewRandom(seed uint64) *Random { return &Random{*rand.NewPCG(seed, 0x776F726C64)} }

// Choose is part of Chooser.
func (r *Random) Choose(_ []Step, weights []uint16) int {
	total := 0
	for _, w := range weights {
		total += int(w)
	}
	at := r.Draw(total)
	for i, w := range weights {
		if at -= int(w); at < 0 {
			return i
		}
	}
	return len(weights) - 1
}

// Draw is part of Chooser.
func (r *Random) Draw(n int) int {
	if n <= 1 {
		return 0
	}
	return int(r.rng.Uint64() >> 33 % uint64(n))
}

// Priorities is a chooser that gives every actor a random priority and always
// runs the highest that can run; at a few random moments, and whenever one has
// run long, the running one becomes the lowest. Orders that need one side to be
// very slow come up far more often than with Random.
// Source: S. Burckhardt and others, A Randomized Scheduler with Probabilistic
// Guarantees of Finding Bugs, 2010.
type Priorities struct {
	Random
	priority map[actorKey]int
	lowest   int
	streak   int
	last     actorKey
}

// An actorKey is who does a step: its priority is that of all it does. It is a
// number, which hashes sooner than a struct.
type actorKey uint64

func (s Step) actor() actorKey {
	return actorKey(s.Kind)<<40 | actorKey(s.Guest)<<32 | actorKey(s.Actor)
}

// maxStreak bounds how long one actor runs although others could.
const maxStreak = 64

// NewPriorities returns a Priorities chooser.
func NewPriorities(seed uint64) *Priorities {
	return &Priorities{Random: *NewRandom(seed), priority: map[actorKey]int{}}
}

// Choose is part of Chooser. Rare steps stay rare: the weights decide first
// whether one of those is taken.
func (p *Priorities) Choose(steps []Step, weights []uint16) int {
	if at := p.Random.Choose(steps, weights); weights[at] <= rareWeight {
		return at
	}
	best, bestPriority := 0, 0
	var key actorKey
	for i, s := range steps {
		if weights[i] <= rareWeight && len(steps) > 1 {
			continue
		}
		k := s.actor()
		priority, known := p.priority[k]
		if !known {
			priority = 1 + p.Draw(1<<20)
			p.priority[k] = priority
		}
		if key == 0 || priority > bestPriority {
			best, bestPriority, key = i, priority, k
		}
	}
	if key != p.last {
		p.last, p.streak = key, 0
	}
	if p.streak++; p.streak > maxStreak || p.Draw(100) == 0 {
		p.lowest--
		p.priority[key] = p.lowest
	}
	return best
}

// A Path is a chooser that follows a list of choices and notes how many
// possibilities each had: see Exhaust. After the list it takes the first.
type Path struct {
	Taken []int // what to choose
	Wide  []int // how many there were, for each choice made
}

// Choose is part of Chooser.
func (p *Path) Choose(steps []Step, _ []uint16) int { return p.next(len(steps)) }

// maxDrawn is up to where every number that is drawn counts as a possibility of
// its own; of more, such as how much is written, only the least, the middle and the
// most.
const maxDrawn = 4

// Draw is part of Chooser.
func (p *Path) Draw(n int) int {
	if n <= maxDrawn {
		return p.next(n)
	}
	return [...]int{0, n / 2, n - 1}[p.next(3)]
}

// next is the next choice of n possibilities.
func (p *Path) next(n int) int {
	if n <= 1 { // no choice
		return 0
	}
	at := len(p.Wide)
	p.Wide = append(p.Wide, n)
	if at < len(p.Taken) {
		return p.Taken[at]
	}
	return 0
}

// Exhaust runs o with every sequence of the first depth choices after skip, in
// order, until a run finds something or limit runs are done: for small worlds. It
// returns the number of runs, whether that was all of them, and the run that found
// something, or the last.
func Exhaust(o Options, skip, depth, limit int) (runs int, all bool, last Result, err error) {
	taken := make([]int, skip)
	for runs < limit {
		p := &Path{Taken: taken}
		o.Chooser = p
		if last, err = Run(o); err != nil || len(last.Findings) > 0 {
			return runs + 1, false, last, err
		}
		runs++
		// The next sequence: the last choice that can be raised, raised.
		at := min(skip+depth, len(p.Wide)) - 1
		next := append(append([]int{}, taken...), make([]int, max(0, at+1-len(taken)))...)
		for at >= skip && next[at]+1 >= p.Wide[at] {
			at--
		}
		if at < skip {
			return runs, true, last, nil
		}
		taken = append(next[:at:at], next[at]+1)
	}
	return runs, false, last, nil
}
