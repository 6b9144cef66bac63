package decode

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

const (
	rowBytes     = 8  // of the column of bytes
	inlineBytes  = 16 // a longer field is summed up there
	dumpRowBytes = 16
	dumpRows     = 4  // of contents, unless all are wanted
	maxValue     = 36 // columns that a value makes the others wait for: a GUID
)

// WriteText writes the report as a table: offset, bytes, field, value, meaning.
// Long contents are cut unless full is set. The error is w's.
func (r *Report) WriteText(w io.Writer, full bool) error {
	t := r.table(full)
	t.out = bufio.NewWriter(w)
	if r.Guessed != "" {
		t.line("taken for %s: %s", kindNames[r.Kind], r.Guessed)
	}
	for i, p := range r.Parts {
		if i > 0 || r.Guessed != "" {
			t.line("")
		}
		t.part(p)
	}
	if r.Problem != nil {
		t.line("")
		t.line("stops making sense at offset %#x (%d): %s", r.Problem.Offset, r.Problem.Offset, r.Problem.Reason)
	}
	return t.out.Flush()
}

var kindNames = map[Kind]string{
	Message: "a control message", Slot: "a message slot", Post: "the input of HvCallPostMessage",
	GPADL: "a GPADL range list", Ring: "ring memory",
}

// A table is the columns of a report.
type table struct {
	out                 *bufio.Writer
	full                bool
	digits, name, value int // widths of columns
}

func (r *Report) table(full bool) *table {
	t := &table{full: full, digits: max(4, len(fmt.Sprintf("%x", max(0, r.Bytes-1))))}
	for _, p := range r.Parts {
		for _, f := range p.Fields {
			t.name = max(t.name, utf8.RuneCountInString(f.Name))
			if n := utf8.RuneCountInString(f.Value); n <= maxValue {
				t.value = max(t.value, n)
			}
		}
	}
	return t
}

// line writes a line without the spaces that columns leave at its end.
func (t *table) line(format string, args ...any) {
	_, _ = t.out.WriteString(strings.TrimRight(fmt.Sprintf(format, args...), " ") + "\n") // Flush has the error
}

func (t *table) part(p Part) {
	title := p.Title
	if p.Section != "" {
		title += "  [" + p.Section + "]"
	}
	t.line("%s", title)
	for _, n := range p.Notes {
		t.line("  %s", n)
	}
	for _, f := range p.Fields {
		t.field(f)
	}
}

func (t *table) field(f Field) {
	rows := cells(f)
	mark := " "
	if f.Bad {
		mark = "!"
	}
	t.line("%s %0*x  %-*s  %-*s  %-*s  %s", mark, t.digits, f.Offset, 3*rowBytes-1, rows[0], t.name, f.Name, t.value, f.Value, f.Meaning)
	for _, row := range rows[1:] {
		t.line("  %*s  %s", t.digits, "", row)
	}
	if (f.Dump || f.Bad) && len(f.Bytes) > inlineBytes || f.Dump && len(f.Bytes) > 0 {
		t.dump(f)
	}
}

// cells is the column of bytes: up to two rows, or one that sums them up.
func cells(f Field) []string {
	b := f.Bytes
	if len(b) > inlineBytes || f.Dump && len(b) > rowBytes {
		if uniform(b) {
			return []string{fmt.Sprintf("%02x x %s", b[0], grouped(len(b)))}
		}
		return []string{amount(len(b), "byte")}
	}
	rows := []string{fmt.Sprintf("% x", []byte(b[:min(rowBytes, len(b))]))}
	if len(b) > rowBytes {
		rows = append(rows, fmt.Sprintf("% x", []byte(b[rowBytes:])))
	}
	return rows
}

func uniform(b []byte) bool { return strings.Count(string(b), string(b[:1])) == len(b) }

// dump shows contents as hexadecimal and as text.
func (t *table) dump(f Field) {
	if uniform(f.Bytes) && len(f.Bytes) > inlineBytes {
		return
	}
	rows := 0
	for at := 0; at < len(f.Bytes); at += dumpRowBytes {
		if rows++; rows > dumpRows && !t.full {
			t.line("  %*s  ... %s more; -full shows them", t.digits, "", amount(len(f.Bytes)-at, "byte"))
			return
		}
		b := f.Bytes[at:min(at+dumpRowBytes, len(f.Bytes))]
		t.line("  %*s  %0*x  %-*s  |%s|", t.digits, "", t.digits, f.Offset+at, 3*dumpRowBytes-1, spaced(b), printable(b))
	}
}

func spaced(b []byte) string {
	var s strings.Builder
	for i, x := range b {
		if i > 0 {
			s.WriteByte(' ')
		}
		s.WriteString(hex.EncodeToString([]byte{x}))
	}
	return s.String()
}

// printable is b with a dot for each byte that is no visible ASCII.
func printable(b []byte) string {
	text := make([]byte, len(b))
	for i, x := range b {
		text[i] = '.'
		if x >= ' ' && x <= '~' {
			text[i] = x
		}
	}
	return string(text)
}
