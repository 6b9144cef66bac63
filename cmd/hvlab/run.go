package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/hvlab/hvlab/endpoint/script"
	"github.com/hvlab/hvlab/sim/world"
	"golang.org/x/term"
)

// runVerb is `hvlab run`.
type runVerb struct {
	Files []string `arg:"" optional:"" help:"Scenario files; - is stdin."`

	Step       bool `help:"Stop before each directive until a key is pressed."`
	TraceOnly  bool `help:"Print the traces and nothing else; compare them all the same."`
	Rewrite    bool `help:"Write what happened into the files, in place of what they expect."`
	Directives bool `help:"List what a scenario can say."`
}

// Help is the long text of `hvlab run -h`.
func (runVerb) Help() string {
	return `A scenario is a text that drives a host core and a guest core of VMBus: a line
that says what is done, a line "----", and what is expected to happen then. It is
printed as a lesson: the comments, what is done after "> ", and what happened.
Where a file expects something else, the difference is shown and the exit status
is 1. A file that expects nothing at all is just shown.

Examples:

    hvlab run testdata/scenario/10-guest-dials-host.txt
    hvlab run -step testdata/scenario/P28-contact-while-connected.txt
    printf 'world guest=5.3\n----\n\nconnect\n----\n' | hvlab run -
    hvlab run -directives
`
}

// errDiffers is returned when the differences have been shown.
var errDiffers = errors.New("not everything happened as the files expect; lines with - are missing, lines with + are new")

// Run runs the files in order.
func (v *runVerb) Run(ctx context.Context, o output) error {
	if v.Directives {
		return listDirectives(o.out)
	}
	if len(v.Files) == 0 {
		return errors.New("name a scenario file, such as testdata/scenario/01-connect.txt, or - for stdin")
	}
	keys := (*keyboard)(nil)
	if v.Step {
		if slices.Contains(v.Files, "-") {
			return errors.New("-step reads keys from stdin, so the scenario must come from a file")
		}
		keys = newKeyboard()
		defer keys.restore()
	}
	differs := false
	for _, name := range v.Files {
		same, err := v.runFile(ctx, o, name, keys)
		if errors.Is(err, errQuit) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		differs = differs || !same
	}
	if differs && !v.Rewrite {
		return errDiffers
	}
	return nil
}

// runFile runs one file and reports whether all of it was as expected.
func (v *runVerb) runFile(ctx context.Context, o output, name string, keys *keyboard) (same bool, err error) {
	text, err := readScenario(name)
	if err != nil {
		return false, err
	}
	if world.IsScenario(string(text)) {
		return v.runWorld(o, string(text), keys)
	}
	f, err := script.Parse(text)
	if err != nil {
		return false, err
	}
	do := script.NewRunner().Do
	if len(v.Files) > 1 && !v.TraceOnly {
		fmt.Fprintf(o.out, "== %s\n\n", name)
	}
	var traces []string
	expecting, differences := expects(f), 0
	for _, b := range f.Blocks {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if !v.TraceOnly {
			announce(o.out, b)
		}
		if keys != nil {
			if err := keys.wait(ctx, o.err); err != nil {
				return false, err
			}
		}
		trace, err := do(b.Directive)
		if err != nil { // a mistake in the file, or a core that broke a promise
			v.show(o.out, trace)
			return false, err
		}
		traces = append(traces, trace)
		if expecting && trace != b.Expected {
			differences++
			trace = difference(b.Expected, trace)
		}
		v.show(o.out, trace)
	}
	if v.Rewrite {
		return true, rewriteScenario(name, text, f.Text(traces))
	}
	if differences > 0 {
		fmt.Fprintf(o.err, "hvlab run: %s: %d of %d directives do not do what is expected\n", name, differences, len(f.Blocks))
	}
	return differences == 0, nil
}

// runWorld plays a scenario of the simulated world, as hvlab sim -replay does. It
// expects that nothing is violated.
func (v *runVerb) runWorld(o output, text string, keys *keyboard) (same bool, err error) {
	if keys != nil || v.Rewrite {
		return false, errors.New("a scenario of the simulated world is stepped through with hvlab sim -step -replay FILE; there is nothing to rewrite in it")
	}
	opts, err := world.ParseScenario(text)
	if err != nil {
		return false, err
	}
	out := bufio.NewWriter(o.out)
	opts.Trace = out
	r, err := world.Run(opts)
	if err != nil {
		return false, err
	}
	if err := out.Flush(); err != nil {
		return false, err
	}
	if len(r.Findings) > 0 {
		fmt.Fprintf(o.out, "\nviolated: %v\n", r.Findings[0])
		return false, errFindings
	}
	return true, nil
}

// expects reports whether a file expects anything.
func expects(f *script.File) bool {
	for _, b := range f.Blocks {
		if b.Expected != "" {
			return true
		}
	}
	return false
}

// announce prints what a block is about and what is done in it.
func announce(w io.Writer, b script.Block) {
	if b.Comment != "" {
		fmt.Fprintf(w, "%s\n\n", b.Comment)
	}
	fmt.Fprintf(w, "> %v\n", b.Directive)
	for line := range strings.Lines(b.Input) {
		fmt.Fprintf(w, "> %s\n", strings.TrimSuffix(line, "\n"))
	}
}

// show prints a trace below its directive.
func (v *runVerb) show(w io.Writer, trace string) {
	indent := "    "
	if v.TraceOnly {
		indent = ""
	}
	for line := range strings.Lines(trace) {
		fmt.Fprint(w, indent, line)
	}
	if !v.TraceOnly {
		fmt.Fprintln(w)
	}
}

func readScenario(name string) (string, error) {
	if name == "-" {
		text, err := io.ReadAll(os.Stdin)
		return string(text), err
	}
	text, err := os.ReadFile(name)
	var path *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", errors.New("there is no such file")
	case errors.As(err, &path):
		return "", path.Err
	}
	return string(text), err
}

func rewriteScenario(name, old, text string) error {
	if name == "-" {
		return errors.New("-rewrite needs a file, not stdin")
	}
	if old == text {
		return nil
	}
	return os.WriteFile(name, []byte(text), 0o644)
}

// difference marks the lines that only want has with "-", those that only got has
// with "+", and the others with a space.
func difference(want, got string) string {
	a, b := strings.SplitAfter(want, "\n"), strings.SplitAfter(got, "\n")
	a, b = a[:len(a)-1], b[:len(b)-1] // a trace ends with "\n", or is empty
	// common[i][j] is the length of the longest common subsequence of a[i:] and b[j:].
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var out strings.Builder
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			out.WriteString("  " + a[i])
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			out.WriteString("- " + a[i])
			i++
		default:
			out.WriteString("+ " + b[j])
			j++
		}
	}
	return out.String()
}

// listDirectives prints what a scenario can say.
func listDirectives(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, d := range script.Directives() {
		fmt.Fprintf(table, "%s\t%s\n", d.Name, d.Help)
		line := ""
		for _, arg := range strings.Fields(d.Args) {
			if len(line)+len(arg) > 80 {
				fmt.Fprintf(table, "\t  %s\n", line)
				line = ""
			}
			line = strings.TrimPrefix(line+" "+arg, " ")
		}
		if line != "" {
			fmt.Fprintf(table, "\t  %s\n", line)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprint(w, "\nEvery directive also takes then=stop, which leaves what is in flight in flight, and quiet.\n"+
		"A GUID is its first eight digits, port:1388 for Linux port 0x1388, or all of it.\n")
	return err
}

// errQuit is returned when the user has seen enough.
var errQuit = errors.New("quit")

// A keyboard waits for keys: single keys where the terminal can be told so, the
// Enter key elsewhere.
type keyboard struct {
	restore func()
	pressed chan string // closed at the end of the input
	toEnd   bool
}

func newKeyboard() *keyboard {
	k := &keyboard{restore: consoleTerminal(os.Stdin), pressed: make(chan string)}
	go func() { // ends with the process: a read of a terminal cannot be interrupted
		defer close(k.pressed)
		in := bufio.NewReader(os.Stdin)
		for {
			if !term.IsTerminal(int(os.Stdin.Fd())) {
				line, err := in.ReadString('\n')
				if err != nil {
					return
				}
				k.pressed <- strings.TrimSuffix(line, "\n")
				continue
			}
			b, err := in.ReadByte()
			if err != nil {
				return
			}
			k.pressed <- string(b)
			_, _ = in.Discard(in.Buffered()) // the rest of an arrow key, or of a line
		}
	}()
	return k
}

// wait returns at the next key. "r" runs on to the end, "q" quits.
func (k *keyboard) wait(ctx context.Context, prompt io.Writer) error {
	if k.toEnd {
		return nil
	}
	const text = "  (any key goes on, r runs to the end, q quits)"
	fmt.Fprint(prompt, text)
	defer fmt.Fprint(prompt, "\r"+strings.Repeat(" ", len(text))+"\r")
	select {
	case <-ctx.Done():
		return ctx.Err()
	case key, open := <-k.pressed:
		switch {
		case key == "q" || !open:
			return errQuit
		case key == "r":
			k.toEnd = true
		}
		return nil
	}
}
