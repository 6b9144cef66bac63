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
		_ = f.Close() // FileConn has a copy
		return c1, p.b, func() { _, _ = c1.Close(), p.b.Close() }, err
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

// closedSoon waits until the pump has closed the Conn.
func closedSoon(t testing.TB, c *Conn) {
	t.Helper()
	require.Eventually(t, func() bool { return errors.Is(c.SetDeadline(time.Time{}), net.ErrClosed) }, time.Minute, time.Millisecond)
}

func requireEOF(t testing.TB, r io.Reader) {
	t.Helper()
	_, err := r.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err)
}

// The close of the file ends the pump: its goroutines are gone (TestMain), and
// the Conn is closed.
func TestFileIsClosed(t *testing.T) {
	for name, f := range map[string]func(t *testing.T, f *os.File, p *pair){
		"the file is closed, and the peer is silent": func(t *testing.T, f *os.File, p *pair) {
			require.NoError(t, f.Close())
			requireEOF(t, p.b)
			closedSoon(t, p.a)
		},
		"the file is closed by halves": func(t *testing.T, f *os.File, p *pair) {
			shutdown(t, f, syscall.SHUT_WR)
			requireEOF(t, p.b)
			require.NoError(t, p.a.SetDeadline(time.Time{}), "half of it is still open")
			require.NoError(t, f.Close())
			closedSoon(t, p.a)
		},
		"the file is closed with bytes unread": func(t *testing.T, f *os.File, p *pair) {
			mustWrite(t, p.b, "two")
			mustRead(t, f, "t")
			require.NoError(t, f.Close())
			requireEOF(t, p.b)
			closedSoon(t, p.a)
		},
		"the file wants to read nothing": func(t *testing.T, f *os.File, p *pair) {
			shutdown(t, f, syscall.SHUT_RD)
			text := pattern(1 << 20)
			n, err := p.b.Write(text)
			require.NoError(t, err, "more than fits anywhere: it is discarded")
			require.Equal(t, len(text), n)
			mustWrite(t, f, "still here")
			mustRead(t, p.b, "still here")
			require.NoError(t, f.Close())
			closedSoon(t, p.a)
		},
	} {
		t.Run(name, func(t *testing.T) {
			file, p := newFilePair(t)
			f(t, file, p)
		})
	}
}

// And so do the close of the Conn, of the peer, and of the channel.
func TestFileOfAClosedConn(t *testing.T) {
	for name, f := range map[string]func(t *testing.T, f *os.File, p *pair){
		"the Conn is closed, and nobody reads": func(t *testing.T, f *os.File, p *pair) {
			go func() { _, _ = p.b.Write(pattern(1 << 20)) }() // fills every buffer on the way
			mustRead(t, f, string(pattern(1)))
			require.NoError(t, p.a.Close())
			_, err := f.Write([]byte{1})
			require.ErrorIs(t, err, syscall.EPIPE)
		},
		"the Conn is closed, and all is quiet": func(t *testing.T, f *os.File, p *pair) {
			require.NoError(t, p.a.Close())
			requireEOF(t, f)
			requireEOF(t, p.b)
		},
		"the peer closes": func(t *testing.T, f *os.File, p *pair) {
			require.NoError(t, p.b.Close())
			requireEOF(t, f)
			require.NoError(t, f.Close())
			closedSoon(t, p.a)
		},
		"the channel is reset": func(t *testing.T, f *os.File, p *pair) {
			p.a.detach(detachReset)
			requireEOF(t, f)
			_, err := f.Write([]byte{1})
			require.ErrorIs(t, err, syscall.EPIPE)
			closedSoon(t, p.a)
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
			closedSoon(t, p.a)
		},
	} {
		t.Run(name, func(t *testing.T) {
			file, p := newFilePair(t)
			f(t, file, p)
		})
	}
}

// There is one file, and only of an open connection.
func TestFileErrors(t *testing.T) {
	_, p := newFilePair(t)
	_, err := p.a.File()
	require.ErrorIs(t, err, syscall.EBUSY)
	var op *net.OpError
	require.ErrorAs(t, err, &op)
	require.Equal(t, "file", op.Op)

	p = newPair(t, pairOptions{})
	p.close()
	_, err = p.a.File()
	require.ErrorIs(t, err, net.ErrClosed)
}

// A deadline was for the Conn's own calls; the file has its own.
func TestFileForgetsDeadlines(t *testing.T) {
	p := newPair(t, pairOptions{})
	defer p.close()
	require.NoError(t, p.a.SetDeadline(time.Now().Add(-1)))
	f, err := p.a.File()
	require.NoError(t, err)
	defer f.Close()
	mustWrite(t, p.b, "late")
	mustRead(t, f, "late")
	require.NoError(t, f.SetReadDeadline(time.Now().Add(-1)))
	_, err = f.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}

// File and Close at the same time: either there is no file, or it ends; and
// nothing is left running (TestMain).
func TestFileAgainstClose(t *testing.T) {
	for range 100 {
		p := newPair(t, pairOptions{})
		closed := make(chan error, 1)
		go func() { closed <- p.a.Close() }()
		f, err := p.a.File()
		require.NoError(t, <-closed)
		if err != nil {
			require.ErrorIs(t, err, net.ErrClosed)
		} else {
			requireEOF(t, f)
			require.NoError(t, f.Close())
		}
		requireEOF(t, p.b)
		require.NoError(t, p.b.Close())
	}
}
