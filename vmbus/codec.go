package vmbus

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"slices"

	"github.com/hvlab/hvlab/internal/putback"
)

// A Message is a pointer to one of the message structs of this package, such as
// *OpenChannel.
type Message interface{ Type() Type }

// Append appends m to dst: the header (type u32, zero u32) and the body, little
// endian, every padding byte zero. For GPADLHeader and GPADLBody the caller
// appends the range words behind it with AppendWords.
//
// Append panics if m is nil or no struct of this package; no peer can cause that.
func Append(dst []byte, m Message) []byte {
	dst = slices.Grow(dst, MaxPayloadBytes) // every message fits, so this is the one allocation
	dst = binary.LittleEndian.AppendUint32(dst, uint32(m.Type()))
	dst = binary.LittleEndian.AppendUint32(dst, 0)
	if w, ok := m.(wired); ok {
		at := len(dst)
		c := w.wire(coder{b: dst[at:cap(dst)]})
		return dst[:cap(dst)-len(c.b)]
	}
	dst, err := binary.Append(dst, binary.LittleEndian, m)
	if err != nil {
		panic(fmt.Sprintf("vmbus: %T has no wire form: %v", m, err))
	}
	return dst
}

// Size is the length of Append(nil, m) in bytes, header included, range words
// of a GPADL not included.
func Size(m Message) int { return HeaderBytes + binary.Size(m) }

// Parse decodes one control message as n makes it look. The header's reserved
// word is ignored. tail is what follows the form that was chosen: range words
// for GPADLHeader and GPADLBody (see Words), meaningless for every other type.
// tail aliases b, m does not.
//
// The errors match ErrProtocol: a *TypeError for a type that n does not have, a
// *ParseError for a message that is too short. Parse never panics.
// Source: vmbus-control.md 3.0.
func Parse(b []byte, n Negotiated) (m Message, tail []byte, err error) {
	t, body, err := splitHeader(b)
	if err != nil {
		return nil, nil, err
	}
	l := chooseLayout(t, body, n)
	if l == nil {
		return nil, nil, &TypeError{Type: t, Negotiated: n}
	}
	if len(body) < l.BodyBytes {
		return nil, nil, &ParseError{Type: t, Have: len(body), Min: l.BodyBytes}
	}
	if putback.On(putback.RG13) && reflect.ValueOf(body).Pointer()%8 != 0 {
		panic("misaligned")
	}
	m = l.New()
	if w, ok := m.(wired); ok {
		w.wire(coder{b: body, load: true})
	} else if _, err := binary.Decode(body, binary.LittleEndian, m); err != nil {
		panic(fmt.Sprintf("vmbus: layout of %T is wrong: %v", m, err)) // our table, not the peer
	}
	return m, body[l.BodyBytes:len(body):len(body)], nil
}

// ParseFrom is Parse for a message that came in direction from; it returns a
// *DirectionError for a type that travels the other way.
func ParseFrom(from Direction, b []byte, n Negotiated) (m Message, tail []byte, err error) {
	t, _, err := splitHeader(b)
	if err != nil {
		return nil, nil, err
	}
	if d := t.Direction(); d != 0 && d != from {
		return nil, nil, &DirectionError{Type: t, From: from}
	}
	return Parse(b, n)
}

// splitHeader returns the type and the bytes after the header.
func splitHeader(b []byte) (t Type, body []byte, err error) {
	if len(b) >= 4 {
		t = Type(binary.LittleEndian.Uint32(b))
	}
	if len(b) < HeaderBytes {
		return t, nil, &ParseError{Type: t, Have: len(b) - HeaderBytes}
	}
	return t, b[HeaderBytes:], nil
}

// Words decodes the range words behind a GPADLHeader or GPADLBody. Only whole
// words count: the last 1..7 bytes are ignored. The words are a copy.
func Words(tail []byte) []uint64 {
	words := make([]uint64, len(tail)/wordBytes)
	for i := range words {
		words[i] = binary.LittleEndian.Uint64(tail[i*wordBytes:])
	}
	return words
}

// AppendWords appends range words to dst, the inverse of Words.
func AppendWords(dst []byte, words []uint64) []byte {
	for _, w := range words {
		dst = binary.LittleEndian.AppendUint64(dst, w)
	}
	return dst
}
