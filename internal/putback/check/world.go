package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

// worldLimit is how long one run of the deterministic world may take.
const worldLimit = 5 * time.Minute

// worldKinds are the runs a fault gets: nothing in the way, legal faults, and a
// hostile guest.
var worldKinds = []string{"", "-legal", "-hostile"}

// finding is a line of "hvlab sim" that names what was violated.
var finding = regexp.MustCompile(`(?m)^seed (\d+): \d+ ([IL]-[A-Z-]+)`)

// world puts each fault back under "hvlab sim", and prints what the invariants
// find without a test that was written for the fault. It is a measure of the
// world, not a judgement: many faults need a peer or a moment that seeds do not
// come up with.
func (b *binaries) world(rows []row, seeds int) error {
	program := filepath.Join(b.dir, "hvlab-putback")
	cmd := exec.Command("go", "build", "-tags", "hvlab_putback", "-o", program, "./cmd/hvlab")
	cmd.Dir = b.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build -tags hvlab_putback ./cmd/hvlab: %w\n%s", err, out)
	}
	var kinds []string
	for _, kind := range worldKinds {
		if anyway := b.worldFinds(program, "", seeds, []string{kind}); anyway != "" {
			fmt.Printf("hvlab sim finds %s without any fault, so runs like that tell nothing\n", anyway)
			continue
		}
		kinds = append(kinds, kind)
	}
	found := make([]string, len(rows))
	var all sync.WaitGroup
	turns := make(chan struct{}, 2)
	for i, r := range rows {
		all.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			found[i] = b.worldFinds(program, r.fault.String(), seeds, kinds)
		})
	}
	all.Wait()
	n := 0
	for i, r := range rows {
		if found[i] != "" {
			n++
			fmt.Printf("%v  %s\n", r.fault, found[i])
		}
	}
	fmt.Printf("%d of %d faults are also found by hvlab sim, with %d seeds of each kind\n", n, len(rows), seeds)
	return nil
}

// worldFinds is what the runs with a fault put back violate, or "".
func (b *binaries) worldFinds(program, fault string, seeds int, kinds []string) string {
	var list []string
	for _, kind := range kinds {
		args := []string{"sim", "-seeds", fmt.Sprintf("1-%d", seeds), "-j", "1", "-out", filepath.Join(b.dir, fault)}
		if kind != "" {
			args = append(args, kind)
		}
		ctx, cancel := context.WithTimeout(context.Background(), worldLimit)
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Env = append(os.Environ(), "HVLAB_PUTBACK="+fault)
		out, err := cmd.CombinedOutput()
		cancel()
		if err == nil {
			continue
		}
		text := "ended with " + err.Error()
		if m := finding.FindSubmatch(out); m != nil {
			text = fmt.Sprintf("%s (seed %s)", m[2], m[1])
		}
		list = append(list, strings.TrimSpace(text+" "+kind))
	}
	return strings.Join(list, ", ")
}
