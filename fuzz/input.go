package fuzz

import "encoding/binary"

// An input hands out a fuzzer's bytes. When they are used up it goes on with
// zeros, so every prefix of an input is an input.
type input struct{ left []byte }

func (in *input) more() bool { return len(in.left) > 0 }

// bytes returns the next n bytes, fewer at the end. They alias the input and
// must not be changed.
func (in *input) bytes(n int) []byte {
	n = min(n, len(in.left))
	b := in.left[:n:n]
	in.left = in.left[n:]
	return b
}

// block returns as many bytes as the byte before them says.
func (in *input) block() []byte { return in.bytes(int(in.u8())) }

func (in *input) u8() uint8 { return uint8(in.word(1)) }

func (in *input) u16() uint16 { return uint16(in.word(2)) }

func (in *input) u32() uint32 { return uint32(in.word(4)) }

func (in *input) u64() uint64 { return in.word(8) }

func (in *input) word(n int) uint64 {
	var b [8]byte
	copy(b[:], in.bytes(n))
	return binary.LittleEndian.Uint64(b[:])
}

// A seed builds an input; its methods mirror those of input.
type seed []byte

func (s seed) u8(v ...uint8) seed { return append(s, v...) }

func (s seed) u16(v uint16) seed { return binary.LittleEndian.AppendUint16(s, v) }

func (s seed) u32(v uint32) seed { return binary.LittleEndian.AppendUint32(s, v) }

func (s seed) u64(v uint64) seed { return binary.LittleEndian.AppendUint64(s, v) }

func (s seed) bytes(b []byte) seed { return append(s, b...) }

// block appends b behind its length; of a longer one the first 255 bytes.
func (s seed) block(b []byte) seed {
	b = b[:min(len(b), 255)]
	return append(append(s, byte(len(b))), b...)
}
