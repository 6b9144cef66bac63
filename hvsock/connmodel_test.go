package hvsock

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A modelStream is one direction of a pair as it should be: what Write took,
// what Read gave, and how it ended.
type modelStream struct {
	sent, got []byte
	fin       bool // the writer has closed this direction
	cut       int  // bytes sent when the reader lost its rings; -1: it has them
	dropped   bool // the reader does not want any more
}

// A modelEnd is one Conn and the model of its two directions.
type modelEnd struct {
	name     string
	conn     *Conn
	in, out  *modelStream
	closed   bool
	detached bool
}

func (e *modelEnd) write(t *rapid.T) {
	b := pattern(rapid.IntRange(0, 40000).Draw(t, "bytes"))
	require.NoError(t, ignoreClosed(e, e.conn.SetWriteDeadline(time.Now().Add(time.Millisecond))))
	n, err := e.conn.Write(b)
	e.out.sent = append(e.out.sent, b[:n]...)
	switch {
	case e.closed:
		require.ErrorIs(t, err, net.ErrClosed)
	case len(b) == 0:
		require.NoError(t, err)
	case e.detached || e.out.fin:
		require.ErrorIs(t, err, syscall.EPIPE)
		require.Zero(t, n)
	case err == nil:
		require.Equal(t, len(b), n, "all or an error")
	default:
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.False(t, e.out.dropped && e.out.cut < 0, "a peer that discards never makes a writer wait")
	}
}

// readFrom is write through ReadFrom, which loses what it has read and cannot
// write: the counter tells what that is.
func (e *modelEnd) readFrom(t *rapid.T) {
	b := pattern(rapid.IntRange(0, 40000).Draw(t, "bytes"))
	piece := rapid.IntRange(1, 40000).Draw(t, "piece")
	require.NoError(t, ignoreClosed(e, e.conn.SetWriteDeadline(time.Now().Add(time.Millisecond))))
	before, left := e.conn.Stats().Out.Bytes, b
	n, err := e.conn.ReadFrom(sourceFunc(func(p []byte) (n int, err error) {
		n = copy(p[:min(len(p), piece)], left)
		if left = left[n:]; n == 0 {
			err = io.EOF
		}
		return n, err
	}))
	require.EqualValues(t, len(b)-len(left), n, "what its Reader returned")
	sent := e.conn.Stats().Out.Bytes - before
	e.out.sent = append(e.out.sent, b[:sent]...)
	switch {
	case len(b) == 0:
		require.NoError(t, err)
	case e.closed:
		require.ErrorIs(t, err, net.ErrClosed)
	case e.detached || e.out.fin:
		require.ErrorIs(t, err, syscall.EPIPE)
	case err == nil:
		require.EqualValues(t, len(b), sent, "all or an error")
	default:
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.False(t, e.out.dropped && e.out.cut < 0, "a peer that discards never makes a writer wait")
	}
}

// writeTo is read through WriteTo, whose Writer takes so many bytes in all.
func (e *modelEnd) writeTo(t *rapid.T) {
	room := rapid.IntRange(0, 4000).Draw(t, "room")
	require.NoError(t, ignoreClosed(e, e.conn.SetReadDeadline(time.Now().Add(time.Millisecond))))
	taken := len(e.in.got)
	n, err := e.conn.WriteTo(sinkFunc(func(p []byte) (int, error) {
		k := min(len(p), room)
		room -= k
		e.in.got = append(e.in.got, p[:k]...)
		if k < len(p) {
			return k, syscall.ENOSPC
		}
		return k, nil
	}))
	require.EqualValues(t, len(e.in.got)-taken, n, "what its Writer took")
	if err == nil {
		err = io.EOF
	}
	if err == syscall.ENOSPC {
		require.Zero(t, room)
		err = nil
	}
	e.checkRead(t, err)
}

func (e *modelEnd) read(t *rapid.T) {
	b := make([]byte, rapid.IntRange(1, 40000).Draw(t, "bytes"))
	require.NoError(t, ignoreClosed(e, e.conn.SetReadDeadline(time.Now().Add(time.Millisecond))))
	n, err := e.conn.Read(b)
	e.in.got = append(e.in.got, b[:n]...)
	require.Equal(t, n > 0, err == nil, "bytes, or a reason for none")
	e.checkRead(t, err)
}

// checkRead checks what was read so far, and why it is not more.
func (e *modelEnd) checkRead(t *rapid.T, err error) {
	require.True(t, bytes.HasPrefix(e.in.sent, e.in.got), "I-PREFIX")
	all := len(e.in.sent)
	if e.in.cut >= 0 {
		all = e.in.cut
	}
	switch {
	case e.closed:
		require.ErrorIs(t, err, net.ErrClosed)
	case e.in.dropped:
		require.Same(t, io.EOF, err)
	case err == nil:
	case err == io.EOF:
		require.True(t, e.in.fin, "no end of stream without a FIN")
		require.Len(t, e.in.got, all, "I-STREAM: the end comes after all bytes")
	case errors.Is(err, os.ErrDeadlineExceeded):
		require.Len(t, e.in.got, all, "I-PREFIX, L-READER: it waits only if there is nothing")
		require.False(t, e.in.fin || e.detached)
	default:
		require.ErrorIs(t, err, syscall.ECONNRESET)
		require.True(t, e.detached)
		require.Len(t, e.in.got, all, "what had arrived is read first")
	}
}

func (e *modelEnd) closeWrite(t *rapid.T) {
	require.NoError(t, ignoreClosed(e, e.conn.CloseWrite()))
	if !e.closed && !e.detached {
		e.out.fin = true
	}
}

func (e *modelEnd) closeRead(t *rapid.T) {
	require.NoError(t, ignoreClosed(e, e.conn.CloseRead()))
	e.in.dropped = true
}

func (e *modelEnd) close(t *rapid.T) {
	err := e.conn.Close()
	require.Equal(t, e.closed, errors.Is(err, net.ErrClosed), "the first Close succeeds")
	if !e.detached {
		e.out.fin = true
	}
	e.closed, e.in.dropped = true, true
}

func (e *modelEnd) detach(*rapid.T) {
	e.conn.detach(detachReset)
	if !e.detached {
		e.in.cut = len(e.in.sent)
		e.detached = true
	}
}

// ignoreClosed drops the error a closed Conn is right to return.
func ignoreClosed(e *modelEnd, err error) error {
	if e.closed && errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Any sequence of calls on both ends behaves like two byte queues: nothing is
// lost, doubled or reordered, nothing waits without a reason, and each end of a
// stream is the right one.
func TestConnModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		pages := rapid.IntRange(2, 9).Draw(rt, "ringPages")
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, pairOptions{ringPages: pages})
			defer p.close()
			toA, toB := &modelStream{cut: -1}, &modelStream{cut: -1}
			ends := []*modelEnd{
				{name: "a", conn: p.a, in: toA, out: toB},
				{name: "b", conn: p.b, in: toB, out: toA},
			}
			actions := map[string]func(*rapid.T){}
			for _, e := range ends {
				for i := range 4 { // calls that end something are rarer
					actions[fmt.Sprint(e.name, ".Write", i)] = e.write
					actions[fmt.Sprint(e.name, ".Read", i)] = e.read
					actions[fmt.Sprint(e.name, ".ReadFrom", i)] = e.readFrom
					actions[fmt.Sprint(e.name, ".WriteTo", i)] = e.writeTo
				}
				actions[e.name+".CloseRead"] = e.closeRead
				actions[e.name+".CloseWrite"] = e.closeWrite
				actions[e.name+".Close"] = e.close
				actions[e.name+".detach"] = e.detach
			}
			rt.Repeat(actions)
		})
	})
}

// Steady state allocates nothing: not to read, to write, or to move deadlines.
func TestNoAllocations(t *testing.T) {
	p := newPair(t, pairOptions{})
	defer p.close()
	buf := make([]byte, 3000)
	deadline := time.Now().Add(time.Hour)
	require.NoError(t, p.a.SetDeadline(deadline))
	got := testing.AllocsPerRun(1000, func() {
		_, _ = p.a.Write(buf)
		_, _ = io.ReadFull(p.b, buf)
		_ = p.a.SetDeadline(deadline)
	})
	require.Zero(t, got)
}
