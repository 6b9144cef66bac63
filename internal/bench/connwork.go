package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
)

// readBytes is the buffer of a stream's reader: what a copy loop or a buffered
// reader would use, and enough for the largest message.
const readBytes = 64 << 10

// A stream is a connection with a reader that reads as much as it is told to.
type stream struct {
	from, to net.Conn
	expect   chan int   // bytes
	done     chan error // one per expect
	message  []byte
}

func newStream(t *transport, messageBytes int) (*stream, error) {
	from, to, err := t.pair()
	if err != nil {
		return nil, err
	}
	s := &stream{from: from, to: to, expect: make(chan int, 1), done: make(chan error, 1), message: make([]byte, messageBytes)}
	go s.read()
	return s, nil
}

func (s *stream) read() {
	b := make([]byte, readBytes)
	for left := range s.expect {
		var err error
		for left > 0 && err == nil {
			var n int
			n, err = s.to.Read(b)
			left -= n
		}
		s.done <- err
	}
}

// start makes the reader expect n messages; send writes them; wait is for the
// reader to have them all.
func (s *stream) start(n int) { s.expect <- n * len(s.message) }

func (s *stream) send(n int) error {
	for range n {
		if _, err := s.from.Write(s.message); err != nil {
			return err
		}
	}
	return nil
}

func (s *stream) wait() error { return <-s.done }

func (s *stream) close() {
	close(s.expect)
	_, _ = s.from.Close(), s.to.Close()
}

// openStream: one way, one message after another.
func openStream(t *transport, messageBytes int) (candidate, error) {
	s, err := newStream(t, messageBytes)
	if err != nil {
		return candidate{}, err
	}
	return candidate{
		run: func(n int) error {
			s.start(n)
			if err := s.send(n); err != nil {
				return err
			}
			return s.wait()
		},
		close: func() { s.close(); t.close() },
	}, nil
}

// openPingPong: 64 bytes there and 64 back.
func openPingPong(t *transport) (candidate, error) {
	here, there, err := t.pair()
	if err != nil {
		return candidate{}, err
	}
	go func() {
		var b [64]byte
		for {
			if _, err := io.ReadFull(there, b[:]); err != nil {
				return
			}
			if _, err := there.Write(b[:]); err != nil {
				return
			}
		}
	}()
	b := make([]byte, 64)
	return candidate{
		run: func(n int) error {
			for range n {
				if _, err := here.Write(b); err != nil {
					return err
				}
				if _, err := io.ReadFull(here, b); err != nil {
					return err
				}
			}
			return nil
		},
		close: func() { _, _ = here.Close(), there.Close(); t.close() },
	}, nil
}

// openSetup: dial, accept, close both ends, and whatever that leaves to do.
func openSetup(t *transport) (candidate, error) {
	accepted := make(chan net.Conn, 1)
	go func() {
		defer close(accepted)
		for t.name != netPipe { // accepting a pipe needs no second goroutine
			c, err := t.accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	once := func() error {
		c, err := t.dial()
		if err != nil {
			return err
		}
		var peer net.Conn
		if t.name == netPipe {
			peer, _ = t.accept()
		} else {
			peer = <-accepted
		}
		if peer == nil {
			return errors.New("the listener is gone")
		}
		return errors.Join(c.Close(), peer.Close())
	}
	return candidate{
		run: func(n int) error {
			for range n {
				if err := once(); err != nil {
					return err
				}
			}
			t.settle()
			return nil
		},
		close: t.close,
	}, nil
}

// manyConnections are open at once, through one guest.
const manyConnections = 100

// openMany: an operation is 100 messages of 4 KiB, over one connection or one
// over each of 100. The latter have a writer and a reader each.
func openMany(only *regexp.Regexp) ([]candidate, error) {
	var all []candidate
	for _, connections := range []int{1, manyConnections} {
		c, err := over([]string{hvlab33, hvlab5L, hvlab33L, bufconn64, bufconn1M, tcpSocket, netPipe, bare5, bare33}, func(t *transport) (candidate, error) {
			return openConnections(t, connections)
		})(only)
		if err != nil {
			return nil, err
		}
		for _, c := range c {
			c.name = fmt.Sprintf("%s x%d", c.name, connections)
			all = append(all, c)
		}
	}
	return all, nil
}

func openConnections(t *transport, connections int) (candidate, error) {
	var streams []*stream
	sent := make(chan error, connections)
	for range connections {
		s, err := newStream(t, 4096)
		if err != nil {
			return candidate{}, err
		}
		streams = append(streams, s)
	}
	return candidate{
		run: func(n int) error {
			messages := n * manyConnections / connections
			for _, s := range streams {
				s.start(messages)
				go func() { sent <- s.send(messages) }()
			}
			var errs []error
			for _, s := range streams {
				errs = append(errs, <-sent, s.wait())
			}
			return errors.Join(errs...)
		},
		close: func() {
			for _, s := range slices.Backward(streams) {
				s.close()
			}
			t.close()
		},
	}, nil
}
