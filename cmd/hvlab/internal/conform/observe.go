package conform

import (
	"context"
	"regexp"
	"slices"

	"github.com/hvlab/hvlab/hvsock/hvsocktest"
)

// A Row is one thing that every system is asked.
type Row struct {
	Name    string `json:"name"`
	Section string `json:"section"` // of the specification
	Text    string `json:"text"`    // the promise or the question
	Kind    string `json:"kind"`    // KindPromise or KindQuestion

	answer func(hvsocktest.Transport) string
}

// Kinds of rows.
const (
	KindPromise  = "promise"
	KindQuestion = "question"
)

// Rows is the whole suite, in its order.
func Rows() []Row {
	var rows []Row
	for _, b := range hvsocktest.Behaviours() {
		rows = append(rows, Row{b.Name, b.Section, b.Promise, KindPromise, b.Answer})
	}
	for _, q := range hvsocktest.Questions() {
		rows = append(rows, Row{q.Name, q.Section, q.Text, KindQuestion, q.Ask})
	}
	return rows
}

// Only is the rows whose names match pattern.
func Only(rows []Row, pattern *regexp.Regexp) []Row {
	return slices.DeleteFunc(slices.Clone(rows), func(r Row) bool { return !pattern.MatchString(r.Name) })
}

// A System is what one system answered.
type System struct {
	Name    string   `json:"name"`            // the same on every machine: "AF_VSOCK loopback"
	About   string   `json:"about,omitempty"` // which one: "Linux 6.1.0-56-cloud-amd64"
	Seen    string   `json:"seen,omitempty"`  // day of the observation, if it was recorded
	Answers []Answer `json:"answers"`
	// Why explains, by row, answers that are not those of the reference.
	Why map[string]string `json:"why,omitempty"`
}

// An Answer is what a system does where a row asks.
type Answer struct {
	Row string `json:"row"`
	Did string `json:"did"`
}

// Did is the answer for a row, or "" if there is none.
func (s System) Did(row string) string {
	for _, a := range s.Answers {
		if a.Row == row {
			return a.Did
		}
	}
	return ""
}

// Observe puts the rows to c, one after the other, until ctx ends.
func (c Candidate) Observe(ctx context.Context, rows []Row) (System, error) {
	s := System{Name: c.transport.Name, About: c.about}
	for _, r := range rows {
		if err := ctx.Err(); err != nil {
			return s, err
		}
		s.Answers = append(s.Answers, Answer{r.Name, r.answer(c.transport)})
	}
	return s, nil
}
