package main

import (
	"errors"
	"io"
	"regexp"
)

const (
	copyBytes        = 64 << 20
	copyMessageBytes = 16 << 10
)

// A source gives copyBytes bytes in messages, and has no WriteTo.
type source struct {
	left    int
	message [copyMessageBytes]byte
}

func (s *source) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), s.left)], s.message[:])
	s.left -= n
	return n, nil
}

// A sink counts, and has no ReadFrom.
type sink int

func (s *sink) Write(p []byte) (int, error) {
	*s += sink(len(p))
	return len(p), nil
}

// copyThrough copies a source to w and r to a sink at the same time.
func copyThrough(w io.WriteCloser, r io.ReadCloser) error {
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(w, &source{left: copyBytes})
		sent <- errors.Join(err, w.Close())
	}()
	var got sink
	_, err := io.Copy(&got, r)
	if err = errors.Join(err, <-sent, r.Close()); err != nil {
		return err
	}
	if got != copyBytes {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// openCopies: io.Copy into one end and out of the other, 16 KiB at a time.
func openCopies(only *regexp.Regexp) ([]candidate, error) {
	all, err := over([]string{hvlab5L, bufconn64, bufconn1M, tcpSocket, bare5, bare33}, func(t *transport) (candidate, error) {
		return candidate{
			run: func(n int) error {
				for range n {
					w, r, err := t.pair()
					if err != nil {
						return err
					}
					if err := copyThrough(w, r); err != nil {
						return err
					}
				}
				t.settle()
				return nil
			},
			close: t.close,
		}, nil
	})(only)
	if err != nil || !only.MatchString(ioPipe) {
		return all, err
	}
	return append(all, candidate{
		name: ioPipe,
		run: func(n int) error {
			for range n {
				r, w := io.Pipe()
				if err := copyThrough(w, r); err != nil {
					return err
				}
			}
			return nil
		},
		close: func() {},
	}), nil
}
