package channel_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus"
)

// pipeSeeds are the data areas that the ring vectors spell out.
func pipeSeeds(t testing.TB) (seeds [][]byte) {
	t.Helper()
	b, err := os.ReadFile("../testdata/vectors-ring.json")
	require.NoError(t, err)
	var vectors []struct {
		Steps []struct {
			Expect struct {
				Data []struct{ Hex string }
			}
		}
	}
	require.NoError(t, json.Unmarshal(b, &vectors))
	for _, v := range vectors {
		for _, s := range v.Steps {
			for _, d := range s.Expect.Data {
				ring, err := hex.DecodeString(d.Hex)
				require.NoError(t, err)
				seeds = append(seeds, ring)
			}
		}
	}
	return seeds
}

// FuzzPipe reads a pipe over arbitrary ring memory. Properties: it ends; no more
// bytes come out than the ring holds; the stream does not depend on the size of
// the reads, nor on a save in the middle; the end is final.
func FuzzPipe(f *testing.F) {
	for _, ring := range pipeSeeds(f) {
		f.Add(ring, uint16(5), uint16(3))
	}
	hello, err := hex.DecodeString("06000200040000000000000000000000020000000500020068656c6c6f0000000000000000000000")
	require.NoError(f, err)
	f.Add(hello, uint16(2), uint16(1))
	f.Fuzz(func(t *testing.T, ring []byte, size, saveAfter uint16) {
		ring = ring[:min(len(ring), 4088)&^7]
		read := func(size int, saveAfter int) (got []byte, end error) {
			pages := pipePages(t, 1, 1, 0)
			copy(pages[1].Bytes(), ring)
			pages[0].Store32(offWriteIndex, uint32(len(ring)))
			_, r := openPipe(t, pages, linuxPipe)
			buf := make([]byte, size)
			for reads := 1; ; reads++ {
				n, _, err := r.Read(buf)
				got = append(got, buf[:n]...)
				if err != nil {
					_, _, again := r.Read(buf)
					require.Equal(t, err, again, "an end is final")
					return got, err
				}
				require.NotZero(t, n)
				require.LessOrEqual(t, len(got), len(ring))
				if reads == saveAfter {
					if _, err := r.Save(); err != nil {
						require.ErrorIs(t, err, vmbus.ErrProtocol)
						continue
					}
					ends, err := ringbuffer.NewReader(pages)
					require.NoError(t, err)
					r = channel.NewPipeReader(ends)
				}
			}
		}
		want, end := read(1<<16, 0)
		for _, save := range []int{0, int(saveAfter)} {
			got, err := read(int(size)+1, save)
			require.True(t, bytes.Equal(want, got))
			require.Equal(t, end, err)
		}
		require.True(t, errors.Is(end, io.EOF) || errors.Is(end, ringbuffer.ErrEmpty) || errors.Is(end, vmbus.ErrProtocol), "%v", end)
	})
}
