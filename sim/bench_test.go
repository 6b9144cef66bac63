package sim

import (
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/stretchr/testify/require"
)

// BenchmarkStream measures one-way throughput from a guest to the host through
// every layer, by message size and ring size.
func BenchmarkStream(b *testing.B) {
	for _, pages := range []int{5, 33} {
		for _, size := range []int{64, 1 << 10, 4 << 10, 16 << 10, 64 << 10} {
			b.Run(fmt.Sprintf("ring=%d/%dB", pages, size), func(b *testing.B) {
				host, guest := newPair(b, HostOptions{}, GuestOptions{RingPages: pages})
				c1, c2 := connect(b, roles(host, guest)[0])
				b.SetBytes(int64(size))
				b.ReportAllocs()
				done := make(chan error)
				go func() {
					_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c2}, make([]byte, 64<<10))
					done <- err
				}()
				p := make([]byte, size)
				for b.Loop() {
					if _, err := c1.Write(p); err != nil { // require costs more than the write
						b.Fatal(err)
					}
				}
				require.NoError(b, c1.Close())
				require.NoError(b, <-done)
				require.NoError(b, c2.Close())
			})
		}
	}
}

// BenchmarkPingPong measures a 64-byte round trip.
func BenchmarkPingPong(b *testing.B) {
	host, guest := newPair(b, HostOptions{}, GuestOptions{})
	c1, c2 := connect(b, roles(host, guest)[0])
	done := make(chan struct{})
	go func() {
		defer close(done)
		var p [64]byte
		for {
			if _, err := io.ReadFull(c2, p[:]); err != nil {
				return
			}
			_, _ = c2.Write(p[:])
		}
	}()
	var p [64]byte
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c1.Write(p[:]); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c1, p[:]); err != nil {
			b.Fatal(err)
		}
	}
	require.NoError(b, c1.Close())
	<-done
	require.NoError(b, c2.Close())
}

// BenchmarkSetup measures dial, accept and close of both ends.
func BenchmarkSetup(b *testing.B) {
	host, guest := newPair(b, HostOptions{}, GuestOptions{})
	l, err := host.Listen(port(hvsock.Wildcard, 5000))
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		c1, err := guest.Dial(context.Background(), port(hvsock.Parent, 5000))
		require.NoError(b, err)
		c2, err := l.Accept()
		require.NoError(b, err)
		require.NoError(b, c1.Close())
		require.NoError(b, c2.Close())
	}
	require.NoError(b, l.Close())
}
