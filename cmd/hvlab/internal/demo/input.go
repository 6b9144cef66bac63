package demo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
)

// An Input is what the guest sends.
type Input struct {
	Name  string
	Bytes int64 // as announced; a file may have changed when it is read
	io.ReadCloser
}

// An InputError says in one sentence why a file cannot be sent.
type InputError struct {
	Name string
	Err  error
}

func (e *InputError) Error() string {
	switch {
	case errors.Is(e.Err, fs.ErrNotExist):
		return fmt.Sprintf("%s: there is no such file", e.Name)
	case errors.Is(e.Err, fs.ErrPermission):
		return fmt.Sprintf("%s: you may not read this file", e.Name)
	}
	return fmt.Sprintf("%s: %v", e.Name, e.Err)
}

// Unwrap returns the reason.
func (e *InputError) Unwrap() error { return e.Err }

// Reasons that the operating system would not give.
var (
	errDirectory  = errors.New("this is a directory, and the demo sends one file")
	errNotRegular = errors.New("this is not a regular file")
)

// Open opens a regular file. Errors are *InputError.
func Open(name string) (*Input, error) {
	info, err := os.Stat(name) // before opening: opening a named pipe would block
	if err != nil {
		return nil, &InputError{name, cause(err)}
	}
	switch {
	case info.IsDir():
		return nil, &InputError{name, errDirectory}
	case !info.Mode().IsRegular():
		return nil, &InputError{name, errNotRegular}
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, &InputError{name, cause(err)}
	}
	return &Input{Name: name, Bytes: info.Size(), ReadCloser: file{f}}, nil
}

// cause strips call and path, which InputError says itself.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// A file is an os.File whose read errors are *InputError, so that they cannot be
// taken for errors of the connection they are copied to.
type file struct{ *os.File }

func (f file) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	if err != nil && err != io.EOF {
		err = &InputError{f.Name(), cause(err)}
	}
	return n, err
}

// GeneratedBytes is the size of the file that is made up when none is named.
const GeneratedBytes = 64 << 20

// patternBytes is the period of a pattern, but for the number of each block.
const patternBytes = 64 << 10

// Generated returns bytes that are the same in every run with the same seed, and
// in which no two blocks of 64 KiB are equal: a lost, doubled or swapped packet
// changes the checksum.
func Generated(name string, bytes int64, seed uint64) *Input {
	p := &pattern{left: bytes}
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	_, _ = rand.NewChaCha8(key).Read(p.block[:]) // never fails
	return &Input{Name: name, Bytes: bytes, ReadCloser: p}
}

type pattern struct {
	block  [patternBytes]byte
	left   int64  // bytes still to come
	offset int    // in block
	number uint64 // of the block, in its first 8 bytes
}

func (p *pattern) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	if p.offset == 0 {
		binary.LittleEndian.PutUint64(p.block[:], p.number)
		p.number++
	}
	b = b[:min(int64(len(b)), p.left)]
	n := copy(b, p.block[p.offset:])
	p.offset = (p.offset + n) % patternBytes
	p.left -= int64(n)
	return n, nil
}

func (*pattern) Close() error { return nil }
