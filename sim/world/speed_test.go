package world

import (
	"runtime/debug"
	"testing"
)

// BenchmarkSteps measures steps per second of one core, with everything checked
// after each, with what costs no look at messages and rings, and with nothing but
// the streams. On a busy machine steps/cpu-s is the figure to trust; -cpu 1 keeps
// the collector of garbage on that core. It runs as seldom as in hvlab sim.
func BenchmarkSteps(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(800))
	for _, level := range []struct {
		name   string
		checks Level
	}{{"all", CheckAll}, {"cheap", CheckCheap}, {"none", CheckNone}} {
		b.Run(level.name, func(b *testing.B) {
			b.ReportAllocs()
			steps, seed, used := 0, uint64(0), cpuTime()
			for b.Loop() {
				seed++
				r, err := Run(Options{Seed: seed, Checks: level.checks})
				if err != nil || len(r.Findings) > 0 {
					b.Fatal(err, r.Findings)
				}
				steps += r.Steps
			}
			b.ReportMetric(float64(steps)/b.Elapsed().Seconds(), "steps/s")
			if used = cpuTime() - used; used > 0 {
				b.ReportMetric(float64(steps)/used.Seconds(), "steps/cpu-s")
			}
		})
	}
}
