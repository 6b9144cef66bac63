package hvsock

import (
	"fmt"
	"io"
	"net"
	"testing"
)

// benchSizes are those of the specification's table.
var benchSizes = []int{64, 1 << 10, 4 << 10, 16 << 10, 64 << 10}

// benchPairs are what is compared: ours at the default and at a large ring size,
// and net.Pipe, which a test would use otherwise. Only ratios between runs that
// lie close together mean anything.
var benchPairs = []struct {
	name string
	make func(b *testing.B) (net.Conn, net.Conn)
}{
	{"hvsock", func(b *testing.B) (net.Conn, net.Conn) { p := newPair(b, pairOptions{}); return p.a, p.b }},
	{"hvsock33pages", func(b *testing.B) (net.Conn, net.Conn) {
		p := newPair(b, pairOptions{ringPages: 33})
		return p.a, p.b
	}},
	{"netpipe", func(*testing.B) (net.Conn, net.Conn) { return net.Pipe() }},
}

// BenchmarkStream writes messages at one end while the other reads whatever
// comes into a 64 KiB buffer.
func BenchmarkStream(b *testing.B) {
	for _, size := range benchSizes {
		for _, kind := range benchPairs {
			b.Run(fmt.Sprintf("%s/%d", kind.name, size), func(b *testing.B) {
				from, to := kind.make(b)
				done := make(chan int64)
				go func() {
					var total int64
					buf := make([]byte, 64<<10)
					for {
						n, err := to.Read(buf)
						total += int64(n)
						if err != nil {
							_ = to.Close()
							done <- total
							return
						}
					}
				}()
				msg := make([]byte, size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				b.ResetTimer()
				for range b.N {
					if _, err := from.Write(msg); err != nil {
						b.Fatal(err)
					}
				}
				_ = from.Close()
				if total := <-done; total != int64(b.N)*int64(size) {
					b.Fatalf("%d bytes arrived", total)
				}
			})
		}
	}
}

// BenchmarkPingPong sends 64 bytes there and back.
func BenchmarkPingPong(b *testing.B) {
	for _, kind := range benchPairs {
		b.Run(kind.name, func(b *testing.B) {
			near, far := kind.make(b)
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer far.Close()
				var buf [64]byte
				for {
					if _, err := io.ReadFull(far, buf[:]); err != nil {
						return
					}
					if _, err := far.Write(buf[:]); err != nil {
						return
					}
				}
			}()
			var buf [64]byte
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				if _, err := near.Write(buf[:]); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(near, buf[:]); err != nil {
					b.Fatal(err)
				}
			}
			_ = near.Close()
			<-done
		})
	}
}

// BenchmarkUncontended is one Write and one Read from a single goroutine: the
// cost of a message without any waiting.
func BenchmarkUncontended(b *testing.B) {
	for _, size := range []int{64, 1 << 10, 4 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			p := newPair(b, pairOptions{})
			defer p.close()
			buf := make([]byte, size)
			b.ReportAllocs()
			for range b.N {
				_, _ = p.a.Write(buf)
				_, _ = io.ReadFull(p.b, buf)
			}
		})
	}
}
