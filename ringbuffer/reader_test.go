package ringbuffer

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus"
)

// TestMonotonic: a write index that takes published bytes back ends the Reader,
// though it is in range and aligned: an honest writer only moves forward.
func TestMonotonic(t *testing.T) {
	w, r, pages := newRing(t, 0, 1, 0)
	for range 3 {
		require.NoError(t, w.Append(Header{Type: InBand}, nil, make([]byte, 40)))
	}
	w.Commit()
	_, _, err := r.Next(make([]byte, 64))
	require.NoError(t, err)
	pages[0].Store32(offWriteIndex, 64)
	_, err = r.Readable()
	requireKind(t, err, InvalidRingPointer)
	requireDead(t, r, pages[0].Load32)
}

// TestDescriptorLoadedOnce: RG-07, I-SNAPSHOT: after Peek the descriptor in the
// ring plays no part any more.
func TestDescriptorLoadedOnce(t *testing.T) {
	w, r, pages := newRing(t, 0, 1, 0)
	require.NoError(t, w.Append(Header{Type: InBand, ID: 5, Flags: FlagCompletion}, nil, []byte("12345678")))
	require.NoError(t, w.Append(Header{Type: Completion, ID: 6}, nil, nil))
	w.Commit()
	first, err := r.Peek()
	require.NoError(t, err)
	poke(pages, 0, []byte{9, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 1, 2, 3})
	again, err := r.Peek()
	require.NoError(t, err)
	require.Equal(t, Header{Type: InBand, Flags: FlagCompletion, ID: 5, PayloadBytes: 8}, first)
	require.Equal(t, first, again)
	require.Equal(t, 32, first.TotalBytes())
	r.Advance()
	second, err := r.Peek()
	require.NoError(t, err, "the step was taken from the copy, not from the ring")
	require.Equal(t, Header{Type: Completion, ID: 6}, second)
}

// TestExtensionIsPrivate: the ranges that were checked are the ranges that are
// used, whatever the peer does to the ring meanwhile (13.7, 13.8).
func TestExtensionIsPrivate(t *testing.T) {
	w, r, pages := newRing(t, 0, 1, 4072)
	ext, err := AppendGPADirect(nil, []GPARange{{ByteCount: 512, ByteOffset: 0xF00, PFNs: []uint64{0x12345, 0x777}}})
	require.NoError(t, err)
	require.NoError(t, w.Append(Header{Type: GPADirect, Flags: FlagCompletion, ID: 1, ExtBytes: len(ext)}, ext, []byte("command")))
	w.Commit()
	h, err := r.Peek()
	require.NoError(t, err)
	require.Equal(t, len(ext), h.ExtBytes)
	for i := range 4096 {
		poke(pages, i, []byte{0xFF})
	}
	ranges, err := ParseGPADirect(r.Extension())
	require.NoError(t, err)
	require.Equal(t, []GPARange{{ByteCount: 512, ByteOffset: 0xF00, PFNs: []uint64{0x12345, 0x777}}}, ranges)
	r.Advance()
	require.Nil(t, r.Extension(), "no packet, no extension")
}

// TestPayloadAccess: CopyPayload, Word, View and SetWord at every offset of a
// packet that crosses the end of the ring, and outside of it.
func TestPayloadAccess(t *testing.T) {
	body := []byte("0123456789abcdefghijklmnopqrstuvwxyz!?=*") // 40 bytes
	for layout := range pageLayouts {
		for start := uint32(4096 - 64); start < 4096; start += 8 {
			w, r, _ := newRing(t, layout, 1, start)
			require.NoError(t, w.Append(Header{Type: InBand}, nil, body))
			w.Commit()
			require.Zero(t, r.CopyPayload(make([]byte, 8), 0), "nothing peeked yet")
			_, ok := r.Word(0)
			require.False(t, ok)
			require.ErrorIs(t, r.SetWord(0, 1), vmbus.ErrState)
			_, err := r.Peek()
			require.NoError(t, err)
			for off := range body {
				buf := make([]byte, 16)
				n := r.CopyPayload(buf, off)
				require.Equal(t, min(16, len(body)-off), n)
				require.Equal(t, body[off:off+n], buf[:n])
				view := r.View(off)
				require.NotEmpty(t, view)
				require.Equal(t, body[off:off+len(view)], view)
				word, ok := r.Word(off)
				require.Equal(t, off%8 == 0, ok, "granules only")
				if ok {
					require.Equal(t, le.Uint64(body[off:]), word)
				}
			}
			for _, off := range []int{-1, 40, 1 << 40} {
				require.Zero(t, r.CopyPayload(make([]byte, 8), off))
				require.Nil(t, r.View(off))
				_, ok := r.Word(off)
				require.False(t, ok)
				require.ErrorIs(t, r.SetWord(off, 1), vmbus.ErrState)
			}
			require.NoError(t, r.SetWord(32, 0xAABB))
			word, _ := r.Word(32)
			require.EqualValues(t, 0xAABB, word)
		}
	}
}

// TestNextBuffer: a buffer that is too short is an error of the caller, and the
// packet is not cut (I-LEN).
func TestNextBuffer(t *testing.T) {
	w, r, _ := newRing(t, 0, 1, 0)
	require.NoError(t, w.Append(Header{Type: InBand}, nil, make([]byte, 100)))
	w.Commit()
	var short *BufferError
	_, _, err := r.Next(make([]byte, 103))
	require.ErrorAs(t, err, &short)
	require.Equal(t, BufferError{Need: 104, Have: 103}, *short)
	require.ErrorIs(t, err, vmbus.ErrState)
	_, n, err := r.Next(make([]byte, 104))
	require.NoError(t, err)
	require.Equal(t, 104, n)
}

// TestMaskAndRecheck: 8.3: what arrives under the mask is found by Unmask.
func TestMaskAndRecheck(t *testing.T) {
	w, r, _ := newRing(t, 0, 1, 0)
	put := func() bool {
		require.NoError(t, w.Append(Header{Type: InBand}, nil, nil))
		return w.Commit()
	}
	r.Mask()
	require.False(t, put(), "masked")
	require.True(t, r.Unmask(), "it came under the mask")
	require.False(t, put(), "not masked, but the ring is not empty (RG-03)")
	readable, err := r.Readable()
	require.NoError(t, err)
	require.True(t, readable)
	for range 2 {
		_, _, err := r.Next(nil)
		require.NoError(t, err)
	}
	r.Commit()
	require.False(t, r.Unmask())
	readable, err = r.Readable()
	require.NoError(t, err)
	require.False(t, readable)
	require.True(t, put(), "empty and unmasked")
	require.Equal(t, Stats{Packets: 3, Bytes: 72, Signals: 1, Suppressed: 2, PeakBytes: 48}, w.Stats())
	require.Equal(t, Stats{Packets: 2, Bytes: 48, Suppressed: 1, PeakBytes: 48}, r.Stats())
}

// TestSignalAfterRefill: the writer fills what a release freed before the reader
// looks at the write index: the space before, reckoned back, is negative, which
// is below any pending size.
func TestSignalAfterRefill(t *testing.T) {
	w, r, pages := newRing(t, 0, 1, 0)
	require.NoError(t, w.Append(Header{Type: InBand}, nil, make([]byte, 3000)))
	w.Commit()
	_, _, err := r.Next(make([]byte, 3000))
	require.NoError(t, err)
	pages[0].Store32(offPendingSize, 8)
	// As if the writer saw the release at once and wrote 2048 bytes more: the
	// index is what a snapshot between the two steps of Commit would show.
	pages[0].Store32(offWriteIndex, (3024+2048)%4096)
	require.True(t, r.Commit(), "2048 are free, more than the 8 it waits for")
}

// TestSignalOnAnyFree: RG-06, for peers whose pending size is not what they need.
func TestSignalOnAnyFree(t *testing.T) {
	for _, anyFree := range []bool{false, true} {
		w, r, pages := newRing(t, 0, 1, 0)
		r.SignalOnAnyFree(anyFree)
		for range 3 {
			require.NoError(t, w.Append(Header{Type: InBand}, nil, make([]byte, 1000)))
		}
		w.Commit()
		pages[0].Store32(offPendingSize, 3500)
		_, _, err := r.Next(make([]byte, 1000))
		require.NoError(t, err)
		require.Equal(t, anyFree, r.Commit(), "2048 free is not more than 3500")
		require.False(t, r.Commit(), "nothing freed, nothing to say")
	}
}
