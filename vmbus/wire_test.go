package vmbus

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWireIsTheStruct compares every codec that is written out with the struct's
// own, both ways, with random values in every field: the wire methods may be
// faster but must not be different.
func TestWireIsTheStruct(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	found := 0
	for _, l := range layouts {
		if _, ok := l.New().(wired); !ok {
			continue
		}
		found++
		for range 50 {
			body := make([]byte, l.BodyBytes)
			for i := range body {
				body[i] = byte(rng.Uint32())
			}
			want, got := l.New(), l.New()
			_, err := binary.Decode(body, binary.LittleEndian, want)
			require.NoError(t, err)
			rest := got.(wired).wire(coder{b: body, load: true})
			require.Empty(t, rest.b, "%s: all of the body is decoded", l.Name)
			require.Equal(t, want, got, "%s", l.Name)

			out := make([]byte, l.BodyBytes, l.BodyBytes+8)
			rest = got.(wired).wire(coder{b: out[:cap(out)]})
			require.Len(t, rest.b, 8, "%s: all of the body is encoded, and no more", l.Name)
			require.Equal(t, body, out, "%s: none of these structs has padding", l.Name)
			require.Equal(t, want, got, "%s: encoding changes nothing", l.Name)
		}
	}
	require.Equal(t, 15, found, "those of a socket's life")
}

// TestWireOfUserData does the same for the user data of a socket's offer.
func TestWireOfUserData(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		var u UserData
		for i := range u {
			u[i] = byte(rng.Uint32())
		}
		u[4] &= 3 // any byte but 0 is true, and 0 has to happen
		want := decodeUserData[HVSockUserData](u)
		require.Equal(t, want, DecodeHVSockUserData(u))
		require.Equal(t, encodeUserData(want), want.Encode())
	}
}

// BenchmarkCodec is one message there and back: the longest of those that are
// written out, and one that is not.
func BenchmarkCodec(b *testing.B) {
	n := Negotiated{Version: Copper, Features: ConnectionModify}
	for _, m := range []Message{&OfferChannel{}, &OpenResult{}, &ModifyConnection{}} {
		b.Run(Name(m), func(b *testing.B) {
			b.ReportAllocs()
			var buf []byte
			for b.Loop() {
				buf = Append(buf[:0], m)
				if _, _, err := Parse(buf, n); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
