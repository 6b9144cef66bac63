package kerneltest

import (
	"encoding/binary"
	"fmt"
)

// A Pattern is an endless pseudo-random byte stream that both ends of a test can
// make from a seed, so that data is checked without sending it twice. Zero
// allocations; a few instructions a byte, since the guest may be emulated.
type Pattern struct {
	state uint64
	word  [8]byte
	left  int // unused bytes at the end of word
	At    int64
}

// NewPattern returns the stream of a seed.
func NewPattern(seed uint64) *Pattern { return &Pattern{state: seed} }

// next is splitmix64. Source: Steele, Lea, Flood, "Fast splittable pseudorandom
// number generators", 2014.
func (p *Pattern) next() uint64 {
	p.state += 0x9E3779B97F4A7C15
	z := p.state
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

// Read fills b; it never fails.
func (p *Pattern) Read(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		if p.left == 0 {
			if len(b) >= 8 {
				binary.LittleEndian.PutUint64(b, p.next())
				b = b[8:]
				continue
			}
			binary.LittleEndian.PutUint64(p.word[:], p.next())
			p.left = 8
		}
		m := copy(b, p.word[8-p.left:])
		p.left -= m
		b = b[m:]
	}
	p.At += int64(n)
	return n, nil
}

// Check compares b with the next bytes of the stream. The error is a *MismatchError.
func (p *Pattern) Check(b []byte) error {
	var want [512]byte
	for len(b) > 0 {
		n := min(len(b), len(want))
		from := p.At
		_, _ = p.Read(want[:n])
		for i := range n {
			if b[i] != want[i] {
				return &MismatchError{Offset: from + int64(i), Want: want[i], Got: b[i]}
			}
		}
		b = b[n:]
	}
	return nil
}

// A MismatchError reports the first byte that differs from the pattern.
type MismatchError struct {
	Offset    int64
	Want, Got byte
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("kerneltest: byte %d is %#02x, want %#02x", e.Offset, e.Got, e.Want)
}
