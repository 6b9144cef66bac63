// Package snapshot is the encoding of saved states: of a core (endpoint), of a
// running end (endpoint/live) and of a whole simulated machine (sim). Little
// endian:
//
//	 0  8 bytes  magic, which says what kind of thing it is of
//	 8  u16      version of the contents
//	10  u8       kind: which of several things of that magic
//	11  u8       0
//	12  u32      bytes of the body
//	16  body     the fields of a struct in their order: integers and booleans in
//	             their width (int: 8 bytes), arrays element by element, slices
//	             and strings behind their u32 length, pointers behind a presence
//	             byte
//	    32 bytes SHA-256 of all of the above
//
// There is one encoding of a value, so restoring and saving gives the same bytes.
// The digest finds damage; who can make one can write any contents, so those are
// to be checked like a peer's messages.
package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"reflect"
)

// HeadBytes is the size of a saved state before its body.
const HeadBytes = 16

// MaxBytes bounds a saved state. Source: faults.md, limits.
const MaxBytes = 16 << 20

// A Format names one kind of saved state.
type Format struct {
	Magic   string // 8 bytes
	Version uint16
	Kind    uint8
}

// An Error says why a state cannot be sealed or opened.
type Error struct{ Reason string }

func (e *Error) Error() string { return e.Reason }

// Seal encodes state, a pointer to a struct whose fields are all exported. The
// error is a state of more than MaxBytes.
func (f Format) Seal(state any) ([]byte, error) {
	b := append([]byte(f.Magic), byte(f.Version), byte(f.Version>>8), f.Kind, 0, 0, 0, 0, 0)
	b = appendValue(b, reflect.ValueOf(state).Elem())
	if len(b)+sha256.Size > MaxBytes {
		return nil, &Error{fmt.Sprintf("saving takes %d bytes, the limit is %d", len(b)+sha256.Size, MaxBytes)}
	}
	binary.LittleEndian.PutUint32(b[12:], uint32(len(b)-HeadBytes))
	digest := sha256.Sum256(b)
	return append(b, digest[:]...), nil
}

// Open decodes b into state, a pointer to a zero struct.
func (f Format) Open(b []byte, state any) error {
	switch {
	case len(b) > MaxBytes:
		return &Error{fmt.Sprintf("%d bytes, the limit is %d", len(b), MaxBytes)}
	case len(b) < HeadBytes+sha256.Size || string(b[:8]) != f.Magic:
		return &Error{"this is none"}
	case binary.LittleEndian.Uint16(b[8:]) != f.Version:
		return &Error{fmt.Sprintf("version %d of the encoding, this is %d", binary.LittleEndian.Uint16(b[8:]), f.Version)}
	case b[10] != f.Kind || b[11] != 0:
		return &Error{"it is of the other side"}
	}
	body := b[HeadBytes : len(b)-sha256.Size]
	digest := sha256.Sum256(b[:len(b)-sha256.Size])
	if !bytes.Equal(digest[:], b[len(b)-sha256.Size:]) || binary.LittleEndian.Uint32(b[12:]) != uint32(len(body)) {
		return &Error{"damaged: the digest does not fit"}
	}
	d := decoder{body}
	if !d.value(reflect.ValueOf(state).Elem()) || len(d.rest) != 0 {
		return &Error{"the body does not hold what its kind has"}
	}
	return nil
}

// appendValue encodes v, whose fields are all exported.
func appendValue(b []byte, v reflect.Value) []byte {
	switch v.Kind() {
	case reflect.Bool:
		if v.Bool() {
			return append(b, 1)
		}
		return append(b, 0)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		var word [8]byte
		binary.LittleEndian.PutUint64(word[:], v.Uint())
		return append(b, word[:v.Type().Size()]...)
	case reflect.Int:
		return binary.LittleEndian.AppendUint64(b, uint64(v.Int()))
	case reflect.String:
		b = binary.LittleEndian.AppendUint32(b, uint32(v.Len()))
		return append(b, v.String()...)
	case reflect.Pointer:
		if v.IsNil() {
			return append(b, 0)
		}
		return appendValue(append(b, 1), v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			b = appendValue(b, v.Field(i))
		}
		return b
	case reflect.Slice:
		b = binary.LittleEndian.AppendUint32(b, uint32(v.Len()))
		if v.Type().Elem().Kind() == reflect.Uint8 { // memory: one by one takes a hundred times as long
			return append(b, v.Bytes()...)
		}
	}
	for i := range v.Len() { // an array, or a slice behind its length
		b = appendValue(b, v.Index(i))
	}
	return b
}

// A decoder is the inverse of appendValue. It allocates no more than the bytes
// that are there call for.
type decoder struct{ rest []byte }

func (d *decoder) take(n int) []byte {
	if n > len(d.rest) {
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

// number takes an integer of n bytes.
func (d *decoder) number(n int) (uint64, bool) {
	var word [8]byte
	b := d.take(n)
	copy(word[:], b)
	return binary.LittleEndian.Uint64(word[:]), b != nil
}

// value decodes into v and reports whether the bytes are its canonical encoding.
func (d *decoder) value(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Bool:
		n, ok := d.number(1)
		v.SetBool(n == 1)
		return ok && n <= 1
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, ok := d.number(int(v.Type().Size()))
		v.SetUint(n)
		return ok
	case reflect.Int:
		n, ok := d.number(8)
		v.SetInt(int64(n))
		return ok
	case reflect.String:
		n, ok := d.number(4)
		b := d.take(int(n))
		v.SetString(string(b))
		return ok && len(b) == int(n)
	case reflect.Pointer:
		n, ok := d.number(1)
		if !ok || n != 1 {
			return ok && n == 0
		}
		v.Set(reflect.New(v.Type().Elem()))
		return d.value(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			if !d.value(v.Field(i)) {
				return false
			}
		}
		return true
	case reflect.Array:
		for i := range v.Len() {
			if !d.value(v.Index(i)) {
				return false
			}
		}
		return true
	}
	return d.slice(v)
}

func (d *decoder) slice(v reflect.Value) bool {
	n, ok := d.number(4)
	if !ok || n > uint64(len(d.rest)) { // every element takes a byte or more
		return false
	}
	if v.Type().Elem().Kind() == reflect.Uint8 {
		if n > 0 {
			v.SetBytes(bytes.Clone(d.take(int(n))))
		}
		return true
	}
	for range n {
		e := reflect.New(v.Type().Elem()).Elem()
		if !d.value(e) {
			return false
		}
		v.Set(reflect.Append(v, e))
	}
	return true
}
