package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

// everything has a field of each kind the encoding knows.
type everything struct {
	Flag   bool
	Small  uint8
	Medium uint16
	Large  uint64
	Signed int
	Name   string
	Array  [3]uint16
	Bytes  []byte
	Pages  [][]byte
	None   *uint32
	Some   *uint32
	Inner  []struct{ A, B uint32 }
}

var format = Format{Magic: "HVLABTST", Version: 3, Kind: 1}

func sample() everything {
	n := uint32(9)
	return everything{
		Flag: true, Small: 1, Medium: 2, Large: 1 << 60, Signed: -5, Name: "guest", Array: [3]uint16{1, 2, 3},
		Bytes: []byte{4, 5}, Pages: [][]byte{nil, {6}}, Some: &n, Inner: []struct{ A, B uint32 }{{1, 2}},
	}
}

func TestSealAndOpen(t *testing.T) {
	want := sample()
	b, err := format.Seal(&want)
	require.NoError(t, err)
	var got everything
	require.NoError(t, format.Open(b, &got))
	require.Equal(t, want, got)
	again, err := format.Seal(&got)
	require.NoError(t, err)
	require.Equal(t, b, again, "there is one encoding of a value")

	for i := range b { // faults.md S26: every byte
		bad := bytes.Clone(b)
		bad[i] ^= 1
		require.Error(t, format.Open(bad, new(everything)), "byte %d", i)
		require.Error(t, format.Open(b[:i], new(everything)), "cut at %d", i)
	}
	for _, f := range []Format{{"HVLABTSX", 3, 1}, {"HVLABTST", 4, 1}, {"HVLABTST", 3, 2}} {
		require.Error(t, f.Open(b, new(everything)))
	}
	require.Error(t, format.Open(make([]byte, MaxBytes+1), new(everything)))
	_, err = format.Seal(&everything{Bytes: make([]byte, MaxBytes)})
	require.Error(t, err)
}

// FuzzOpen: a body behind a digest that fits is refused, or is the one encoding of
// what it decodes to.
func FuzzOpen(f *testing.F) {
	want := sample()
	b, err := format.Seal(&want)
	require.NoError(f, err)
	f.Add(b[HeadBytes : len(b)-sha256.Size])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		b := append([]byte("HVLABTST"), 3, 0, 1, 0)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(body)))
		b = append(b, body...)
		digest := sha256.Sum256(b)
		b = append(b, digest[:]...)
		var got everything
		if format.Open(b, &got) != nil {
			return
		}
		again, err := format.Seal(&got)
		require.NoError(t, err)
		require.Equal(t, b, again)
	})
}
