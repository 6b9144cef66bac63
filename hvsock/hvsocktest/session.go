package hvsocktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/hvlab/hvlab/hvsock"
)

// A session is one run of one behaviour: what it has opened, the goroutines it
// has started, and what went wrong first.
type session struct {
	tr Transport
	wg sync.WaitGroup

	mu      sync.Mutex
	failure string
	open    []io.Closer
	over    bool // closeAll was called: the session has failed, or ended
	ends    map[Conn]hvsock.Profile
}

// of is how the end c behaves.
func (s *session) of(c Conn) hvsock.Profile {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ends[c]
}

// behaves is said of c by whoever has made it.
func (s *session) behaves(c Conn, p hvsock.Profile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ends == nil {
		s.ends = map[Conn]hvsock.Profile{}
	}
	s.ends[c] = p
}

// end ends c's stream, in the way that its profile has.
func (s *session) end(c Conn) {
	if s.of(c).NoHalfClose {
		s.must(c.Close(), "Close")
		return
	}
	s.must(c.CloseWrite(), "CloseWrite")
}

// spawn runs f in a goroutine the session waits for. f may fail the session.
func (s *session) spawn(f func()) { s.wg.Go(f) }

// note records a failure; the first one counts.
func (s *session) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure == "" {
		s.failure = fmt.Sprintf(format, args...)
	}
}

func (s *session) reason() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}

// failf records a failure, closes everything, and ends the calling goroutine,
// which must be one of the session's.
func (s *session) failf(format string, args ...any) {
	s.note(format, args...)
	s.closeAll()
	runtime.Goexit()
}

// must fails the session if doing something gave an error.
func (s *session) must(err error, doing string) {
	if err != nil {
		s.failf("%s: %v", doing, err)
	}
}

// that fails the session unless ok.
func (s *session) that(ok bool, format string, args ...any) {
	if !ok {
		s.failf(format, args...)
	}
}

// is fails the session unless err is one of targets.
func (s *session) is(err error, doing string, targets ...error) {
	for _, target := range targets {
		if errors.Is(err, target) {
			return
		}
	}
	s.failf("%s gives %v, want %v", doing, err, targets)
}

// timedOut fails the session unless err is a deadline's error in every way that
// callers test for.
func (s *session) timedOut(err error, doing string) {
	s.is(err, doing, os.ErrDeadlineExceeded)
	var timeout net.Error
	s.that(errors.As(err, &timeout) && timeout.Timeout(), "%s: %v is no net.Error with Timeout() true", doing, err)
}

// keep has c closed when the session ends; at once if it has ended, which a
// goroutine that hung then learns.
func (s *session) keep(c io.Closer) {
	s.mu.Lock()
	over := s.over
	if !over {
		s.open = append(s.open, c)
	}
	s.mu.Unlock()
	if over {
		_ = c.Close() // nobody else has it
	}
}

func (s *session) closeAll() {
	s.mu.Lock()
	open := s.open
	s.open, s.over = nil, true
	s.mu.Unlock()
	for _, c := range open {
		_ = c.Close() // most are closed already
	}
}

// listen returns a listener on a fresh service, and the address to dial.
func (s *session) listen() (Listener, hvsock.Addr) {
	bind, dial := s.tr.Service()
	l, err := s.tr.Listen(bind)
	s.must(err, "Listen")
	s.keep(l)
	return l, dial
}

func (s *session) dial(addr hvsock.Addr) Conn {
	c, err := s.tr.Dial(context.Background(), addr)
	s.must(err, "Dial")
	s.keep(c)
	s.behaves(c, s.tr.Dialer)
	return c
}

func (s *session) accept(l Listener) Conn {
	c, err := l.Accept()
	s.must(err, "Accept")
	s.keep(c)
	conn, ok := c.(Conn)
	s.that(ok, "Accept returns a %T, which has no CloseRead and CloseWrite", c)
	s.behaves(conn, s.tr.Acceptor)
	return conn
}

// connect returns both ends of a new connection; its listener is closed, which
// must not matter to it.
func (s *session) connect() (dialed, accepted Conn) {
	l, addr := s.listen()
	dialed = s.dial(addr)
	accepted = s.accept(l)
	s.must(l.Close(), "closing the listener")
	return dialed, accepted
}

// eachWay runs f twice, with new connections: from the dialer to the acceptor,
// and the other way round.
func (s *session) eachWay(f func(from, to Conn)) {
	dialed, accepted := s.connect()
	f(dialed, accepted)
	dialed, accepted = s.connect()
	f(accepted, dialed)
}

func (s *session) write(c Conn, b []byte) {
	n, err := c.Write(b)
	s.must(err, "Write")
	s.that(n == len(b), "Write takes %d of %d bytes without an error", n, len(b))
}

// read reads as many bytes as want has, and compares them.
func (s *session) read(c Conn, want []byte) {
	got := make([]byte, len(want))
	n, err := io.ReadFull(c, got)
	s.that(err == nil, "Read ends after %d of %d bytes: %v", n, len(want), err)
	s.same(got, want)
}

// readAll reads to the end of the stream, and compares.
func (s *session) readAll(c Conn, want []byte) {
	got, err := io.ReadAll(c)
	s.that(err == nil, "reading to the end, after %d bytes: %v", len(got), err)
	s.same(got, want)
}

func (s *session) same(got, want []byte) {
	s.that(len(got) == len(want), "%d bytes arrive, %d were written", len(got), len(want))
	if bytes.Equal(got, want) {
		return
	}
	for i := range got {
		s.that(got[i] == want[i], "byte %d is %#x, was written as %#x", i, got[i], want[i])
	}
}

// follow sends a byte after something that from may have told to: once the byte
// is there, that is, too.
func (s *session) follow(from, to Conn) {
	s.write(from, []byte{1})
	s.read(to, []byte{1})
}

// ended checks that to reads want and then, since from has called CloseWrite, the
// end of the stream; or nothing, if from does not say so before Close.
func (s *session) ended(from, to Conn, want []byte) {
	s.read(to, want)
	if !s.of(from).NoHalfClose {
		s.eof(to)
		return
	}
	s.must(to.SetReadDeadline(soon()), "SetReadDeadline")
	_, err := to.Read(make([]byte, 1))
	s.timedOut(err, "a Read after the CloseWrite that sends nothing")
	s.must(to.SetReadDeadline(time.Time{}), "SetReadDeadline")
}

// eof checks that the stream has ended, and stays so.
func (s *session) eof(c Conn) {
	for range 3 {
		n, err := c.Read(make([]byte, 8))
		s.that(n == 0 && err == io.EOF, "Read at the end gives %d, %v; want 0 and a bare io.EOF", n, err)
	}
}

// soon is a deadline that passes without much waiting.
func soon() time.Time { return time.Now().Add(20 * time.Millisecond) }

// past is a deadline that has passed.
func past() time.Time { return time.Now().Add(-time.Hour) }

// pattern is n bytes in which no stretch looks like another; kind makes
// different ones.
func pattern(n int, kind uint32) []byte {
	b := make([]byte, n)
	x := kind*2654435761 + 1
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}
