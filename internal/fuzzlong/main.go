// Command fuzzlong runs every fuzz target of the module for a while, one after
// another, and prints what each did: executions, inputs that reached new code,
// coverage, findings.
//
//	go run ./internal/fuzzlong -time 10m            # all targets, 10 minutes each
//	go run ./internal/fuzzlong -time 1m -run 'Messages$' -jobs 2
//
// What it learns is kept in -cache and used by the next run. A finding is
// written to testdata/fuzz of the target's package by "go test"; commit it with
// its fix. Inputs of package fuzz that reach code no other input reaches can be
// added to its corpus with -keep. The exit status is 1 if there was a finding.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

// options are the flags.
type options struct {
	time     time.Duration // for each target
	run      *regexp.Regexp
	jobs     int // targets at once
	parallel int // workers for each
	nice     int
	cache    string
	keep     bool
}

func main() {
	var o options
	var run string
	flag.DurationVar(&o.time, "time", 10*time.Minute, "how long each target runs")
	flag.StringVar(&run, "run", "", "only targets whose name matches this regular expression")
	flag.IntVar(&o.jobs, "jobs", 1, "targets that run at the same time")
	flag.IntVar(&o.parallel, "parallel", 1, "workers for each target")
	flag.IntVar(&o.nice, "nice", 19, "niceness of the workers")
	flag.StringVar(&o.cache, "cache", filepath.Join(".cache", "fuzz"), "folder for what the fuzzer learns")
	flag.BoolVar(&o.keep, "keep", false, "add what reaches new code to the corpora of package fuzz, and drop what does not")
	flag.Parse()
	err := o.check(run, flag.Args())
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		err = campaign(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fuzzlong:", err)
		os.Exit(1)
	}
}

func (o *options) check(run string, rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("%q: there are no arguments, only flags (-h lists them)", rest[0])
	case o.time <= 0 || o.jobs < 1 || o.parallel < 1:
		return fmt.Errorf("-time, -jobs and -parallel must be positive")
	}
	var err error
	if o.run, err = regexp.Compile(run); err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	o.cache, err = filepath.Abs(o.cache)
	return err
}

// campaign runs the targets and prints a line for each when it is done.
func campaign(ctx context.Context, o options) error {
	targets, err := list(ctx, o.run)
	if err != nil {
		return err
	}
	if len(targets) == 0 {
		return fmt.Errorf("no target matches -run %q", o.run)
	}
	left := (time.Duration(len(targets)) * o.time / time.Duration(o.jobs)).Round(time.Second)
	fmt.Fprintf(os.Stderr, "%d targets, %v each, %d at a time: about %v\n", len(targets), o.time, o.jobs, left)
	bin, err := os.MkdirTemp("", "fuzzlong")
	if err != nil {
		return err
	}
	defer os.RemoveAll(bin)
	fmt.Println(header)
	next := make(chan target)
	results := make(chan result)
	var workers sync.WaitGroup
	for range o.jobs {
		workers.Go(func() {
			for t := range next {
				results <- t.fuzz(ctx, o, bin)
			}
		})
	}
	go func() {
		defer close(next)
		for _, t := range targets {
			select {
			case next <- t:
			case <-ctx.Done():
				return
			}
		}
	}()
	go func() { workers.Wait(); close(results) }()
	return report(results, len(targets))
}

// report prints the results as they come, and says in the end what was found.
func report(results <-chan result, targets int) error {
	var findings []string
	done, execs := 0, 0
	for r := range results {
		fmt.Println(r)
		done++
		execs += r.execs
		if r.finding != "" {
			findings = append(findings, r.finding)
		}
	}
	fmt.Printf("%d of %d targets, %d executions, %d findings\n", done, targets, execs, len(findings))
	if len(findings) > 0 {
		return fmt.Errorf("%d findings\n%s", len(findings), strings.Join(findings, "\n"))
	}
	return nil
}
