package campaign

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/hvlab/hvlab/endpoint/script"
	"github.com/hvlab/hvlab/sim/world"
)

// pairGaps is how many steps after the first fault of a pair the second one is put.
var pairGaps = []int{0, 1, 3, 8}

// Pairs is what came of two faults in one run, by the first and the second.
type Pairs struct {
	Runs, Done map[[2]string]int
	Findings   []Finding
}

// InjectPairs repeats each scenario of a folder with two faults: the first before
// every step, the second pairGaps steps later.
func InjectPairs(ctx context.Context, o Options, folder string) (*Pairs, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.txt"))
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s has no scenario: files *.txt", folder)
	}
	if err != nil {
		return nil, err
	}
	p := &pairing{o: o, Pairs: Pairs{Runs: map[[2]string]int{}, Done: map[[2]string]int{}}}
	work := make(chan string)
	var workers sync.WaitGroup
	for range max(o.Jobs, 1) {
		workers.Go(func() {
			for file := range work {
				if err := p.file(ctx, file); err != nil {
					p.failed(fmt.Errorf("%s: %w", file, err))
				}
			}
		})
	}
	for _, file := range files {
		work <- file
	}
	close(work)
	workers.Wait()
	return &p.Pairs, errors.Join(p.err, ctx.Err())
}

// pairing is InjectPairs while it runs.
type pairing struct {
	o  Options
	mu sync.Mutex
	Pairs
	err error
}

func (p *pairing) failed(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = errors.Join(p.err, err)
}

// file goes through one scenario.
func (p *pairing) file(ctx context.Context, path string) error {
	text, err := os.ReadFile(path)
	if err != nil || world.IsScenario(string(text)) { // those have one fault at a time
		return err
	}
	f, err := script.Parse(string(text))
	if err != nil {
		return err
	}
	plain, err := f.Inject()
	if err := errors.Join(err, plain.Err); err != nil {
		return err
	}
	name := strings.TrimSuffix(filepath.Base(path), ".txt")
	for _, first := range script.Faults() {
		for _, second := range script.Faults() {
			for at := 0; at < plain.Points && ctx.Err() == nil; at++ {
				for _, gap := range pairGaps {
					puts := []script.Put{{Fault: first, Before: at}, {Fault: second, Before: at + gap}}
					r, err := f.Inject(puts...)
					if err == nil {
						err = p.add(name, puts, r)
					}
					if err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

func (p *pairing) add(name string, puts []script.Put, r script.Injected) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := [2]string{string(puts[0].Fault), string(puts[1].Fault)}
	p.Runs[key]++
	if r.Done {
		p.Done[key]++
	}
	if r.Err == nil || len(p.Findings) >= maxFindings {
		return nil
	}
	f := Finding{Text: r.Err.Error(), Steps: puts[1].Before}
	f.Path = filepath.Join(p.o.Folder, fmt.Sprintf("%s-%s-%s-%d.txt", name, key[0], key[1], len(p.Findings)+1))
	p.Findings = append(p.Findings, f)
	if err := os.MkdirAll(p.o.Folder, 0o755); err != nil {
		return err
	}
	text := fmt.Sprintf("# %s, %s before step %d and %s before step %d\n%v", name, key[0], puts[0].Before, key[1], puts[1].Before, r)
	return os.WriteFile(f.Path, []byte(text), 0o644)
}

// Write prints how many pairs were possible, and reports whether nothing was found.
func (p *Pairs) Write(to io.Writer) bool {
	fmt.Fprintf(to, "%-12s", "then")
	for _, second := range Faults() {
		fmt.Fprintf(to, " %8s", second)
	}
	runs := 0
	for _, first := range Faults() {
		fmt.Fprintf(to, "\n%-12s", first)
		for _, second := range Faults() {
			fmt.Fprintf(to, " %8d", p.Done[[2]string{first, second}])
			runs += p.Runs[[2]string{first, second}]
		}
	}
	fmt.Fprintf(to, "\n%d runs, each with a second fault %v steps after the first; %d findings\n", runs, pairGaps, len(p.Findings))
	for _, f := range p.Findings {
		fmt.Fprintf(to, "\n%s\n", f.Text)
	}
	for _, f := range p.Findings {
		fmt.Fprintln(to, f.Path)
	}
	return len(p.Findings) == 0
}
