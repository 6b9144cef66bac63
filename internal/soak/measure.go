package main

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/sim"
	"github.com/hvlab/hvlab/vmbus/trace"
)

// An attacker is a hostile peer at an end of ours.
type attacker interface {
	// attack does one hostile thing; with mute it only prepares it.
	attack(mute bool)
	// connections are those that our end keeps for the attacker now.
	connections() int
	// pages is the attacker's own memory in use, in 4 KiB pages.
	pages() int
	// close ends both; nothing of them may be left.
	close() error
}

// A form makes an attacker, at the host of the neighbour or at an end of its own;
// lines is the log of whoever is attacked.
type form func(host *sim.Host, lines *lineCounter, seed uint64) (attacker, error)

// Budgets of one peer. Source: faults.md 5.
const (
	peerBytes            = 64<<20 + 32<<20 // page lists, and everything else
	connectionBytes      = 1 << 20
	connectionGoroutines = 2
	// peerGoroutines are those of an end and of the test's own service for it.
	peerGoroutines = 16
	linesPerSecond = 10 // with the one that counts the rest
	pageBytes      = 4096
)

// A lineCounter is a trace sink that counts lines about dropped messages.
type lineCounter struct {
	mu     sync.Mutex
	second int64
	lines  int
	most   int // in any second
	all    int
}

// count is a trace.Sink.
func (c *lineCounter) count(e trace.Event) {
	if e.Name != "drop" && e.Name != "drops left out" {
		return // the recording of a conversation is no log
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := e.At.Unix(); now != c.second {
		c.second, c.lines = now, 0
	}
	c.lines++
	c.all++
	c.most = max(c.most, c.lines)
}

// anew begins with the log of another end: the limit is one of each.
func (c *lineCounter) anew() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines = 0
}

// A report is what one form of the soak saw.
type report struct {
	time                          time.Duration
	attacks                       uint64
	with, without                 float64 // MB/s of the neighbour
	lost                          error
	heap, heapBudget              int64 // most bytes beyond those at the start, and what was allowed then
	goroutines, goroutinesAllowed int64
	exceeded                      error // a sample that was above what was allowed then
	lines, mostLines              int
	connections                   int   // most at once
	left                          error // what was not given back
}

func (r *report) String() string {
	lost := "nothing lost"
	if r.lost != nil {
		lost = r.lost.Error()
	}
	return fmt.Sprintf("  %v, %d attacks in %v of it, %d connections at most\n", r.time.Round(time.Millisecond), r.attacks, (r.time/2).Round(time.Millisecond), r.connections) +
		fmt.Sprintf("  neighbour   %.0f MB/s beside it, %.0f MB/s without: %.2f; %s\n", r.with, r.without, r.with/max(r.without, 1), lost) +
		fmt.Sprintf("  heap        %.1f MiB at most, %.1f MiB allowed\n", float64(r.heap)/(1<<20), float64(r.heapBudget)/(1<<20)) +
		fmt.Sprintf("  goroutines  %d at most, %d allowed\n", r.goroutines, r.goroutinesAllowed) +
		fmt.Sprintf("  log lines   %d in all, %d at most in a second\n", r.lines, r.mostLines)
}

// judge says what was not kept.
func (r *report) judge(o options) error {
	var failed error
	if r.with < o.share*r.without {
		failed = errors.Join(failed, fmt.Errorf("the neighbour kept %.2f of its throughput, not %.2f", r.with/r.without, o.share))
	}
	if r.mostLines > linesPerSecond {
		failed = errors.Join(failed, fmt.Errorf("%d lines in a second", r.mostLines))
	}
	return errors.Join(failed, r.exceeded, r.lost, r.left)
}

// soak runs one form.
func soak(o options, hostile form) (*report, error) {
	lines := &lineCounter{}
	host, err := sim.NewHost(sim.HostOptions{Trace: lines.count})
	if err != nil {
		return nil, err
	}
	n, err := newNeighbour(host)
	if err != nil {
		return nil, errors.Join(err, host.Close())
	}
	a, err := hostile(host, lines, o.seed)
	if err != nil {
		return nil, errors.Join(err, n.close())
	}
	r := &report{goroutinesAllowed: peerGoroutines, heapBudget: peerBytes}
	heap, goroutines := heapBytes(), runtime.NumGoroutine()
	own := int64(a.pages()) * pageBytes
	start := time.Now()
	var bytes [2]uint64 // of the neighbour, without and with the attacker
	for turn := 0; time.Since(start) < o.time; turn++ {
		attacking := turn%2 == 1
		before := n.received.Load()
		attacks := assault(a, o, !attacking)
		moved := n.received.Load() - before
		if attacking {
			bytes[1] += moved
			r.attacks += attacks
		} else if turn > 0 { // the first turn warms up
			bytes[0] += moved
		}
		connections := a.connections()
		r.connections = max(r.connections, connections)
		r.sample(&r.goroutines, &r.goroutinesAllowed, int64(runtime.NumGoroutine()-goroutines), int64(peerGoroutines+connections*connectionGoroutines))
		if turn%8 == 0 { // a collection stops everybody
			grown := heapBytes() - heap - (int64(a.pages())*pageBytes - own)
			r.sample(&r.heap, &r.heapBudget, grown, peerBytes+int64(connections)*connectionBytes)
		}
	}
	r.time = time.Since(start)
	half := r.time.Seconds() / 2
	r.without, r.with = float64(bytes[0])/half/1e6, float64(bytes[1])/half/1e6
	r.left = a.close()
	r.lost = n.close()
	r.lines, r.mostLines = lines.all, lines.most
	return r, nil
}

// sample keeps the highest value with what was allowed at that moment, and
// whether any was above what was allowed at its own.
func (r *report) sample(most, allowedThen *int64, value, allowed int64) {
	if value > allowed && r.exceeded == nil {
		r.exceeded = fmt.Errorf("%d bytes of heap, or goroutines, where %d were allowed", value, allowed)
	}
	if value >= *most {
		*most, *allowedThen = value, allowed
	}
}

// assault attacks for one turn at the given rate, and says how often.
func assault(a attacker, o options, mute bool) (attacks uint64) {
	const burst = 5 * time.Millisecond
	start := time.Now()
	for now := start; now.Sub(start) < o.turn; now = time.Now() {
		if o.rate > 0 && float64(attacks) > now.Sub(start).Seconds()*float64(o.rate) {
			time.Sleep(burst)
			continue
		}
		a.attack(mute)
		attacks++
	}
	return attacks
}

func heapBytes() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// received counts bytes; the neighbour's reader owns it.
type counter struct{ atomic.Uint64 }

const ringPages = channel.DefaultRingPages
