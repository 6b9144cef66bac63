package ringbuffer

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSmallPacketAgreesWithHold: what SmallPacket accepts, Hold accepts with the
// same meaning, for descriptors around every limit (13.4, 13.5). The reverse need
// not hold.
func TestSmallPacketAgreesWithHold(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	near := func(values ...uint64) uint64 { return values[rng.IntN(len(values))] }
	accepted := 0
	for range 20000 {
		available := uint32(near(8, 16, 24, 32, 40, 64, 4088))
		word := near(6, 6, 6, 7, 9, 0xB, 0) | near(2, 2, 2, 1, 0, 3, 0xFFFF)<<16 |
			near(0, 1, 2, 3, 4, 5, 7, 510, 511, 0xFFFF)<<32 | near(0, 0, 1, 2, 0x8000)<<48
		_, r, pages := newRing(t, 0, 1, 0)
		poke(pages, 0, le.AppendUint64(nil, word))
		poke(pages, 16, le.AppendUint64(nil, 0x1122334455667788))
		pages[0].Store32(offWriteIndex, available)
		require.Empty(t, r.Run(), "nothing is known of the write index")
		more, err := r.Readable()
		require.NoError(t, err)
		require.True(t, more)
		run := r.Run()
		require.Len(t, run, int(available))

		packetBytes, first, ok := SmallPacket(run)
		h, err := r.Peek()
		if !ok {
			continue
		}
		accepted++
		require.NoError(t, err, "%#x with %d bytes available", word, available)
		require.Equal(t, InBand, h.Type)
		require.Equal(t, h.TotalBytes(), packetBytes)
		require.NotZero(t, h.PayloadBytes)
		require.EqualValues(t, 0x1122334455667788, first)
	}
	require.Greater(t, accepted, 100, "the comparison has substance")
}

// TestSkip: as many Advances, and never beyond what is unread.
func TestSkip(t *testing.T) {
	for layout := range pageLayouts {
		w, r, pages := newRing(t, layout, 2, 8192-64)
		for range 4 { // 32 bytes each: two before the end of the ring, two behind
			require.NoError(t, w.Append(Header{Type: InBand}, nil, make([]byte, 8)))
		}
		w.Commit()
		_, err := r.Peek()
		require.NoError(t, err)
		require.Nil(t, r.Run(), "a packet is held")
		r.Skip(1, 32)
		require.Zero(t, r.Uncommitted(), "and stays")
		r.Advance()
		require.Len(t, r.Run(), 32, "to the end of the ring")
		for _, bytes := range []int{-8, 104} {
			r.Skip(1, bytes)
			require.Equal(t, 32, r.Uncommitted(), "%d bytes are not unread", bytes)
		}
		r.Skip(1, 32)
		require.Len(t, r.Run(), 64)
		r.Skip(2, 64)
		r.Commit()
		require.EqualValues(t, 64, pages[0].Load32(offReadIndex))
		require.EqualValues(t, 4, r.Stats().Packets)
	}
}
