package world

import (
	"bufio"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hvlab/hvlab/vmbus"
)

// replay does the steps of a script.
func (w *World) replay() {
	for n, s := range w.o.Script {
		if w.failed() {
			return
		}
		if s.Kind == Settle {
			w.settleBus()
		} else if s = w.aim(s); w.possible(s) {
			w.result.Script = append(w.result.Script, s)
			w.do(s)
		} else if n+1 == w.o.injected {
			w.result.refused = w.whyNot(s)
		}
	}
}

// settleBus does the first step that is possible, applications, faults and the
// passing of time left out, until there is none: a line "run" in a scenario that
// somebody wrote. What it did is part of the result's script, one by one.
func (w *World) settleBus() {
	for n := 0; n < maxRestSteps && !w.failed(); n++ {
		w.enabled()
		at := slices.IndexFunc(w.steps, func(s Step) bool {
			return s.Kind == HostStep || s.Kind == GuestStep || s.Kind == SignalGuest || s.Kind == SignalHost || s.Kind == FireTimer
		})
		if at < 0 {
			return
		}
		s := w.steps[at]
		w.result.Script = append(w.result.Script, s)
		w.do(s)
	}
}

// possible reports whether s is among the steps that could happen now.
func (w *World) possible(s Step) bool {
	w.enabled()
	bare := s
	if s.Kind == App && drawnOps[s.Op] || s.Kind == Hostile {
		bare.Arg = 0
	}
	return slices.Contains(w.steps, bare)
}

// Scenario is a text that replays the run: the options, then the steps of the
// first phase. ParseScenario reads it.
func (r Result) Scenario() string {
	var b strings.Builder
	b.WriteString(r.Options.directive() + "\n")
	for _, f := range r.Findings {
		for line := range strings.SplitSeq(f.String(), "\n") {
			b.WriteString("# " + line + "\n")
		}
	}
	for _, s := range r.Script {
		b.WriteString(s.String() + "\n")
	}
	return b.String()
}

// directive is the first line of a scenario.
func (o Options) directive() string {
	text := fmt.Sprintf("sim seed=%d guests=%d", o.Seed, o.Guests)
	if o.Version != 0 {
		text += " version=" + o.Version.String()
	}
	if o.RingPages != 0 {
		text += fmt.Sprintf(" ring=%d", o.RingPages)
	}
	if o.Legal {
		text += " legal"
	}
	if o.Hostile {
		text += " hostile"
	}
	if o.NoDevices {
		text += " nodevices"
	}
	return text
}

// A ScenarioError is a text that is no scenario.
type ScenarioError struct {
	Line   int
	Reason string
}

func (e *ScenarioError) Error() string {
	return fmt.Sprintf("world: line %d of the scenario: %s", e.Line, e.Reason)
}

// IsScenario reports whether text begins as a scenario of a World does.
func IsScenario(text string) bool {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		if f := strings.Fields(line); len(f) > 0 {
			return f[0] == "sim"
		}
	}
	return false
}

// ParseScenario reads what Scenario wrote: options with a script. Empty lines and
// what follows a # are ignored. The error is a *ScenarioError.
func ParseScenario(text string) (Options, error) {
	o := Options{Script: []Step{}}
	lines := bufio.NewScanner(strings.NewReader(text))
	began := false
	for n := 1; lines.Scan(); n++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if !began {
			began = true
			if err := o.parse(line); err != nil {
				return o, &ScenarioError{n, err.Error()}
			}
			continue
		}
		s, err := ParseStep(line)
		if err != nil {
			return o, &ScenarioError{n, err.Error()}
		}
		o.Script = append(o.Script, s)
	}
	if err := lines.Err(); err != nil || !began {
		return o, &ScenarioError{1, "want a line that begins with: sim"}
	}
	return o, nil
}

// parse reads the first line of a scenario.
func (o *Options) parse(line string) error {
	words := strings.Fields(line)
	if words[0] != "sim" {
		return fmt.Errorf("it begins with %q, not with: sim", words[0])
	}
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		var err error
		switch key {
		case "seed":
			o.Seed, err = strconv.ParseUint(value, 10, 64)
		case "guests":
			o.Guests, err = strconv.Atoi(value)
		case "ring":
			o.RingPages, err = strconv.Atoi(value)
		case "version":
			o.Version, err = vmbus.ParseVersion(value)
		case "legal":
			o.Legal = true
		case "hostile":
			o.Hostile = true
		case "nodevices":
			o.NoDevices = true
		default:
			err = fmt.Errorf("no such option")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", word, err)
		}
	}
	return o.check()
}

// Shrink makes the script of a failed run as short as it can within so many
// tries: the result fails the same invariant. Devices and guests that it does not
// need are left out.
func Shrink(failed Result, tries int) Result {
	if len(failed.Findings) == 0 {
		return failed
	}
	s := &shrinking{best: failed, want: failed.Findings[0].Invariant, tries: tries}
	o := failed.Options
	s.try(o, slices.Clone(failed.Script))
	o.NoDevices = true
	s.try(o, s.best.Script)
	for o = s.best.Options; o.Guests > 1; o = s.best.Options {
		o.Guests--
		if !s.try(o, s.best.Script) {
			break
		}
	}
	for size := max(len(s.best.Script)/2, 1); size > 0 && s.tries > 0; {
		shorter := false
		for from := 0; from < len(s.best.Script) && s.tries > 0; {
			rest := slices.Concat(s.best.Script[:from], s.best.Script[min(from+size, len(s.best.Script)):])
			if before := len(s.best.Script); s.try(s.best.Options, rest) && len(s.best.Script) < before {
				shorter = true
			} else {
				from += size
			}
		}
		if !shorter || size > 1 {
			size /= 2
		}
	}
	s.best.Options.Script = nil
	return s.best
}

// shrinking is a run that is being shortened.
type shrinking struct {
	best  Result
	want  Invariant
	tries int
}

// try keeps a run if it fails as the first one did.
func (s *shrinking) try(o Options, script []Step) bool {
	if s.tries--; s.tries < 0 {
		return false
	}
	o.Script, o.Trace = script, nil
	r, err := Run(o)
	if err != nil || len(r.Findings) == 0 || r.Findings[0].Invariant != s.want {
		return false
	}
	s.best = r
	return true
}
