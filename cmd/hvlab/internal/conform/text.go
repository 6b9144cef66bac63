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
		b.WriteString(strings.TrimRight(fmt.Sprintf("%s  %-26s%s", letter(i), s.Name, about(s)), " ") + "\n")
	}
	head := strings.Repeat(" ", 26)
	for i := range t.Systems {
		head += fmt.Sprintf("%-8s", letter(i))
	}
	b.WriteString("\n" + strings.TrimRight(head, " ") + "\n")
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
	reference := t.Systems[0].Did(r.Name)
	first := kept
	switch {
	case r.Kind == KindQuestion:
		first = "*"
	case reference != kept:
		first = "BROKEN"
	}
	line := fmt.Sprintf("%-26s%-8s", r.Name, first)
	for _, s := range t.Systems[1:] {
		cell := "same"
		switch did := s.Did(r.Name); {
		case did == "" && s.Seen != "":
			cell = "-" // the record is older than the row
		case did != reference:
			cell = "differs"
		}
		line += fmt.Sprintf("%-8s", cell)
	}
	if reference != kept {
		line += "  " + reference
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n")
	t.writeDifferences(b, r)
}

// writeDifferences writes what others did, those together that did the same for
// the same reason.
func (t Table) writeDifferences(b *strings.Builder, r Row) {
	type answer struct{ did, why string }
	var order []answer
	columns := map[answer][]string{}
	for i, s := range t.Systems[1:] {
		for _, d := range Compare([]Row{r}, t.Systems[0], s, t.Records) {
			a := answer{d.Did, d.Why}
			if columns[a] == nil {
				order = append(order, a)
			}
			columns[a] = append(columns[a], letter(i+1))
		}
	}
	for _, a := range order {
		fmt.Fprintf(b, "    %s: %s\n", strings.Join(columns[a], " "), a.did)
		if a.why != "" {
			fmt.Fprintf(b, "        %s\n", a.why)
		}
	}
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
