package conform

import (
	"fmt"
	"io"
	"strings"
)

// letter names a column.
func letter(i int) string { return string(rune('A' + i%26)) }

// A Table is systems side by side; the first is the reference.
type Table struct {
	Rows    []Row
	Systems []System
	Records []System // whose explanations count
}

// Differences are those of all systems, in the order of the columns.
func (t Table) Differences() []Difference {
	var all []Difference
	for i := 1; i < len(t.Systems); i++ {
		all = append(all, Compare(t.Rows, t.Systems[0], t.Systems[i], t.Records)...)
	}
	return all
}

// Unexplained is the differences that nothing explains, and Broken the promises
// that the reference itself breaks.
func (t Table) Unexplained() (all []Difference) {
	for _, d := range t.Differences() {
		if d.Why == "" {
			all = append(all, d)
		}
	}
	return all
}

// Broken is the promises that the reference breaks: no record explains those.
func (t Table) Broken() (rows []string) {
	for _, r := range t.Rows {
		if did := t.Systems[0].Did(r.Name); r.Kind == KindPromise && did != kept {
			rows = append(rows, r.Name+": "+did)
		}
	}
	return rows
}

// kept is the answer to a promise that holds.
const kept = "kept"

// WriteText writes the table: what each column is, then a line a row, and below
// it what each system that differs did, and why.
func (t Table) WriteText(w io.Writer) error {
	var b strings.Builder
	for i, s := range t.Systems {
		fmt.Fprintf(&b, "%s  %-26s%s\n", letter(i), s.Name, about(s))
	}
	fmt.Fprintf(&b, "\n%-26s", "")
	for i := range t.Systems {
		fmt.Fprintf(&b, "%-8s", letter(i))
	}
	b.WriteString("\n")
	for _, r := range t.Rows {
		t.writeRow(&b, r)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func about(s System) string {
	if s.Seen != "" {
		return s.About + ", recorded " + s.Seen
	}
	return s.About
}

func (t Table) writeRow(b *strings.Builder, r Row) {
	reference := t.Systems[0]
	line := fmt.Sprintf("%-26s", r.Name)
	var details strings.Builder
	for i, s := range t.Systems {
		did := s.Did(r.Name)
		switch {
		case i == 0 && r.Kind == KindQuestion:
			line += fmt.Sprintf("%-8s", "*")
		case i == 0 && did != kept:
			line += fmt.Sprintf("%-8s", "BROKEN")
		case i == 0:
			line += fmt.Sprintf("%-8s", kept)
		case did == reference.Did(r.Name):
			line += fmt.Sprintf("%-8s", "same")
		default:
			line += fmt.Sprintf("%-8s", "differs")
			d := Compare([]Row{r}, reference, s, t.Records)[0]
			fmt.Fprintf(&details, "    %s  %s", letter(i), d.Did)
			if d.Why != "" {
				fmt.Fprintf(&details, "\n       %s", d.Why)
			}
			details.WriteString("\n")
		}
	}
	if did := reference.Did(r.Name); did != kept {
		line += "  " + did
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n" + details.String())
}

// Summary is one sentence about the table.
func (t Table) Summary() string {
	text := fmt.Sprintf("%d rows, %d systems", len(t.Rows), len(t.Systems))
	all, unexplained := t.Differences(), t.Unexplained()
	switch {
	case len(t.Systems) < 2:
		return text
	case len(all) == 0:
		return text + ": no difference"
	case len(unexplained) == 0:
		return fmt.Sprintf("%s: %d differences, all explained", text, len(all))
	}
	return fmt.Sprintf("%s: %d differences, %d of them unexplained", text, len(all), len(unexplained))
}
