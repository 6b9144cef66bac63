package channel_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/ringbuffer"
)

// TestPipeNoAllocations: neither data nor waiting nor an empty ring allocates.
func TestPipeNoAllocations(t *testing.T) {
	w, r := openPipe(t, pipePages(t, 2, 2, 4000), linuxPipe)
	data, buf := make([]byte, 9000), make([]byte, 3000)
	require.Zero(t, testing.AllocsPerRun(200, func() {
		if _, _, err := w.Write(data); err != nil {
			panic(err)
		}
		if _, _, err := w.Write(data); err != channel.ErrFull || !w.Wait() {
			panic("not full")
		}
		for {
			_, _, err := r.Read(buf)
			if err == ringbuffer.ErrEmpty {
				break
			}
			if err != nil {
				panic(err)
			}
		}
		if more, err := r.Readable(); more || err != nil {
			panic("not empty")
		}
		w.Resume()
	}))
}

// BenchmarkPipe writes and reads in one goroutine: messages of one size, the
// ring of the original hv_sock design, alternating in batches as two ends that
// take turns do.
func BenchmarkPipe(b *testing.B) {
	for _, dataPages := range []int{4, 32} {
		for _, bytes := range []int{64, 1024, 4096, 16384, 65536} {
			b.Run(fmt.Sprintf("%dKiB/%dB", dataPages*4, bytes), func(b *testing.B) {
				w, r := openPipe(b, pipePages(b, dataPages, 1, 0), linuxPipe)
				data, buf := make([]byte, bytes), make([]byte, bytes)
				b.SetBytes(int64(bytes))
				b.ReportAllocs()
				rest, unread := data, 0
				for b.Loop() {
					// One message in; when the ring is full, everything out.
					for rest = data; len(rest) > 0; {
						n, _, err := w.Write(rest)
						if err != nil && err != channel.ErrFull {
							b.Fatal(err)
						}
						rest, unread = rest[n:], unread+n
						for len(rest) > 0 && unread > 0 {
							n, _, err := r.Read(buf)
							if err != nil {
								b.Fatal(err)
							}
							unread -= n
						}
					}
				}
			})
		}
	}
}
