package ringbuffer

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/hvlab/hvlab/vmbus/guestmem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pageLayouts are the ways the pages of a ring can lie in memory. The bytes of
// the ring must not depend on it. Each picks pages of a region that has twice as
// many as it needs.
var pageLayouts = []struct {
	name string
	pick func(i, n int) uint64 // page frame of ring page i of n
}{
	{"contiguous", func(i, n int) uint64 { return uint64(i) }},
	{"scattered", func(i, n int) uint64 { return uint64(2 * i) }},
	{"reversed", func(i, n int) uint64 { return uint64(n - 1 - i) }},
}

// newPages makes the memory of a ring with dataPages data pages, laid out in the
// given way and filled with a byte that no test writes, to show stale memory.
func newPages(t testing.TB, layout, dataPages int) []*guestmem.Page {
	t.Helper()
	n := 1 + dataPages
	region, err := guestmem.NewRegion(0, make([]byte, 2*n*guestmem.PageSize))
	require.NoError(t, err)
	pages := make([]*guestmem.Page, n)
	for i := range pages {
		pages[i], err = region.Page(pageLayouts[layout].pick(i, n))
		require.NoError(t, err)
		for j := range pages[i].Bytes() {
			pages[i].Bytes()[j] = 0xEE
		}
	}
	require.NoError(t, Init(pages))
	return pages
}

// newRing makes both ends of an empty ring whose indices are at start.
func newRing(t testing.TB, layout, dataPages int, start uint32) (*Writer, *Reader, []*guestmem.Page) {
	t.Helper()
	pages := newPages(t, layout, dataPages)
	pages[0].Store32(offWriteIndex, start)
	pages[0].Store32(offReadIndex, start)
	w, err := NewWriter(pages)
	require.NoError(t, err)
	r, err := NewReader(pages)
	require.NoError(t, err)
	return w, r, pages
}

// dataOf is a copy of the data area.
func dataOf(pages []*guestmem.Page) []byte {
	var data []byte
	for _, p := range pages[1:] {
		data = append(data, p.Bytes()...)
	}
	return data
}

// poke stores bytes in the data area modulo its size, as a hostile peer does.
func poke(pages []*guestmem.Page, at int, b []byte) {
	size := (len(pages) - 1) * guestmem.PageSize
	for i, v := range b {
		to := (at + i) % size
		pages[1+to/guestmem.PageSize].Bytes()[to%guestmem.PageSize] = v
	}
}

// requireKind asserts a sticky corruption of the given kind.
func requireKind(t testing.TB, err error, kind CorruptKind) {
	t.Helper()
	var corrupt *CorruptError
	require.ErrorAs(t, err, &corrupt)
	require.Equal(t, kind.String(), corrupt.Kind.String(), "%v", err)
}
