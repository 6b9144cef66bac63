package ringbuffer

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// TestCatalogue holds the rows of faults.md, section 1, that a ring alone can
// show. internal/putback/check puts each fault back and runs its row.
func TestCatalogue(t *testing.T) {
	for _, row := range []struct {
		id   string
		test func(*testing.T)
	}{
		{"GC-07", TestPaddingIsZero},
		{"RG-01", testSignalIgnoresOwnMask},
		{"RG-03", testOneSignalForManyPackets},
		{"RG-04", testLookAgainAfterUnmask},
		{"RG-05", testEachWordHasOneOwner},
		{"RG-06", TestSignalOnAnyFree},
		{"RG-07", TestDescriptorLoadedOnce},
		{"RG-09", func(t *testing.T) { testSeedsOf(t, "RG-09") }},
		{"RG-10", func(t *testing.T) { testSeedsOf(t, "RG-10") }},
		{"RG-11", func(t *testing.T) { testSeedsOf(t, "RG-11") }},
		{"RG-12-offset", testByteOffsetInFirstPage},
		{"RG-12-part", testPartOfARangeList},
		{"RG-15", testCompletionOfIDZero},
		{"RG-16", testCompletionIsSingleUse},
	} {
		t.Run(row.id, row.test)
	}
}

// put stages and publishes one packet without payload, and returns whether the
// reader must be signalled.
func put(t *testing.T, w *Writer) (signal bool) {
	t.Helper()
	require.NoError(t, w.Append(Header{Type: InBand}, nil, nil))
	return w.Commit()
}

// testSeedsOf runs the seeds of a row at the start of the ring and across its end.
func testSeedsOf(t *testing.T, row string) {
	ran := 0
	for _, s := range seeds {
		if !strings.HasPrefix(s.why, row) {
			continue
		}
		for _, start := range []uint32{0, 4088, 4080, 4072} {
			b := s.bytes(t)
			_, r, pages := newRing(t, 0, 1, start)
			poke(pages, int(start), b)
			pages[0].Store32(offWriteIndex, (start+uint32(len(b)))%4096)
			_, err := r.Peek()
			requireKind(t, err, s.kind)
			requireDead(t, r, pages[0].Load32)
			ran++
		}
	}
	require.NotZero(t, ran, "no seed is for %s", row)
}

// RG-01: the writer sleeps with its pending size stored. The reader's own
// interrupt mask is about the other direction: the release that crosses the mark
// must be signalled though the mask is set.
func testSignalIgnoresOwnMask(t *testing.T) {
	w, r, _ := newRing(t, 0, 1, 0)
	for w.Append(Header{Type: InBand}, nil, make([]byte, 1000)) == nil {
		w.Commit()
	}
	ready, err := w.SetPending(PacketBytes(2000))
	require.NoError(t, err)
	require.False(t, ready, "the ring is full: the writer sleeps")
	r.Mask()
	signals := 0
	for buf := make([]byte, 1000); ; {
		if _, _, err := r.Next(buf); err != nil {
			require.ErrorIs(t, err, ErrEmpty)
			break
		}
		if r.Commit() {
			signals++
		}
	}
	require.Equal(t, 1, signals, "exactly the release that made more than the pending size free")
}

// RG-03: one signal when the ring stops being empty, none for what follows while
// the reader is merely behind.
func testOneSignalForManyPackets(t *testing.T) {
	w, r, _ := newRing(t, 0, 1, 0)
	require.True(t, put(t, w), "the ring was empty")
	for range 50 {
		require.False(t, put(t, w), "the reader knows that there is something to read")
	}
	require.EqualValues(t, 1, w.Stats().Signals)
	require.EqualValues(t, 50, w.Stats().Suppressed)
	for range 51 {
		_, _, err := r.Next(nil)
		require.NoError(t, err)
	}
	r.Commit()
	require.True(t, put(t, w), "and again when it has caught up")
}

// RG-04: many packets, one signal. Each packet but the first arrives while the
// reader has signals masked and has just found the ring empty, which is the moment
// when nobody will signal it.
func testLookAgainAfterUnmask(t *testing.T) {
	const packets = 20
	w, r, _ := newRing(t, 0, 1, 0)
	require.True(t, put(t, w), "this signal wakes the reader, the only one it gets")
	sent, got := 1, 0
	for awake := true; awake; {
		r.Mask()
		for {
			if _, _, err := r.Next(nil); err != nil {
				require.ErrorIs(t, err, ErrEmpty)
				break
			}
			got++
		}
		r.Commit()
		if sent < packets {
			sent++
			require.False(t, put(t, w), "signals are masked")
		}
		awake = r.Unmask()
	}
	require.Equal(t, packets, got, "the reader slept with packets in the ring, and nobody will wake it")
}

// RG-05: every shared word is stored by one end only, whatever that end does:
// write index, pending size and features by the writer, read index and mask by the
// reader.
func testEachWordHasOneOwner(t *testing.T) {
	writers, readers := []int{offWriteIndex, offPendingSize, offFeatures}, []int{offReadIndex, offMask}
	w, r, pages := newRing(t, 0, 1, 0)
	words := func(offsets []int) (list []uint32) {
		for _, off := range offsets {
			list = append(list, pages[0].Load32(off))
		}
		return list
	}
	r.Mask()
	before := words(readers)
	for range 4 {
		put(t, w)
	}
	require.NoError(t, w.Append(Header{Type: InBand}, nil, nil))
	w.Revert()
	_, err := w.SetPending(4000)
	require.NoError(t, err)
	_, err = w.FreeBytes()
	require.NoError(t, err)
	require.Equal(t, before, words(readers), "the writer stores no word of the reader")

	before = words(writers)
	for range 4 {
		_, _, err := r.Next(nil)
		require.NoError(t, err)
		r.Commit()
	}
	r.Revert()
	r.Unmask()
	_, err = r.Readable()
	require.NoError(t, err)
	require.Equal(t, before, words(writers), "the reader stores no word of the writer")
}

// RG-12: a range begins in its first page. The offset of the seed is refused for
// want of a PFN too; these ranges have all the PFNs they ask for.
func testByteOffsetInFirstPage(t *testing.T) {
	for byteOffset, legal := range map[uint32]bool{0xFFF: true, 0x1000: false, 0x1FFF: false} {
		ext := le.AppendUint64(nil, 1<<32)                   // one range
		ext = le.AppendUint64(ext, 2|uint64(byteOffset)<<32) // of 2 bytes
		for pfn := range pageCount(byteOffset, 2) {
			ext = le.AppendUint64(ext, 0x100+pfn)
		}
		w, r, _ := newRing(t, 0, 1, 0)
		require.NoError(t, w.Append(Header{Type: GPADirect, Flags: FlagCompletion, ID: 1, ExtBytes: len(ext)}, ext, nil))
		w.Commit()
		_, err := r.Peek()
		if legal {
			require.NoError(t, err)
			continue
		}
		requireKind(t, err, InvalidDescriptorRanges)
		require.EqualValues(t, byteOffset, err.(*CorruptError).Value, "it is the offset that is wrong")
	}
}

// RG-12, second half: a part of a list starts where its offset says, here in the
// second range, 100 bytes behind the byte offset of that range.
func testPartOfARangeList(t *testing.T) {
	ranges := []GPARange{
		{ByteCount: 4096, PFNs: []uint64{1}},
		{ByteCount: 5000, ByteOffset: 200, PFNs: []uint64{7, 9}},
	}
	var got []GPASegment
	for s := range GPASegments(ranges, 4096+100, 4000) {
		got = append(got, s)
	}
	require.Equal(t, []GPASegment{{7, 300, guestmem.PageSize - 300}, {9, 0, 4000 - (guestmem.PageSize - 300)}}, got)
}

// RG-15: 0 is never a valid transaction id: no request gets it, and a completion
// with it is dropped.
func testCompletionOfIDZero(t *testing.T) {
	q := NewRequestor[string](2)
	first, err := q.Begin("first")
	require.NoError(t, err)
	require.EqualValues(t, 1, first, "ids start at 1")
	_, err = q.Complete(0)
	require.ErrorIs(t, err, vmbus.ErrProtocol)
	require.EqualValues(t, 1, q.Dropped())
	require.Equal(t, 1, q.Waiting(), "the request still waits")
}

// RG-16: an id is good for one completion; one that was never issued, or was
// completed, is dropped and counted, and the next owner of the slot is not hurt.
func testCompletionIsSingleUse(t *testing.T) {
	q := NewRequestor[string](4)
	id, err := q.Begin("request")
	require.NoError(t, err)
	value, err := q.Complete(id)
	require.NoError(t, err)
	require.Equal(t, "request", value)
	for _, stale := range []uint64{id, 7, 1 << 63} {
		_, err = q.Complete(stale)
		require.ErrorIs(t, err, vmbus.ErrProtocol, "id %d", stale)
	}
	require.EqualValues(t, 3, q.Dropped())
	require.Zero(t, q.Waiting())
	for range 4 {
		_, err := q.Begin("next")
		require.NoError(t, err, "no slot was lost or doubled")
	}
	_, err = q.Begin("one more")
	require.ErrorIs(t, err, ErrFull)
}
