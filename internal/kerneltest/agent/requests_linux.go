package main

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hvlab/hvlab/internal/kerneltest"
)

// kernelLogBytes is more than any kernel's log buffer here holds.
const kernelLogBytes = 1 << 20

// do carries out one request.
func (s *server) do(q kerneltest.Request) (r kerneltest.Response, err error) {
	start := time.Now()
	defer func() { r.Millis = float64(time.Since(start).Microseconds()) / 1000 }()
	if q.CID == 0 {
		q.CID = hostCID
	}
	switch q.Op {
	case kerneltest.OpInfo:
		var u unix.Utsname
		err = unix.Uname(&u)
		r.Output = unix.ByteSliceToString(u.Release[:])
	case kerneltest.OpServe:
		err = s.serve(q.Port, q.Backlog, q.Service, kerneltest.Job{Bytes: q.Bytes, Seed: q.Seed})
	case kerneltest.OpListen:
		_, err = s.listen(q.Port, q.Backlog)
	case kerneltest.OpUnlisten:
		err = s.unlisten(q.Port)
	case kerneltest.OpAccept:
		r.Handle, err = s.accept(q)
	case kerneltest.OpDial:
		var c *socket
		if c, err = s.family.dialPort(q.CID, q.Port, q.Options); err == nil {
			r.Handle = s.keep(c)
		}
	case kerneltest.OpWrite, kerneltest.OpRead, kerneltest.OpShutdown, kerneltest.OpClose:
		return s.onSocket(q)
	case kerneltest.OpRun:
		return s.run(q)
	case kerneltest.OpLog:
		r.Output, err = kernelLog(q.Text)
	case kerneltest.OpExec:
		return execute(q.Args)
	case kerneltest.OpQuit:
		err = errQuit
	default:
		err = fmt.Errorf("unknown operation %q", q.Op)
	}
	return r, err
}

// unlisten closes a listener.
func (s *server) unlisten(port uint32) error {
	s.mu.Lock()
	l := s.listeners[port]
	delete(s.listeners, port)
	s.mu.Unlock()
	if l == nil {
		return fmt.Errorf("nobody listens on port %d", port)
	}
	l.stop()
	return nil
}

// accept takes one connection from a listener.
func (s *server) accept(q kerneltest.Request) (handle int, err error) {
	s.mu.Lock()
	l := s.listeners[q.Port]
	s.mu.Unlock()
	if l == nil {
		return 0, fmt.Errorf("nobody listens on port %d", q.Port)
	}
	c, err := l.accept(time.Duration(q.TimeoutMillis) * time.Millisecond)
	if err != nil {
		return 0, err
	}
	return s.keep(c), nil
}

// onSocket carries out a request on one socket.
func (s *server) onSocket(q kerneltest.Request) (r kerneltest.Response, err error) {
	start := time.Now()
	defer func() { r.Millis = float64(time.Since(start).Microseconds()) / 1000 }()
	c, err := s.socket(q.Handle)
	if err != nil {
		return r, err
	}
	job := kerneltest.Job{Bytes: q.Bytes, Seed: q.Seed}
	switch q.Op {
	case kerneltest.OpWrite:
		r.Bytes, err = kerneltest.Send(c, job)
	case kerneltest.OpRead:
		return read(c, q)
	case kerneltest.OpShutdown:
		how, known := map[string]int{"read": unix.SHUT_RD, "write": unix.SHUT_WR, "both": unix.SHUT_RDWR}[q.How]
		if !known {
			return r, fmt.Errorf("shutdown %q is not read, write or both", q.How)
		}
		err = c.shutdown(how)
	case kerneltest.OpClose:
		s.mu.Lock()
		delete(s.sockets, q.Handle)
		s.mu.Unlock()
		err = c.Close()
	}
	return r, err
}

// read reads up to q.Bytes bytes and checks them.
func read(c *socket, q kerneltest.Request) (r kerneltest.Response, err error) {
	deadline := time.Time{}
	if q.TimeoutMillis > 0 {
		deadline = time.Now().Add(time.Duration(q.TimeoutMillis) * time.Millisecond)
	}
	if err := c.f.SetReadDeadline(deadline); err != nil {
		return r, err
	}
	p := kerneltest.NewPattern(q.Seed)
	buf := make([]byte, 32<<10)
	for r.Bytes < q.Bytes {
		n, err := c.Read(buf[:min(int64(len(buf)), q.Bytes-r.Bytes)])
		r.Bytes += int64(n)
		if bad := p.Check(buf[:n]); bad != nil {
			return r, bad
		}
		if errors.Is(err, io.EOF) {
			r.EOF = true
			return r, nil
		}
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

// run connects q.Count times and runs the exchange of a service, q.Parallel at
// once. Exchange i uses the seed q.Seed + i.
func (s *server) run(q kerneltest.Request) (r kerneltest.Response, err error) {
	start := time.Now()
	defer func() { r.Millis = float64(time.Since(start).Microseconds()) / 1000 }()
	next := make(chan uint64)
	var mu sync.Mutex
	var workers sync.WaitGroup
	for range max(q.Parallel, 1) {
		workers.Go(func() {
			for i := range next {
				result, one := s.exchange(q, i)
				mu.Lock()
				r.Bytes += result.Sent + result.Received
				if one == nil {
					r.Done++
				} else {
					if r.Failed == nil {
						r.Failed = make(map[string]int)
					}
					r.Failed[one.Error()]++
					err = one
				}
				mu.Unlock()
			}
		})
	}
	for i := range uint64(max(q.Count, 1)) {
		next <- i
	}
	close(next)
	workers.Wait()
	if err != nil {
		err = fmt.Errorf("%d of %d exchanges failed, the last with: %w", max(q.Count, 1)-r.Done, max(q.Count, 1), err)
	}
	return r, err
}

// exchange is one connection of run.
func (s *server) exchange(q kerneltest.Request, i uint64) (kerneltest.Result, error) {
	c, err := s.family.dialPort(q.CID, q.Port, q.Options)
	if err != nil {
		return kerneltest.Result{}, err
	}
	return kerneltest.Exchange(c, q.Service, kerneltest.Job{Bytes: q.Bytes, Seed: q.Seed + i})
}

// kernelLog returns the lines of the kernel's log that contain text.
func kernelLog(text string) (string, error) {
	const readAll = 3 // SYSLOG_ACTION_READ_ALL
	buf := make([]byte, kernelLogBytes)
	n, err := unix.Klogctl(readAll, buf)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for line := range strings.Lines(string(buf[:n])) {
		if strings.Contains(line, text) {
			out.WriteString(line)
		}
	}
	return out.String(), nil
}

// execute runs a program; a status other than zero is no error.
func execute(args []string) (r kerneltest.Response, err error) {
	if len(args) == 0 {
		return r, errors.New("exec without a program")
	}
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	r.Output = string(out)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		r.Exit = exit.ExitCode()
		return r, nil
	}
	return r, err
}
