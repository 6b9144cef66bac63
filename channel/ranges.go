package channel

import (
	"fmt"

	"github.com/hvlab/hvlab/vmbus"
)

const pageBytes = 4096

// A Range is one range of a GPADL: ByteCount bytes that start ByteOffset bytes
// into the first of PFNs. Source: vmbus-control.md 4.1.
type Range struct {
	ByteCount, ByteOffset uint32
	PFNs                  []uint64
}

// A RangeError reports a range buffer that does not describe what it promises.
type RangeError struct {
	Range  int // index of the bad range
	Word   int // offset in the range buffer, in 8-byte words
	Reason string
}

func (e *RangeError) Error() string {
	return fmt.Sprintf("channel: GPADL range %d at word %d: %s", e.Range, e.Word, e.Reason)
}

// Is makes a RangeError match vmbus.ErrProtocol: it is the peer's fault.
func (e *RangeError) Is(target error) bool { return target == vmbus.ErrProtocol }

// ParseRanges splits a complete range buffer into count ranges. Words beyond
// the last range are ignored; the PFNs alias words. A buffer without ranges, an
// empty range, an offset above 0xFFF, a 32-bit overflow and a short page list
// are *RangeErrors. Nothing is allocated in proportion to a declared count.
func ParseRanges(words []uint64, count int) ([]Range, error) {
	if count == 0 {
		return nil, &RangeError{Reason: "there are no ranges"}
	}
	ranges := make([]Range, 0, min(count, len(words)))
	at := 0
	for i := range count {
		if at >= len(words) {
			return nil, &RangeError{i, at, fmt.Sprintf("the buffer ends, %d ranges were promised", count)}
		}
		r := Range{ByteCount: uint32(words[at]), ByteOffset: uint32(words[at] >> 32)}
		pages, err := r.Pages()
		if err != nil {
			return nil, &RangeError{i, at, err.Error()}
		}
		if pages > len(words)-at-1 {
			return nil, &RangeError{i, at, fmt.Sprintf("needs %d page numbers, %d words are left", pages, len(words)-at-1)}
		}
		r.PFNs = words[at+1 : at+1+pages : at+1+pages]
		ranges = append(ranges, r)
		at += 1 + pages
	}
	return ranges, nil
}

// Pages returns how many pages the range touches, as many as it must have PFNs.
// A range no host accepts is an error that says why.
func (r Range) Pages() (int, error) {
	sum := uint64(r.ByteCount) + uint64(r.ByteOffset) + pageBytes - 1
	switch {
	case r.ByteCount == 0:
		return 0, fmt.Errorf("byte count is 0")
	case r.ByteOffset >= pageBytes:
		return 0, fmt.Errorf("byte offset %#x is above 0xfff", r.ByteOffset)
	case sum > 1<<32-1:
		return 0, fmt.Errorf("%#x bytes at offset %#x overflow 32 bits", r.ByteCount, r.ByteOffset)
	}
	return int(sum / pageBytes), nil
}

// AppendRanges encodes ranges as range buffer words.
func AppendRanges(dst []uint64, ranges ...Range) []uint64 {
	for _, r := range ranges {
		dst = append(dst, uint64(r.ByteOffset)<<32|uint64(r.ByteCount))
		dst = append(dst, r.PFNs...)
	}
	return dst
}

// A SizeError reports a GPADL too large to be announced.
type SizeError struct {
	Bytes int // of the range buffer
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("channel: a GPADL of %d range buffer bytes does not fit, the limit is %d", e.Bytes, MaxRangeBufferBytes)
}

// Is makes a SizeError match vmbus.ErrState: the caller asked for it.
func (e *SizeError) Is(target error) bool { return target == vmbus.ErrState }

// words that fit behind the fixed part of one message (vmbus-control.md 4.2).
const (
	headerWords = (vmbus.MaxPayloadBytes - 20) / 8
	bodyWords   = (vmbus.MaxPayloadBytes - 16) / 8
)

// An Announcement is one message of a GPADL: a GPADLHeader or GPADLBody and the
// words behind it.
type Announcement struct {
	Message vmbus.Message
	Words   []uint64
}

// Announce splits the range buffer of ranges over one header and as many bodies
// as it takes: 27 words in the header, 28 in each body.
func Announce(ch vmbus.ChannelID, id vmbus.GPADLID, ranges ...Range) ([]Announcement, error) {
	words := AppendRanges(nil, ranges...)
	if len(words)*8 > MaxRangeBufferBytes || len(ranges) > 0xFFFF {
		return nil, &SizeError{len(words) * 8}
	}
	n := min(headerWords, len(words))
	list := []Announcement{{
		Message: &vmbus.GPADLHeader{Channel: ch, GPADL: id, RangeBufLen: uint16(len(words) * 8), RangeCount: uint16(len(ranges))},
		Words:   words[:n],
	}}
	for words = words[n:]; len(words) > 0; words = words[n:] {
		n = min(bodyWords, len(words))
		list = append(list, Announcement{Message: &vmbus.GPADLBody{GPADL: id}, Words: words[:n]})
	}
	return list, nil
}
