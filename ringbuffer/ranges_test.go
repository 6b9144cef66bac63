package ringbuffer

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// pfnsFor makes as many distinct PFNs as a range of that shape needs.
func pfnsFor(byteOffset, byteCount uint32, first uint64) []uint64 {
	pfns := make([]uint64, pageCount(byteOffset, byteCount))
	for i := range pfns {
		pfns[i] = first + uint64(i)*3
	}
	return pfns
}

// TestGPADirectShapes: the three shapes of section 5.2 go through a ring.
func TestGPADirectShapes(t *testing.T) {
	multi := GPARange{ByteCount: 32*guestmem.PageSize - 16, ByteOffset: 16}
	multi.PFNs = pfnsFor(multi.ByteOffset, multi.ByteCount, 100)
	array := GPARange{ByteCount: 200 * guestmem.PageSize, ByteOffset: 4095}
	array.PFNs = pfnsFor(array.ByteOffset, array.ByteCount, 1<<40)
	shapes := map[string][]GPARange{
		"page buffers": {
			{ByteCount: 100, ByteOffset: 3996, PFNs: []uint64{1}},
			{ByteCount: 4096, PFNs: []uint64{2}},
			{ByteCount: 1, ByteOffset: 4095, PFNs: []uint64{1<<52 - 1}},
		},
		"multi-page buffer": {multi},
		"mpb array":         {array},
	}
	for name, ranges := range shapes {
		for layout := range pageLayouts {
			w, r, _ := newRing(t, layout, 1, 4080)
			ext, err := AppendGPADirect(nil, ranges)
			require.NoError(t, err)
			h := Header{Type: GPADirect, Flags: FlagCompletion, ID: 3, ExtBytes: len(ext)}
			require.NoError(t, w.Append(h, append(ext, "head"...), []byte("body")))
			w.Commit()
			got, err := r.Peek()
			require.NoError(t, err, name)
			h.PayloadBytes = 8
			require.Equal(t, h, got)
			parsed, err := ParseGPADirect(r.Extension())
			require.NoError(t, err)
			require.Empty(t, cmp.Diff(ranges, parsed))
			buf := make([]byte, 8)
			r.CopyPayload(buf, 0)
			require.Equal(t, "headbody", string(buf), "payload begins behind the extension")
		}
	}
}

// TestRangeListErrors: lists that cannot be encoded are the caller's fault.
func TestRangeListErrors(t *testing.T) {
	for name, ranges := range map[string][]GPARange{
		"none":         {},
		"offset":       {{ByteCount: 1, ByteOffset: 4096, PFNs: []uint64{1, 2}}},
		"PFN missing":  {{ByteCount: 2, ByteOffset: 4095, PFNs: []uint64{1}}},
		"PFN too many": {{ByteCount: 1, PFNs: []uint64{1, 2}}},
	} {
		var e *RangeError
		out, err := AppendGPADirect([]byte("kept"), ranges)
		require.ErrorAs(t, err, &e, name)
		require.ErrorIs(t, err, vmbus.ErrState)
		require.Equal(t, "kept", string(out))
	}
}

// TestTransferPages round-trips section 5.1, and tolerates what 18..19 hold.
func TestTransferPages(t *testing.T) {
	set := TransferPageSet{Set: 0xCAFE, SenderOwnsSet: 1, TransferRanges: []TransferRange{{1514, 0}, {64, 2048}}}
	ext := AppendTransferPages(nil, set)
	ext[3] = 0x99 // reserved: may hold garbage
	got, err := ParseTransferPages(ext)
	require.NoError(t, err)
	require.Equal(t, set, got)
	_, err = ParseTransferPages(ext[:len(ext)-8])
	requireKind(t, err, InvalidDescriptorRanges)
	_, err = ParseTransferPages(ext[:4])
	requireKind(t, err, InvalidDescriptorLengths)
}

// TestSegments: RG-12: a part of a list starts where its offset says, also when
// that is in a later range, compared with a byte-by-byte model.
func TestSegments(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type place struct {
			pfn uint64
			off uint32
		}
		var ranges []GPARange
		var model []place
		for i := range rapid.IntRange(1, 4).Draw(t, "ranges") {
			g := GPARange{
				ByteCount:  uint32(rapid.IntRange(0, 3*guestmem.PageSize).Draw(t, "count")),
				ByteOffset: uint32(rapid.IntRange(0, guestmem.PageSize-1).Draw(t, "offset")),
			}
			g.PFNs = pfnsFor(g.ByteOffset, g.ByteCount, uint64(i)*1000)
			ranges = append(ranges, g)
			for b := range g.ByteCount {
				at := g.ByteOffset + b
				model = append(model, place{g.PFNs[at/guestmem.PageSize], at % guestmem.PageSize})
			}
		}
		skip := rapid.IntRange(0, len(model)+10).Draw(t, "skip")
		n := rapid.IntRange(0, len(model)+10).Draw(t, "n")
		var got []place
		for s := range GPASegments(ranges, uint64(skip), uint64(n)) {
			if s.Bytes == 0 || s.Offset+s.Bytes > guestmem.PageSize {
				t.Fatalf("segment %+v is not within a page", s)
			}
			for b := range s.Bytes {
				got = append(got, place{s.PFN, s.Offset + b})
			}
		}
		want := model[min(skip, len(model)):]
		want = want[:min(n, len(want))]
		if !slices.Equal(got, want) {
			t.Fatalf("skip %d, n %d of %d: got %d bytes, want %d", skip, n, len(model), len(got), len(want))
		}
	})
}
