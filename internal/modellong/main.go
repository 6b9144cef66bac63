// Command modellong runs every rapid test of the module with random seeds, again
// and again for a while, one test after another, and prints what each did.
//
//	go run ./internal/modellong -time 10m              # every test, 10 minutes each
//	go run ./internal/modellong -time 1h -run '^TestModel$'
//
// "go test" draws the same values in every run (package fixedseed); this is where
// new ones are drawn. A finding is printed whole: what broke, the scenario that
// shows it if the test makes one, and the flags with the seed that find it again.
// The exit status is 1 if there was one.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// options are the flags.
type options struct {
	time  time.Duration // for each test
	batch time.Duration // for each seed
	run   *regexp.Regexp
}

func main() {
	var o options
	flag.DurationVar(&o.time, "time", 5*time.Minute, "how long each test runs")
	flag.DurationVar(&o.batch, "batch", time.Minute, "how long one seed is used, about")
	run := flag.String("run", "", "only tests whose name matches this regular expression")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	if o.run, err = regexp.Compile(*run); err == nil {
		err = campaign(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "modellong:", err)
		os.Exit(1)
	}
}

// campaign runs the tests and prints a line for each when it is done.
func campaign(ctx context.Context, o options) error {
	all, err := list(".")
	if err != nil {
		return err
	}
	bin, err := os.MkdirTemp("", "modellong")
	if err != nil {
		return err
	}
	defer os.RemoveAll(bin)
	fmt.Println(header)
	tests, findings := 0, 0
	for _, t := range all {
		if !o.run.MatchString(t.name) || ctx.Err() != nil {
			continue
		}
		r, err := t.check(ctx, o, bin)
		if err != nil {
			return err
		}
		fmt.Println(r)
		tests++
		if r.finding != "" {
			findings++
			fmt.Println(r.finding)
		}
	}
	fmt.Printf("%d tests, %d findings\n", tests, findings)
	switch {
	case findings > 0:
		return fmt.Errorf("%d findings", findings)
	case tests == 0:
		return fmt.Errorf("no rapid test matches -run %q", o.run)
	}
	return ctx.Err()
}

// A result is what one test did.
type result struct {
	test
	ran     time.Duration
	checks  int // in each subtest of the test
	seeds   int
	finding string // the failure's output, "" if there was none
}

const header = "test                                                       time     checks  checks/s  seeds  finding"

func (r result) String() string {
	finding := "no"
	if r.finding != "" {
		finding = "YES"
	}
	return fmt.Sprintf("%-54s %8v %10d %9.0f %6d  %s", r.pkg+" "+r.name, r.ran.Round(time.Second), r.checks,
		float64(r.checks)/max(r.ran.Seconds(), 1), r.seeds, finding)
}

// firstChecks is rapid's own number; how many a batch has follows from how long
// these took.
const firstChecks = 100

// check runs the test until the time is over or something is found. The error says
// that the test does not build.
func (t test) check(ctx context.Context, o options, bin string) (result, error) {
	r := result{test: t}
	exe := filepath.Join(bin, strings.ReplaceAll(t.pkg, "/", "-")+".test")
	if _, err := os.Stat(exe); err != nil {
		if out, err := exec.CommandContext(ctx, "go", "test", "-c", "-o", exe, "./"+t.pkg).CombinedOutput(); err != nil {
			return r, fmt.Errorf("%s: %w\n%s", t.pkg, err, out)
		}
	}
	for checks := firstChecks; r.ran < o.time && ctx.Err() == nil; {
		seed := rand.Uint64() | 1 // 0 would be rapid's own choice
		cmd := exec.CommandContext(ctx, exe, "-test.run", "^"+t.name+"$", "-test.timeout", "0",
			"-rapid.nofailfile", fmt.Sprintf("-rapid.checks=%d", checks), fmt.Sprintf("-rapid.seed=%d", seed))
		cmd.Dir = t.pkg
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		start := time.Now()
		err := cmd.Run()
		took := time.Since(start)
		r.ran += took
		if err != nil && ctx.Err() == nil {
			if !errors.As(err, new(*exec.ExitError)) {
				return r, err
			}
			r.finding = fmt.Sprintf("%s %s, first seed %d, %d checks:\n%s", t.pkg, t.name, seed, checks, out.String())
			return r, nil
		}
		if err == nil {
			r.checks += checks
			r.seeds++
		}
		checks = next(checks, took, min(o.batch, o.time-r.ran))
	}
	return r, nil
}

// next is how many checks take about want, if the last ones took so long.
func next(checks int, took, want time.Duration) int {
	n := float64(checks) * want.Seconds() / max(took.Seconds(), 0.001)
	return int(min(max(n, firstChecks), 10*float64(checks))) // the first were few, so believe them little
}
