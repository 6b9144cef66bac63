package campaign

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hvlab/hvlab/endpoint/script"
	"github.com/hvlab/hvlab/sim/world"
)

// A Cell is what came of one fault, put before every step of one scenario in turn.
type Cell struct {
	Done     int       // how often it was possible
	Findings []Finding // the first few
	Why      string    // it was never possible
}

// A Row is a scenario with every fault. The order of its cells is that of Faults.
type Row struct {
	Scenario string // name of the file
	Points   int    // before so many steps each fault was tried
	Cells    []Cell
}

// Faults lists the faults that InjectScenarios puts into scenarios.
func Faults() (names []string) {
	for _, f := range script.Faults() {
		names = append(names, string(f))
	}
	return names
}

// never says why a fault has no place in a scenario: it was tried before every step.
var never = map[string]string{
	"rescind": "nothing is offered",
	"unload":  "the guest never connects",
	"crash":   "no guest of ours connects",
	"memory":  "the host is never asked for memory",
	"refuse":  "no guest of ours posts a message",
	"save":    "the guest never connects, or is never quiet",
}

// InjectScenarios repeats each scenario of a folder, or the one in a file, with
// every fault before each of its steps in turn; every says that only each so many-th
// step gets one. The trace of a finding goes to o.Folder. It stops when ctx ends.
func InjectScenarios(ctx context.Context, o Options, path string, every int) (table []Row, err error) {
	files := []string{path}
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if info.IsDir() {
		if files, err = filepath.Glob(filepath.Join(path, "*.txt")); err != nil {
			return nil, err
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s has no scenario: files *.txt", path)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return table, err
		}
		row := Row{Scenario: strings.TrimSuffix(filepath.Base(file), ".txt")}
		i := &injecting{ctx: ctx, o: o, row: &row, every: max(every, 1)}
		if world.IsScenario(string(text)) {
			err = i.world(string(text))
		} else {
			err = i.script(string(text))
		}
		if err != nil {
			return table, fmt.Errorf("%s: %w", file, err)
		}
		for n, fault := range Faults() {
			if c := &row.Cells[n]; c.Done == 0 && len(c.Findings) == 0 {
				c.Why = cmp.Or(c.Why, never[fault])
			}
		}
		table = append(table, row)
	}
	return table, nil
}

// injecting is one scenario that is gone through.
type injecting struct {
	ctx   context.Context
	o     Options
	row   *Row
	every int
}

// script goes through a scenario of package endpoint/script.
func (i *injecting) script(text string) error {
	f, err := script.Parse(text)
	if err != nil {
		return err
	}
	plain, err := f.Inject()
	if err := errors.Join(err, plain.Err); err != nil {
		return err
	}
	i.row.Points = plain.Points
	for _, fault := range script.Faults() {
		var c Cell
		for at := 0; at < plain.Points && i.ctx.Err() == nil; at += i.every {
			r, err := f.Inject(script.Put{Fault: fault, Before: at})
			if err != nil {
				return err
			}
			if r.Done {
				c.Done++
			}
			if r.Err != nil {
				text := fmt.Sprintf("# %s, and %s before step %d\n%v", i.row.Scenario, fault, at, r)
				if err := i.found(&c, Finding{Text: r.Err.Error(), Steps: at}, string(fault), text); err != nil {
					return err
				}
			}
		}
		i.row.Cells = append(i.row.Cells, c)
	}
	return i.ctx.Err()
}

// world goes through a scenario of package sim/world.
func (i *injecting) world(text string) error {
	o, err := world.ParseScenario(text)
	if err != nil {
		return err
	}
	base, err := world.Run(o)
	if err != nil {
		return err
	}
	if len(base.Findings) > 0 {
		return errors.New(base.Findings[0].String())
	}
	i.row.Points = len(base.Script) + 1
	for _, name := range Faults() {
		if o.Hostile {
			i.row.Cells = append(i.row.Cells, Cell{Why: "an attacker is in it, and legal faults never mix with one"})
			continue
		}
		at := slices.IndexFunc(world.Injections(1), func(s world.Step) bool { return s.Name() == name })
		if at < 0 {
			i.row.Cells = append(i.row.Cells, Cell{Why: "the world's guests have a hypervisor that gives in"})
			continue
		}
		var c Cell
		for place := 0; place < i.row.Points && i.ctx.Err() == nil; place += i.every {
			r, why, err := world.Inject(base, place, world.Injections(1)[at])
			if err != nil {
				return err
			}
			if why == "" {
				c.Done++
			}
			if len(r.Findings) > 0 {
				if len(c.Findings) < maxFindings {
					r = world.Shrink(r, i.o.ShrinkTries)
				}
				f := Finding{Seed: r.Options.Seed, Invariant: r.Findings[0].Invariant.String(), Text: r.Findings[0].String(), Steps: len(r.Script)}
				if err := i.found(&c, f, name, r.Scenario()); err != nil {
					return err
				}
			}
		}
		i.row.Cells = append(i.row.Cells, c)
	}
	return i.ctx.Err()
}

// found keeps a finding, and writes what shows it.
func (i *injecting) found(c *Cell, f Finding, fault, text string) error {
	if len(c.Findings) >= maxFindings {
		return nil
	}
	f.Path = filepath.Join(i.o.Folder, fmt.Sprintf("%s-%s-%d.txt", i.row.Scenario, fault, len(c.Findings)+1))
	c.Findings = append(c.Findings, f)
	if err := os.MkdirAll(i.o.Folder, 0o755); err != nil {
		return err
	}
	return os.WriteFile(f.Path, []byte(text), 0o644)
}

// WriteScenarios prints the table, and reports whether nothing was found. A letter
// in place of a number says why a fault has no place in that scenario.
func WriteScenarios(to io.Writer, table []Row) (clean bool) {
	fmt.Fprintf(to, "%-42s %6s", "scenario", "steps")
	for _, fault := range Faults() {
		fmt.Fprintf(to, " %7s", fault)
	}
	fmt.Fprintf(to, " %8s\n", "findings")
	var reasons []string
	var findings []Finding
	done := make([]int, len(Faults()))
	points := 0
	for _, row := range table {
		fmt.Fprintf(to, "%-42s %6d", row.Scenario, row.Points)
		points += row.Points
		found := 0
		for n, c := range row.Cells {
			done[n] += c.Done
			found += len(c.Findings)
			findings = append(findings, c.Findings...)
			if c.Why == "" {
				fmt.Fprintf(to, " %7d", c.Done)
				continue
			}
			at := slices.Index(reasons, c.Why)
			if at < 0 {
				at, reasons = len(reasons), append(reasons, c.Why)
			}
			fmt.Fprintf(to, " %7c", 'a'+at)
		}
		fmt.Fprintf(to, " %8d\n", found)
	}
	fmt.Fprintf(to, "%-42s %6d", fmt.Sprintf("%d scenarios", len(table)), points)
	for _, n := range done {
		fmt.Fprintf(to, " %7d", n)
	}
	fmt.Fprintf(to, " %8d\n", len(findings))
	for n, why := range reasons {
		fmt.Fprintf(to, "    %c  %s\n", 'a'+n, why)
	}
	for _, f := range findings {
		fmt.Fprintf(to, "\n%s\n", f.Text)
	}
	for _, f := range findings {
		fmt.Fprintln(to, f.Path)
	}
	return len(findings) == 0
}
