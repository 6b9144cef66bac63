package ringbuffer

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus"
)

// seed is one line of faults.md, section 6.3: what lies in a ring of one data
// page, and the corruption it must be found to be. Kind 0 means that the ring
// accepts the packet (what a pipe makes of it is tested in package channel).
type seed struct {
	id, hex string
	kind    CorruptKind
	why     string
}

var seeds = []seed{
	{"S18", "06000200 01000000 00000000 00000000 00000000 00000000", InvalidDescriptorLengths, "RG-09: len8 < offset8"},
	{"S18", "06000200 00000000 00000000 00000000 00000000 00000000", InvalidDescriptorLengths, "len8 0"},
	{"S18", "06000200 ffff0000 00000000 00000000 00000000 00000000", InvalidDescriptorLengths, "RG-10: longer than the ring"},
	{"S18", "06000000 03000000 00000000 00000000 00000000 00000000 00000000 00000000", InvalidDescriptorLengths, "offset8 0"},
	{"S18", "06000300 02000000 00000000 00000000 00000000 00000000", InvalidDescriptorLengths, "offset8 3, len8 2"},
	{"S18", "06000200 0300feff 00000000 00000000 00000000 00000000 00000000 00000000", InvalidDescriptorFlags, "unknown flags"},
	{"S18", "00000200 03000000 00000000 00000000 00000000 00000000 00000000 00000000", InvalidDescriptorType, "type 0"},
	{"S19", "09000200 03000100 05000000 00000000 00000000 01000000 00000000 00000000", InvalidDescriptorLengths, "RG-11: no room for the extension"},
	{"S19", "09000300 03000100 05000000 00000000 00000000 00000000 00000000 00000000", InvalidDescriptorGpaDirectRangeCount, "range count 0"},
	{"S19", "09000300 03000100 05000000 00000000 00000000 ffffffff 00000000 00000000", InvalidDescriptorRanges, "range count 2^32-1"},
	{"S19", "09000500 05000100 05000000 00000000 00000000 01000000 01000000 00100000 00010000 00000000 00000000 00000000", InvalidDescriptorRanges, "RG-12: byte offset 0x1000"},
	{"S19", "09000500 05000100 05000000 00000000 00000000 01000000 ffffffff ff0f0000 00010000 00000000 00000000 00000000", InvalidDescriptorRanges, "byte count 2^32-1 with one PFN"},
	{"S20", "07000200 03000100 05000000 00000000 feca0000 01000000 00000000 00000000", InvalidDescriptorLengths, "RG-11: no room for the extension"},
	{"S20", "07000300 03000100 05000000 00000000 feca0000 00000000 00000000 00000000", 0, "no ranges contradict nothing (5.1)"},
	{"S20", "07000300 03000100 05000000 00000000 feca0000 ffffffff 00000000 00000000", InvalidDescriptorRanges, "range count 2^32-1"},
	{"S22", "06000200 04000000 00000000 00000000 01000000 ffffffff 68656c6c 6f000000 00000000 00000000", 0, "a matter of the pipe"},
	{"S22", "06000200 02000000 00000000 00000000 00000000 00000000", 0, "no payload at all is legal on a ring"},
	{"S24", "0b000200 02000000 00000000 00000000 00000000 00000000", 0, "RG-15: the Requestor drops id 0"},
	{"S24", "0b000200 02000000 07000000 00000000 00000000 00000000", 0, "RG-16: the Requestor drops id 7"},
}

func (s seed) bytes(t testing.TB) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s.hex, " ", ""))
	require.NoError(t, err)
	return b
}

// TestSeeds runs every ring seed at the start of the ring and across its end.
func TestSeeds(t *testing.T) {
	for _, s := range seeds {
		for layout := range pageLayouts {
			for _, start := range []uint32{0, 4088, 4080, 4072} {
				b := s.bytes(t)
				_, r, pages := newRing(t, layout, 1, start)
				poke(pages, int(start), b)
				pages[0].Store32(offWriteIndex, (start+uint32(len(b)))%4096)
				_, err := r.Peek()
				if s.kind == 0 {
					require.NoError(t, err, "%s %s", s.id, s.why)
					r.Advance()
					_, err = r.Peek()
					require.ErrorIs(t, err, ErrEmpty, "%s: the packet is all there is", s.id)
					continue
				}
				requireKind(t, err, s.kind)
				require.ErrorIs(t, err, vmbus.ErrProtocol)
				requireDead(t, r, pages[0].Load32)
			}
		}
	}
}

// requireDead asserts I-CORRUPT-STICKY: no method gets life, or another store,
// out of a Reader that found corruption, even if the memory were valid again.
func requireDead(t testing.TB, r *Reader, load func(int) uint32) {
	t.Helper()
	read := load(offReadIndex)
	_, want := r.Peek()
	require.Same(t, r.Err(), want)
	r.Advance()
	r.Revert()
	require.False(t, r.Commit(), "a dead end asks for no signal")
	require.Equal(t, read, load(offReadIndex), "a dead end releases nothing")
	require.Zero(t, r.CopyPayload(make([]byte, 8), 0))
	require.Nil(t, r.View(0))
	require.Nil(t, r.Extension())
	_, err := r.Readable()
	require.Same(t, want, err)
	_, _, err = r.Next(make([]byte, 8))
	require.Same(t, want, err)
}

// TestControlWords is S21: an empty ring of zeros with one word set. Indices
// that nobody can have stored end the ring; hints may have any value (13.15).
func TestControlWords(t *testing.T) {
	for _, write := range []uint32{4096, 4, 8, 1 << 31, 1<<32 - 8} {
		_, r, pages := newRing(t, 0, 1, 0)
		pages[0].Store32(offWriteIndex, write)
		_, err := r.Peek()
		kind := InvalidRingPointer
		if write == 8 {
			kind = InvalidDataAvailable // a valid index, but less than a descriptor
		}
		requireKind(t, err, kind)
		requireDead(t, r, pages[0].Load32)
	}
	_, r, pages := newRing(t, 0, 1, 0)
	poke(pages, 0, make([]byte, 4096))
	pages[0].Store32(offWriteIndex, 4088)
	_, err := r.Peek()
	requireKind(t, err, InvalidDescriptorLengths) // zeros are no descriptor

	for _, hint := range []uint32{0, 1, 7, 8, 4095, 1<<32 - 1} {
		w, r, pages := newRing(t, 0, 1, 0)
		pages[0].Store32(offMask, hint)
		pages[0].Store32(offPendingSize, hint)
		pages[0].Store32(offFeatures, hint|featurePendingSize)
		require.NoError(t, w.Append(Header{Type: InBand}, nil, make([]byte, 4000)))
		require.Equal(t, hint == 0, w.Commit(), "any mask but 0 keeps the writer quiet")
		_, _, err := r.Next(make([]byte, 4096))
		require.NoError(t, err)
		require.Equal(t, hint == 4095, r.Commit(), "only 4095 is crossed: 72 bytes were free, now 4096 are")
	}
}
