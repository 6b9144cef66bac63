package hvsocktest

import (
	"io"
	"net"
	"syscall"
	"time"
)

var closeBehaviours = []Behaviour{
	{"HalfClose", "hvsock.md 7.2, faults.md HV-14", "CloseWrite ends one direction; a long answer still arrives in the other", checkHalfClose},
	{"EOFLatch", "hvsock.md 7.3, faults.md HV-12", "behind the last byte comes a bare io.EOF, for ever", checkEOFLatch},
	{"WriteAfterFIN", "hvsock.md 7.3", "the peer's end of stream does not stop this end from writing", checkWriteAfterFIN},
	{"WriteAfterCloseWrite", "hvsock.md 16", "writing after CloseWrite is EPIPE; CloseWrite may be called again", checkWriteAfterCloseWrite},
	{"FINNeedsNoSpace", "faults.md I-FIN-ROOM", "CloseWrite does not wait, however full the connection is", checkFINNeedsNoSpace},
	{"CloseRead", "hvsock.md 16", "after CloseRead Reads give io.EOF and the other direction lives on", checkCloseRead},
	{"CloseReadDiscards", "hvsock.md 16", "after CloseRead the peer's Writes do not hang", checkCloseReadDiscards},
	{"CloseDelivers", "hvsock.md 7.4, faults.md HV-11", "what Write took before Close arrives, then io.EOF", checkCloseDelivers},
	{"CloseWithUnread", "hvsock.md 7.4", "closing with unread data is an orderly end for the peer", checkCloseWithUnread},
	{"CloseUnblocks", "hvsock.md 14, faults.md HV-19", "Close ends blocked Reads and Writes with net.ErrClosed", checkCloseUnblocks},
	{"AfterClose", "hvsock.md 16, faults.md I-CLOSED", "after Close every operation is net.ErrClosed", checkAfterClose},
}

func checkHalfClose(s *session) {
	s.eachWay(func(from, to Conn) {
		question, answer := pattern(100, 6), pattern(300_000, 7)
		s.write(from, question)
		s.must(from.CloseWrite(), "CloseWrite")
		s.spawn(func() {
			s.ended(from, to, question)
			s.write(to, answer)
			s.end(to)
		})
		s.readAll(from, answer)
	})
}

func checkEOFLatch(s *session) {
	s.eachWay(func(from, to Conn) {
		s.write(from, []byte("end"))
		s.must(from.CloseWrite(), "CloseWrite")
		s.ended(from, to, []byte("end"))
		s.must(from.Close(), "Close")
		s.eof(to)
	})
}

func checkWriteAfterFIN(s *session) {
	s.eachWay(func(from, to Conn) {
		s.must(from.CloseWrite(), "CloseWrite")
		s.ended(from, to, nil)
		s.write(to, []byte("still here"))
		s.read(from, []byte("still here"))
	})
}

func checkWriteAfterCloseWrite(s *session) {
	s.eachWay(func(from, _ Conn) {
		s.must(from.CloseWrite(), "CloseWrite")
		n, err := from.Write([]byte("x"))
		s.that(n == 0, "Write after CloseWrite takes %d bytes", n)
		s.is(err, "Write after CloseWrite", syscall.EPIPE)
		s.must(from.CloseWrite(), "the second CloseWrite")
	})
}

func checkFINNeedsNoSpace(s *session) {
	s.eachWay(func(from, to Conn) {
		want := pattern(4<<20, 8)
		s.must(from.SetWriteDeadline(soon()), "SetWriteDeadline")
		n, err := from.Write(want)
		s.timedOut(err, "a Write nobody reads")
		s.end(from)
		s.readAll(to, want[:n])
	})
}

func checkCloseRead(s *session) {
	s.eachWay(func(from, to Conn) {
		s.write(to, []byte("nobody wants this"))
		s.must(from.CloseRead(), "CloseRead")
		n, err := from.Read(make([]byte, 8))
		s.that(n == 0 && err == io.EOF, "Read after CloseRead gives %d, %v", n, err)
		s.write(from, []byte("other direction"))
		s.read(to, []byte("other direction"))
	})
}

func checkCloseReadDiscards(s *session) {
	s.eachWay(func(from, to Conn) {
		s.must(from.CloseRead(), "CloseRead")
		s.follow(from, to) // AF_VSOCK's loopback tells the peer, who fails at once; or hangs, if it had filled the buffer by then
		if s.of(from).KeepsUnread {
			s.must(to.SetWriteDeadline(soon()), "SetWriteDeadline")
			_, err := to.Write(pattern(1<<20, 9))
			s.timedOut(err, "a Write whose reader keeps what it does not read")
			return
		}
		s.must(to.SetWriteDeadline(time.Now().Add(patience/2)), "SetWriteDeadline")
		s.write(to, pattern(1<<20, 9))
	})
}

func checkCloseDelivers(s *session) {
	s.eachWay(func(from, to Conn) {
		want := pattern(10_000, 10)
		s.write(from, want)
		s.must(from.Close(), "Close")
		s.readAll(to, want)
		s.eof(to)
	})
}

func checkCloseWithUnread(s *session) {
	s.eachWay(func(from, to Conn) {
		s.write(from, []byte("never read"))
		s.read(to, []byte("never"))
		s.write(to, []byte("last words"))
		s.must(to.Close(), "Close")
		s.readAll(from, []byte("last words"))
	})
}

func checkCloseUnblocks(s *session) {
	s.eachWay(func(from, to Conn) {
		s.spawn(func() {
			_, err := from.Read(make([]byte, 1))
			s.is(err, "the blocked Read", net.ErrClosed)
		})
		b := pattern(16<<20, 11)
		s.spawn(func() {
			n, err := from.Write(b)
			s.that(n < len(b), "%d bytes are written although one was read", n)
			s.is(err, "the blocked Write", net.ErrClosed)
		})
		s.read(to, b[:1]) // it has begun, and no ring holds the rest
		s.must(from.Close(), "Close")
	})
}

func checkAfterClose(s *session) {
	s.eachWay(func(from, _ Conn) {
		s.must(from.Close(), "Close")
		b := make([]byte, 1)
		for name, f := range map[string]func() error{
			"Read":             func() error { _, err := from.Read(b); return err },
			"Write":            func() error { _, err := from.Write(b); return err },
			"CloseRead":        from.CloseRead,
			"CloseWrite":       from.CloseWrite,
			"Close":            from.Close,
			"SetDeadline":      func() error { return from.SetDeadline(time.Now()) },
			"SetReadDeadline":  func() error { return from.SetReadDeadline(time.Time{}) },
			"SetWriteDeadline": func() error { return from.SetWriteDeadline(time.Time{}) },
		} {
			s.is(f(), name+" after Close", net.ErrClosed)
		}
	})
}
