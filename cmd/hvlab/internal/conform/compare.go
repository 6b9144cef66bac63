package conform

import "fmt"

// A Difference is an answer that is not the reference's.
type Difference struct {
	System    string `json:"system"`
	About     string `json:"about,omitempty"`
	Row       string `json:"row"`
	Did       string `json:"did"`
	Reference string `json:"reference"`
	Why       string `json:"why,omitempty"` // "" if nothing explains it
}

func (d Difference) String() string {
	return fmt.Sprintf("%s (%s): %s: %s; the reference: %s", d.System, d.About, d.Row, d.Did, d.Reference)
}

// unanswered stands for an answer that is missing.
const unanswered = "not asked"

// Compare lists the differences of s, with the explanations of all records of a
// system of that name: an explanation counts where the same answer was seen. A
// record that is older than a row says nothing of it, which is no difference.
func Compare(rows []Row, reference, s System, records []System) []Difference {
	var all []Difference
	for _, r := range rows {
		did, want := s.Did(r.Name), reference.Did(r.Name)
		if did == want || did == "" && s.Seen != "" {
			continue
		}
		d := Difference{s.Name, s.About, r.Name, did, want, explanation(s.Name, r.Name, did, records)}
		if did == "" {
			d.Did = unanswered
		}
		all = append(all, d)
	}
	return all
}

func explanation(system, row, did string, records []System) string {
	for _, r := range records {
		if why := r.Why[row]; r.Name == system && why != "" && r.Did(row) == did {
			return why
		}
	}
	return ""
}

// Stale lists what is wrong with a record although its system may be as ever:
// explanations of rows that do not exist or are no difference, and answers to
// rows that do not exist.
func Stale(rows []Row, reference, record System) []string {
	known := map[string]bool{}
	for _, r := range rows {
		known[r.Name] = true
	}
	var all []string
	for row := range record.Why {
		switch {
		case !known[row]:
			all = append(all, fmt.Sprintf("explains row %s, which does not exist", row))
		case record.Did(row) == reference.Did(row):
			all = append(all, fmt.Sprintf("explains row %s, which is no difference", row))
		}
	}
	for _, a := range record.Answers {
		if !known[a.Row] {
			all = append(all, fmt.Sprintf("answers row %s, which does not exist", a.Row))
		}
	}
	return all
}
