//go:build hvlab_mutate

package ringbuffer

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// TestCatalogueOrder is the half of RG-01 that takes a hook before each load.
func TestCatalogueOrder(t *testing.T) { t.Run("RG-01", TestOrder) }

// TestOrder holds each row of section 9 but W1: at the moment of a load, what
// the row wants stored before is in memory, and what it wants stored after is
// not. (W1, bytes before the index, is what TestStream and the processes of
// TestWriterInAnotherProcess would break on.)
func TestOrder(t *testing.T) {
	defer func() { onLoad, onLoadWord = nil, nil }()
	w, r, pages := newRing(t, 0, 1, 0)
	c := pages[0]
	var order []int // control words in the order loaded; -1 for data
	words := func(check func(off int)) {
		order = nil
		onLoad = func([]byte) { order = append(order, -1) }
		onLoadWord = func(_ *guestmem.Page, off int) {
			order = append(order, off)
			check(off)
		}
	}
	put := func(n int) { require.NoError(t, w.Append(Header{Type: InBand}, nil, make([]byte, n))) }

	put(1000)
	words(func(int) {
		require.EqualValues(t, 1024, c.Load32(offWriteIndex), "W3: the write index is stored first")
	})
	require.True(t, w.Commit())
	require.Equal(t, []int{offMask, offReadIndex}, order, "W3, 8.1: the mask is loaded before the read index")

	words(func(int) { require.Zero(t, c.Load32(offReadIndex), "R2: nothing is released before it was loaded") })
	_, _, err := r.Next(make([]byte, 1000))
	require.NoError(t, err)
	require.Equal(t, []int{offWriteIndex, -1, -1, -1}, order, "R1: the write index, then descriptor and payload")

	c.Store32(offPendingSize, 3500)
	words(func(int) { require.EqualValues(t, 1024, c.Load32(offReadIndex), "R5: the read index is stored first") })
	r.Commit()
	require.Equal(t, []int{offFeatures, offPendingSize, offWriteIndex}, order, "R5: the pending size, then the write index")

	words(func(int) {
		require.EqualValues(t, 1024, c.Load32(offReadIndex), "R6: the read index is stored before the last look")
	})
	more, err := r.Readable()
	require.NoError(t, err)
	require.False(t, more)
	require.Equal(t, []int{offWriteIndex}, order)

	words(func(int) { t.Error("R4: masking needs no look") })
	r.Mask()
	require.EqualValues(t, 1, c.Load32(offMask))
	words(func(int) { require.Zero(t, c.Load32(offMask), "R3: the mask is cleared before the last look") })
	require.False(t, r.Unmask())
	require.Equal(t, []int{offWriteIndex}, order)

	onLoad, onLoadWord = nil, nil
	put(3000)
	w.Commit()
	words(func(int) {
		require.EqualValues(t, 2000, c.Load32(offPendingSize), "W4: the pending size is stored first")
	})
	ready, err := w.SetPending(2000)
	require.NoError(t, err)
	require.False(t, ready)
	require.Equal(t, []int{offReadIndex}, order)

	onLoad, onLoadWord = nil, nil
	_, _, err = r.Next(make([]byte, 4000))
	require.NoError(t, err)
	r.Commit()
	before := dataOf(pages)
	words(func(int) { require.Equal(t, before, dataOf(pages), "W2: nothing is overwritten before the look") })
	put(2000)
	require.Equal(t, []int{offReadIndex}, order)
	require.NotEqual(t, before, dataOf(pages))
}
