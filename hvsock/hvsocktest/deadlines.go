package hvsocktest

import "time"

var deadlineBehaviours = []Behaviour{
	{"DeadlinePast", "hvsock.md 16", "a deadline in the past fails Reads and Writes at once, even if they could go on", checkDeadlinePast},
	{"DeadlineBlocked", "hvsock.md 16", "a deadline ends calls that are blocked already, also one set meanwhile", checkDeadlineBlocked},
	{"DeadlineRevives", "hvsock.md 16, faults.md I-DEADLINE", "after a deadline was moved on the connection works, and no byte is missing", checkDeadlineRevives},
	{"DeadlinePartialWrite", "hvsock.md 16", "a Write that its deadline ends says how much it wrote, and exactly that arrives", checkDeadlinePartialWrite},
	{"DeadlineOneDirection", "hvsock.md 16", "a read deadline does not touch Writes, nor a write deadline Reads", checkDeadlineOneDirection},
}

func checkDeadlinePast(s *session) {
	s.eachWay(func(from, to Conn) {
		s.write(to, []byte("there is data"))
		s.must(from.SetDeadline(past()), "SetDeadline")
		_, err := from.Read(make([]byte, 1))
		s.timedOut(err, "Read")
		_, err = from.Write([]byte("there is room"))
		s.timedOut(err, "Write")
	})
}

func checkDeadlineBlocked(s *session) {
	s.eachWay(func(from, _ Conn) {
		s.must(from.SetReadDeadline(soon()), "SetReadDeadline")
		_, err := from.Read(make([]byte, 1))
		s.timedOut(err, "the blocked Read")

		s.must(from.SetReadDeadline(time.Time{}), "SetReadDeadline")
		done := make(chan struct{})
		s.spawn(func() {
			defer close(done)
			_, err := from.Read(make([]byte, 1))
			s.timedOut(err, "the Read whose deadline came later")
		})
		s.must(from.SetReadDeadline(past()), "SetReadDeadline")
		<-done
	})
}

func checkDeadlineRevives(s *session) {
	s.eachWay(func(from, to Conn) {
		s.must(from.SetDeadline(past()), "SetDeadline")
		_, err := from.Read(make([]byte, 1))
		s.timedOut(err, "Read")
		_, err = from.Write([]byte("x"))
		s.timedOut(err, "Write")
		for _, t := range []time.Time{{}, time.Now().Add(time.Hour)} {
			s.must(from.SetDeadline(past()), "SetDeadline")
			s.must(from.SetDeadline(t), "SetDeadline")
			s.write(from, []byte("hello"))
			s.read(to, []byte("hello"))
			s.write(to, []byte("world"))
			s.read(from, []byte("world"))
		}
	})
}

func checkDeadlinePartialWrite(s *session) {
	s.eachWay(func(from, to Conn) {
		want := pattern(4<<20, 12)
		s.must(from.SetWriteDeadline(soon()), "SetWriteDeadline")
		n, err := from.Write(want)
		s.timedOut(err, "a Write nobody reads")
		s.that(n < len(want), "Write reports %d bytes and an error", n)
		s.must(from.SetWriteDeadline(time.Time{}), "SetWriteDeadline")
		s.spawn(func() {
			s.write(from, want[n:])
			s.end(from)
		})
		s.readAll(to, want)
	})
}

func checkDeadlineOneDirection(s *session) {
	s.eachWay(func(from, to Conn) {
		s.must(from.SetReadDeadline(past()), "SetReadDeadline")
		s.write(from, []byte("ping"))
		s.read(to, []byte("ping"))
		s.must(from.SetReadDeadline(time.Time{}), "SetReadDeadline")
		s.must(from.SetWriteDeadline(past()), "SetWriteDeadline")
		s.write(to, []byte("pong"))
		s.read(from, []byte("pong"))
	})
}
