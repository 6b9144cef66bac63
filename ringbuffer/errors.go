package ringbuffer

import (
	"errors"
	"fmt"

	"github.com/hvlab/hvlab/vmbus"
)

// ErrEmpty says that no unread packet is in the ring: wait for a signal.
var ErrEmpty = errors.New("ringbuffer: empty")

// ErrFull says that the ring has no room now; every *FullError matches it.
var ErrFull = errors.New("ringbuffer: full")

// A CorruptKind says which rule of the ring the peer broke. The names are the
// ones OpenVMM's ring and the test vectors use.
type CorruptKind uint8

// Kinds of corruption. The comments say what the numbers in CorruptError are.
const (
	// InvalidRingPointer: an index is out of range, unaligned, or moved over
	// bytes its owner could not have used. Value: the index. Limit: data bytes.
	InvalidRingPointer CorruptKind = iota + 1
	// InvalidDataAvailable: fewer bytes than a descriptor are unread.
	// Value: bytes available. Limit: DescriptorBytes.
	InvalidDataAvailable
	// InvalidDescriptorLengths: 2 <= offset8 <= len8 does not hold, the packet
	// ends behind the available bytes, or the type needs a longer extension.
	// Value: offset8 | len8<<16. Limit: bytes available.
	InvalidDescriptorLengths
	// InvalidDescriptorFlags: an undefined flag bit. Value: flags. Limit: FlagCompletion.
	InvalidDescriptorFlags
	// InvalidDescriptorType: a type that does not travel on rings. Value: type.
	InvalidDescriptorType
	// InvalidDescriptorGpaDirectRangeCount: a GPA-direct packet without ranges.
	InvalidDescriptorGpaDirectRangeCount
	// InvalidDescriptorRanges: the declared ranges do not fit the extension, or
	// a range starts behind the first page. (OpenVMM finds this later, in its
	// range parser.) Value: declared ranges, or the byte offset. Limit: bytes
	// for ranges, or guestmem.PageSize-1.
	InvalidDescriptorRanges
)

var corruptNames = [...]string{
	InvalidRingPointer:                   "InvalidRingPointer",
	InvalidDataAvailable:                 "InvalidDataAvailable",
	InvalidDescriptorLengths:             "InvalidDescriptorLengths",
	InvalidDescriptorFlags:               "InvalidDescriptorFlags",
	InvalidDescriptorType:                "InvalidDescriptorType",
	InvalidDescriptorGpaDirectRangeCount: "InvalidDescriptorGpaDirectRangeCount",
	InvalidDescriptorRanges:              "InvalidDescriptorRanges",
}

// String gives the kind's name in the test vectors.
func (k CorruptKind) String() string {
	if k == 0 || int(k) >= len(corruptNames) {
		return fmt.Sprintf("CorruptKind(%d)", uint8(k))
	}
	return corruptNames[k]
}

// A CorruptError reports ring memory that breaks the protocol. It is sticky:
// the Reader or Writer that found it stays dead, because a ring has no frame
// marker to find its place again. The channel must be closed.
type CorruptError struct {
	Kind   CorruptKind
	Offset uint32 // where in the data area the packet starts; for InvalidRingPointer the own index
	Value  uint64 // what was found, see the kind
	Limit  uint64 // what it was measured against, see the kind
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("ringbuffer: %v at data offset %#x: have %#x, limit %#x", e.Kind, e.Offset, e.Value, e.Limit)
}

// Is matches vmbus.ErrProtocol: the peer's fault.
func (e *CorruptError) Is(target error) bool { return target == vmbus.ErrProtocol }

// A FullError says that a packet does not fit now. Matches ErrFull.
type FullError struct {
	Need int // bytes of the packet, padding and footer included
	Free int // raw free bytes; must exceed Need, since a ring is never filled completely
}

func (e *FullError) Error() string {
	return fmt.Sprintf("ringbuffer: full: packet takes %d bytes, %d are free", e.Need, e.Free)
}

// Is matches ErrFull, which is nobody's fault: wait for space.
func (e *FullError) Is(target error) bool { return target == ErrFull }

// A SizeError says that a packet can never fit, however long one waits.
type SizeError struct {
	Need int // bytes of the packet, padding and footer included
	Max  int // largest packet of this ring
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("ringbuffer: packet takes %d bytes, the ring holds at most %d", e.Need, e.Max)
}

// Is matches vmbus.ErrState: the caller's misuse.
func (e *SizeError) Is(target error) bool { return target == vmbus.ErrState }

// A HeaderError says that a Writer was given a Header no Reader would accept.
type HeaderError struct {
	Header    Header
	HeadBytes int // length of the head the extension should be in
}

func (e *HeaderError) Error() string {
	return fmt.Sprintf("ringbuffer: %v packet with flags %#x, extension of %d bytes in a head of %d is not well-formed",
		e.Header.Type, e.Header.Flags, e.Header.ExtBytes, e.HeadBytes)
}

// Is matches vmbus.ErrState: the caller's misuse.
func (e *HeaderError) Is(target error) bool { return target == vmbus.ErrState }

// A BufferError says that a payload does not fit the caller's buffer. Nothing
// is cut short: the packet stays unread.
type BufferError struct {
	Need, Have int // bytes
}

func (e *BufferError) Error() string {
	return fmt.Sprintf("ringbuffer: buffer of %d bytes is too small for %d", e.Have, e.Need)
}

// Is matches vmbus.ErrState: the caller's misuse.
func (e *BufferError) Is(target error) bool { return target == vmbus.ErrState }

// A SequenceError says that a method needs a peeked packet and there is none.
type SequenceError struct{ Op string }

func (e *SequenceError) Error() string { return "ringbuffer: " + e.Op + " without a peeked packet" }

// Is matches vmbus.ErrState: the caller's misuse.
func (e *SequenceError) Is(target error) bool { return target == vmbus.ErrState }

// A GeometryError says that a page list cannot be a ring.
type GeometryError struct {
	Pages   int // control page included
	Missing int // 1 + index of a nil page, or 0
}

func (e *GeometryError) Error() string {
	if e.Missing > 0 {
		return fmt.Sprintf("ringbuffer: page %d of %d is missing", e.Missing-1, e.Pages)
	}
	return fmt.Sprintf("ringbuffer: %d pages, need a control page and 1 to %d data pages", e.Pages, MaxDataPages)
}

// Is matches vmbus.ErrState: whoever took the pages from a peer's message must
// have checked their number there.
func (e *GeometryError) Is(target error) bool { return target == vmbus.ErrState }
