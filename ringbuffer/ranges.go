package ringbuffer

import (
	"fmt"
	"iter"
	"math"

	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// rangesHeadBytes is the fixed part of both descriptor extensions: four bytes
// of their own and the u32 range count. Every range starts with 8 more bytes,
// its byte count and byte offset.
const (
	rangesHeadBytes = 8
	rangeBytes      = 8
	pfnBytes        = 8
)

// A GPARange is part of a GPA-direct packet: ByteCount bytes that start
// ByteOffset bytes into the first of the guest pages PFNs. The three shapes
// senders use (several one-page ranges, one range of up to 32 pages, one range
// of any length) are all lists of it.
// Source: Linux include/linux/hyperv.h, struct gpa_range.
type GPARange struct {
	ByteCount  uint32
	ByteOffset uint32   // less than guestmem.PageSize
	PFNs       []uint64 // exactly one per page touched
}

// pageCount is the number of pages a range touches. Both lengths are the
// peer's, so the sum is taken in 64 bits.
func pageCount(byteOffset, byteCount uint32) uint64 {
	return (uint64(byteOffset) + uint64(byteCount) + guestmem.PageSize - 1) / guestmem.PageSize
}

// A RangeError says that a range list cannot be encoded.
type RangeError struct {
	Range      int // index in the list, or the number of ranges if none is allowed
	ByteOffset uint32
	PFNs       int
	Want       uint64 // PFNs the byte count and offset ask for
}

func (e *RangeError) Error() string {
	return fmt.Sprintf("ringbuffer: range %d with byte offset %#x has %d PFNs, wants %d", e.Range, e.ByteOffset, e.PFNs, e.Want)
}

// Is matches vmbus.ErrState: the caller's misuse.
func (e *RangeError) Is(target error) bool { return target == vmbus.ErrState }

// AppendGPADirect appends the descriptor extension of a GPADirect packet to
// dst: the head for Append, with Header.ExtBytes its length. Errors: *RangeError
// for an empty list, an offset behind the first page or a wrong number of PFNs.
func AppendGPADirect(dst []byte, ranges []GPARange) ([]byte, error) {
	if len(ranges) == 0 {
		return dst, &RangeError{}
	}
	out := le.AppendUint32(dst, 0) // reserved
	out = le.AppendUint32(out, uint32(len(ranges)))
	for i, g := range ranges {
		want := pageCount(g.ByteOffset, g.ByteCount)
		if g.ByteOffset >= guestmem.PageSize || want != uint64(len(g.PFNs)) {
			return dst, &RangeError{Range: i, ByteOffset: g.ByteOffset, PFNs: len(g.PFNs), Want: want}
		}
		out = le.AppendUint32(out, g.ByteCount)
		out = le.AppendUint32(out, g.ByteOffset)
		for _, pfn := range g.PFNs {
			out = le.AppendUint64(out, pfn)
		}
	}
	return out, nil
}

// ParseGPADirect decodes the extension of a GPADirect packet, a private copy
// such as Reader.Extension returns. What it allocates is bounded by the bytes
// of ext, never by a declared count. Errors: *CorruptError (vmbus.ErrProtocol)
// with offsets counted from the start of ext.
func ParseGPADirect(ext []byte) ([]GPARange, error) {
	if fault := checkRanges(GPADirect, ext); fault != nil {
		return nil, fault
	}
	ranges := make([]GPARange, le.Uint32(ext[4:]))
	words := make([]uint64, 0, len(ext)/pfnBytes)
	rest := ext[rangesHeadBytes:]
	for i := range ranges {
		g := GPARange{ByteCount: le.Uint32(rest), ByteOffset: le.Uint32(rest[4:])}
		rest = rest[rangeBytes:]
		first := len(words)
		for range pageCount(g.ByteOffset, g.ByteCount) {
			words = append(words, le.Uint64(rest))
			rest = rest[pfnBytes:]
		}
		g.PFNs = words[first:len(words):len(words)]
		ranges[i] = g
	}
	return ranges, nil
}

// A GPASegment is bytes within one guest page.
type GPASegment struct {
	PFN    uint64
	Offset uint32 // first byte in the page
	Bytes  uint32
}

// GPASegments walks the pages of a range list, leaving out the first skip bytes
// and ending after n more, or where the list ends. A part begins where its
// offset says, in whichever range that is.
func GPASegments(ranges []GPARange, skip, n uint64) iter.Seq[GPASegment] {
	return func(yield func(GPASegment) bool) {
		for _, g := range ranges {
			count := uint64(g.ByteCount)
			if skip >= count && !putback.On(putback.RG12) {
				skip -= count
				continue
			}
			at := uint64(g.ByteOffset) + skip
			left := min(count-skip, n)
			skip = 0
			for left > 0 {
				inPage := at % guestmem.PageSize
				bytes := min(guestmem.PageSize-inPage, left)
				if !yield(GPASegment{g.PFNs[at/guestmem.PageSize], uint32(inPage), uint32(bytes)}) {
					return
				}
				at, left, n = at+bytes, left-bytes, n-bytes
			}
		}
	}
}

// A TransferRange is part of the buffer that a transfer page set names.
type TransferRange struct {
	ByteCount  uint32
	ByteOffset uint32
}

// A TransferPageSet is the extension of a TransferPages packet.
// Source: Linux include/linux/hyperv.h, struct vmtransfer_page_packet_header.
type TransferPageSet struct {
	Set            uint16
	SenderOwnsSet  uint8
	TransferRanges []TransferRange
}

// AppendTransferPages appends the extension of a TransferPages packet to dst:
// the head for Append, with Header.ExtBytes its length.
func AppendTransferPages(dst []byte, set TransferPageSet) []byte {
	dst = le.AppendUint16(dst, set.Set)
	dst = append(dst, set.SenderOwnsSet, 0)
	dst = le.AppendUint32(dst, uint32(len(set.TransferRanges)))
	for _, t := range set.TransferRanges {
		dst = le.AppendUint32(dst, t.ByteCount)
		dst = le.AppendUint32(dst, t.ByteOffset)
	}
	return dst
}

// ParseTransferPages decodes the extension of a TransferPages packet, under the
// same conditions as ParseGPADirect. Whether the ranges lie inside the buffer
// only its owner can say.
func ParseTransferPages(ext []byte) (TransferPageSet, error) {
	if fault := checkRanges(TransferPages, ext); fault != nil {
		return TransferPageSet{}, fault
	}
	set := TransferPageSet{
		Set:            le.Uint16(ext),
		SenderOwnsSet:  ext[2],
		TransferRanges: make([]TransferRange, le.Uint32(ext[4:])),
	}
	for i := range set.TransferRanges {
		b := ext[rangesHeadBytes+i*rangeBytes:]
		set.TransferRanges[i] = TransferRange{ByteCount: le.Uint32(b), ByteOffset: le.Uint32(b[4:])}
	}
	return set, nil
}

// checkRanges says what is wrong with the extension of a packet with ranges, or
// nil: the declared ranges, each with exactly the PFNs it touches, must fit.
// Bytes behind the last range are tolerated. It allocates only a fault.
func checkRanges(t PacketType, ext []byte) *CorruptError {
	if len(ext) < rangesHeadBytes && !putback.On(putback.RG11) {
		return &CorruptError{Kind: InvalidDescriptorLengths, Value: uint64(len(ext)), Limit: rangesHeadBytes}
	}
	count := uint64(le.Uint32(ext[4:]))
	if count == 0 && t == GPADirect {
		return &CorruptError{Kind: InvalidDescriptorGpaDirectRangeCount}
	}
	rest := ext[rangesHeadBytes:]
	if count*rangeBytes > uint64(len(rest)) {
		return overrun(count, ext)
	}
	if t == TransferPages {
		return nil
	}
	// The walk is bounded by the extension: each step takes at least 8 bytes.
	for range count {
		if len(rest) < rangeBytes {
			return overrun(count, ext)
		}
		byteCount, byteOffset := le.Uint32(rest), le.Uint32(rest[4:])
		rest = rest[rangeBytes:]
		if byteOffset >= guestmem.PageSize && !putback.On(putback.RG12) {
			return &CorruptError{Kind: InvalidDescriptorRanges, Value: uint64(byteOffset), Limit: guestmem.PageSize - 1}
		}
		pfns := pageCount(byteOffset, byteCount) * pfnBytes
		if pfns > uint64(len(rest)) {
			return overrun(count, ext)
		}
		rest = rest[pfns:]
	}
	return nil
}

func overrun(count uint64, ext []byte) *CorruptError {
	return &CorruptError{Kind: InvalidDescriptorRanges, Value: count, Limit: uint64(len(ext) - rangesHeadBytes)}
}

// AllBytes as the last argument of GPASegments means "to the end".
const AllBytes uint64 = math.MaxUint64
