package hvsocktest

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hvlab/hvlab/hvsock"
)

var dialBehaviours = []Behaviour{
	{"NoListener", "hvsock.md 5.1, 5.2", "a dial nobody listens for is refused, or times out where no refusal exists", checkNoListener},
	{"DialDeadline", "hvsock.md 16", "a dial whose deadline has passed is os.ErrDeadlineExceeded", checkDialDeadline},
	{"DialCancelled", "hvsock.md 16", "a dial whose context is cancelled says so", checkDialCancelled},
	{"EstablishedWins", "faults.md I-ESTABLISHED-WINS", "once established, a connection outlives the context of its dial", checkEstablishedWins},
	{"ManyAtOnce", "hvsock.md 5", "connections made at once stay apart", checkManyAtOnce},
	{"DataBeforeAccept", "hvsock.md 5.2", "a connection carries data before anybody accepts it", checkDataBeforeAccept},
}

func checkNoListener(s *session) {
	_, addr := s.tr.Service()
	s.noListener(addr)
}

// noListener dials an address without a listener.
func (s *session) noListener(addr hvsock.Addr) {
	ctx, cancel := context.Background(), func() {}
	if s.tr.NeverRefuses {
		ctx, cancel = context.WithDeadline(ctx, soon())
	}
	defer cancel()
	c, err := s.tr.Dial(ctx, addr)
	if err == nil {
		s.keep(c)
	}
	if s.tr.NeverRefuses {
		s.is(err, "Dial", os.ErrDeadlineExceeded, syscall.ETIMEDOUT)
	} else {
		s.is(err, "Dial", syscall.ECONNREFUSED)
	}
	var op *net.OpError
	s.that(errors.As(err, &op) && op.Op == "dial" && op.Addr != nil, "Dial's error %#v is no *net.OpError with Op dial and Addr", err)
}

func checkDialDeadline(s *session) {
	_, addr := s.listen()
	ctx, cancel := context.WithDeadline(context.Background(), past())
	defer cancel()
	c, err := s.tr.Dial(ctx, addr)
	if err == nil {
		s.keep(c)
	}
	s.timedOut(err, "Dial")
}

func checkDialCancelled(s *session) {
	_, addr := s.listen()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	c, err := s.tr.Dial(ctx, addr)
	if err == nil {
		s.keep(c)
	}
	s.is(err, "Dial", context.Canceled)
}

func checkEstablishedWins(s *session) {
	l, addr := s.listen()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	dialed, err := s.tr.Dial(ctx, addr)
	s.must(err, "Dial")
	s.keep(dialed)
	accepted := s.accept(l)
	cancel()
	s.write(dialed, []byte("alive"))
	s.read(accepted, []byte("alive"))
	s.write(accepted, []byte("alive"))
	s.read(dialed, []byte("alive"))
}

func checkManyAtOnce(s *session) {
	const conns = 8
	l, addr := s.listen()
	s.spawn(func() {
		for range conns {
			c := s.accept(l)
			s.spawn(func() { // says back what it hears
				b := make([]byte, 3000)
				for {
					n, err := c.Read(b)
					if err != nil {
						_ = c.Close()
						return
					}
					s.write(c, b[:n])
				}
			})
		}
	})
	var wg sync.WaitGroup
	for i := range conns {
		wg.Add(1)
		s.spawn(func() {
			defer wg.Done()
			c := s.dial(addr)
			b := pattern(50_000, uint32(100+i))
			written := make(chan struct{})
			s.spawn(func() {
				defer close(written)
				s.write(c, b)
				s.must(c.CloseWrite(), "CloseWrite")
			})
			if s.of(c).NoHalfClose { // the other end learns nothing, and does not close
				s.read(c, b)
			} else {
				s.readAll(c, b)
			}
			<-written // all of it may be back before CloseWrite is called
			s.must(c.Close(), "Close")
		})
	}
	wg.Wait()
}

func checkDataBeforeAccept(s *session) {
	l, addr := s.listen()
	dialed := s.dial(addr)
	s.write(dialed, []byte("early"))
	s.end(dialed)
	accepted := s.accept(l)
	s.readAll(accepted, []byte("early"))
}
