package world

import "testing"

func BenchmarkSteps(b *testing.B) {
	for _, level := range []struct {
		name   string
		checks Level
	}{{"all", CheckAll}, {"cheap", CheckCheap}, {"none", CheckNone}} {
		b.Run(level.name, func(b *testing.B) {
			b.ReportAllocs()
			steps, seed := 0, uint64(0)
			for b.Loop() {
				seed++
				r, err := Run(Options{Seed: seed, Checks: level.checks})
				if err != nil || len(r.Findings) > 0 {
					b.Fatal(err, r.Findings)
				}
				steps += r.Steps
			}
			b.ReportMetric(float64(steps)/b.Elapsed().Seconds(), "steps/s")
		})
	}
}
