package remote

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hvlab/hvlab/hvsock"
)

// Sockets are the functions that a Server lends: those of hvsock/native, or of a
// simulated host or guest.
type Sockets struct {
	Listen func(hvsock.Addr) (net.Listener, error)
	Dial   func(context.Context, hvsock.Addr) (net.Conn, error)
}

// maxRead is the most that one read of a client may ask for.
const maxRead = 1 << 20

// A server is one client's view of the sockets.
type server struct {
	sockets Sockets
	calls   sync.WaitGroup

	mu   sync.Mutex // guards what follows, and the encoder
	out  *gob.Encoder
	last uint64
	open map[uint64]io.Closer
}

// Serve obeys the client at the other end of c until that closes, then closes
// what the client has opened. The error is nil if the client just left.
func Serve(c io.ReadWriter, sockets Sockets) error {
	s := &server{sockets: sockets, out: gob.NewEncoder(c), open: map[uint64]io.Closer{}}
	defer s.calls.Wait()
	defer s.closeAll()
	in := gob.NewDecoder(c)
	for {
		var r request
		if err := in.Decode(&r); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		s.calls.Go(func() {
			answer, err := s.obey(r)
			answer.ID, answer.Fault = r.ID, newFault(err)
			s.mu.Lock()
			defer s.mu.Unlock()
			_ = s.out.Encode(answer) // a client that is gone wants no answer
		})
	}
}

func (s *server) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.open {
		_ = c.Close() // most are closed already
	}
}

// keep gives c a handle.
func (s *server) keep(c io.Closer) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	s.open[s.last] = c
	return s.last
}

// get is what a handle names. It stays known after Close, since calls on what is
// closed have an answer, too.
func get[T any](s *server, handle uint64) (T, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.open[handle].(T)
	if !ok {
		return c, fmt.Errorf("remote: handle %d is no %T", handle, *new(T))
	}
	return c, nil
}

// A halfCloser is a connection whose halves can be closed.
type halfCloser interface {
	net.Conn
	CloseRead() error
	CloseWrite() error
}

// obey carries out one request.
func (s *server) obey(r request) (response, error) {
	switch r.Op {
	case opListen:
		l, err := s.sockets.Listen(r.Addr)
		if err != nil {
			return response{}, err
		}
		return response{Handle: s.keep(l), Local: address(l.Addr())}, nil
	case opDial:
		ctx, cancel := r.Limit.context()
		defer cancel()
		c, err := s.sockets.Dial(ctx, r.Addr)
		return s.opened(c, err)
	case opAccept:
		l, err := get[net.Listener](s, r.Handle)
		if err != nil {
			return response{}, err
		}
		c, err := l.Accept()
		return s.opened(c, err)
	case opRead, opWrite, opCloseRead, opCloseWrite:
		c, err := get[halfCloser](s, r.Handle)
		if err != nil {
			return response{}, err
		}
		return transfer(c, r)
	case opClose:
		c, err := get[io.Closer](s, r.Handle)
		if err != nil {
			return response{}, err
		}
		return response{}, c.Close()
	case opDeadline:
		return response{}, s.setDeadline(r)
	}
	return response{}, fmt.Errorf("remote: unknown operation %d", r.Op)
}

// opened is the response to a new connection.
func (s *server) opened(c net.Conn, err error) (response, error) {
	if err != nil {
		return response{}, err
	}
	return response{Handle: s.keep(c), Local: address(c.LocalAddr()), Remote: address(c.RemoteAddr())}, nil
}

// address is a as a hvsock.Addr; other kinds do not travel.
func address(a net.Addr) hvsock.Addr {
	addr, _ := a.(hvsock.Addr)
	return addr
}

// transfer carries out what is done with one connection.
func transfer(c halfCloser, r request) (response, error) {
	switch r.Op {
	case opRead:
		b := make([]byte, min(max(r.Bytes, 0), maxRead))
		n, err := c.Read(b)
		return response{Data: b[:n]}, err
	case opWrite:
		n, err := c.Write(r.Data)
		return response{Bytes: n}, err
	case opCloseRead:
		return response{}, c.CloseRead()
	default:
		return response{}, c.CloseWrite()
	}
}

func (s *server) setDeadline(r request) error {
	t := r.Limit.time()
	if r.Read && r.Write {
		d, err := get[interface{ SetDeadline(time.Time) error }](s, r.Handle)
		if err != nil {
			return err
		}
		return d.SetDeadline(t)
	}
	c, err := get[net.Conn](s, r.Handle)
	switch {
	case err != nil:
		return err
	case r.Read:
		return c.SetReadDeadline(t)
	}
	return c.SetWriteDeadline(t)
}
