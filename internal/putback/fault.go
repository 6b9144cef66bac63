package putback

import "fmt"

// A Fault is a row of faults.md, section 1.
type Fault uint8

// groups are the tables of section 1 with their numbers of rows.
var groups = [...]struct {
	prefix string
	rows   int
}{{"GC", 21}, {"HC", 17}, {"RG", 16}, {"HV", 19}, {"SS", 12}, {"GO", 9}}

// String is the row's id, such as "GC-05".
func (f Fault) String() string {
	n := int(f)
	for _, g := range groups {
		if n >= 1 && n <= g.rows {
			return fmt.Sprintf("%s-%02d", g.prefix, n)
		}
		n -= g.rows
	}
	return "none"
}

// All returns every row, in the order of the catalogue.
func All() []Fault {
	var list []Fault
	for _, g := range groups {
		for range g.rows {
			list = append(list, Fault(len(list)+1))
		}
	}
	return list
}
