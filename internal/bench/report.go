package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// A report is what the command prints.
type report struct {
	Machine string
	Options string
	Lines   []line
	Results []result // as measured, one per process, workload and candidate
}

// A line compares two candidates of one workload.
type line struct {
	Workload, Candidate, Rival string
	NS, RivalNS                float64 // per operation: median of the processes' medians
	Allocs                     float64 // of the candidate, per operation: smallest of the processes
	Q1, Ratio, Q3              float64 // the rival's time divided by the candidate's
	Goal                       float64 // what issue 5 wants Ratio to be at least; 0 if nothing
}

// goals of issue 5, as speed relative to the rival: a time of at most 0.80 of
// the rival's is a speed of 1.25. The packet goals are nanoseconds on a machine
// where the floor was 28, 51 and 157 (47, 78 and 165), so they are compared as
// multiples of the floor.
var goals = map[[3]string]float64{
	{"stream/64B", hvlab5, bufconn16}:                      0.65,
	{"stream/1KiB", hvlab5, bufconn16}:                     0.85,
	{"stream/4KiB", hvlab5, bufconn16}:                     0.90,
	{"stream/16KiB", hvlab5, bufconn16}:                    1.00,
	{"stream/64KiB", hvlab5, bufconn16}:                    1.05,
	{"stream/64B", hvlab33, bufconn16}:                     0.70,
	{"stream/1KiB", hvlab33, bufconn16}:                    1.00,
	{"stream/4KiB", hvlab33, bufconn16}:                    1.30,
	{"stream/16KiB", hvlab33, bufconn16}:                   1.50,
	{"stream/64KiB", hvlab33, bufconn16}:                   1.50,
	{"stream/64B", hvlab33, unixSocket}:                    12,
	{"stream/1KiB", hvlab33, unixSocket}:                   12,
	{"stream/4KiB", hvlab33, unixSocket}:                   6,
	{"stream/16KiB", hvlab33, unixSocket}:                  4,
	{"stream/64KiB", hvlab33, unixSocket}:                  3,
	{"ping-pong/64B", hvlab5, bufconn16}:                   1.25,
	{"ping-pong/64B", hvlab5, netPipe}:                     4,
	{"setup", hvlab5, unixSocket}:                          1,
	{"copy/64MiB", hvlab33, ioPipe}:                        1.5,
	{"connections/4KiB", hvlab5 + " x100", hvlab5 + " x1"}: 0.9,
	{"packet/64B", ringContiguous, ringFloor}:              28. / 47,
	{"packet/1KiB", ringContiguous, ringFloor}:             51. / 78,
	{"packet/4KiB", ringContiguous, ringFloor}:             157. / 165,
}

// ours are the candidates that are compared with the others.
var ours = []string{hvlab5, hvlab33, hvlab5L, hvlab33L, hvlab5 + " x1", hvlab5 + " x100", ringContiguous, ringScattered}

// limits are what a ring could do at best, for ours with the same ring.
var limits = map[string]string{hvlab5: bare5, hvlab5L: bare5, hvlab33: bare33, hvlab33L: bare33}

// shown says whether the table compares c with the rival.
func shown(workload, c, rival string) bool {
	switch {
	case rival == bare5 || rival == bare33:
		return limits[c] == rival
	case c == bare5 || c == bare33:
		return rival == bufconn16 || goals[[3]string{workload, hvlab5, rival}] != 0
	}
	return !slices.Contains(ours, rival) || goals[[3]string{workload, c, rival}] != 0
}

func newReport(machine string, o options, all []result) report {
	r := report{
		Machine: machine,
		Options: fmt.Sprintf("%d processes x %d rounds, turns of %v, %s", o.starts, o.rounds, o.turn, time.Now().UTC().Format(time.DateOnly)),
		Results: all,
	}
	var workloads, candidates []string // in the order measured
	for _, m := range all {
		if !slices.Contains(workloads, m.Workload) {
			workloads = append(workloads, m.Workload)
		}
		if !slices.Contains(candidates, m.Candidate) {
			candidates = append(candidates, m.Candidate)
		}
	}
	for _, w := range workloads {
		for _, c := range append(slices.Clone(ours), bare5, bare33) {
			for _, rival := range candidates {
				if !shown(w, c, rival) {
					continue
				}
				if l, ok := compare(w, c, rival, all); ok {
					r.Lines = append(r.Lines, l)
				}
			}
		}
	}
	return r
}

// compare makes one line; ok is false if one of the two was not measured.
func compare(workload, candidate, rival string, all []result) (l line, ok bool) {
	l = line{Workload: workload, Candidate: candidate, Rival: rival, Goal: goals[[3]string{workload, candidate, rival}]}
	a, b := find(workload, candidate, all), find(workload, rival, all)
	if len(a) == 0 || len(a) != len(b) {
		return l, false
	}
	var ratios, medians, ns, rivalNS []float64
	l.Allocs = a[0].Allocs
	for start := range a {
		var own []float64
		for round := range a[start].NSPerOp {
			own = append(own, b[start].NSPerOp[round]/a[start].NSPerOp[round])
		}
		ratios = append(ratios, own...)
		medians = append(medians, quantile(own, 0.5))
		ns = append(ns, quantile(a[start].NSPerOp, 0.5))
		rivalNS = append(rivalNS, quantile(b[start].NSPerOp, 0.5))
		l.Allocs = min(l.Allocs, a[start].Allocs)
	}
	l.NS, l.RivalNS = quantile(ns, 0.5), quantile(rivalNS, 0.5)
	l.Q1, l.Ratio, l.Q3 = quantile(ratios, 0.25), quantile(medians, 0.5), quantile(ratios, 0.75)
	return l, true
}

// find returns a candidate's results, one per process.
func find(workload, candidate string, all []result) (found []result) {
	for _, m := range all {
		if m.Workload == workload && m.Candidate == candidate {
			found = append(found, m)
		}
	}
	return found
}

// quantile interpolates between the two nearest values.
func quantile(values []float64, q float64) float64 {
	v := slices.Sorted(slices.Values(values))
	at := q * float64(len(v)-1)
	i := int(at)
	if i+1 == len(v) {
		return v[i]
	}
	return v[i] + (v[i+1]-v[i])*(at-float64(i))
}

// print writes the table.
func (r report) print(w io.Writer) error {
	fmt.Fprintf(w, "%s\n%s\n\n", r.Machine, r.Options)
	fmt.Fprint(w, "speed = time of the rival / time of the candidate; more is better. ns and allocations are per operation.\n\n")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "workload\tcandidate\tns\tallocs\trival\tns\tspeed\tquartiles\tgoal\t\n")
	last := [2]string{}
	for _, l := range r.Lines {
		first := fmt.Sprintf("%s\t%s\t%.0f\t%.1f", l.Workload, l.Candidate, l.NS, l.Allocs)
		if at := [2]string{l.Workload, l.Candidate}; at == last {
			first = "\t\t\t"
		} else {
			last = at
		}
		goal := "\t"
		if l.Goal > 0 {
			goal = fmt.Sprintf("%.2f\t%s", l.Goal, map[bool]string{true: "met", false: "MISSED"}[l.Ratio >= l.Goal])
		}
		fmt.Fprintf(t, "%s\t%s\t%.0f\t%.2f\t%.2f..%.2f\t%s\n", first, l.Rival, l.RivalNS, l.Ratio, l.Q1, l.Q3, goal)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	var idle []float64
	for _, m := range find(idleName, hvlab5, r.Results) {
		idle = append(idle, m.Bytes)
	}
	var cpu []float64
	for _, m := range find(idleCPUName, hvlab5, r.Results) {
		cpu = append(cpu, m.NSPerOp...)
	}
	if len(cpu) > 0 {
		fmt.Fprintf(w, "\nidle: %d connections that do nothing take %.0f µs of CPU in a second, the whole process included\n", idleConnections, quantile(cpu, 0.5)/1e3)
	}
	if len(idle) > 0 {
		fmt.Fprintf(w, "\nidle: each end of a connection costs %.0f bytes beside the ring pages (goal: at most 4096)\n", quantile(idle, 0.5))
	}
	return nil
}
