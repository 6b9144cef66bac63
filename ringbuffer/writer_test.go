package ringbuffer

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// TestGeometry: a ring is a control page and at least one data page (11).
func TestGeometry(t *testing.T) {
	pages := newPages(t, 0, 1)
	hole := []*guestmem.Page{pages[0], nil}
	for _, bad := range [][]*guestmem.Page{nil, pages[:1], hole, make([]*guestmem.Page, 2+MaxDataPages)} {
		var geometry *GeometryError
		require.ErrorAs(t, Init(bad), &geometry)
		_, err := NewWriter(bad)
		require.ErrorAs(t, err, &geometry)
		_, err = NewReader(bad)
		require.ErrorAs(t, err, &geometry)
		require.ErrorIs(t, err, vmbus.ErrState, "the page list is the caller's")
	}
}

// TestInit: section 2.3, and the reserved bytes of section 2.
func TestInit(t *testing.T) {
	pages := newPages(t, 0, 1)
	control := pages[0].Bytes()
	for i := range control {
		control[i] = 0xEE
	}
	require.NoError(t, Init(pages))
	for i, b := range control {
		want := byte(0)
		if i == offFeatures {
			want = featurePendingSize
		}
		require.Equalf(t, want, b, "control page offset %#x", i)
	}
	require.Equal(t, byte(0xEE), pages[1].Bytes()[0], "data pages are the caller's to clear")
}

// TestAppendSizes: what is refused for ever, what for now, and the sizes of 4.4.
func TestAppendSizes(t *testing.T) {
	inBand := Header{Type: InBand}
	w, _, _ := newRing(t, 0, 1, 0)
	require.Equal(t, 4088, w.MaxTotalBytes(), "S-8: one granule stays free")
	require.NoError(t, w.Append(inBand, nil, make([]byte, 4064)), "the largest packet of an empty ring")
	w.Revert()

	var size *SizeError
	require.ErrorAs(t, w.Append(inBand, nil, make([]byte, 4065)), &size)
	require.Equal(t, SizeError{Need: 4096, Max: 4088}, *size)
	require.ErrorIs(t, size, vmbus.ErrState, "waiting would not help")

	require.NoError(t, w.Append(inBand, nil, make([]byte, 2000)))
	var full *FullError
	require.ErrorAs(t, w.Append(inBand, nil, make([]byte, 2048)), &full, "fits an empty ring, so it is only full")
	require.Equal(t, FullError{Need: 2072, Free: 2072}, *full, "equal is not enough: equal indices mean empty")
	require.ErrorIs(t, full, ErrFull)

	// len8 has 16 bits, whatever the ring's size: refuse before narrowing.
	w, _, _ = newRing(t, 0, 200, 0)
	require.Equal(t, 524288, w.MaxTotalBytes())
	require.NoError(t, w.Append(inBand, nil, make([]byte, 0xFFFF*8-DescriptorBytes)))
	w.Revert()
	require.ErrorAs(t, w.Append(inBand, nil, make([]byte, 0xFFFF*8-DescriptorBytes+1)), &size)
}

// TestAppendHeader: the Writer emits nothing its own Reader would refuse.
func TestAppendHeader(t *testing.T) {
	for _, bad := range []Header{
		{Type: 0}, {Type: 8}, {Type: InBand, Flags: 2}, {Type: InBand, ExtBytes: 8}, {Type: Completion, ExtBytes: 8},
		{Type: GPADirect}, {Type: GPADirect, ExtBytes: 12}, {Type: TransferPages, ExtBytes: 24}, {Type: GPADirect, ExtBytes: -8},
	} {
		w, _, pages := newRing(t, 0, 1, 0)
		var header *HeaderError
		require.ErrorAs(t, w.Append(bad, make([]byte, 16), nil), &header, "%+v", bad)
		require.ErrorIs(t, header, vmbus.ErrState)
		require.False(t, w.Commit())
		require.Zero(t, pages[0].Load32(offWriteIndex), "nothing was staged")
	}
}

// TestPaddingIsZero: GC-07, I-ZERO-OUT: no old byte leaves with a packet, for
// every payload length and every place of the wrap.
func TestPaddingIsZero(t *testing.T) {
	for layout := range pageLayouts {
		for start := uint32(4096 - 48); start < 4096; start += 8 {
			for n := range 18 {
				w, _, pages := newRing(t, layout, 1, start)
				body := make([]byte, n)
				for i := range body {
					body[i] = 0xAA
				}
				half := n / 2
				require.NoError(t, w.Append(Header{Type: InBand}, body[:half], body[half:]))
				data := dataOf(pages)
				padded := roundUp8(n)
				for i := range padded {
					want := byte(0xAA)
					if i >= n {
						want = 0
					}
					require.Equal(t, want, data[(int(start)+DescriptorBytes+i)%4096], "start %d, payload %d, byte %d", start, n, i)
				}
				footer := make([]byte, 8)
				for i := range footer {
					footer[i] = data[(int(start)+DescriptorBytes+padded+i)%4096]
				}
				require.Equal(t, uint64(start)<<32, le.Uint64(footer), "the footer holds the packet's own start (4.2)")
				require.Equal(t, byte(0xEE), data[(int(start)+DescriptorBytes+padded+8)%4096], "nothing behind it is touched")
			}
		}
	}
}

// TestWriterIndices: a read index that is out of range, unaligned, or that
// frees what was never read, ends the Writer (13.2).
func TestWriterIndices(t *testing.T) {
	for name, read := range map[string]uint32{
		"range": 4096, "align": 12, "behind the last": 1000, "ahead of what was written": 3000,
	} {
		t.Run(name, func(t *testing.T) {
			w, r, pages := newRing(t, 0, 1, 1024)
			fill := func(n int) {
				require.NoError(t, w.Append(Header{Type: InBand}, nil, make([]byte, n-OverheadBytes)))
				w.Commit()
			}
			fill(512)
			_, _, err := r.Next(make([]byte, 4096))
			require.NoError(t, err)
			r.Commit()
			fill(1024) // written 1024..2560, read up to 1536
			pages[0].Store32(offReadIndex, read)

			_, err = w.FreeBytes()
			requireKind(t, err, InvalidRingPointer)
			pages[0].Store32(offReadIndex, 1536) // valid again, too late
			require.Same(t, err, w.Append(Header{Type: InBand}, nil, nil))
			_, pendingErr := w.SetPending(100)
			require.Same(t, err, pendingErr)
			require.Same(t, err, w.Err())
			require.False(t, w.Commit())
			require.EqualValues(t, 2560, pages[0].Load32(offWriteIndex), "a dead end publishes nothing")
		})
	}
}

// TestOwnIndexIsPrivate: the shared copies are outputs (13.12).
func TestOwnIndexIsPrivate(t *testing.T) {
	w, r, pages := newRing(t, 0, 1, 0)
	require.NoError(t, w.Append(Header{Type: InBand}, nil, []byte("one")))
	w.Commit()
	pages[0].Store32(offWriteIndex, 3000) // the reader scribbles over the writer's word
	require.NoError(t, w.Append(Header{Type: InBand}, nil, []byte("two")))
	w.Commit()
	require.EqualValues(t, 64, pages[0].Load32(offWriteIndex), "the writer goes on where it was")
	for range 2 {
		pages[0].Store32(offReadIndex, 3000) // and the writer over the reader's
		_, _, err := r.Next(make([]byte, 8))
		require.NoError(t, err)
		r.Commit()
	}
	require.EqualValues(t, 64, pages[0].Load32(offReadIndex))
}

// TestRevert: a failed batch leaves no trace (10).
func TestRevert(t *testing.T) {
	w, r, _ := newRing(t, 0, 1, 4000)
	require.NoError(t, w.Append(Header{Type: InBand}, nil, []byte("forgotten")))
	w.Revert()
	require.False(t, w.Commit(), "nothing staged, nothing to publish or signal")
	for _, s := range []string{"first", "second"} {
		require.NoError(t, w.Append(Header{Type: InBand, ID: 7}, nil, []byte(s)))
	}
	require.True(t, w.Commit(), "one signal for the batch")

	buf := make([]byte, 8)
	for range 2 { // a reverted read finds the same packets again
		for _, want := range []string{"first", "second"} {
			_, n, err := r.Next(buf)
			require.NoError(t, err)
			require.Equal(t, want, string(buf[:len(want)]))
			require.Equal(t, 8, n, "payload with padding")
		}
		_, err := r.Peek()
		require.ErrorIs(t, err, ErrEmpty)
		r.Revert()
	}
}

// TestSetPending: W4 in one call, its bounds, and who is woken.
func TestSetPending(t *testing.T) {
	w, r, pages := newRing(t, 0, 1, 0)
	ready, err := w.SetPending(4088)
	require.NoError(t, err)
	require.True(t, ready, "an empty ring has S free, which exceeds S-8")
	require.Zero(t, pages[0].Load32(offPendingSize), "withdrawn at once")

	for _, never := range []int{-1, 4089, 1 << 33} {
		var size *SizeError
		_, err = w.SetPending(never)
		require.ErrorAs(t, err, &size, "%d can never be crossed, so nobody would signal (8.2)", never)
	}
	require.NoError(t, w.Append(Header{Type: InBand}, nil, make([]byte, 3000)))
	w.Commit()
	ready, err = w.SetPending(2000)
	require.NoError(t, err)
	require.False(t, ready)
	require.EqualValues(t, 2000, pages[0].Load32(offPendingSize))
	require.EqualValues(t, 1, w.Stats().FullWaits)
	require.True(t, r.WriterWaits())

	_, _, err = r.Next(make([]byte, 4096))
	require.NoError(t, err)
	require.True(t, r.Commit(), "1072 were free, 4096 are: 2000 was crossed")
	w.ClearPending()
	require.False(t, r.WriterWaits())
}

// TestResume: both ends pick up indices in the middle, for save and restore.
func TestResume(t *testing.T) {
	w, r, pages := newRing(t, 1, 1, 4000)
	for _, s := range []string{"read", "unread"} {
		require.NoError(t, w.Append(Header{Type: InBand}, nil, []byte(s)))
	}
	w.Commit()
	_, _, err := r.Next(make([]byte, 8))
	require.NoError(t, err)
	r.Commit()

	w, err = NewWriter(pages)
	require.NoError(t, err)
	r, err = NewReader(pages)
	require.NoError(t, err)
	require.NoError(t, w.Append(Header{Type: InBand}, nil, []byte("new")))
	require.False(t, w.Commit(), "the ring is not empty")
	for _, want := range []string{"unread", "new"} {
		buf := make([]byte, 8)
		_, _, err := r.Next(buf)
		require.NoError(t, err)
		require.Equal(t, want, string(buf[:len(want)]))
	}

	pages[0].Store32(offReadIndex, 4)
	_, err = NewReader(pages)
	requireKind(t, err, InvalidRingPointer)
	_, err = NewWriter(pages)
	requireKind(t, err, InvalidRingPointer)
	pages[0].Store32(offReadIndex, 0)
	pages[0].Store32(offWriteIndex, 4096)
	_, err = NewWriter(pages)
	requireKind(t, err, InvalidRingPointer)
}

// TestSendGranule: in one step it does what AppendGranule and Commit do in two:
// the same memory, counters and answer, over the wrap and with a packet staged
// before, on every layout.
func TestSendGranule(t *testing.T) {
	for layout := range pageLayouts {
		one, oneReader, onePages := newRing(t, layout, 1, 3000)
		two, twoReader, twoPages := newRing(t, layout, 1, 3000)
		for n := range 300 { // 40 to 336 bytes each: a dozen laps
			if n%7 == 0 { // staged: it goes along
				require.NoError(t, one.AppendGranule(7, nil))
				require.NoError(t, two.AppendGranule(7, nil))
			}
			body := bytes.Repeat([]byte{byte(n)}, n)
			signal, err := one.SendGranule(uint64(n), body)
			require.NoError(t, err)
			require.NoError(t, two.AppendGranule(uint64(n), body))
			require.Equal(t, two.Commit(), signal)
			require.Equal(t, two.Stats(), one.Stats())
			for i := range onePages {
				require.Equal(t, twoPages[i].Bytes(), onePages[i].Bytes())
			}
			if n%3 != 0 { // else the next is behind a packet, and asks for no signal
				for _, r := range []*Reader{oneReader, twoReader} {
					for r.Hold() == nil {
						r.Advance()
					}
					r.Commit()
				}
			}
		}
		_, err := one.SendGranule(0, make([]byte, 5000))
		var size *SizeError
		require.ErrorAs(t, err, &size, "it never fits")
		for err = nil; err == nil; {
			_, err = one.SendGranule(0, make([]byte, 500))
		}
		require.ErrorIs(t, err, ErrFull)
	}
}
