package hvsock

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var _ interface {
	io.ReaderFrom
	io.WriterTo
} = (*Conn)(nil)

// sinkFunc is a Writer, and nothing else.
type sinkFunc func(b []byte) (int, error)

func (f sinkFunc) Write(b []byte) (int, error) { return f(b) }

// sourceFunc is a Reader, and nothing else.
type sourceFunc func(b []byte) (int, error)

func (f sourceFunc) Read(b []byte) (int, error) { return f(b) }

// All ways through a Conn that there are: a stream of several rings arrives whole,
// and both ends count all of it.
func TestCopyWays(t *testing.T) {
	want := pattern(300_000)
	send := map[string]func(io.Writer) (int64, error){
		"reader": func(w io.Writer) (int64, error) {
			return io.Copy(w, struct{ io.Reader }{bytes.NewReader(want)})
		},
		"stuttering reader": func(w io.Writer) (int64, error) {
			return io.Copy(w, iotest.DataErrReader(iotest.HalfReader(bytes.NewReader(want))))
		},
		"bytes.Reader":   func(w io.Writer) (int64, error) { return w.(io.ReaderFrom).ReadFrom(bytes.NewReader(want)) },
		"bytes.Buffer":   func(w io.Writer) (int64, error) { return w.(io.ReaderFrom).ReadFrom(bytes.NewBuffer(want)) },
		"strings.Reader": func(w io.Writer) (int64, error) { return w.(io.ReaderFrom).ReadFrom(strings.NewReader(string(want))) },
		"net.Buffers": func(w io.Writer) (int64, error) {
			var v net.Buffers
			for b := want; len(b) > 0; b = b[min(777, len(b)):] {
				v = append(v, b[:min(777, len(b))])
			}
			return w.(io.ReaderFrom).ReadFrom(&v)
		},
		"another Conn": func(w io.Writer) (int64, error) {
			p := newPair(t, pairOptions{ringPages: 3})
			defer p.close()
			go func() {
				_, _ = p.a.Write(want)
				_ = p.a.CloseWrite()
			}()
			return io.Copy(w, p.b)
		},
	}
	flush := func() error { return nil }
	sinks := map[int]func(*bytes.Buffer) (io.Writer, func() error){ // by ring size, to have each once
		2:  func(b *bytes.Buffer) (io.Writer, func() error) { return struct{ io.Writer }{b}, flush },
		5:  func(b *bytes.Buffer) (io.Writer, func() error) { return b, flush },
		33: func(b *bytes.Buffer) (io.Writer, func() error) { w := bufio.NewWriter(b); return w, w.Flush },
	}
	for name, send := range send {
		for _, ringPages := range []int{2, 5, 33} {
			t.Run(fmt.Sprintf("%s, %d pages", name, ringPages), func(t *testing.T) {
				p := newPair(t, pairOptions{ringPages: ringPages})
				defer p.close()
				go func() {
					n, err := send(p.a)
					if err != nil || n != int64(len(want)) {
						t.Errorf("sent %d bytes: %v", n, err)
					}
					_ = p.a.CloseWrite()
				}()
				var got bytes.Buffer
				sink, flush := sinks[ringPages](&got)
				n, err := io.Copy(sink, p.b)
				require.NoError(t, err, "io.EOF is not an error of WriteTo")
				require.NoError(t, flush())
				require.EqualValues(t, len(want), n)
				require.True(t, bytes.Equal(want, got.Bytes()))
				require.EqualValues(t, len(want), p.a.Stats().Out.Bytes)
				require.EqualValues(t, len(want), p.b.Stats().In.Bytes)
			})
		}
	}
}

// WriteTo ends as a Read would, and only the end of the stream is no error.
func TestWriteToEnds(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(p *pair)
		want error
	}{
		"FIN":       {func(p *pair) { _ = p.a.CloseWrite() }, nil},
		"CloseRead": {func(p *pair) { _ = p.b.CloseRead() }, nil},
		"Close":     {func(p *pair) { _ = p.b.Close() }, net.ErrClosed},
		"reset":     {func(p *pair) { p.b.detach(detachReset) }, syscall.ECONNRESET},
		"deadline":  {func(p *pair) { _ = p.b.SetReadDeadline(time.Now().Add(time.Second)) }, os.ErrDeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, other := newPair(t, pairOptions{}), newPair(t, pairOptions{})
				defer p.close()
				defer other.close()
				mustWrite(t, p.a, "first")
				done := make(chan error)
				var got bytes.Buffer
				go func() {
					_, err := p.b.WriteTo(struct{ io.Writer }{&got})
					done <- err
				}()
				synctest.Wait() // it waits for more
				require.Equal(t, "first", got.String())
				test.end(p)
				requireOpError(t, "read", test.want, <-done)

				// To another Conn it ends in the same way, and at once by now.
				_, err := p.b.WriteTo(other.a)
				requireOpError(t, "read", test.want, err)
			})
		})
	}
}

func requireOpError(t *testing.T, op string, want, err error) {
	t.Helper()
	require.ErrorIs(t, err, want)
	if want != nil {
		var e *net.OpError
		require.ErrorAs(t, err, &e)
		require.Equal(t, op, e.Op)
	}
}

// What a Writer does not take is read later, in order: no byte is lost, whatever
// it claims, and its error is returned as it is.
func TestWriteToGivesBack(t *testing.T) {
	for name, test := range map[string]struct {
		takes int
		err   error
		took  int
		want  error
	}{
		"part":              {5, syscall.ENOSPC, 5, syscall.ENOSPC},
		"nothing":           {0, syscall.ENOSPC, 0, syscall.ENOSPC},
		"short, no error":   {5, nil, 5, io.ErrShortWrite},
		"all, and an error": {11, io.EOF, 11, io.EOF}, // the Writer's EOF is not the peer's
		"less than nothing": {-3, nil, 0, io.ErrShortWrite},
		"more than all":     {99, io.ErrClosedPipe, 11, io.ErrClosedPipe},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, pairOptions{})
			defer p.close()
			mustWrite(t, p.a, "hello world")
			n, err := p.b.WriteTo(sinkFunc(func(b []byte) (int, error) {
				mustWrite(t, p.a, " and more") // arrives behind what is given back
				return test.takes, test.err
			}))
			require.Equal(t, test.want, err)
			require.EqualValues(t, test.took, n)
			require.EqualValues(t, test.took, p.b.Stats().In.Bytes)
			p.b.detach(detachReset) // and they stay when the rings go
			mustRead(t, p.b, "hello world and more"[test.took:])
		})
	}
}

// A Writer sees memory of its own: the peer, who owns the ring, changes nothing of
// it; and what a Reader leaves behind the bytes it returns does not get into the
// ring (faults.md GC-18).
func TestCopyLendsNoMemory(t *testing.T) {
	p := newPair(t, pairOptions{})
	defer p.close()
	want := pattern(10_000)
	_, err := p.a.Write(want)
	require.NoError(t, err)
	var got []byte
	_, err = p.b.WriteTo(sinkFunc(func(b []byte) (int, error) {
		for _, page := range p.toB[1:] {
			clear(page.Bytes())
		}
		got = append(got, b...)
		return len(b), io.ErrClosedPipe
	}))
	require.Equal(t, io.ErrClosedPipe, err)
	require.True(t, bytes.Equal(want, got))

	secret := []byte("the Reader's scratch space")
	_, err = p.b.ReadFrom(sourceFunc(func(b []byte) (int, error) {
		copy(b[1:], secret)
		return 1, io.EOF
	}))
	require.NoError(t, err)
	for _, page := range p.toA[1:] {
		require.NotContains(t, string(page.Bytes()), string(secret))
	}
}

// ReadFrom ends with its Reader or with the first Write that fails.
func TestReadFromEnds(t *testing.T) {
	one := func(err error) io.Reader {
		return sourceFunc(func(b []byte) (int, error) { return copy(b, "x"), err })
	}
	t.Run("its Reader's error", func(t *testing.T) {
		p := newPair(t, pairOptions{})
		defer p.close()
		n, err := p.a.ReadFrom(one(syscall.EIO))
		require.Equal(t, syscall.EIO, err)
		require.EqualValues(t, 1, n, "what came with the error is sent")
		mustRead(t, p.b, "x")
	})
	t.Run("a Reader that gets nowhere", func(t *testing.T) {
		p := newPair(t, pairOptions{})
		defer p.close()
		_, err := p.a.ReadFrom(sourceFunc(func([]byte) (int, error) { return 0, nil }))
		require.Equal(t, io.ErrNoProgress, err)
	})
	for name, test := range map[string]struct {
		end  func(p *pair)
		want error
	}{
		"CloseWrite": {func(p *pair) { _ = p.a.CloseWrite() }, syscall.EPIPE},
		"Close":      {func(p *pair) { _ = p.a.Close() }, net.ErrClosed},
		"reset":      {func(p *pair) { p.a.detach(detachReset) }, syscall.EPIPE},
		"deadline":   {func(p *pair) { _ = p.a.SetWriteDeadline(time.Now().Add(time.Second)) }, os.ErrDeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, from := newPair(t, pairOptions{}), newPair(t, pairOptions{})
				defer p.close()
				defer from.close()
				for _, source := range []io.Reader{one(nil), from.b, &net.Buffers{pattern(99)}} {
					if source == io.Reader(from.b) {
						mustWrite(t, from.a, "kept")
					}
					done := make(chan error)
					go func() {
						_, err := p.a.ReadFrom(source)
						done <- err
					}()
					synctest.Wait() // until the ring is full, the first time
					test.end(p)
					requireOpError(t, "write", test.want, <-done)
				}
				mustRead(t, from.b, "kept") // from ring to ring nothing is taken that does not fit
			})
		})
	}
}

// Between two Conns: bytes move in any split and in both directions at once, with
// rings of any size, an interruption loses none, and the same Conn may be both.
func TestConnToConn(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		pages := rapid.IntRange(2, 7)
		in := newPair(t, pairOptions{ringPages: pages.Draw(r, "in")})
		out := newPair(t, pairOptions{ringPages: pages.Draw(r, "out")})
		defer in.close()
		defer out.close()
		want := pattern(rapid.IntRange(0, 100_000).Draw(r, "bytes"))
		step := rapid.IntRange(1, 20_000).Draw(r, "step")
		interrupt := rapid.Bool().Draw(r, "interrupt")
		var all sync.WaitGroup
		defer all.Wait()
		all.Go(func() { // the proxy: there and, from out's echo, back
			for {
				_, err := in.b.WriteTo(out.a)
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					break
				}
				_ = in.b.SetReadDeadline(time.Time{})
			}
			_ = out.a.CloseWrite()
		})
		all.Go(func() {
			_, _ = in.b.ReadFrom(out.a)
			_ = in.b.CloseWrite()
		})
		all.Go(func() { // the echo: out.b is both
			_, _ = io.Copy(out.b, out.b)
			_ = out.b.CloseWrite()
		})
		all.Go(func() {
			for b := want; len(b) > 0; b = b[min(step, len(b)):] {
				_, _ = in.a.Write(b[:min(step, len(b))])
				if interrupt {
					_ = in.b.SetReadDeadline(time.Now())
				}
			}
			_ = in.a.CloseWrite()
		})
		got, err := io.ReadAll(in.a)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got), "%d of %d bytes", len(got), len(want))
	})
}

// A Close or a reset of either Conn ends a copy between them, wherever it is.
func TestConnToConnClosed(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(from, to *Conn)
		want error
	}{
		"from closed": {func(from, _ *Conn) { _ = from.Close() }, net.ErrClosed},
		"to closed":   {func(_, to *Conn) { _ = to.Close() }, net.ErrClosed},
		"from reset":  {func(from, _ *Conn) { from.detach(detachReset) }, syscall.ECONNRESET},
		"to reset":    {func(_, to *Conn) { to.detach(detachReset) }, syscall.EPIPE},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in, out := newPair(t, pairOptions{}), newPair(t, pairOptions{ringPages: 2})
				defer in.close()
				defer out.close()
				done := make(chan error)
				go func() {
					_, err := in.b.WriteTo(out.a)
					done <- err
				}()
				_, err := in.a.Write(pattern(12_000))
				require.NoError(t, err)
				synctest.Wait() // out's ring is full, and its writer asleep
				test.end(in.b, out.a)
				go func() { _, _ = io.Copy(io.Discard, out.b) }() // makes room
				require.ErrorIs(t, <-done, test.want)
			})
		})
	}
}

// Of net.Buffers, small ones share packets, and a deadline leaves in the list what
// was not written.
func TestBuffers(t *testing.T) {
	p := newPair(t, pairOptions{})
	defer p.close()
	var v net.Buffers
	for range 64 {
		v = append(v, pattern(63), nil)
	}
	n, err := p.a.ReadFrom(&v)
	require.NoError(t, err)
	require.EqualValues(t, 64*63, n)
	require.Empty(t, v)
	require.EqualValues(t, 1, p.a.Stats().Out.Packets, "4032 bytes are one packet")
	mustRead(t, p.b, strings.Repeat(string(pattern(63)), 64))

	want := pattern(50_000) // more than the ring takes
	for b := want; len(b) > 0; b = b[min(9000, len(b)):] {
		v = append(v, b[:min(40, len(b))], b[min(40, len(b)):min(9000, len(b))])
	}
	require.NoError(t, p.a.SetWriteDeadline(time.Now().Add(time.Millisecond)))
	n, err = p.a.ReadFrom(&v)
	requireOpError(t, "write", os.ErrDeadlineExceeded, err)
	require.Positive(t, n)
	require.Equal(t, want[n:], bytes.Join(v, nil))
}

// BenchmarkBuffers writes 64 buffers of 64 bytes, one by one and as net.Buffers.
func BenchmarkBuffers(b *testing.B) {
	list := make(net.Buffers, 64)
	for name, write := range map[string]func(c *Conn, v *net.Buffers) (int64, error){
		"one by one": func(c *Conn, v *net.Buffers) (int64, error) { return v.WriteTo(c) },
		"ReadFrom":   func(c *Conn, v *net.Buffers) (int64, error) { return c.ReadFrom(v) },
	} {
		b.Run(name, func(b *testing.B) {
			p := newPair(b, pairOptions{})
			defer p.close()
			go func() { _, _ = io.Copy(io.Discard, p.b) }()
			b.SetBytes(64 * 64)
			b.ReportAllocs()
			message := make([]byte, 64)
			for range b.N {
				for i := range list {
					list[i] = message
				}
				v := list
				if _, err := write(p.a, &v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
