package channel_test

import (
	"encoding/binary"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus"
)

// TestCatalogue holds the rows of faults.md, section 1, about the framing of a
// pipe. internal/putback/check puts each fault back and runs its row.
func TestCatalogue(t *testing.T) {
	t.Run("HV-12", testEndIsNoError)
	t.Run("HV-13", testReadableIsExact)
	t.Run("HV-15", testWriteOfAnySize)
	t.Run("HV-16", testLyingLengthEndsThePipe)
	t.Run("SS-06", testLengthIsComparedWithThePacket)
}

// framed puts data behind a pipe header that claims n bytes, as one packet.
func framed(t *testing.T, ring *ringbuffer.Writer, n int, data []byte) {
	t.Helper()
	head := binary.LittleEndian.AppendUint64(nil, 1|uint64(n)<<32)
	require.NoError(t, ring.Append(ringbuffer.Header{Type: ringbuffer.InBand}, head, data))
	ring.Commit()
}

// HV-12: data, FIN; the reader takes the data, and now the FIN is the current
// packet. It is the end of the stream, for ever, and no error; and nothing behind
// it is ever delivered.
func testEndIsNoError(t *testing.T) {
	pages := pipePages(t, 1, 1, 0)
	w, r := openPipe(t, pages, linuxPipe)
	_, _, err := w.Write([]byte("hello"))
	require.NoError(t, err)
	_, err = w.WriteFIN()
	require.NoError(t, err)
	ring, err := ringbuffer.NewWriter(pages)
	require.NoError(t, err)
	framed(t, ring, 5, []byte("after")) // of a peer that goes on

	b := make([]byte, 64)
	n, _, err := r.Read(b)
	require.NoError(t, err)
	require.Equal(t, "hello", string(b[:n]))
	for range 3 {
		n, _, err = r.Read(b)
		require.Zero(t, n)
		require.Equal(t, io.EOF, err, "bare, and for ever")
	}
}

// HV-13: what is there to be read is counted exactly, in bytes that a Read will
// deliver: neither the padding of a packet nor the FIN counts. View is the count
// that hvlab has.
func testReadableIsExact(t *testing.T) {
	w, r := openPipe(t, pipePages(t, 1, 1, 0), linuxPipe)
	for _, n := range []int{1, 7, 8, 13} {
		_, _, err := w.Write(text(n, n))
		require.NoError(t, err)
	}
	_, err := w.WriteFIN()
	require.NoError(t, err)
	for _, want := range []int{1, 7, 8, 13} {
		b, ok := r.View()
		require.True(t, ok)
		require.Equal(t, text(want, want), b)
		half := want / 2
		r.Discard(half)
		b, _ = r.View()
		require.Len(t, b, want-half)
		r.Discard(want - half)
	}
	b, ok := r.View()
	require.False(t, ok, "the FIN is no data")
	require.Empty(t, b)
}

// HV-15: a Write of any size is split over as many packets as it takes, in order.
func testWriteOfAnySize(t *testing.T) {
	for _, bytes := range []int{8193, channel.MaxPipeBytes, channel.MaxPipeBytes + 1, 1 << 20} {
		w, r := openPipe(t, pipePages(t, 4, 1, 0), linuxPipe)
		data := text(bytes, 3)
		var got []byte
		for sent := 0; sent < len(data); {
			n, _, err := w.Write(data[sent:])
			require.NoError(t, err, "%d bytes", bytes)
			require.NotZero(t, n)
			sent += n
			part, err := drain(r, 5000)
			require.ErrorIs(t, err, ringbuffer.ErrEmpty)
			got = append(got, part...)
		}
		require.Equal(t, data, got)
	}
}

// HV-16: a header that claims more than its packet holds, or more than 16,384
// bytes, ends the pipe for good: not one byte of that packet or of a good one
// behind it is delivered.
func testLyingLengthEndsThePipe(t *testing.T) {
	for name, lie := range map[string]struct{ claims, holds int }{
		"one byte more than the packet": {9, 8},
		"more than any packet may have": {channel.MaxPipeBytes + 1, channel.MaxPipeBytes + 1},
	} {
		t.Run(name, func(t *testing.T) {
			pages := pipePages(t, 6, 1, 0)
			_, r := openPipe(t, pages, linuxPipe)
			ring, err := ringbuffer.NewWriter(pages)
			require.NoError(t, err)
			framed(t, ring, lie.claims, text(lie.holds, 0))
			framed(t, ring, 4, []byte("good"))
			for range 2 {
				n, _, err := r.Read(make([]byte, 4096))
				require.Zero(t, n)
				require.ErrorIs(t, err, vmbus.ErrProtocol)
			}
		})
	}
}

// SS-06: the length is compared with what this packet holds, not with another
// number of the peer or with the largest packet there may be: on the way through
// many small packets, and packet by packet.
func testLengthIsComparedWithThePacket(t *testing.T) {
	for name, bufferBytes := range map[string]int{"many at a time": 4096, "one at a time": 4} {
		t.Run(name, func(t *testing.T) {
			pages := pipePages(t, 1, 1, 0)
			_, r := openPipe(t, pages, linuxPipe)
			ring, err := ringbuffer.NewWriter(pages)
			require.NoError(t, err)
			framed(t, ring, 4, []byte("good"))
			framed(t, ring, 100, []byte("short..."))
			framed(t, ring, 4, []byte("next"))
			got, err := drain(r, bufferBytes)
			require.ErrorIs(t, err, vmbus.ErrProtocol)
			require.Equal(t, "good", string(got), "nothing of a packet that claims more than it holds, or behind it")
		})
	}
}
