package script

import (
	"fmt"
	"strings"
)

// separator stands between what is done and what is expected.
const separator = "----"

// A File is a parsed scenario.
type File struct {
	Blocks []Block
	tail   string // what follows the last block: comments
}

// A Block is one directive with what belongs to it.
type Block struct {
	// Comment is the text above the directive, without the "#"; a blank line
	// between two comments is kept.
	Comment string
	Directive
	// Expected is the trace, each line with its "\n"; empty if the directive is
	// expected to cause nothing.
	Expected string

	head string // everything before the separator, as written
}

// A Directive is one instruction of a scenario.
type Directive struct {
	Line  int // of the file, from 1
	Name  string
	Args  []Arg
	Input string // the lines between the directive and "----", trimmed
}

// An Arg is "key", "key=value" or "key=(value, value)".
type Arg struct {
	Key    string
	Values []string // nil without "="
}

// String is the directive as one line, without its input.
func (d Directive) String() string {
	var b strings.Builder
	b.WriteString(d.Name)
	for _, a := range d.Args {
		b.WriteString(" " + a.Key)
		switch {
		case len(a.Values) == 1 && !strings.ContainsAny(a.Values[0], " ,("):
			b.WriteString("=" + a.Values[0])
		case a.Values != nil:
			b.WriteString("=(" + strings.Join(a.Values, ", ") + ")")
		}
	}
	return b.String()
}

// A Mistake is an error in a scenario file: in its form, or in a directive.
type Mistake struct {
	Line   int // of the file, from 1
	Reason string
}

func (e *Mistake) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Reason) }

func mistake(line int, format string, args ...any) *Mistake {
	return &Mistake{Line: line, Reason: fmt.Sprintf(format, args...)}
}

// Parse reads a scenario file. The error is a *Mistake.
func Parse(text string) (*File, error) {
	p := parser{lines: strings.Split(strings.TrimSuffix(text, "\n"), "\n")}
	f := &File{}
	for {
		b, err := p.block()
		if err != nil {
			return nil, err
		}
		if b == nil {
			break
		}
		f.Blocks = append(f.Blocks, *b)
	}
	f.tail = p.taken(p.start)
	if len(f.Blocks) == 0 {
		return nil, mistake(1, `there is no directive; write for example "connect", then a line "----"`)
	}
	return f, nil
}

// A parser walks over the lines of a file.
type parser struct {
	lines []string
	next  int // index of the line to read
	start int // index of the block's first line
}

func (p *parser) more() bool { return p.next < len(p.lines) }

// taken is the text from line index from to the one to read next.
func (p *parser) taken(from int) string {
	if from >= p.next {
		return ""
	}
	return strings.Join(p.lines[from:p.next], "\n") + "\n"
}

// block reads one block; nil at the end of the file.
func (p *parser) block() (*Block, error) {
	p.start = p.next
	var comment []string
	for ; p.more(); p.next++ {
		line := strings.TrimSpace(p.lines[p.next])
		text, isComment := strings.CutPrefix(line, "#")
		if !isComment && line != "" {
			break
		}
		comment = append(comment, strings.TrimPrefix(text, " "))
	}
	if !p.more() {
		return nil, nil
	}
	b := &Block{Comment: strings.Trim(strings.Join(comment, "\n"), "\n")}
	if err := p.directive(&b.Directive); err != nil {
		return nil, err
	}
	b.head = p.taken(p.start)
	p.next++ // the separator
	var err error
	b.Expected, err = p.expected()
	return b, err
}

// directive reads from the directive to the line before the separator.
func (p *parser) directive(d *Directive) error {
	d.Line = p.next + 1
	line := strings.TrimSpace(p.lines[p.next])
	p.next++
	for strings.HasSuffix(line, `\`) && p.more() {
		line = strings.TrimSuffix(line, `\`) + " " + strings.TrimSpace(p.lines[p.next])
		p.next++
	}
	if line == separator {
		return mistake(d.Line, `"----" without a directive above it; write for example "connect" on the line before`)
	}
	var err error
	if d.Name, d.Args, err = parseLine(line); err != nil {
		return mistake(d.Line, "%v", err)
	}
	var input []string
	for p.more() && p.lines[p.next] != separator {
		input = append(input, p.lines[p.next])
		p.next++
	}
	if !p.more() {
		return mistake(d.Line, `no line "----" ends the directive %q; write it below, and the expected trace after it`, d.Name)
	}
	d.Input = strings.TrimSpace(strings.Join(input, "\n"))
	return nil
}

// expected reads the trace: up to a blank line or, if it begins with a second
// separator, up to two of them.
func (p *parser) expected() (string, error) {
	if !p.more() {
		return "", nil
	}
	if p.lines[p.next] == separator {
		return p.expectedWithBlanks()
	}
	from := p.next
	for p.more() && strings.TrimSpace(p.lines[p.next]) != "" {
		p.next++
	}
	text := p.taken(from)
	if p.more() {
		p.next++ // the blank line
	}
	return text, nil
}

func (p *parser) expectedWithBlanks() (string, error) {
	opened := p.next + 1
	p.next++
	from := p.next
	for ; p.next+1 < len(p.lines); p.next++ {
		if p.lines[p.next] != separator || p.lines[p.next+1] != separator {
			continue
		}
		text := p.taken(from)
		p.next += 2
		if p.more() && p.lines[p.next] != "" {
			return "", mistake(p.next+1, `text after a closing pair of "----"; leave a blank line between them`)
		}
		if p.more() {
			p.next++
		}
		return text, nil
	}
	return "", mistake(opened, `a second "----" opens a trace with blank lines, which two lines "----" must close`)
}

// parseLine splits a directive line into its name and arguments.
func parseLine(line string) (name string, args []Arg, err error) {
	name, rest := upTo(line, " ")
	for rest = strings.TrimSpace(rest); rest != ""; rest = strings.TrimSpace(rest) {
		var a Arg
		a.Key, rest = upTo(rest, " =")
		if a.Key == "" {
			return "", nil, fmt.Errorf(`"=" without a name before it; write key=value`)
		}
		if value, assigned := strings.CutPrefix(rest, "="); assigned {
			if strings.HasPrefix(value, "(") {
				a.Values, rest, err = parseList(value[1:])
				if err != nil {
					return "", nil, fmt.Errorf("%s=(...: %w", a.Key, err)
				}
			} else {
				var v string
				v, rest = upTo(value, " ")
				a.Values = []string{v}
			}
		}
		args = append(args, a)
	}
	return name, args, nil
}

// parseList reads "a, b)" after its opening parenthesis. Parentheses inside a
// value nest.
func parseList(s string) (values []string, rest string, err error) {
	depth, from := 1, 0
	for i, r := range s {
		switch {
		case r == '(':
			depth++
		case r == ')':
			depth--
			if depth == 0 {
				return append(values, s[from:i]), s[i+1:], nil
			}
		case r == ',' && depth == 1:
			values = append(values, s[from:i])
			from = i + 1
			for from < len(s) && s[from] == ' ' {
				from++
			}
		}
	}
	return nil, "", fmt.Errorf(`the list is not closed; write ")" after its last value`)
}

// upTo cuts s before the first of the characters.
func upTo(s, characters string) (before, rest string) {
	if i := strings.IndexAny(s, characters); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}

// Text returns the file with the given traces in place of the expected ones, as
// "-rewrite" writes it; comments and input stay as they are.
func (f *File) Text(traces []string) string {
	var b strings.Builder
	for i, block := range f.Blocks {
		b.WriteString(block.head + separator + "\n")
		trace := traces[i]
		if trace != "" && !strings.HasSuffix(trace, "\n") {
			trace += "\n"
		}
		if hasBlankLine(trace) {
			trace = separator + "\n" + trace + separator + "\n" + separator + "\n"
		}
		b.WriteString(trace + "\n")
	}
	b.WriteString(f.tail)
	if f.tail == "" {
		return strings.TrimSuffix(b.String(), "\n")
	}
	return b.String()
}

func hasBlankLine(s string) bool {
	for line := range strings.Lines(s) {
		if strings.TrimSpace(line) == "" {
			return true
		}
	}
	return false
}
