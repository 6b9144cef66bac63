package channel_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/ringbuffer"
)

// TestPipeModel compares a pipe with a byte queue under random sizes, saves and
// successors. Properties: I-PREFIX, I-FIN-ROOM, and that a Write takes exactly
// what Linux' rule allows.
func TestPipeModel(outer *testing.T) {
	rapid.Check(outer, func(t *rapid.T) {
		dataPages := rapid.IntRange(1, 5).Draw(t, "data pages")
		start := uint32(rapid.IntRange(0, dataPages*512-1).Draw(t, "start") * 8)
		pages := pipePages(outer, dataPages, rapid.IntRange(1, 2).Draw(t, "stride"), start)
		w, r := openPipe(outer, pages, channel.PipeOptions{
			ReserveFIN: true, ChunkBytes: rapid.SampledFrom([]int{0, 1, 100, 2048, 16384, 1 << 20}).Draw(t, "chunk"),
		})
		var queue []byte
		var written int
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				b := text(rapid.IntRange(0, 9000).Draw(t, "bytes"), written)
				n, _, err := w.Write(b)
				if n == 0 && len(b) > 0 {
					require.ErrorIs(t, err, channel.ErrFull)
				} else {
					require.NoError(t, err)
				}
				queue = append(queue, b[:n]...)
				written += n
				if n < len(b) {
					// Short exactly because the rule of ringbuffer.md 12 gives nothing more.
					used := (int(pages[0].Load32(offWriteIndex)) - int(pages[0].Load32(offReadIndex)) + dataPages*4096) % (dataPages * 4096)
					require.LessOrEqual(t, dataPages*4096-used, 79, "more than 72 raw bytes, rounded to granules, would be writable")
				}
			},
			"read": func(t *rapid.T) {
				buf := make([]byte, rapid.IntRange(1, 9000).Draw(t, "buffer"))
				n, _, err := r.Read(buf)
				require.Equal(t, min(len(buf), len(queue)), n, "a Read crosses packets (hvsock.md 6)")
				if n == 0 {
					require.ErrorIs(t, err, ringbuffer.ErrEmpty)
					require.Equal(t, pages[0].Load32(offWriteIndex), pages[0].Load32(offReadIndex), "all space is released before sleeping")
				} else {
					require.NoError(t, err)
				}
				require.True(t, bytes.Equal(queue[:n], buf[:n]))
				queue = queue[n:]
			},
			"view": func(t *rapid.T) {
				view, ok := r.View()
				require.Equal(t, len(queue) > 0, ok)
				n := rapid.IntRange(0, len(view)).Draw(t, "discard")
				require.True(t, bytes.Equal(queue[:n], view[:n]))
				r.Discard(n)
				queue = queue[n:]
			},
			"save and restore": func(t *rapid.T) {
				_, err := r.Save()
				require.NoError(t, err)
				w, r = openPipe(outer, pages, linuxPipe)
			},
			"": func(t *rapid.T) {
				readable, err := r.Readable()
				require.NoError(t, err)
				require.Equal(t, len(queue) > 0, readable)
			},
		})
		_, err := w.WriteFIN()
		require.NoError(t, err, "I-FIN-ROOM")
		got, err := drain(r, 100)
		require.Equal(t, io.EOF, err)
		require.True(t, bytes.Equal(queue, got))
	})
}

// pipePlan is one way to run a pipe on two goroutines.
type pipePlan struct {
	dataPages, writeBytes, readBytes int
}

// TestPipeNoLostWakeup streams through both ends on their own goroutines with
// the sleeping protocol hvsock uses. Two sleepers are a deadlock, which the
// synctest bubble reports; no time passes.
func TestPipeNoLostWakeup(t *testing.T) {
	const total = 1 << 20
	for _, p := range []pipePlan{
		{1, 1, 1}, {1, 100, 7}, {1, 9000, 100}, {1, 5000, 65536}, {4, 64, 65536}, {4, 65536, 64}, {5, 65536, 4096}, {32, 65536, 65536},
	} {
		t.Run(fmt.Sprintf("%+v", p), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				bytesTotal := min(total, 4000*min(p.writeBytes, p.readBytes))
				w, r := openPipe(t, pipePages(t, p.dataPages, 1+p.dataPages%2, 0), linuxPipe)
				data, space := make(chan struct{}, 1), make(chan struct{}, 1)
				go p.send(t, w, bytesTotal, data, space)
				buf := make([]byte, p.readBytes)
				for got := 0; ; {
					n, signal, err := r.Read(buf)
					for i, b := range buf[:n] {
						if b != byte((got+i)*7) {
							t.Fatalf("byte %d is %#x", got+i, b)
						}
					}
					got += n
					ring(space, signal)
					if errors.Is(err, io.EOF) {
						require.Equal(t, bytesTotal, got)
						return
					}
					if errors.Is(err, ringbuffer.ErrEmpty) {
						if more, err := r.Readable(); !more {
							require.NoError(t, err)
							<-data
						}
						continue
					}
					require.NoError(t, err)
				}
			})
		})
	}
}

func (p pipePlan) send(t *testing.T, w *channel.PipeWriter, total int, data, space chan struct{}) {
	for sent := 0; sent < total; {
		b := text(min(p.writeBytes, total-sent), sent*7)
		for len(b) > 0 {
			n, signal, err := w.Write(b)
			ring(data, signal)
			b, sent = b[n:], sent+n
			if err != nil && !errors.Is(err, channel.ErrFull) {
				t.Errorf("write: %v", err)
				return
			}
			if len(b) > 0 && w.Wait() {
				<-space
				w.Resume()
			}
		}
	}
	signal, err := w.WriteFIN()
	if err != nil {
		t.Errorf("FIN: %v", err)
	}
	ring(data, signal)
}

// ring passes a signal on: an edge without data.
func ring(bell chan struct{}, signal bool) {
	if signal {
		select {
		case bell <- struct{}{}:
		default:
		}
	}
}
