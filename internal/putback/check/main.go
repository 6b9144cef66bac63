package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// testLimit is how long one test may take, which is a hundred times what it
// needs. It is no judgement: a test that takes longer has missed the fault.
const testLimit = 60 * time.Second

func main() {
	verbose := flag.Bool("v", false, "show the output of every test that noticed its fault")
	seeds := flag.Int("world", 0, "also run hvlab sim with each fault, `N` seeds of each kind, and print what it finds")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: go run ./internal/putback/check [-v] [-world N] [ID...]")
		flag.PrintDefaults()
	}
	flag.Parse()
	ok, err := check(flag.Args(), *verbose, *seeds)
	if err != nil {
		fmt.Fprintln(os.Stderr, "check:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// check runs the rows with these ids, or all of them, and then the world.
func check(ids []string, verbose bool, seeds int) (ok bool, err error) {
	selected := slices.DeleteFunc(slices.Clone(rows), func(r row) bool {
		return len(ids) > 0 && !slices.Contains(ids, r.fault.String())
	})
	if len(selected) < len(ids) {
		return false, fmt.Errorf("the rows are GC-01 to GO-09, not all of %v", ids)
	}
	b, err := build(selected)
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(b.dir)
	texts, err := comments(filepath.Join(b.root, "internal", "putback", "faults.go"))
	if err != nil {
		return false, err
	}
	healthy := b.healthy(selected)
	var results = make([]result, len(selected))
	var all sync.WaitGroup
	turns := make(chan struct{}, 2)
	for i, r := range selected {
		all.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			results[i] = b.judge(r, healthy)
		})
	}
	all.Wait()
	ok = report(selected, results, texts, verbose)
	if seeds > 0 {
		if err := b.world(selected, seeds); err != nil {
			return ok, err
		}
	}
	if len(ids) > 0 {
		return ok, nil
	}
	return ok, b.untouched()
}

// untouched makes sure that a normal build has no trace of this package: neither
// a call of On nor data that a switch needs.
func (b *binaries) untouched() error {
	program := filepath.Join(b.dir, "hvlab")
	cmd := exec.Command("go", "build", "-o", program, "./cmd/hvlab")
	cmd.Dir = b.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build ./cmd/hvlab: %w\n%s", err, out)
	}
	symbols, err := exec.Command("go", "tool", "nm", program).Output()
	if err != nil {
		return fmt.Errorf("go tool nm: %w", err)
	}
	if found := regexp.MustCompile(`(?m)^.*internal/putback\..*$`).Find(symbols); found != nil {
		return fmt.Errorf("a normal build contains %s", bytes.TrimSpace(found))
	}
	fmt.Println("a normal build of hvlab has no symbol of internal/putback")
	return nil
}

// A result is what came of one row.
type result struct {
	verdict string // caught, MISSED, BROKEN or not applicable
	detail  string
	output  string
}

const (
	caught        = "caught"
	missed        = "MISSED"
	broken        = "BROKEN"
	notApplicable = "not applicable"
)

// judge runs the tests of a row with its fault put back.
func (b *binaries) judge(r row, healthy map[test]string) result {
	if r.never != "" {
		return result{verdict: notApplicable, detail: r.never}
	}
	var symptoms []string
	var output strings.Builder
	for _, t := range r.tests {
		if why := healthy[t]; why != "" {
			return result{broken, t.String() + " without the fault: " + why, ""}
		}
		out, err := b.run(t.folder, t.pattern(), r.fault.String())
		output.WriteString(out)
		var exit *exec.ExitError
		switch {
		case err == nil:
			return result{missed, t.String() + " passes", out}
		case !errors.As(err, &exit) || !exit.Exited():
			return result{missed, t.String() + " did not end: " + err.Error(), out}
		}
		symptoms = append(symptoms, t.folder+": "+symptom(out))
	}
	return result{caught, strings.Join(symptoms, "; "), output.String()}
}

// binaries are the test binaries with the switches in them.
type binaries struct{ root, dir string }

// build compiles the packages of rows once. The second tag is ringbuffer's, whose
// order of loads and stores only a hook before each load can show.
func build(rows []row) (b *binaries, err error) {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return nil, fmt.Errorf("go list -m: %w", err)
	}
	b = &binaries{root: strings.TrimSpace(string(root))}
	if b.dir, err = os.MkdirTemp("", "putback"); err != nil {
		return nil, err
	}
	args := []string{"test", "-c", "-tags", "hvlab_putback,hvlab_mutate", "-o", b.dir + string(filepath.Separator)}
	for _, folder := range folders(rows) {
		args = append(args, "./"+folder)
	}
	if len(args) == 6 {
		return b, nil
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = b.root
	if out, err := cmd.CombinedOutput(); err != nil {
		os.RemoveAll(b.dir)
		return nil, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return b, nil
}

// folders lists the packages of rows.
func folders(rows []row) (list []string) {
	for _, r := range rows {
		for _, t := range r.tests {
			list = append(list, t.folder)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// healthy runs every test without a fault, each package at a time, and says of
// each what is wrong with it, or "".
func (b *binaries) healthy(rows []row) map[test]string {
	verdicts := map[test]string{}
	for _, folder := range folders(rows) {
		tests := map[string][]string{} // by top test
		for _, r := range rows {
			for _, t := range r.tests {
				if t.folder == folder {
					tests[t.top] = append(tests[t.top], t.sub)
				}
			}
		}
		for top, subs := range tests {
			out, _ := b.run(folder, "^"+top+"$/^("+strings.Join(subs, "|")+")", "")
			for _, sub := range subs {
				verdicts[test{folder, top, sub}] = unwell(out, top+"/"+sub)
			}
		}
	}
	return verdicts
}

// unwell says what is wrong with the subtests whose names begin with name.
func unwell(output, name string) string {
	if !regexp.MustCompile(`(?m)^\s*--- PASS: ` + regexp.QuoteMeta(name)).MatchString(output) {
		return "no such test passes: " + symptom(output)
	}
	if regexp.MustCompile(`(?m)^\s*--- (FAIL|SKIP): ` + regexp.QuoteMeta(name)).MatchString(output) {
		return symptom(output)
	}
	return ""
}

// run runs the tests of a package that match pattern with a fault put back. The
// binary has no time limit of its own, so that the runtime can tell that every
// goroutine is blocked.
func (b *binaries) run(folder, pattern, fault string) (output string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), testLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(b.dir, path.Base(folder)+".test"), "-test.run", pattern, "-test.v", "-test.timeout", "0")
	cmd.Dir = filepath.Join(b.root, filepath.FromSlash(folder))
	cmd.Env = append(os.Environ(), "HVLAB_PUTBACK="+fault)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
