package script

import (
	"errors"
	"maps"
	"slices"
	"strings"
)

// A Runner carries out the directives of one file, in order. Every "world"
// directive starts afresh; without one the world has no options.
type Runner struct {
	// World is the world of the last "world" directive.
	World *World
	// Prepare is called with every world before its first step, if not nil.
	Prepare func(*World)
}

// NewRunner returns a runner with a world that has no options.
func NewRunner() *Runner { return &Runner{World: NewWorld()} }

// Do carries out one directive and returns its trace. The error is a *Mistake of
// the file, or a *invariant.Violation of a core, with the trace that shows it;
// what the cores call errors are lines of the trace.
func (r *Runner) Do(d Directive) (trace string, err error) {
	if r.Prepare != nil {
		r.Prepare(r.World)
	}
	w := r.World
	w.trace.Reset()
	a := &args{Directive: d, known: map[string]bool{}}
	stop, quiet := a.word("then", "run", "run", "stop") == "stop", a.has("quiet")
	if d.Name == "world" {
		w = configure(a)
	} else if do := lookup(d.Name); do == nil {
		return "", mistake(d.Line, "there is no directive %q; write one of: %s", d.Name, strings.Join(names(), ", "))
	} else if err := do(w, a); err != nil {
		if m := (*Mistake)(nil); errors.As(err, &m) {
			return "", m
		}
		w.log("error: %v", err)
	}
	if err := a.finish(); err != nil {
		return "", err
	}
	r.World = w
	if !stop && d.Name != "world" {
		if err := w.Run(); err != nil {
			return "", mistake(d.Line, "%v", err)
		}
	}
	if quiet && w.Broken(!stop) == nil {
		return "", nil
	}
	return w.Trace(), w.Broken(!stop)
}

// A Result is a block and the trace it caused.
type Result struct {
	Block
	Got string
}

// Run parses and runs a whole scenario. The error is that of Parse or of Runner.Do;
// what was run before it is returned too.
func Run(text string) ([]Result, error) {
	f, err := Parse(text)
	if err != nil {
		return nil, err
	}
	var results []Result
	r := NewRunner()
	for _, b := range f.Blocks {
		got, err := r.Do(b.Directive)
		if err != nil {
			return results, err
		}
		results = append(results, Result{b, got})
	}
	return results, nil
}

// worldUsage is the usage of the directive that makes a world.
const worldUsage = "[guest=VERSION] [newest=VERSION] [min=VERSION] [max=VERSION] [profile=linux|freebsd] [features=N] [grant=N] " +
	"[message-vp=N] [vps=N] [interrupts=GPA] [parent=GPA] [child=GPA] [host-parent=GPA] [host-child=GPA] [client=GUID] [only=GUID] " +
	"[own-flags] [short-dial] [absolute-order] [redirect-sint=N] [setup-failure=openvmm] [trusted] [raw] [mute] " +
	"[message-connection=N] [signal-base=N] [failure-status=N] " +
	"[no-version-echo] [pad-messages] [monitor-id-zero] [silent-gpadl] [global-gpadls] [ignore-releases] [answer-every-unload] " +
	"[message-vp-below-3.0] [no-reserved] [reject-unknown] [reset-on-contact] [answer-rescinded-opens]"

// A Usage describes one directive.
type Usage struct {
	Name string
	Args string // as in "channel=N [vp=N]"
	Help string // one line
}

// Directives lists what a scenario can say. Every directive also takes
// "then=stop", which leaves what is in flight in flight, and "quiet", which leaves
// its trace out.
func Directives() []Usage {
	list := []Usage{{"world", worldUsage, "start afresh, with these options of guest, host and the host's dialect"}}
	for _, c := range commands {
		list = append(list, Usage{c.name, c.usage, c.help})
	}
	return list
}

// names lists the directives in alphabetical order.
func names() []string {
	var list []string
	for _, d := range Directives() {
		list = append(list, d.Name)
	}
	slices.Sort(list)
	return list
}

// lookup returns the directive called name, nil if there is none.
func lookup(name string) func(*World, *args) error {
	for _, c := range commands {
		if c.name == name {
			return c.do
		}
	}
	return nil
}

// finish says what was wrong with the arguments: a value that was refused, or an
// argument nobody asked for.
func (a *args) finish() error {
	if a.err != nil {
		return a.err
	}
	for _, arg := range a.Args {
		if !a.known[arg.Key] {
			return mistake(a.Line, "%q has no argument %q; it has %s", a.Name, arg.Key,
				strings.Join(slices.Sorted(maps.Keys(a.known)), ", "))
		}
	}
	return nil
}
