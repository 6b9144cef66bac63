package kerneltest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"
)

// A Stream is a connection that can be closed for writing alone, as every
// Hyper-V socket can.
type Stream interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// A Service is what one end of a connection does; the other end runs the
// exchange of the same name.
type Service string

// Services, and what Exchange does with each.
const (
	Echo    Service = "echo"    // serve: send back all until EOF. Exchange: send, half-close, check what returns
	Sum     Service = "sum"     // serve: read until EOF, answer with the SHA-256 in hex. Exchange: send, half-close, check it
	Source  Service = "source"  // serve: send the pattern, half-close, wait for EOF. Exchange: check until EOF
	Discard Service = "discard" // serve: read until EOF and close. Exchange: send and close
	Hold    Service = "hold"    // serve: neither read nor write until the listener stops. Exchange: connect and close
)

// bufferBytes is the size of one read or write: larger than a ring of the
// default size, so that full rings occur.
const bufferBytes = 32 << 10

// A Job describes the data of an exchange or of the Source service.
type Job struct {
	Bytes int64
	Seed  uint64
}

// A Result tells how an exchange went.
type Result struct {
	Sent, Received int64
	Took           time.Duration
}

// An UnexpectedError reports an end of stream at the wrong place or a wrong sum.
type UnexpectedError struct {
	What string
}

func (e *UnexpectedError) Error() string { return "kerneltest: " + e.What }

// Serve provides a service on s and closes it. It returns nil when the peer
// behaved as the service expects.
func Serve(s Stream, service Service, job Job) error {
	defer s.Close()
	switch service {
	case Echo:
		if _, err := io.CopyBuffer(onlyWriter{s}, onlyReader{s}, make([]byte, bufferBytes)); err != nil {
			return err
		}
		return s.CloseWrite()
	case Sum:
		h := sha256.New()
		if _, err := io.CopyBuffer(h, onlyReader{s}, make([]byte, bufferBytes)); err != nil {
			return err
		}
		if _, err := io.WriteString(s, hex.EncodeToString(h.Sum(nil))); err != nil {
			return err
		}
		return s.CloseWrite()
	case Source:
		if _, err := Send(s, job); err != nil {
			return err
		}
		if err := s.CloseWrite(); err != nil {
			return err
		}
		_, err := io.CopyBuffer(io.Discard, onlyReader{s}, make([]byte, bufferBytes))
		return err
	case Discard:
		_, err := io.CopyBuffer(io.Discard, onlyReader{s}, make([]byte, bufferBytes))
		return err
	}
	return &UnexpectedError{fmt.Sprintf("unknown service %q", service)}
}

// Exchange runs the client's half of a service on s and closes it.
func Exchange(s Stream, service Service, job Job) (Result, error) {
	start := time.Now()
	r, err := exchange(s, service, job)
	if closeErr := s.Close(); err == nil {
		err = closeErr
	}
	r.Took = time.Since(start)
	return r, err
}

func exchange(s Stream, service Service, job Job) (r Result, err error) {
	switch service {
	case Echo:
		return echo(s, job)
	case Sum:
		h := sha256.New()
		if r.Sent, err = send(s, job, h); err != nil {
			return r, err
		}
		if err = s.CloseWrite(); err != nil {
			return r, err
		}
		answer, err := io.ReadAll(io.LimitReader(s, 2*sha256.Size+1))
		r.Received = int64(len(answer))
		if want := hex.EncodeToString(h.Sum(nil)); err == nil && string(answer) != want {
			err = &UnexpectedError{fmt.Sprintf("the peer's sum is %q, want %s", answer, want)}
		}
		return r, err
	case Source:
		r.Received, err = receive(s, job)
		return r, err
	case Discard:
		r.Sent, err = Send(s, job)
		return r, err
	case Hold:
		return r, nil
	}
	return r, &UnexpectedError{fmt.Sprintf("unknown exchange %q", service)}
}

// echo writes and reads at once: one after the other would stop when the rings
// of both directions are full.
func echo(s Stream, job Job) (r Result, err error) {
	type sent struct {
		n   int64
		err error
	}
	done := make(chan sent, 1)
	go func() {
		n, err := Send(s, job)
		if err == nil {
			err = s.CloseWrite()
		}
		done <- sent{n, err}
	}()
	r.Received, err = receive(s, job)
	if err != nil {
		_ = s.Close() // ends the writer too
	}
	w := <-done
	r.Sent = w.n
	return r, errors.Join(err, w.err)
}

// Send writes the job's pattern to w and returns how many bytes went through.
func Send(w io.Writer, job Job) (sent int64, err error) { return send(w, job, io.Discard) }

// send writes the job's pattern to w and to sum.
func send(w io.Writer, job Job, sum io.Writer) (sent int64, err error) {
	p := NewPattern(job.Seed)
	buf := make([]byte, bufferBytes)
	for sent < job.Bytes {
		b := buf[:min(int64(len(buf)), job.Bytes-sent)]
		_, _ = p.Read(b)
		_, _ = sum.Write(b)
		n, err := w.Write(b)
		sent += int64(n)
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// receive reads until EOF and checks that exactly the job's pattern arrives.
func receive(r io.Reader, job Job) (received int64, err error) {
	p := NewPattern(job.Seed)
	buf := make([]byte, bufferBytes)
	for {
		n, err := r.Read(buf)
		received += int64(n)
		if bad := p.Check(buf[:n]); bad != nil {
			return received, bad
		}
		switch {
		case errors.Is(err, io.EOF) && received != job.Bytes:
			return received, &UnexpectedError{fmt.Sprintf("EOF after %d bytes, want %d", received, job.Bytes)}
		case errors.Is(err, io.EOF):
			return received, nil
		case err != nil:
			return received, err
		case received > job.Bytes:
			return received, &UnexpectedError{fmt.Sprintf("%d bytes and no EOF, want %d", received, job.Bytes)}
		}
	}
}

// The wrappers hide ReadFrom and WriteTo, which would avoid the sockets' Read
// and Write under test.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)
