package script

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// CheckFile runs any text as a scenario file and says which promise of this
// package it breaks: a wrong file gives a *Mistake with one of its lines, and
// what Text writes is read back as the same blocks with the new traces. Fuzzers
// call it; nil is a text that was handled well, be it right or wrong.
func CheckFile(text string) error {
	f, err := Parse(text)
	if err != nil {
		return checkMistake(text, err)
	}
	results, err := Run(text)
	if err != nil {
		return checkMistake(text, err)
	}
	traces := make([]string, len(results))
	for i, r := range results {
		traces[i] = r.Got
	}
	again, err := Parse(f.Text(traces))
	if err != nil {
		return fmt.Errorf("script: what Text wrote: %w", err)
	}
	if len(again.Blocks) != len(f.Blocks) {
		return fmt.Errorf("script: Text made %d blocks of %d", len(again.Blocks), len(f.Blocks))
	}
	for i, b := range again.Blocks {
		old := f.Blocks[i]
		if b.Expected != traces[i] || b.Comment != old.Comment || b.Input != old.Input || b.Name != old.Name || !reflect.DeepEqual(b.Args, old.Args) {
			return fmt.Errorf("script: Text changed block %d, of line %d", i, old.Line)
		}
	}
	return nil
}

func checkMistake(text string, err error) error {
	m := (*Mistake)(nil)
	if !errors.As(err, &m) {
		return fmt.Errorf("script: %w (%T) is no Mistake", err, err)
	}
	if m.Line < 1 || m.Line > 1+strings.Count(text, "\n") || m.Reason == "" {
		return fmt.Errorf("script: a mistake in line %d: %q", m.Line, m.Reason)
	}
	return nil
}
