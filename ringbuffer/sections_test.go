package ringbuffer

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus"
)

// TestSizes: section 12: rings of every size a known system opens, and the
// smallest there is, take packets up to their own maximum at every layout, over
// the wrap, and refuse one granule more for ever.
func TestSizes(t *testing.T) {
	for _, c := range []struct {
		pages, dataBytes int
		who              string
	}{
		{2, 4096, "the smallest ring (11); AF_HYPERV patch v11, sending"},
		{3, 8192, "AF_HYPERV patch v11, receiving"},
		{5, 16384, "AF_HYPERV patch v12 to v18"},
		{6, 20480, "Linux and FreeBSD with VMBus before 5.0; default of mid-2019"},
		{7, 24576, "current Linux, default"},
		{52, 208896, "Linux, children of a listener"},
		{64, 258048, "Linux and FreeBSD, largest"},
		{65, 262144, "Linux with the first VMBUS_RING_SIZE, largest"},
		{130, 528384, "the first in which len8 is the limit (4.1)"},
	} {
		t.Run(fmt.Sprint(c.pages), func(t *testing.T) {
			for layout := range pageLayouts {
				w, r, _ := newRing(t, layout, c.pages-1, uint32(c.dataBytes-8))
				require.Equal(t, c.dataBytes, w.DataBytes(), c.who)
				require.Equal(t, c.dataBytes, r.DataBytes())
				largest := min(c.dataBytes-8, MaxPacketBytes)
				require.Equal(t, largest, w.MaxTotalBytes())
				body := make([]byte, largest-OverheadBytes)
				for i := range body {
					body[i] = byte(i * 7 >> 3)
				}
				var size *SizeError
				require.ErrorAs(t, w.Append(Header{Type: InBand}, body, []byte{1}), &size)
				got := make([]byte, len(body))
				for range 3 { // the start moves on by one granule less than a ring each time
					require.NoError(t, w.Append(Header{Type: InBand}, nil, body))
					require.True(t, w.Commit())
					_, n, err := r.Next(got)
					require.NoError(t, err)
					require.Equal(t, len(body), n)
					require.True(t, bytes.Equal(body, got))
					r.Commit()
				}
			}
		})
	}
}

// TestLongestPacket: 4.1: len8 = 0xFFFF is a packet like any other.
func TestLongestPacket(t *testing.T) {
	w, r, pages := newRing(t, 1, 129, 0)
	require.NoError(t, w.Append(Header{Type: InBand}, nil, make([]byte, MaxPacketBytes-OverheadBytes)))
	w.Commit()
	require.EqualValues(t, 0xFFFF, le.Uint64(pages[1].Bytes())>>32&0xFFFF)
	h, err := r.Peek()
	require.NoError(t, err)
	require.Equal(t, MaxPacketBytes, h.TotalBytes())
}

// TestSignalReader: 8.1, each combination of the two conditions.
func TestSignalReader(t *testing.T) {
	for _, c := range []struct {
		why           string
		mask, unread  uint32
		batch         int
		signal, again bool
	}{
		{"empty and unmasked", 0, 0, 1, true, false},
		{"masked: condition 1", 1, 0, 1, false, false},
		{"any value but 0 masks (2)", 0x80000000, 0, 1, false, false},
		{"not empty: condition 2", 0, 24, 1, false, false},
		{"neither", 1, 24, 1, false, false},
		{"a batch is judged by its first byte, and signals once", 0, 0, 5, true, false},
	} {
		w, _, pages := newRing(t, 0, 1, 4000)
		put := func(n int) bool {
			for range n {
				require.NoError(t, w.Append(Header{Type: InBand}, nil, nil))
			}
			return w.Commit()
		}
		if c.unread > 0 {
			require.True(t, put(1))
		}
		pages[0].Store32(offMask, c.mask)
		require.Equal(t, c.signal, put(c.batch), c.why)
		require.Equal(t, c.again, put(1), "%s: behind it the ring is not empty", c.why)
	}
}

// TestSignalWriter: 8.2, rule by rule. 3072 of 4096 bytes are in use, so F0 is
// 1024, and one packet of 1024 is released: F1 is 2048.
func TestSignalWriter(t *testing.T) {
	for _, c := range []struct {
		why      string
		feature  uint32
		pending  uint32
		mask     uint32
		releases int
		signal   bool
	}{
		{"crossed: F0 <= P < F1", 1, 2000, 0, 1, true},
		{"F0 = P is a crossing", 1, 1024, 0, 1, true},
		{"rule 4: F1 = P is not enough, one granule stays empty", 1, 2048, 0, 1, false},
		{"one granule less is", 1, 2040, 0, 1, true},
		{"rule 2: P is rounded down to granules", 1, 2047, 0, 1, true},
		{"rule 2: S-1 means when empty", 1, 4095, 0, 3, true},
		{"and S-8 too", 1, 4088, 0, 3, true},
		{"rule 2: no pending size", 1, 0, 0, 3, false},
		{"rule 2: less than a granule is none, and was free before", 1, 7, 0, 1, false},
		{"F0 > P: the writer had room all the time", 1, 1016, 0, 1, false},
		{"P > S never signals (13.15)", 1, 5000, 0, 3, false},
		{"nor does any other value that is too large", 1, 0xFFFFFFFF, 0, 3, false},
		{"rule 1: the writer does not honour it", 0, 2000, 0, 1, false},
		{"rule 1: bit 0, whatever else is set", 0xFFFFFFFE, 2000, 0, 1, false},
		{"rule 1: the other bits do not matter", 0xFFFFFFFF, 2000, 0, 1, true},
		{"the mask is not consulted", 1, 2000, 1, 1, true},
	} {
		w, r, pages := newRing(t, 0, 1, 512)
		for range 3 {
			require.NoError(t, w.Append(Header{Type: InBand}, nil, make([]byte, 1000)))
		}
		w.Commit()
		pages[0].Store32(offFeatures, c.feature)
		pages[0].Store32(offPendingSize, c.pending)
		pages[0].Store32(offMask, c.mask)
		for range c.releases {
			_, _, err := r.Next(make([]byte, 1000))
			require.NoError(t, err)
		}
		require.Equal(t, c.signal, r.Commit(), c.why)
		require.Equal(t, c.pending, pages[0].Load32(offPendingSize), "8.2: the reader never clears it")
		if c.releases == 1 && c.signal {
			_, _, err := r.Next(make([]byte, 1000))
			require.NoError(t, err)
			require.False(t, r.Commit(), "%s: only the crossing signals", c.why)
		}
	}
}

// TestHardening: section 13, rules 2 to 6 and 13: one packet of 16 payload bytes
// (len8 4, total 40) of which one word is changed, or an index.
func TestHardening(t *testing.T) {
	descriptor := func(kind, offset8, len8, flags uint64) uint64 { return kind | offset8<<16 | len8<<32 | flags<<48 }
	for _, c := range []struct {
		rule  string
		word  uint64 // the descriptor's first half; 0 for the true one
		write uint32 // write index; 0 for the true one
		ext   uint64 // first granule behind the descriptor
		kind  CorruptKind
	}{
		{rule: "13.2 write index = S", write: 4096, kind: InvalidRingPointer},
		{rule: "13.2 write index of all ones", write: 0xFFFFFFFF, kind: InvalidRingPointer},
		{rule: "13.2 write index not a multiple of 8", write: 44, kind: InvalidRingPointer},
		{rule: "13.3 8 bytes available", write: 8, kind: InvalidDataAvailable},
		{rule: "13.4 offset8 0", word: descriptor(6, 0, 4, 0), kind: InvalidDescriptorLengths},
		{rule: "13.4 offset8 1", word: descriptor(6, 1, 4, 0), kind: InvalidDescriptorLengths},
		{rule: "13.4 offset8 > len8", word: descriptor(6, 5, 4, 0), kind: InvalidDescriptorLengths},
		{rule: "13.4 len8 0", word: descriptor(6, 2, 0, 0), kind: InvalidDescriptorLengths},
		{rule: "13.4 len8 65535", word: descriptor(6, 2, 0xFFFF, 0), kind: InvalidDescriptorLengths},
		{rule: "13.4 the footer is missing", word: descriptor(6, 2, 5, 0), kind: InvalidDescriptorLengths},
		{rule: "13.4 the footer is cut off", write: 32, kind: InvalidDescriptorLengths},
		{rule: "13.5 flag bit 1", word: descriptor(6, 2, 4, 2), kind: InvalidDescriptorFlags},
		{rule: "13.5 flag bit 15", word: descriptor(6, 2, 4, 0x8000), kind: InvalidDescriptorFlags},
		{rule: "13.5 type 8, historic", word: descriptor(8, 2, 4, 0), kind: InvalidDescriptorType},
		{rule: "13.5 type 0", word: descriptor(0, 2, 4, 0), kind: InvalidDescriptorType},
		{rule: "13.5 lengths come before flags", word: descriptor(0, 1, 4, 2), kind: InvalidDescriptorLengths},
		{rule: "13.5 flags come before the type", word: descriptor(0, 2, 4, 2), kind: InvalidDescriptorFlags},
		{rule: "13.6 type 7 without an extension", word: descriptor(7, 2, 4, 0), kind: InvalidDescriptorLengths},
		{rule: "13.6 type 9 without an extension", word: descriptor(9, 2, 4, 1), kind: InvalidDescriptorLengths},
		{rule: "13.6 type 7 with a range too many", word: descriptor(7, 3, 4, 0), ext: 1 << 32, kind: InvalidDescriptorRanges},
		{rule: "13.6 8 * c overflows 32 bits", word: descriptor(7, 3, 4, 0), ext: 0x20000000 << 32, kind: InvalidDescriptorRanges},
		{rule: "13.6 type 9 with 2^32-1 ranges", word: descriptor(9, 4, 4, 1), ext: 0xFFFFFFFF << 32, kind: InvalidDescriptorRanges},
		{rule: "5.2 type 9 without a range", word: descriptor(9, 4, 4, 1), kind: InvalidDescriptorGpaDirectRangeCount},
	} {
		t.Run(c.rule, func(t *testing.T) {
			w, r, pages := newRing(t, 0, 1, 0)
			require.NoError(t, w.Append(Header{Type: InBand}, nil, make([]byte, 16)))
			w.Commit()
			if c.word != 0 {
				poke(pages, 0, le.AppendUint64(nil, c.word))
			}
			poke(pages, DescriptorBytes, le.AppendUint64(nil, c.ext))
			if c.write != 0 {
				pages[0].Store32(offWriteIndex, c.write)
			}
			_, err := r.Peek()
			requireKind(t, err, c.kind)
			requireDead(t, r, pages[0].Load32) // 13.13
		})
	}
}

// TestOversizedPacketIsAnError: 13.9: where Linux shortens, nothing is cut.
func TestOversizedPacketIsAnError(t *testing.T) {
	w, r, _ := newRing(t, 0, 2, 0)
	require.NoError(t, w.Append(Header{Type: InBand}, nil, make([]byte, 5000)))
	w.Commit()
	_, _, err := r.Next(make([]byte, 4096))
	require.ErrorIs(t, err, vmbus.ErrState)
	require.Zero(t, r.Uncommitted())
}

// TestSignalWithoutData: 13.14: a peer that signals for nothing costs one look:
// there is no state in which a look finds what is not there.
func TestSignalWithoutData(t *testing.T) {
	w, r, _ := newRing(t, 0, 1, 0)
	for range 3 {
		more, err := r.Readable()
		require.NoError(t, err)
		require.False(t, more)
		_, err = r.Peek()
		require.ErrorIs(t, err, ErrEmpty)
		require.False(t, r.Commit())
		require.False(t, w.Commit())
	}
	require.Zero(t, r.Stats())
	require.Zero(t, w.Stats())
}
