package endpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"reflect"

	"github.com/hvlab/hvlab/vmbus"
)

// The encoding of a saved core, little endian:
//
//	 0  8 bytes  "HVLABBUS"
//	 8  u16      version of the encoding, savedVersion
//	10  u8       1 a host, 2 a guest
//	11  u8       0
//	12  u32      bytes of the body
//	16  body     the fields of hostSnapshot or guestSnapshot in their order:
//	             integers and booleans in their width (int: 8 bytes), arrays
//	             element by element, slices and strings behind their u32 length,
//	             pointers behind a presence byte
//	    32 bytes SHA-256 of all of the above
//
// There is one encoding of a value, so restoring and saving gives the same bytes.
// The digest finds damage; who can make one can write any contents, so those are
// checked like a peer's messages.
const (
	savedMagic   = "HVLABBUS"
	savedVersion = 2
	savedHead    = 16
)

// MaxSavedBytes bounds a saved core.
const MaxSavedBytes = 16 << 20

type savedKind uint8

const (
	savedHost  savedKind = 1
	savedGuest savedKind = 2
)

// A RestoreError reports saved bytes that cannot be restored. It matches
// vmbus.ErrProtocol: somebody else wrote them.
type RestoreError struct {
	Reason string
	Cause  error // may be nil
}

func (e *RestoreError) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("endpoint: saved state: %s: %v", e.Reason, e.Cause)
	}
	return "endpoint: saved state: " + e.Reason
}

// Unwrap returns what went wrong below.
func (e *RestoreError) Unwrap() error { return e.Cause }

// Is makes a RestoreError match vmbus.ErrProtocol.
func (e *RestoreError) Is(target error) bool { return target == vmbus.ErrProtocol }

// seal encodes snapshot, a pointer to a struct.
func seal(kind savedKind, snapshot any) ([]byte, error) {
	b := append([]byte(savedMagic), savedVersion, savedVersion>>8, byte(kind), 0, 0, 0, 0, 0)
	b = appendValue(b, reflect.ValueOf(snapshot).Elem())
	if len(b)+sha256.Size > MaxSavedBytes {
		return nil, fmt.Errorf("endpoint: saving takes %d bytes, the limit is %d: %w", len(b)+sha256.Size, MaxSavedBytes, vmbus.ErrState)
	}
	binary.LittleEndian.PutUint32(b[12:], uint32(len(b)-savedHead))
	digest := sha256.Sum256(b)
	return append(b, digest[:]...), nil
}

// unseal decodes b into snapshot, a pointer to a zero struct.
func unseal(kind savedKind, b []byte, snapshot any) error {
	switch {
	case len(b) > MaxSavedBytes:
		return &RestoreError{Reason: fmt.Sprintf("%d bytes, the limit is %d", len(b), MaxSavedBytes)}
	case len(b) < savedHead+sha256.Size || string(b[:8]) != savedMagic:
		return &RestoreError{Reason: "this is none"}
	case binary.LittleEndian.Uint16(b[8:]) != savedVersion:
		return &RestoreError{Reason: fmt.Sprintf("version %d of the encoding, this is %d", binary.LittleEndian.Uint16(b[8:]), savedVersion)}
	case savedKind(b[10]) != kind || b[11] != 0:
		return &RestoreError{Reason: "it is of the other side"}
	}
	body := b[savedHead : len(b)-sha256.Size]
	digest := sha256.Sum256(b[:len(b)-sha256.Size])
	if !bytes.Equal(digest[:], b[len(b)-sha256.Size:]) || binary.LittleEndian.Uint32(b[12:]) != uint32(len(body)) {
		return &RestoreError{Reason: "damaged: the digest does not fit"}
	}
	d := decoder{body}
	if !d.value(reflect.ValueOf(snapshot).Elem()) || len(d.rest) != 0 {
		return &RestoreError{Reason: "the body does not hold what its kind has"}
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
	for range n {
		e := reflect.New(v.Type().Elem()).Elem()
		if !d.value(e) {
			return false
		}
		v.Set(reflect.Append(v, e))
	}
	return true
}
