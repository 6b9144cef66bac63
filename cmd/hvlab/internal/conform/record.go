package conform

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// prefix starts the names of record files.
const prefix = "conform-"

// Load reads the records in folder, in the order of their names. A folder that is
// not there matches fs.ErrNotExist.
func Load(folder string) ([]System, error) {
	if _, err := os.Stat(folder); err != nil {
		return nil, err
	}
	names, err := filepath.Glob(filepath.Join(folder, prefix+"*.json"))
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	records := []System{} // not nil: there is a folder
	for _, name := range names {
		var s System
		if err := readJSON(name, &s); err != nil {
			return nil, err
		}
		records = append(records, s)
	}
	return records, nil
}

func readJSON(name string, v any) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

var (
	notInNames = regexp.MustCompile(`[^a-z0-9.]+`)
	// A patch level is not worth a file of its own.
	patchLevel = regexp.MustCompile(`(\d+\.\d+)[.-].*`)
)

// fileName is where the record of s belongs: one file a release. The simulator's
// version is not part of it, since there is only one.
func fileName(s System) string {
	name := s.Name
	if !s.simulated() {
		name += " " + patchLevel.ReplaceAllString(s.About, "$1")
	}
	return prefix + strings.Trim(notInNames.ReplaceAllString(strings.ToLower(name), "-"), "-") + ".json"
}

func (s System) simulated() bool { return strings.HasPrefix(s.Name, "simulator ") }

// Save writes the record of s, seen today. Explanations that the file already has
// are kept if they still explain something; a difference without one gets an
// empty explanation, for a human to fill in.
func Save(folder string, reference, s System, today time.Time) error {
	name := filepath.Join(folder, fileName(s))
	var old System
	if err := readJSON(name, &old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.Seen, s.Why = today.Format(time.DateOnly), map[string]string{}
	for _, a := range s.Answers {
		if a.Did == reference.Did(a.Row) {
			continue
		}
		s.Why[a.Row] = ""
		if old.Did(a.Row) == a.Did {
			s.Why[a.Row] = old.Why[a.Row]
		}
	}
	if slices.Equal(old.Answers, s.Answers) && old.Seen != "" {
		s.Seen = old.Seen // nothing new was seen
	}
	b, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(b, '\n'), 0o644)
}
