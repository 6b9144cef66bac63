package hvsocktest

import (
	"bytes"
	"sync"

	"github.com/hvlab/hvlab/hvsock"
)

var streamBehaviours = []Behaviour{
	{"Echo", "hvsock.md 6", "bytes written at one end are read at the other, in both directions", checkEcho},
	{"BigTransfer", "hvsock.md 6, I-STREAM", "megabytes cross both directions at once, none lost, doubled or reordered", checkBigTransfer},
	{"SmallWrites", "hvsock.md 6", "message boundaries mean nothing: many small writes are one stream", checkSmallWrites},
	{"WriteSizes", "hvsock.md 6, faults.md HV-15", "a Write of any size is taken whole", checkWriteSizes},
	{"ShortReads", "hvsock.md 6", "a Read into a short buffer leaves the rest for the next", checkShortReads},
	{"EmptyWrite", "hvsock.md 6", "an empty Write sends nothing; in particular it is no end of stream", checkEmptyWrite},
	{"EmptyRead", "hvsock.md 16", "an empty Read returns 0, nil at once", checkEmptyRead},
	{"WritesStayTogether", "hvsock.md 16", "the bytes of concurrent Writes do not mix", checkContiguous},
	{"BothFull", "faults.md L-NO-DEADLOCK", "two ends that both write first and read later finish", checkBothFull},
	{"Addresses", "hvsock.md 16", "both addresses are known, agree on the service, and outlive Close", checkAddresses},
}

func checkEcho(s *session) {
	s.eachWay(func(from, to Conn) {
		for i := range 10 {
			b := pattern(1+i*100, uint32(i))
			s.write(from, b)
			s.read(to, b)
			s.write(to, b)
			s.read(from, b)
		}
	})
}

func checkBigTransfer(s *session) {
	dialed, accepted := s.connect()
	there, back := pattern(4<<20, 1), pattern(3<<20, 2)
	send := func(c Conn, b []byte) {
		for len(b) > 0 {
			n := min(len(b), 70000)
			s.write(c, b[:n])
			b = b[n:]
		}
		s.must(c.CloseWrite(), "CloseWrite")
	}
	s.spawn(func() { send(dialed, there) })
	s.spawn(func() { send(accepted, back) })
	var wg sync.WaitGroup
	wg.Add(1)
	s.spawn(func() {
		defer wg.Done()
		s.ended(accepted, dialed, back)
	})
	s.ended(dialed, accepted, there)
	wg.Wait()
}

func checkSmallWrites(s *session) {
	s.eachWay(func(from, to Conn) {
		want := pattern(5000, 3)
		s.spawn(func() {
			for i := 0; i < len(want); i += 5 {
				s.write(from, want[i:i+5])
			}
		})
		s.read(to, want)
	})
}

func checkWriteSizes(s *session) {
	s.eachWay(func(from, to Conn) {
		// Around what implementations put into one packet, and the most that a
		// packet may carry.
		for _, size := range []int{1, 2047, 2048, 2049, 4087, 4088, 4089, 8192, 8193, 16384, 16385, 1 << 20} {
			b := pattern(size, uint32(size))
			s.spawn(func() { s.write(from, b) })
			s.read(to, b)
		}
	})
}

func checkShortReads(s *session) {
	s.eachWay(func(from, to Conn) {
		want := pattern(1000, 4)
		s.write(from, want)
		for i := 0; i < len(want); i += 8 {
			s.read(to, want[i:i+8])
		}
	})
}

func checkEmptyWrite(s *session) {
	s.eachWay(func(from, to Conn) {
		s.write(from, nil)
		s.write(from, []byte{})
		s.write(from, []byte("after"))
		s.read(to, []byte("after"))
	})
}

func checkEmptyRead(s *session) {
	s.eachWay(func(from, to Conn) {
		empty := func(when string) {
			n, err := to.Read(nil)
			s.that(n == 0 && err == nil, "an empty Read gives %d, %v %s", n, err, when)
		}
		empty("when nothing has arrived")
		s.write(from, []byte("x"))
		empty("when something has")
		s.read(to, []byte("x"))
	})
}

func checkContiguous(s *session) {
	s.eachWay(func(from, to Conn) {
		const writers, size = 4, 40000
		var wg sync.WaitGroup
		for i := range writers {
			wg.Add(1)
			s.spawn(func() {
				defer wg.Done()
				s.write(from, bytes.Repeat([]byte{byte(i + 1)}, size))
			})
		}
		for range writers {
			var first [1]byte
			_, err := to.Read(first[:])
			s.must(err, "Read")
			s.read(to, bytes.Repeat(first[:], size-1))
		}
		wg.Wait()
	})
}

func checkBothFull(s *session) {
	dialed, accepted := s.connect()
	b := pattern(1<<20, 5)
	for _, c := range []Conn{dialed, accepted} {
		s.spawn(func() { s.write(c, b) })
	}
	// The reads begin only when neither end can write on alone: after the first
	// byte of each direction a megabyte follows, which no ring holds.
	s.read(dialed, b[:1])
	s.read(accepted, b[:1])
	s.spawn(func() { s.read(dialed, b[1:]) })
	s.read(accepted, b[1:])
}

func checkAddresses(s *session) {
	l, addr := s.listen()
	dialed := s.dial(addr)
	accepted := s.accept(l)
	for _, when := range []string{"while it is open", "after Close"} {
		for _, c := range []Conn{dialed, accepted} {
			s.that(c.LocalAddr() != nil && c.RemoteAddr() != nil, "%s an address is nil", when)
		}
		if remote, ok := dialed.RemoteAddr().(hvsock.Addr); ok {
			s.that(remote.ServiceID == addr.ServiceID, "%s the dialer's remote service is %v, not %v", when, remote.ServiceID, addr.ServiceID)
		}
		if local, ok := accepted.LocalAddr().(hvsock.Addr); ok {
			s.that(local.ServiceID == addr.ServiceID, "%s the acceptor's local service is %v, not %v", when, local.ServiceID, addr.ServiceID)
		}
		s.that(l.Addr() != nil, "%s the listener's address is nil", when)
		_ = dialed.Close()
		_ = accepted.Close()
		_ = l.Close()
	}
}
