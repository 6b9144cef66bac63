package vmbus

import "github.com/google/uuid"

// A GUID is 16 bytes in the order of the wire, Microsoft's mixed-endian order:
// the first three groups of the text are little endian, the last two are bytes
// as printed. f8615163-df3e-46c5-913f-f2d2f965ed0e travels as
// 63 51 61 f8  3e df  c5 46  91 3f  f2 d2 f9 65 ed 0e.
//
// A uuid.UUID holds the same bytes as printed. GUIDFromUUID and UUID are the
// only way between the two. Source: vmbus-control.md 10.1.
type GUID [16]byte

// GUIDFromUUID turns printed order into wire order.
func GUIDFromUUID(u uuid.UUID) GUID { return GUID(swapGroups(u)) }

// UUID turns wire order into printed order.
func (g GUID) UUID() uuid.UUID { return uuid.UUID(swapGroups(g)) }

// swapGroups reverses the bytes of the first three groups: 4, 2 and 2 bytes. It
// is its own inverse.
func swapGroups(b [16]byte) [16]byte {
	return [16]byte{
		b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6],
		b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15],
	}
}

// String is the printed form, as in "f8615163-df3e-46c5-913f-f2d2f965ed0e".
func (g GUID) String() string { return g.UUID().String() }

// MarshalText is the printed form.
func (g GUID) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// UnmarshalText reads the printed form; errors are as for ParseGUID.
func (g *GUID) UnmarshalText(text []byte) error {
	parsed, err := ParseGUID(string(text))
	if err == nil {
		*g = parsed
	}
	return err
}

// ParseGUID reads the printed form in any way uuid.Parse accepts. For any other
// text it returns a *TextError.
func ParseGUID(text string) (GUID, error) {
	u, err := uuid.Parse(text)
	if err != nil {
		return GUID{}, &TextError{Kind: "GUID", Text: text}
	}
	return GUIDFromUUID(u), nil
}
