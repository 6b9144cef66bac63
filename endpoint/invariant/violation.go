package invariant

import "fmt"

// A Violation says which promise was broken, and how.
type Violation struct {
	Rule   string // its name in faults.md, such as I-RELID-UNIQ
	Reason string
}

func (v *Violation) Error() string { return "invariant " + v.Rule + ": " + v.Reason }

// broken is nil if format is empty.
func broken(rule, format string, args ...any) error {
	if format == "" {
		return nil
	}
	return &Violation{Rule: rule, Reason: fmt.Sprintf(format, args...)}
}
