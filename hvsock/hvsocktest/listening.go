package hvsocktest

import (
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/hvlab/hvlab/hvsock"
)

var listenBehaviours = []Behaviour{
	{"AddressInUse", "hvsock.md 10", "a second listener on a service is EADDRINUSE", checkAddressInUse},
	{"ListenAgain", "hvsock.md 10", "a service is free again once its listener is closed", checkListenAgain},
	{"AcceptClosed", "hvsock.md 16, faults.md GO-01", "closing a listener ends its blocked Accepts with net.ErrClosed", checkAcceptClosed},
	{"AcceptDeadline", "hvsock.md 16", "a deadline ends Accept; moved on, Accept works", checkAcceptDeadline},
	{"ListenerCloseTwice", "hvsock.md 16", "the second Close of a listener is net.ErrClosed", checkListenerCloseTwice},
	{"ListenerCloseSpares", "hvsock.md 16", "accepted connections outlive their listener", checkListenerCloseSpares},
	{"ListenerCloseEndsQueued", "hvsock.md 7.4", "a connection nobody accepted ends with its listener", checkListenerCloseEndsQueued},
	{"DialAfterListenerClose", "hvsock.md 5.1, 5.2", "a closed listener is as good as none", checkDialAfterListenerClose},
	{"AcceptEnded", "hvsock.md 14", "a connection that ended in the queue is accepted, and delivers what it carried", checkAcceptEnded},
}

func checkAddressInUse(s *session) {
	bind, _ := s.tr.Service()
	l, err := s.tr.Listen(bind)
	s.must(err, "Listen")
	s.keep(l)
	second, err := s.tr.Listen(bind)
	if err == nil {
		s.keep(second)
	}
	s.is(err, "the second Listen", syscall.EADDRINUSE)
	var op *net.OpError
	s.that(errors.As(err, &op) && op.Op == "listen", "Listen's error %#v is no *net.OpError with Op listen", err)
}

func checkListenAgain(s *session) {
	bind, addr := s.tr.Service()
	for range 3 {
		l, err := s.tr.Listen(bind)
		s.must(err, "Listen")
		s.keep(l)
		dialed := s.dial(addr)
		accepted := s.accept(l)
		s.write(dialed, []byte("x"))
		s.read(accepted, []byte("x"))
		s.must(l.Close(), "closing the listener")
		if s.of(accepted).BindConflict == hvsock.BindConnected { // the connection holds it
			_, err := s.tr.Listen(bind)
			s.is(err, "Listen", syscall.EADDRINUSE)
			s.must(accepted.Close(), "Close")
		}
	}
}

func checkAcceptClosed(s *session) {
	l, _ := s.listen()
	for range 2 {
		s.spawn(func() {
			c, err := l.Accept()
			if err == nil {
				s.keep(c)
			}
			s.is(err, "the blocked Accept", net.ErrClosed)
		})
	}
	s.must(l.Close(), "closing the listener")
	_, err := l.Accept()
	s.is(err, "Accept after Close", net.ErrClosed)
	s.is(l.SetDeadline(time.Now()), "SetDeadline after Close", net.ErrClosed)
}

func checkAcceptDeadline(s *session) {
	l, addr := s.listen()
	s.must(l.SetDeadline(soon()), "SetDeadline")
	_, err := l.Accept()
	s.timedOut(err, "the blocked Accept")
	_, err = l.Accept()
	s.timedOut(err, "Accept after the deadline")
	s.must(l.SetDeadline(time.Time{}), "SetDeadline")
	dialed := s.dial(addr)
	accepted := s.accept(l)
	s.write(dialed, []byte("x"))
	s.read(accepted, []byte("x"))
}

func checkListenerCloseTwice(s *session) {
	l, _ := s.listen()
	s.must(l.Close(), "Close")
	s.is(l.Close(), "the second Close", net.ErrClosed)
}

func checkListenerCloseSpares(s *session) {
	l, addr := s.listen()
	dialed := s.dial(addr)
	accepted := s.accept(l)
	s.must(l.Close(), "closing the listener")
	s.write(dialed, []byte("x"))
	s.read(accepted, []byte("x"))
	s.write(accepted, []byte("y"))
	s.read(dialed, []byte("y"))
}

func checkListenerCloseEndsQueued(s *session) {
	l, addr := s.listen()
	dialed := s.dial(addr)
	s.must(l.Close(), "closing the listener")
	s.must(dialed.SetReadDeadline(time.Now().Add(patience/2)), "SetReadDeadline")
	n, err := dialed.Read(make([]byte, 1))
	s.that(n == 0 && (err == io.EOF || errors.Is(err, syscall.ECONNRESET)),
		"Read of the connection nobody accepted gives %d, %v; want its end", n, err)
}

func checkDialAfterListenerClose(s *session) {
	bind, addr := s.tr.Service()
	l, err := s.tr.Listen(bind)
	s.must(err, "Listen")
	s.must(l.Close(), "closing the listener")
	s.noListener(addr)
}

func checkAcceptEnded(s *session) {
	l, addr := s.listen()
	dialed := s.dial(addr)
	s.write(dialed, []byte("hello and goodbye"))
	s.must(dialed.Close(), "Close")
	accepted := s.accept(l)
	s.readAll(accepted, []byte("hello and goodbye"))
}
