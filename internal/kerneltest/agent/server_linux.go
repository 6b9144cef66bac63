package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hvlab/hvlab/internal/kerneltest"
)

const (
	hostCID        = unix.VMADDR_CID_HOST
	defaultBacklog = 128

	// The host may attach to the guest only after the agent started.
	controlTries = 100
	controlPause = 100 * time.Millisecond
)

// A server is the agent's state: its sockets.
type server struct {
	family family

	mu        sync.Mutex
	listeners map[uint32]*service
	sockets   map[int]*socket
	last      int
	tasks     sync.WaitGroup
}

// A service is a listener and the connections it holds.
type service struct {
	*listener
	mu   sync.Mutex
	held []*socket
}

func newServer(f family) *server {
	return &server{family: f, listeners: make(map[uint32]*service), sockets: make(map[int]*socket)}
}

// close closes all sockets and waits for the goroutines that use them.
func (s *server) close() {
	s.mu.Lock()
	for _, l := range s.listeners {
		l.stop()
	}
	for _, c := range s.sockets {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.tasks.Wait()
}

// stop closes a listener and what it holds.
func (l *service) stop() {
	_ = l.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.held {
		_ = c.Close()
	}
	l.held = nil
}

// controlConnection makes the connection that requests come over.
func (s *server) controlConnection(r role) (*socket, error) {
	if r.name == "control-listen" {
		l, err := s.family.listenPort(r.port, 1)
		if err != nil {
			return nil, err
		}
		defer l.Close()
		return l.accept(0)
	}
	var err error
	for range controlTries {
		var c *socket
		if c, err = s.family.dialPort(hostCID, r.port, nil); err == nil {
			return c, nil
		}
		if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, err // no Hyper-V sockets on this bus: VMBus before 4.0
		}
		time.Sleep(controlPause)
	}
	return nil, err
}

// errQuit ends obey.
var errQuit = errors.New("quit")

// obey carries out requests until the host says quit or closes the connection.
func (s *server) obey(c io.ReadWriteCloser) error {
	defer c.Close()
	requests := json.NewDecoder(c)
	var writing sync.Mutex
	for {
		var q kerneltest.Request
		if err := requests.Decode(&q); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		answer := func() {
			r, err := s.do(q)
			r.ID = q.ID
			describe(&r, err)
			line, _ := json.Marshal(r)
			writing.Lock()
			defer writing.Unlock()
			_, _ = c.Write(append(line, '\n'))
		}
		if q.Op == kerneltest.OpQuit {
			answer()
			return nil
		}
		s.tasks.Go(answer)
	}
}

// describe puts an error into a response.
func describe(r *kerneltest.Response, err error) {
	if err == nil || errors.Is(err, errQuit) {
		return
	}
	r.Error, r.Errno = err.Error(), errnoName(err)
}

// errnoName is the symbolic name of the errno in err, or "".
func errnoName(err error) string {
	var errno unix.Errno
	switch {
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "ETIMEDOUT"
	case errors.Is(err, fs.ErrClosed):
		return "EBADF"
	}
	return ""
}

// listen opens a listening socket under its port.
func (s *server) listen(port uint32, backlog int) (*service, error) {
	if backlog == 0 {
		backlog = defaultBacklog
	}
	l, err := s.family.listenPort(port, backlog)
	if err != nil {
		return nil, err
	}
	sv := &service{listener: l}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners[port] = sv
	return sv, nil
}

// serve provides a service on port until unlisten.
func (s *server) serve(port uint32, backlog int, kind kerneltest.Service, job kerneltest.Job) error {
	l, err := s.listen(port, backlog)
	if err != nil {
		return err
	}
	s.tasks.Go(func() {
		for {
			c, err := l.accept(0)
			if err != nil {
				return // closed by unlisten
			}
			if kind == kerneltest.Hold {
				l.mu.Lock()
				l.held = append(l.held, c)
				l.mu.Unlock()
				continue
			}
			s.tasks.Go(func() {
				if err := kerneltest.Serve(c, kind, job); err != nil {
					fmt.Printf("agent: %s on port %d: %v\n", kind, port, err)
				}
			})
		}
	})
	return nil
}

// keep gives a socket a handle.
func (s *server) keep(c *socket) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	s.sockets[s.last] = c
	return s.last
}

// socket finds a socket by its handle.
func (s *server) socket(handle int) (*socket, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.sockets[handle]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("no socket has handle %d", handle)
}
