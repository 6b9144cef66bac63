package trace

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The values of Event.Dir: a message on its way, or a step inside one side.
const (
	GuestToHost = "guest>host"
	HostToGuest = "host>guest"
	Host        = "host"
	Guest       = "guest"
)

// An Event is one thing that happened on a bus.
type Event struct {
	At     time.Time
	Who    string // label of the guest whose bus it is, "" if there is only one
	Dir    string // GuestToHost, HostToGuest, Host or Guest
	Name   string // of the message or step: "OpenChannel"
	Fields []Field
	Raw    []byte // the whole message where there is one
}

// A Field is one named value of an event.
type Field struct {
	Name  string
	Value any
}

// String is one line without its newline, as in
//
//	guest>host OpenChannel channel_id=2 open_id=2
//
// with "who: " in front when the event has a label. Time and raw bytes are left
// out, so that the text of a deterministic run is always the same.
func (e Event) String() string {
	var b strings.Builder
	if e.Who != "" {
		b.WriteString(word(e.Who))
		b.WriteString(": ")
	}
	b.WriteString(e.Dir)
	b.WriteByte(' ')
	b.WriteString(e.Name)
	for _, f := range e.Fields {
		b.WriteByte(' ')
		b.WriteString(f.String())
	}
	return b.String()
}

// String is name=value. A value with white space, quotes or control characters is
// quoted, so that text from a peer cannot forge a line or a field.
func (f Field) String() string { return f.Name + "=" + word(fmt.Sprint(f.Value)) }

// word returns s, quoted unless it is one plain word.
func word(s string) string {
	plain := s != "" && strings.IndexFunc(s, func(r rune) bool {
		return r == ' ' || r == '"' || r == '=' || r == '\uFFFD' || !strconv.IsPrint(r)
	}) < 0
	if plain {
		return s
	}
	return strconv.Quote(s)
}

// MarshalJSON is one object on one line:
//
//	{"at":"...","who":"g1","dir":"guest>host","name":"OpenChannel","fields":{"channel_id":2},"raw":"0500..."}
//
// fields keep their order; raw is hexadecimal; at (RFC 3339, UTC), who, fields
// and raw are left out when empty. A value that JSON cannot express becomes its
// text. The error is always nil.
func (e Event) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	if !e.At.IsZero() {
		b = append(member(b, "at", e.At.UTC().Format(time.RFC3339Nano)), ',')
	}
	if e.Who != "" {
		b = append(member(b, "who", e.Who), ',')
	}
	b = member(append(member(b, "dir", e.Dir), ','), "name", e.Name)
	if len(e.Fields) > 0 {
		b = append(b, `,"fields":{`...)
		for i, f := range e.Fields {
			if i > 0 {
				b = append(b, ',')
			}
			b = member(b, f.Name, f.Value)
		}
		b = append(b, '}')
	}
	if len(e.Raw) > 0 {
		b = member(append(b, ','), "raw", hex.EncodeToString(e.Raw))
	}
	return append(b, '}'), nil
}

// member appends "name":value.
func member(b []byte, name string, value any) []byte {
	b = append(append(b, jsonValue(name)...), ':')
	return append(b, jsonValue(value)...)
}

// jsonValue encodes v, and what JSON cannot express (NaN, a channel) as text.
func jsonValue(v any) []byte {
	if b, err := encodeJSON(v); err == nil {
		return b
	}
	b, err := encodeJSON(fmt.Sprint(v))
	if err != nil {
		return []byte("null") // a string always encodes
	}
	return b
}

// encodeJSON is json.Marshal without its escapes for HTML, which would turn
// "guest>host" into something no reader greps for.
func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
