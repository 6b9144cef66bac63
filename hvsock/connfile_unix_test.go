//go:build unix

package hvsock

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"
)

// newFilePair returns the file of one end of a connection, and the other end.
func newFilePair(t testing.TB) (*os.File, *pair) {
	t.Helper()
	p := newPair(t, pairOptions{})
	f, err := p.a.File()
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = f.Close()
		p.close()
	})
	return f, p
}

// A file is as good as the connection: the suite of package net, with the file
// at either end.
func TestFileNettest(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		p := newPair(t, pairOptions{})
		f, err := p.a.File()
		if err != nil {
			return nil, nil, nil, err
		}
		c1, err = net.FileConn(f)
		_, _ = f.Close(), p.a.Close() // FileConn has a copy
		return c1, p.b, func() { _, _ = c1.Close(), p.b.Close() }, err
	})
}

// And so is the Conn itself, once it has a file.
func TestConnWithAFileNettest(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		p := newPair(t, pairOptions{})
		f, err := p.a.File()
		if err != nil {
			return nil, nil, nil, err
		}
		_ = f.Close() // as programs do that only want to look at it
		return p.a, p.b, p.close, nil
	})
}

// A program that knows nothing but file descriptors talks over the connection.
func TestFileOfAChildProcess(t *testing.T) {
	cat, err := exec.LookPath("cat")
	if err != nil {
		t.Skip("there is no cat on this machine")
	}
	f, p := newFilePair(t)
	child := exec.Command(cat)
	child.Stdin, child.Stdout, child.Stderr = f, f, os.Stderr
	require.NoError(t, syscall.SetNonblock(int(f.Fd()), false), "cat gives up on EAGAIN")
	require.NoError(t, child.Start())
	require.NoError(t, f.Close(), "the child has copies")
	require.NoError(t, p.a.Close(), "of which the connection lives")
	text := pattern(200_000)
	go func() {
		_, _ = p.b.Write(text)
		_ = p.b.CloseWrite()
	}()
	got, err := io.ReadAll(p.b)
	require.NoError(t, err)
	require.True(t, bytes.Equal(text, got))
	require.NoError(t, child.Wait(), "our FIN is its end of input")
}

// hvsock.md 7: half-close travels both ways, and each way goes on without the
// other.
func TestFileHalfClose(t *testing.T) {
	t.Run("of the peer", func(t *testing.T) {
		f, p := newFilePair(t)
		mustWrite(t, p.b, "ping")
		require.NoError(t, p.b.CloseWrite())
		got, err := io.ReadAll(f)
		require.NoError(t, err)
		require.Equal(t, "ping", string(got))
		mustWrite(t, f, "pong")
		mustRead(t, p.b, "pong")
		require.NoError(t, f.Close())
		require.NoError(t, p.a.Close())
		_, err = p.b.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
	})
	t.Run("of the file", func(t *testing.T) {
		f, p := newFilePair(t)
		mustWrite(t, f, "ping")
		shutdown(t, f, syscall.SHUT_WR)
		got, err := io.ReadAll(p.b)
		require.NoError(t, err)
		require.Equal(t, "ping", string(got))
		mustWrite(t, p.b, "pong")
		mustRead(t, f, "pong")
		require.NoError(t, p.b.Close())
		_, err = f.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
	})
}

func shutdown(t testing.TB, f *os.File, how int) {
	t.Helper()
	raw, err := f.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) { err = syscall.Shutdown(int(fd), how) }))
	require.NoError(t, err)
}

func requireEOF(t testing.TB, r io.Reader) {
	t.Helper()
	_, err := r.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err)
}

// hvsock.Conn.File is a second handle, as that of a net.TCPConn: what one does to
// itself leaves the other alone, what it does to the stream concerns both.
func TestFileIsASecondHandle(t *testing.T) {
	for name, f := range secondHandle {
		t.Run(name, func(t *testing.T) {
			file, p := newFilePair(t)
			f(t, file, p)
		})
	}
}

var secondHandle = map[string]func(t *testing.T, f *os.File, p *pair){
	"the Conn is closed": func(t *testing.T, f *os.File, p *pair) {
		require.NoError(t, p.a.Close())
		mustWrite(t, f, "ping")
		mustRead(t, p.b, "ping")
		mustWrite(t, p.b, "pong")
		mustRead(t, f, "pong")
		require.ErrorIs(t, p.a.Close(), net.ErrClosed)
		require.ErrorIs(t, p.a.CloseWrite(), net.ErrClosed)
		require.ErrorIs(t, p.a.SetDeadline(time.Time{}), net.ErrClosed)
		_, err := p.a.Read(make([]byte, 1))
		require.ErrorIs(t, err, net.ErrClosed)
		_, err = p.a.Write([]byte("x"))
		require.ErrorIs(t, err, net.ErrClosed)
		_, err = p.a.File()
		require.ErrorIs(t, err, net.ErrClosed)
	},
	"the file is closed": func(t *testing.T, f *os.File, p *pair) {
		mustWrite(t, p.b, "for whoever reads first")
		mustRead(t, f, "for whoever ")
		require.NoError(t, f.Close())
		mustRead(t, p.a, "reads first")
		mustWrite(t, p.a, "still here")
		mustRead(t, p.b, "still here")
	},
	"the file ends its stream": func(t *testing.T, f *os.File, p *pair) {
		shutdown(t, f, syscall.SHUT_WR)
		requireEOF(t, p.b)
		_, err := p.a.Write([]byte("x"))
		require.ErrorIs(t, err, syscall.EPIPE)
		mustWrite(t, p.b, "pong")
		mustRead(t, p.a, "pong")
	},
	"the Conn ends its stream": func(t *testing.T, f *os.File, p *pair) {
		require.NoError(t, p.a.CloseWrite())
		require.NoError(t, p.a.CloseWrite())
		requireEOF(t, p.b)
		_, err := f.Write([]byte("x"))
		require.ErrorIs(t, err, syscall.EPIPE)
	},
	"there are two files": func(t *testing.T, f *os.File, p *pair) {
		g, err := p.a.File()
		require.NoError(t, err)
		require.NoError(t, f.Close())
		require.NoError(t, p.a.Close())
		mustWrite(t, g, "ping")
		mustRead(t, p.b, "ping")
		require.NoError(t, g.Close())
		requireEOF(t, p.b)
	},
	"the Conn goes on as it was": func(t *testing.T, f *os.File, p *pair) {
		require.NoError(t, p.a.SetReadDeadline(time.Now().Add(-1)))
		_, err := p.a.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		var op *net.OpError
		require.ErrorAs(t, err, &op)
		require.Equal(t, net.OpError{Op: "read", Net: network, Source: p.a.local, Addr: p.a.remote, Err: op.Err}, *op)
		_, err = p.a.TryRead(make([]byte, 1))
		require.ErrorIs(t, err, syscall.EBUSY)
		mustWrite(t, p.b, "x")
		mustRead(t, f, "x")
	},
	"both halves are shut": func(t *testing.T, f *os.File, p *pair) {
		require.NoError(t, p.a.CloseWrite())
		require.NoError(t, p.a.CloseRead())
		requireEOF(t, p.b)
		requireEOF(t, p.a)
		requireEOF(t, f)
	},
}

// The close of the last handle ends the connection and the pump (TestMain). What
// was written before arrives.
func TestLastHandleIsClosed(t *testing.T) {
	for name, f := range map[string]func(t *testing.T, f *os.File, p *pair){
		"and the peer is silent": func(t *testing.T, f *os.File, p *pair) {},
		"after half of it": func(t *testing.T, f *os.File, p *pair) {
			shutdown(t, f, syscall.SHUT_WR)
			requireEOF(t, p.b)
			mustWrite(t, p.b, "half of it is still open")
			mustRead(t, f, "half of it")
		},
		"with bytes unread": func(t *testing.T, f *os.File, p *pair) {
			mustWrite(t, p.b, "two")
			mustRead(t, f, "t")
		},
		"with bytes on their way": func(t *testing.T, f *os.File, p *pair) {
			text := pattern(100_000) // more than the ring holds
			mustWrite(t, f, string(text))
			require.NoError(t, f.Close())
			require.NoError(t, p.a.Close())
			mustRead(t, p.b, string(text))
		},
		"and nobody wanted to read": func(t *testing.T, f *os.File, p *pair) {
			shutdown(t, f, syscall.SHUT_RD)
			text := pattern(1 << 20)
			n, err := p.b.Write(text)
			require.NoError(t, err, "more than fits anywhere: it is discarded")
			require.Equal(t, len(text), n)
			mustWrite(t, f, "still here")
			mustRead(t, p.b, "still here")
		},
	} {
		t.Run(name, func(t *testing.T) {
			file, p := newFilePair(t)
			f(t, file, p)
			_, _ = p.a.Close(), file.Close()
			requireEOF(t, p.b)
			connectionEnds(t, p.a)
		})
	}
}

// connectionEnds waits until the connection is closed, whoever has handles.
func connectionEnds(t testing.TB, c *Conn) {
	t.Helper()
	require.Eventually(t, func() bool {
		c.in.mu.Lock()
		defer c.in.mu.Unlock()
		return c.in.gone
	}, time.Minute, time.Millisecond)
}

// The end of the channel ends the pump, though there are handles. The Conn has the
// right errors; a file knows only io.EOF and EPIPE.
func TestFileOfAnEndedChannel(t *testing.T) {
	for name, f := range map[string]func(t *testing.T, f *os.File, p *pair){
		"the peer closes": func(t *testing.T, f *os.File, p *pair) {
			mustWrite(t, p.b, "last")
			require.NoError(t, p.b.Close())
			mustRead(t, p.a, "last")
			requireEOF(t, p.a)
			requireEOF(t, f)
			p.a.detach(detachReset) // its host rescinds
			_, _ = p.a.Write([]byte{1})
		},
		"the channel is reset": func(t *testing.T, f *os.File, p *pair) {
			mustWrite(t, p.b, "last")
			mustRead(t, f, "last")
			p.a.detach(detachReset)
			requireEOF(t, f)
			_, err := f.Write([]byte{1})
			require.ErrorIs(t, err, syscall.EPIPE)
			_, err = p.a.Read(make([]byte, 1))
			require.ErrorIs(t, err, syscall.ECONNRESET)
			_, err = p.a.Write([]byte{1})
			require.ErrorIs(t, err, syscall.EPIPE)
		},
		"the channel is gone behind a FIN": func(t *testing.T, f *os.File, p *pair) {
			require.NoError(t, p.b.CloseWrite())
			requireEOF(t, f)
			p.a.detach(detachReset)
			_, err := f.Write([]byte{1}) // taken by the socket pair
			require.NoError(t, err)
			require.Eventually(t, func() bool {
				_, err = f.Write([]byte{1})
				return errors.Is(err, syscall.EPIPE)
			}, time.Minute, time.Millisecond, "the writer hears of it as the Conn's would")
			requireEOF(t, p.a)
		},
		"its programs are ended": func(t *testing.T, f *os.File, p *pair) { // with a container
			p.a.end(false)
			requireEOF(t, f)
			requireEOF(t, p.b)
		},
	} {
		t.Run(name, func(t *testing.T) {
			file, p := newFilePair(t)
			f(t, file, p)
			connectionEnds(t, p.a)
			require.NoError(t, p.a.Close(), "a handle is closed once")
			require.ErrorIs(t, p.a.Close(), net.ErrClosed)
		})
	}
}

// Calls that wait when File is called go on.
func TestFileMovesTheConn(t *testing.T) {
	t.Run("a Read that waits", func(t *testing.T) {
		p := newPair(t, pairOptions{})
		defer p.close()
		read := make(chan string, 1)
		go func() {
			b := make([]byte, 4)
			_, _ = io.ReadFull(p.a, b)
			read <- string(b)
		}()
		require.Eventually(t, func() bool { return p.a.Stats().In.Sleeps > 0 }, time.Minute, time.Millisecond)
		f, err := p.a.File()
		require.NoError(t, err)
		defer f.Close()
		mustWrite(t, p.b, "ping")
		require.Equal(t, "ping", <-read)
	})
	t.Run("a Write that waits", func(t *testing.T) {
		p := newPair(t, pairOptions{})
		defer p.close()
		text := pattern(1 << 20)
		wrote := make(chan error, 1)
		go func() {
			n, err := p.a.Write(text)
			if n != len(text) {
				err = io.ErrShortWrite
			}
			wrote <- err
		}()
		require.Eventually(t, func() bool { return p.a.Stats().Out.Sleeps > 0 }, time.Minute, time.Millisecond)
		f, err := p.a.File()
		require.NoError(t, err)
		defer f.Close()
		got := make([]byte, len(text))
		_, err = io.ReadFull(p.b, got)
		require.NoError(t, err)
		require.True(t, bytes.Equal(text, got))
		require.NoError(t, <-wrote)
	})
}

// So do copies, from ring to ring and later through descriptors.
func TestFileMovesACopy(t *testing.T) {
	p, q := newPair(t, pairOptions{}), newPair(t, pairOptions{})
	defer p.close()
	defer q.close()
	copied := make(chan error, 1)
	go func() {
		_, err := io.Copy(q.a, p.a) // from ring to ring
		_ = q.a.CloseWrite()
		copied <- err
	}()
	mustWrite(t, p.b, "one")
	mustRead(t, q.b, "one")
	for _, c := range []*Conn{p.a, q.a} {
		f, err := c.File()
		require.NoError(t, err)
		require.NoError(t, f.Close())
		mustWrite(t, p.b, "next")
		mustRead(t, q.b, "next")
	}
	text := pattern(1 << 20)
	go func() {
		_, _ = io.Copy(p.b, bytes.NewReader(text))
		_ = p.b.CloseWrite()
	}()
	got, err := io.ReadAll(q.b)
	require.NoError(t, err)
	require.True(t, bytes.Equal(text, got))
	require.NoError(t, <-copied)
}

// What was set or shut before File is called stays so.
func TestFileKeepsWhatWasSet(t *testing.T) {
	t.Run("deadlines", func(t *testing.T) {
		p := newPair(t, pairOptions{})
		defer p.close()
		require.NoError(t, p.a.SetDeadline(time.Now().Add(-1)))
		f, err := p.a.File()
		require.NoError(t, err)
		defer f.Close()
		for range 2 {
			_, err = p.a.Read(make([]byte, 1))
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			_, err = p.a.Write([]byte("x"))
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		}
		mustWrite(t, p.b, "late")
		mustRead(t, f, "late") // it has deadlines of its own
		require.NoError(t, f.SetReadDeadline(time.Now().Add(-1)))
		_, err = f.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	})
	t.Run("halves that are shut", func(t *testing.T) {
		p := newPair(t, pairOptions{})
		defer p.close()
		require.NoError(t, p.a.CloseWrite())
		f, err := p.a.File()
		require.NoError(t, err)
		defer f.Close()
		_, err = p.a.Write([]byte("x"))
		require.ErrorIs(t, err, syscall.EPIPE)
		mustWrite(t, p.b, "pong")
		mustRead(t, f, "pong")
	})
}

// A closed connection has no file.
func TestFileOfAClosedConn(t *testing.T) {
	p := newPair(t, pairOptions{})
	p.close()
	_, err := p.a.File()
	require.ErrorIs(t, err, net.ErrClosed)
	var op *net.OpError
	require.ErrorAs(t, err, &op)
	require.Equal(t, "file", op.Op)
}

// File, File and Close at the same time: each file there is is a handle, and the
// last one ends the connection; nothing is left running (TestMain).
func TestFileAgainstClose(t *testing.T) {
	for range 100 {
		p := newPair(t, pairOptions{})
		files := make(chan *os.File, 2)
		for range 2 {
			go func() {
				f, err := p.a.File()
				if err != nil && !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
				files <- f
			}()
		}
		require.NoError(t, p.a.Close())
		for range 2 {
			if f := <-files; f != nil {
				mustWrite(t, f, "x")
				mustRead(t, p.b, "x")
				require.NoError(t, f.Close())
			}
		}
		requireEOF(t, p.b)
		require.NoError(t, p.b.Close())
	}
}
