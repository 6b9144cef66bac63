package decode

import (
	"encoding/hex"
	"fmt"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// A Kind is what the input is.
type Kind string

// The kinds.
const (
	Guess   Kind = ""
	Message Kind = "message" // a control message
	Slot    Kind = "slot"    // a 256-byte SynIC message slot
	Post    Kind = "post"    // the 256-byte input of HvCallPostMessage
	GPADL   Kind = "gpadl"   // a range list
	Ring    Kind = "ring"    // a control page and data pages
)

// MaxInputBytes bounds the input, and with it the report, which is up to 50 times
// as large. The largest ring of a Hyper-V socket has 65 pages.
const MaxInputBytes = 4 << 20

// Options say what the bytes do not.
type Options struct {
	Kind Kind
	// Negotiated decides which forms messages have. Without a version the newest
	// is taken, and for the messages whose form only features decide (see
	// vmbus.OpenChannel2) the length.
	Negotiated vmbus.Negotiated
	Direction  vmbus.Direction // 0 is that of the message's type
	Ranges     int             // of a range list; 0 is as many as there are
	Framing    Framing         // of a ring's packets
}

// A Framing says whether the in-band packets of a ring begin with a pipe header.
type Framing string

// The framings.
const (
	GuessFraming Framing = ""
	Pipe         Framing = "pipe"
	Plain        Framing = "plain"
)

// A Report explains the input.
type Report struct {
	Kind    Kind     `json:"kind"`
	Guessed string   `json:"guessed,omitempty"` // how Kind was found, "" if it was given
	Bytes   int      `json:"bytes"`             // of the input
	Parts   []Part   `json:"parts"`
	Problem *Problem `json:"problem,omitempty"`
}

// A Part is a stretch of fields that belong together.
type Part struct {
	Title   string   `json:"title"`
	Section string   `json:"section,omitempty"` // of the specification
	Notes   []string `json:"notes,omitempty"`   // what follows from the fields
	Fields  []Field  `json:"fields"`
}

// A Field is some bytes of the input and what they are.
type Field struct {
	Offset  int    `json:"offset"`
	Bytes   hexed  `json:"bytes"`
	Name    string `json:"name"`
	Value   string `json:"value,omitempty"`
	Meaning string `json:"meaning,omitempty"`
	Bad     bool   `json:"bad,omitempty"` // the Problem is here, or hides what this is
	Dump    bool   `json:"-"`             // contents worth looking at byte by byte
}

// hexed is bytes that are hexadecimal in JSON. It aliases the input.
type hexed []byte

// MarshalText is hexadecimal.
func (h hexed) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

// A Problem is why the input stops making sense, and where.
type Problem struct {
	Offset int    `json:"offset"` // of the first bad field; the input's length if something is missing
	Reason string `json:"reason"`
}

func (p *Problem) Error() string { return fmt.Sprintf("at offset %#x: %s", p.Offset, p.Reason) }

// Explain explains b. The error is about the options or the length; what is
// wrong with the bytes is Report.Problem.
func Explain(b []byte, o Options) (*Report, error) {
	if len(b) > MaxInputBytes {
		return nil, fmt.Errorf("%d bytes are too many, the limit is %d", len(b), MaxInputBytes)
	}
	if o.Direction != 0 && o.Direction != vmbus.HostToGuest && o.Direction != vmbus.GuestToHost {
		return nil, fmt.Errorf("%v is no direction", o.Direction)
	}
	e := &explainer{in: b, o: o, report: &Report{Kind: o.Kind, Bytes: len(b)}}
	if o.Kind == Guess {
		e.report.Kind, e.report.Guessed = guess(b)
	}
	switch e.report.Kind {
	case Message:
		e.message(0, len(b))
	case Slot:
		e.slot()
	case Post:
		e.post()
	case GPADL:
		e.gpadl()
	case Ring:
		if err := e.ring(); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("%q is no kind of bytes", o.Kind)
	}
	return e.report, nil
}

// An explainer writes one report.
type explainer struct {
	in     []byte
	o      Options
	report *Report
}

// part begins a part; the fields that follow belong to it.
func (e *explainer) part(section, format string, args ...any) {
	e.report.Parts = append(e.report.Parts, Part{Title: fmt.Sprintf(format, args...), Section: section, Fields: []Field{}})
}

func (e *explainer) last() *Part { return &e.report.Parts[len(e.report.Parts)-1] }

// note adds what follows from the fields.
func (e *explainer) note(format string, args ...any) {
	p := e.last()
	p.Notes = append(p.Notes, fmt.Sprintf(format, args...))
}

// field adds n bytes at offset; nothing if there are none.
func (e *explainer) field(offset, n int, name, value, meaning string) *Field {
	if n == 0 {
		return new(Field)
	}
	p := e.last()
	p.Fields = append(p.Fields, Field{Offset: offset, Bytes: e.in[offset : offset+n], Name: name, Value: value, Meaning: meaning})
	return &p.Fields[len(p.Fields)-1]
}

// bad adds a field that makes no sense.
func (e *explainer) bad(offset, n int, name string) { e.field(offset, n, name, "", "").Bad = true }

// problem notes why the input stops making sense; the first one counts.
func (e *explainer) problem(offset int, reason string) {
	if e.report.Problem == nil {
		e.report.Problem = &Problem{offset, reason}
	}
}

// guess says what b is, and why.
func guess(b []byte) (Kind, string) {
	n := len(b)
	switch {
	case n == vmbus.SlotBytes && looksPosted(b):
		return Post, "256 bytes that begin with a connection id and a message type"
	case n == vmbus.SlotBytes:
		return Slot, "256 bytes are a message slot"
	case n >= vmbus.HeaderBytes && n <= vmbus.MaxPayloadBytes && le.Uint32(b[4:]) == 0 && vmbus.Type(le.Uint32(b)).Direction() != 0:
		return Message, "the first word is a message type and the second is zero"
	case n >= 2*guestmem.PageSize && n%guestmem.PageSize == 0:
		return Ring, "whole pages, two or more"
	case n >= wordBytes && n%wordBytes == 0 && looksRanged(b):
		return GPADL, "the first word is a range, and its pages follow"
	case n > guestmem.PageSize:
		return Ring, "it is more than a page"
	}
	return Message, "it looks like nothing else"
}

func looksRanged(b []byte) bool {
	pages, err := rangeOf(le.Uint64(b)).Pages()
	return err == nil && pages < len(b)/wordBytes
}

// rangeOf is the range that word w begins.
func rangeOf(w uint64) channel.Range {
	return channel.Range{ByteCount: uint32(w), ByteOffset: uint32(w >> 32)}
}

const wordBytes = 8

// sections are the places in the specification, by what they are about.
const (
	sectionControl = "ringbuffer.md 2"
	sectionPacket  = "ringbuffer.md 4"
	sectionSpace   = "ringbuffer.md 3"
)
