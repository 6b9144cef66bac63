package decode

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// FuzzDecode: whatever the bytes and options, every byte is in exactly one field,
// the fields are in order, what is bad begins at the problem (checkReport), the
// report can be printed both ways, and the bytes of the fields are the input.
func FuzzDecode(f *testing.F) {
	for _, v := range vectors(f) {
		b := unhex(f, v.Hex)
		f.Add(uint8(0), uint8(10), uint32(0xFF), uint8(0), b)
		f.Add(uint8(1), uint8(9), uint32(0), uint8(2), b[:len(b)-1])
		slot := append([]byte{1, 0, 0, 0, byte(len(b)), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, b...)
		f.Add(uint8(2), uint8(9), uint32(0), uint8(0), append(slot, make([]byte, vmbus.SlotBytes-len(slot))...))
	}
	f.Add(uint8(3), uint8(0), uint32(0), uint8(0), bytes.Repeat([]byte{4, 0, 0, 0}, 64))
	f.Add(uint8(4), uint8(0), uint32(2), uint8(0), unhex(f, "0010000000000000 0100000000000000 0010000001000000 01"))
	packets := unhex(f, "0600 0200 0400 0000 0000000000000000 01000000 05000000 68656c6c6f000000 0000000000000000"+
		"0900 0600 0600 0100 0500000000000000 00000000 01000000 00020000 000f0000 4523010000000000 7707000000000000 0000000000000000"+
		"0700 0400 0400 0100 0500000000000000 0100 0000 01000000 00020000 000f0000 0000000000000000")
	for _, at := range []int{0, guestmem.PageSize - 32, guestmem.PageSize - 64} {
		f.Add(uint8(5), uint8(0), uint32(0), uint8(0), ringMemory(at, len(packets), packets))
	}
	f.Add(uint8(5), uint8(0), uint32(1), uint8(1), ringMemory(8, 40, packets))
	kinds := []Kind{Guess, Message, Slot, Post, GPADL, Ring}
	framings := []Framing{GuessFraming, Pipe, Plain}
	f.Fuzz(func(t *testing.T, kind, version uint8, features uint32, direction uint8, b []byte) {
		versions := append(vmbus.Versions(), 0)
		o := Options{
			Kind:       kinds[int(kind)%len(kinds)],
			Negotiated: vmbus.Negotiated{Version: versions[int(version)%len(versions)], Features: vmbus.Features(features)},
			Direction:  vmbus.Direction(direction % 3),
			Ranges:     int(features % 5),
			Framing:    framings[int(direction)%len(framings)],
		}
		before := bytes.Clone(b)
		r, err := Explain(b, o)
		require.NoError(t, err)
		require.Equal(t, before, b, "the input was changed")
		checkReport(t, b, r)
		printed := text(t, r)
		require.Equal(t, r.Problem != nil, strings.Contains(printed, "\nstops making sense at offset "))

		doc, err := json.Marshal(r)
		require.NoError(t, err)
		var back struct {
			Parts []struct {
				Fields []struct {
					Offset int
					Bytes  string
				}
			}
		}
		require.NoError(t, json.Unmarshal(doc, &back))
		got := make([]byte, len(b))
		for _, p := range back.Parts {
			for _, f := range p.Fields {
				x, err := hex.DecodeString(f.Bytes)
				require.NoError(t, err)
				copy(got[f.Offset:], x)
			}
		}
		require.Equal(t, b, got, "the JSON document has all bytes")
	})
}
