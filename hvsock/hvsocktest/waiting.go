package hvsocktest

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Calls that wait for each other, and what ends them.
var waitingBehaviours = []Behaviour{
	{"ReadReturnsEarly", "hvsock.md 6, 16", "a Read returns what is there and does not wait for more", checkReadReturnsEarly},
	{"PingPong", "hvsock.md 6, faults.md L-WAKE", "a thousand questions get a thousand answers: no wake-up is lost", checkPingPong},
	{"ConcurrentReads", "hvsock.md 16", "each byte goes to exactly one of several Reads", checkConcurrentReads},
	{"Silence", "hvsock.md 8", "a connection that carries nothing stays open: there is no keepalive", checkSilence},
	{"CloseReadUnblocks", "hvsock.md 16", "CloseRead ends a blocked Read with io.EOF", checkCloseReadUnblocks},
	{"CloseWriteUnblocks", "hvsock.md 12, 16", "CloseWrite ends a blocked Write with EPIPE", checkCloseWriteUnblocks},
	{"BothClose", "hvsock.md 14", "both ends may close at the same time", checkBothClose},
	{"ConcurrentClose", "hvsock.md 14, 16", "many Closes at once all return, one at least with success", checkConcurrentClose},
	{"FINBehindData", "hvsock.md 14", "data and the end of the stream in one go are read as data, then io.EOF", checkFINBehindData},
	{"CloseAfterCloseWrite", "hvsock.md 7.2, 14", "Close after CloseWrite succeeds, and the peer sees one end", checkCloseAfterCloseWrite},
	{"ShutdownBoth", "hvsock.md 7.2", "both halves closed, the peer's stream has ended and Close succeeds", checkShutdownBoth},
	{"CloseUnused", "hvsock.md 7.4", "a connection that is closed before it carried anything ends in io.EOF", checkCloseUnused},
}

func checkReadReturnsEarly(s *session) {
	s.eachWay(func(from, to Conn) {
		s.write(from, []byte("some"))
		n, err := to.Read(make([]byte, 1000))
		s.must(err, "Read")
		s.that(n > 0 && n <= 4, "Read returns %d bytes of 4", n)
	})
}

func checkPingPong(s *session) {
	dialed, accepted := s.connect()
	const rounds = 1000
	s.spawn(func() {
		for i := range rounds {
			s.read(accepted, []byte{byte(i)})
			s.write(accepted, []byte{byte(i), byte(i >> 8)})
		}
	})
	for i := range rounds {
		s.write(dialed, []byte{byte(i)})
		s.read(dialed, []byte{byte(i), byte(i >> 8)})
	}
}

func checkConcurrentReads(s *session) {
	s.eachWay(func(from, to Conn) {
		const readers, size = 4, 60_000
		var sum, count atomic.Int64
		var wg sync.WaitGroup
		for range readers {
			wg.Add(1)
			s.spawn(func() {
				defer wg.Done()
				b := make([]byte, 700)
				for {
					n, err := to.Read(b)
					for _, x := range b[:n] {
						sum.Add(int64(x))
					}
					count.Add(int64(n))
					if err != nil {
						s.that(err == io.EOF, "Read ends with %v", err)
						return
					}
				}
			})
		}
		b, want := pattern(size, 30), int64(0)
		for _, x := range b {
			want += int64(x)
		}
		s.write(from, b)
		s.end(from)
		wg.Wait()
		s.that(count.Load() == size && sum.Load() == want, "%d bytes arrive, %d were written, or they are not the same", count.Load(), size)
	})
}

func checkSilence(s *session) {
	s.eachWay(func(from, to Conn) {
		s.must(to.SetReadDeadline(soon()), "SetReadDeadline")
		_, err := to.Read(make([]byte, 1))
		s.timedOut(err, "a Read of nothing")
		s.must(to.SetReadDeadline(time.Time{}), "SetReadDeadline")
		s.write(from, []byte("x"))
		s.read(to, []byte("x"))
	})
}

func checkCloseReadUnblocks(s *session) {
	s.eachWay(func(from, _ Conn) {
		done := make(chan struct{})
		s.spawn(func() {
			defer close(done)
			n, err := from.Read(make([]byte, 1))
			s.that(n == 0 && err == io.EOF, "the blocked Read gives %d, %v", n, err)
		})
		s.must(from.CloseRead(), "CloseRead")
		<-done
	})
}

func checkCloseWriteUnblocks(s *session) {
	s.eachWay(func(from, to Conn) {
		done := make(chan struct{})
		b := pattern(16<<20, 31)
		s.spawn(func() {
			defer close(done)
			n, err := from.Write(b)
			s.that(n < len(b), "%d bytes are written although one was read", n)
			s.is(err, "the blocked Write", syscall.EPIPE)
		})
		s.read(to, b[:1]) // it has begun, and no ring holds the rest
		s.must(from.CloseWrite(), "CloseWrite")
		<-done
	})
}

func checkBothClose(s *session) {
	for range 20 {
		dialed, accepted := s.connect()
		var wg sync.WaitGroup
		for _, c := range []Conn{dialed, accepted} {
			wg.Add(1)
			s.spawn(func() {
				defer wg.Done()
				s.must(c.Close(), "Close")
			})
		}
		wg.Wait()
	}
}

func checkConcurrentClose(s *session) {
	s.eachWay(func(from, to Conn) {
		var closed atomic.Int32
		var wg sync.WaitGroup
		for range 8 {
			wg.Add(1)
			s.spawn(func() {
				defer wg.Done()
				if err := from.Close(); err == nil {
					closed.Add(1)
				} else {
					s.is(err, "another Close", net.ErrClosed)
				}
			})
		}
		wg.Wait()
		s.that(closed.Load() >= 1, "no Close succeeds")
		s.eof(to)
	})
}

func checkFINBehindData(s *session) {
	s.eachWay(func(from, to Conn) {
		s.write(from, []byte("data"))
		s.end(from)
		b := make([]byte, 100) // more than there is: one Read may meet both
		n, err := io.ReadFull(to, b[:4])
		s.that(n == 4 && err == nil, "the data gives %d, %v", n, err)
		s.eof(to)
	})
}

func checkCloseAfterCloseWrite(s *session) {
	s.eachWay(func(from, to Conn) {
		s.write(from, []byte("x"))
		s.must(from.CloseWrite(), "CloseWrite")
		s.must(from.CloseWrite(), "CloseWrite again")
		s.must(from.Close(), "Close")
		s.readAll(to, []byte("x"))
		s.eof(to)
	})
}

func checkShutdownBoth(s *session) {
	s.eachWay(func(from, to Conn) {
		s.must(from.CloseRead(), "CloseRead")
		s.must(from.CloseWrite(), "CloseWrite")
		n, err := from.Read(make([]byte, 1))
		s.that(n == 0 && err == io.EOF, "Read gives %d, %v", n, err)
		_, err = from.Write([]byte{1})
		s.is(err, "Write", syscall.EPIPE)
		s.must(from.Close(), "Close")
		s.eof(to)
	})
}

func checkCloseUnused(s *session) {
	s.eachWay(func(from, to Conn) {
		s.must(from.Close(), "Close")
		s.eof(to)
	})
}
