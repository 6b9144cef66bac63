package hvsocktest

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock"
)

// Connections that wait to be accepted, and services next to each other.
var queueBehaviours = []Behaviour{
	{"AcceptOrder", "hvsock.md 5.2", "connections are accepted in the order of their dials", checkAcceptOrder},
	{"BacklogHolds", "hvsock.md 8", "ten connections wait for Accept with what they carry", checkBacklogHolds},
	{"ConcurrentAccepts", "hvsock.md 16", "each of several Accepts gets a connection of its own", checkConcurrentAccepts},
	{"AcceptDeadlinePast", "hvsock.md 16", "a deadline in the past fails Accept, even if a connection waits", checkAcceptDeadlinePast},
	{"ListenerAfterClose", "hvsock.md 16", "after Close, Accept and SetDeadline of a listener are net.ErrClosed", checkListenerAfterClose},
	{"ListenerAddr", "hvsock.md 16", "a listener's address names its service", checkListenerAddr},
	{"AutomaticPort", "hvsock.md 2.6", "a listener without a service gets one that can be dialed", checkAutomaticPort},
	{"TwoServices", "hvsock.md 4", "services next to each other do not mix", checkTwoServices},
	{"OwnEndpoints", "hvsock.md 5, 14", "two connections to one service have different ends of their own", checkOwnEndpoints},
	{"DialThenListen", "hvsock.md 5, 14", "a dial that failed does not disturb the next one", checkDialThenListen},
	{"DialCancelledMidway", "hvsock.md 16", "cancelling its context ends a dial that waits", checkDialCancelledMidway},
	{"OneAfterTheOther", "hvsock.md 5, 7", "a hundred connections one after the other all work", checkOneAfterTheOther},
}

func checkAcceptOrder(s *session) {
	l, addr := s.listen()
	for i := range 5 {
		s.write(s.dial(addr), []byte{byte(i)})
	}
	for i := range 5 {
		s.read(s.accept(l), []byte{byte(i)})
	}
}

func checkBacklogHolds(s *session) {
	l, addr := s.listen()
	for i := range 10 {
		c := s.dial(addr)
		s.write(c, pattern(500, uint32(40+i)))
		s.must(c.Close(), "Close")
	}
	for i := range 10 {
		s.readAll(s.accept(l), pattern(500, uint32(40+i)))
	}
}

func checkConcurrentAccepts(s *session) {
	const accepts = 4
	l, addr := s.listen()
	var wg sync.WaitGroup
	for range accepts {
		wg.Add(1)
		s.spawn(func() {
			defer wg.Done()
			c := s.accept(l)
			s.write(c, []byte("hello"))
		})
	}
	for range accepts {
		s.read(s.dial(addr), []byte("hello"))
	}
	wg.Wait()
}

func checkAcceptDeadlinePast(s *session) {
	l, addr := s.listen()
	dialed := s.dial(addr)
	s.must(l.SetDeadline(past()), "SetDeadline")
	_, err := l.Accept()
	s.timedOut(err, "Accept")
	s.must(l.SetDeadline(time.Time{}), "SetDeadline")
	s.write(s.accept(l), []byte("x"))
	s.read(dialed, []byte("x"))
}

func checkListenerAfterClose(s *session) {
	l, _ := s.listen()
	s.must(l.Close(), "Close")
	_, err := l.Accept()
	s.is(err, "Accept", net.ErrClosed)
	s.is(l.SetDeadline(soon()), "SetDeadline", net.ErrClosed)
}

func checkListenerAddr(s *session) {
	l, addr := s.listen()
	got, ok := l.Addr().(hvsock.Addr)
	if !ok {
		s.that(l.Addr() != nil && l.Addr().String() != "", "the listener has no address")
		return
	}
	s.that(got.ServiceID == addr.ServiceID, "the listener's service is %v, not %v", got.ServiceID, addr.ServiceID)
}

func checkAutomaticPort(s *session) {
	bind, addr := s.tr.Service()
	bind.ServiceID = uuid.Nil
	l, err := s.tr.Listen(bind)
	s.must(err, "Listen")
	s.keep(l)
	got, ok := l.Addr().(hvsock.Addr)
	if !ok { // the suite cannot dial the transport's own kind of address
		s.that(l.Addr() != nil, "the listener has no address")
		return
	}
	s.that(got.ServiceID != uuid.Nil, "the listener's address is %v", got)
	addr.ServiceID = got.ServiceID
	dialed := s.dial(addr)
	s.write(s.accept(l), []byte("x"))
	s.read(dialed, []byte("x"))
}

func checkTwoServices(s *session) {
	l1, addr1 := s.listen()
	l2, addr2 := s.listen()
	c2, c1 := s.dial(addr2), s.dial(addr1)
	s.write(s.accept(l1), []byte("one"))
	s.write(s.accept(l2), []byte("two"))
	s.read(c1, []byte("one"))
	s.read(c2, []byte("two"))
}

func checkOwnEndpoints(s *session) {
	l, addr := s.listen()
	a, b := s.dial(addr), s.dial(addr)
	c, d := s.accept(l), s.accept(l)
	s.that(a.LocalAddr().String() != b.LocalAddr().String(), "both dial from %v", a.LocalAddr())
	s.write(a, []byte("a"))
	s.write(b, []byte("b"))
	s.read(c, []byte("a"))
	s.read(d, []byte("b"))
}

func checkDialThenListen(s *session) {
	bind, addr := s.tr.Service()
	ctx, cancel := context.WithDeadline(context.Background(), soon())
	defer cancel()
	c, err := s.tr.Dial(ctx, addr)
	if err == nil {
		s.keep(c)
	}
	s.that(err != nil, "a Dial that nobody listens for succeeds")
	l, err := s.tr.Listen(bind)
	s.must(err, "Listen")
	s.keep(l)
	dialed := s.dial(addr)
	s.write(s.accept(l), []byte("x"))
	s.read(dialed, []byte("x"))
}

func checkDialCancelledMidway(s *session) {
	_, addr := s.tr.Service()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if s.tr.NeverRefuses {
		time.AfterFunc(time.Until(soon()), cancel)
	}
	c, err := s.tr.Dial(ctx, addr)
	if err == nil {
		s.keep(c)
	}
	if s.tr.NeverRefuses {
		s.is(err, "Dial", context.Canceled)
		s.that(!errors.Is(err, os.ErrDeadlineExceeded), "a cancelled Dial is no timeout: %v", err)
	} else {
		s.is(err, "Dial", syscall.ECONNREFUSED) // there is nothing to wait for
	}
}

func checkOneAfterTheOther(s *session) {
	l, addr := s.listen()
	for i := range 100 {
		dialed := s.dial(addr)
		accepted := s.accept(l)
		s.write(dialed, []byte{byte(i)})
		s.must(dialed.Close(), "Close")
		s.readAll(accepted, []byte{byte(i)})
		s.must(accepted.Close(), "Close")
	}
}
