package registry

import (
	"slices"
	"strings"
)

// A Descriptor is a security descriptor in Windows' string form (SDDL), such as
// "D:P(A;;FA;;;SY)(A;;FA;;;BA)". Only its access list counts here, and any right
// in an entry counts as the permission: a service has nothing but bind and
// connect, with a descriptor each. "" says nothing; the registry's default holds.
// Source: Microsoft, "Security Descriptor String Format".
type Descriptor string

// Names of trustees, as SDDL abbreviates them.
const (
	Administrators = "BA"
	LocalSystem    = "SY"
	Everyone       = "WD"
	Users          = "BU"
)

// An ace is one entry of an access list.
type ace struct {
	deny    bool
	skip    bool // for children only, or an audit entry
	trustee string
}

// parse reads the access list. present is false if there is none, which allows
// everything; reason is not empty if d cannot be read.
func (d Descriptor) parse() (list []ace, present bool, reason string) {
	text := string(d)
	if len(text) > MaxTextBytes {
		return nil, false, "the security descriptor is too long"
	}
	start := strings.Index(text, "D:")
	if start < 0 {
		return nil, false, ""
	}
	text = text[start+2:]
	if i := strings.IndexByte(text, '('); i < 0 {
		return nil, true, "" // an empty list: nobody
	} else if text = text[i:]; strings.Contains(string(d)[start+2:][:i], ":") {
		return nil, true, "" // the parenthesis belongs to another part
	}
	for strings.HasPrefix(text, "(") {
		end := strings.IndexByte(text, ')')
		if end < 0 {
			return nil, true, "the security descriptor has no closing parenthesis"
		}
		fields := strings.Split(text[1:end], ";")
		if len(fields) < 6 {
			return nil, true, "an entry of the security descriptor has fewer than six fields"
		}
		kind := strings.ToUpper(fields[0])
		list = append(list, ace{
			deny:    kind == "D",
			skip:    kind != "A" && kind != "D" || strings.Contains(strings.ToUpper(fields[1]), "IO") || fields[2] == "",
			trustee: fields[5],
		})
		text = text[end+1:]
	}
	return list, true, ""
}

// Allows reports whether somebody who is all of trustees, and Everyone, has the
// permission: the first entry about them decides, and no entry is a no. A
// descriptor without an access list allows everything, as does "".
func (d Descriptor) Allows(trustees ...string) bool {
	list, present, reason := d.parse()
	if reason != "" {
		return false
	}
	for _, e := range list {
		about := strings.EqualFold(e.trustee, Everyone) || slices.ContainsFunc(trustees, func(t string) bool { return strings.EqualFold(t, e.trustee) })
		if about && !e.skip {
			return !e.deny
		}
	}
	return !present
}
