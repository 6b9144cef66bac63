package channel_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/ringbuffer"
)

// TestPipePacketTotals: the hv_sock constants of ringbuffer.md 12 (and 4.4): what
// n bytes take of a ring, and where a Write is cut.
func TestPipePacketTotals(t *testing.T) {
	for _, c := range []struct{ bytes, chunk, total int }{
		{1, 0, 40},
		{8, 0, 40},
		{9, 0, 48},
		{4088, 0, 4120},
		{4089, 0, 4120 + 40}, // the send chunk of Linux and FreeBSD
		{16384, 16384, 16416},
		{16385, 1 << 20, 16416 + 40}, // the largest n there may be
	} {
		pages := pipePages(t, 6, 1, 0)
		w, _ := openPipe(t, pages, channel.PipeOptions{ReserveFIN: true, ChunkBytes: c.chunk})
		n, _, err := w.Write(make([]byte, c.bytes))
		require.NoError(t, err)
		require.Equal(t, c.bytes, n)
		require.EqualValues(t, c.total, pages[0].Load32(offWriteIndex), "%d bytes", c.bytes)
		_, err = w.WriteFIN()
		require.NoError(t, err)
		require.EqualValues(t, c.total+32, pages[0].Load32(offWriteIndex), "a FIN takes 32")
	}
}

// TestPipeWritable: ringbuffer.md 12, Linux writable bytes, for each raw free
// space up to a chunk: 0 up to 72, else what is above 72 in whole granules; and
// the FIN always fits behind it.
func TestPipeWritable(t *testing.T) {
	for raw := 8; raw <= 4096; raw += 8 {
		pages := pipePages(t, 2, 2, 0)
		pages[0].Store32(offWriteIndex, uint32(8192-raw))
		w, err := ringbuffer.NewWriter(pages)
		require.NoError(t, err)
		pipe := channel.NewPipeWriter(w, linuxPipe)
		n, _, err := pipe.Write(make([]byte, 8000))
		if want := max(0, raw-72); want > 0 {
			require.NoError(t, err)
			require.Equal(t, want, n, "%d raw bytes free", raw)
		} else {
			require.ErrorIs(t, err, channel.ErrFull, "%d raw bytes free", raw)
		}
		if raw >= 40 { // less cannot come about under the rule
			_, err = pipe.WriteFIN()
			require.NoError(t, err, "%d raw bytes were free", raw)
		}
	}
}

// TestPipeMask: ringbuffer.md 8.3: under the mask nothing is signalled, and after
// Unmask it is for Readable to find.
func TestPipeMask(t *testing.T) {
	w, r := openPipe(t, pipePages(t, 1, 1, 0), linuxPipe)
	r.Mask()
	_, signal, err := w.Write([]byte("unheard"))
	require.NoError(t, err)
	require.False(t, signal)
	r.Unmask()
	ready, err := r.Readable()
	require.NoError(t, err)
	require.True(t, ready)
	_, _, err = r.Read(make([]byte, 100))
	require.NoError(t, err)
	_, signal, err = w.Write([]byte("heard"))
	require.NoError(t, err)
	require.True(t, signal)
}
