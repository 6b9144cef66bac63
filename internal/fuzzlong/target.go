package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hvlab/hvlab/fuzz"
)

const module = "github.com/hvlab/hvlab"

// A target is one fuzz function.
type target struct{ pkg, name string }

// list returns the targets that match: those of package fuzz in their order,
// then all others.
func list(ctx context.Context, match *regexp.Regexp) ([]target, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-list", "^Fuzz", "./...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go test -list: %w\n%s", err, out)
	}
	var all, names []target
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		switch {
		case strings.HasPrefix(lines.Text(), "Fuzz"):
			names = append(names, target{name: lines.Text()})
		case len(fields) > 1 && fields[0] == "ok":
			for _, n := range names {
				if match.MatchString(n.name) {
					all = append(all, target{strings.TrimPrefix(fields[1], module+"/"), n.name})
				}
			}
			names = nil
		}
	}
	rank := map[string]int{}
	for i, t := range fuzz.Targets() {
		rank["Fuzz"+t.Name] = i - len(fuzz.Targets())
	}
	slices.SortStableFunc(all, func(a, b target) int { return rank[a.name] - rank[b.name] })
	return all, nil
}

// A result is what one target did.
type result struct {
	target
	ran         time.Duration
	execs       int
	interesting int // inputs that reached new code in this run
	corpus      int // inputs at the end, seeds included
	coverage    string
	finding     string // the failure's output, "" if there was none
}

const header = "target                                             time  executions  execs/s   new  corpus  coverage  finding"

func (r result) String() string {
	finding := "no"
	if r.finding != "" {
		finding = "YES"
	}
	return fmt.Sprintf("%-46s %8v %11d %8.0f %5d %7d  %8s  %s", r.pkg+" "+r.name, r.ran.Round(time.Second), r.execs,
		float64(r.execs)/max(r.ran.Seconds(), 1), r.interesting, r.corpus, r.coverage, finding)
}

// progress is a line of the fuzzer, as in
// "fuzz: elapsed: 9s, execs: 107483 (10159/sec), new interesting: 29 (total: 301)".
var progress = regexp.MustCompile(`elapsed: (\S+), execs: (\d+) .*new interesting: (\d+) \(total: (\d+)\)`)

// fuzz runs the target for its time.
func (t target) fuzz(ctx context.Context, o options, bin string) result {
	r := result{target: t, coverage: "-"}
	binary := filepath.Join(bin, strings.ReplaceAll(t.pkg, "/", "_"))
	if out, err := exec.CommandContext(ctx, "go", "test", "-c", "-fuzz", "Fuzz", "-o", binary, "./"+t.pkg).CombinedOutput(); err != nil {
		r.finding = fmt.Sprintf("%s does not build: %v\n%s", t.pkg, err, out)
		return r
	}
	cmd := niced(ctx, o.nice, binary, "-test.run=^$", "-test.fuzz=^"+t.name+"$", "-test.fuzztime="+o.time.String(),
		"-test.fuzzminimizetime=2s", "-test.parallel="+strconv.Itoa(o.parallel), "-test.fuzzcachedir="+filepath.Join(o.cache, t.pkg))
	cmd.Dir = t.pkg
	out, err := cmd.CombinedOutput()
	if all := progress.FindAllSubmatch(out, -1); len(all) > 0 {
		last := all[len(all)-1]
		r.ran, _ = time.ParseDuration(string(last[1]))
		r.execs, _ = strconv.Atoi(string(last[2]))
		r.interesting, _ = strconv.Atoi(string(last[3]))
		r.corpus, _ = strconv.Atoi(string(last[4]))
	}
	if err != nil && ctx.Err() == nil && !onlyTimeRanOut(out) {
		r.finding = fmt.Sprintf("== %s %s\n%s", t.pkg, t.name, out)
	}
	if t.pkg == "fuzz" && ctx.Err() == nil {
		r.coverage = t.minimise(ctx, o)
	}
	return r
}

// onlyTimeRanOut: the fuzzer may report the end of its own time as a failure, Go
// issue 75804. A finding names its input.
func onlyTimeRanOut(out []byte) bool {
	return bytes.Contains(out, []byte("context deadline exceeded")) && !regexp.MustCompile(`Failing input|panic:|fatal error:`).Match(out)
}

// minimise says what of the module the target's inputs cover, and with -keep
// makes the corpus of package fuzz those that are needed for it.
func (t target) minimise(ctx context.Context, o options) string {
	args := []string{"go", "test", "./fuzz", "-count=1", "-run", "^TestMinimise$", "-cover", "-coverpkg=" + coverage, "-v",
		"-args", "-target=" + strings.TrimPrefix(t.name, "Fuzz"), "-learned=" + filepath.Join(o.cache, t.pkg, t.name)}
	if o.keep {
		args = append(args, "-keep")
	}
	out, err := niced(ctx, o.nice, args...).CombinedOutput()
	m := regexp.MustCompile(`covers (\d+\.\d+)%`).FindSubmatch(out)
	if err != nil || m == nil {
		fmt.Fprintf(os.Stderr, "%s: no coverage: %v\n%s", t.name, err, out)
		return "-"
	}
	return string(m[1]) + "%"
}

// coverage are the packages whose code the targets are after.
const coverage = "./vmbus/...,./ringbuffer,./channel,./offers,./endpoint,./hvsock"

// niced is a command that gives way to everything else, where there is nice.
func niced(ctx context.Context, level int, args ...string) *exec.Cmd {
	if path, err := exec.LookPath("nice"); err == nil {
		args = append([]string{path, "-n", strconv.Itoa(level)}, args...)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // the fuzzer then says how far it came
	cmd.WaitDelay = 10 * time.Second
	return cmd
}
