package ringbuffer

import (
	"fmt"

	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// Byte offsets of the words in the control page.
// Source: Linux include/linux/hyperv.h, struct hv_ring_buffer.
const (
	offWriteIndex  = 0x00 // owned by the writer
	offReadIndex   = 0x04 // owned by the reader
	offMask        = 0x08 // owned by the reader
	offPendingSize = 0x0C // owned by the writer
	offFeatures    = 0x40 // owned by the writer
)

// featurePendingSize in the feature word promises that the ring's owner stores
// and honours the pending send size.
const featurePendingSize = 1

// A PacketType is the kind of a ring packet.
type PacketType uint16

// The packet types that still travel on rings. The other numbers of the
// protocol are historic; a reader that meets one declares the ring corrupt.
// Source: Linux include/linux/hyperv.h, enum vmbus_packet_type.
const (
	InBand        PacketType = 0x6 // payload follows the descriptor
	TransferPages PacketType = 0x7 // ranges of a buffer both sides know; host to guest, network only
	GPADirect     PacketType = 0x9 // ranges of guest physical pages; guest to host only
	Completion    PacketType = 0xB // answer to a packet with FlagCompletion
)

// String gives the protocol's name of the type.
func (t PacketType) String() string {
	switch t {
	case InBand:
		return "InBand"
	case TransferPages:
		return "TransferPages"
	case GPADirect:
		return "GPADirect"
	case Completion:
		return "Completion"
	}
	return fmt.Sprintf("PacketType(%d)", uint16(t))
}

// FlagCompletion asks the receiver for exactly one Completion packet with the
// same transaction id on the opposite ring. All other flag bits are zero.
const FlagCompletion uint16 = 1

// A Header describes one packet: the decoded descriptor.
//
// The ring knows a payload's length only to a granule; users that need the
// exact length carry it inside the payload, as the pipe framing does.
type Header struct {
	Type         PacketType
	Flags        uint16
	ID           uint64 // transaction id; without meaning unless FlagCompletion is set or Type is Completion
	ExtBytes     int    // descriptor extension (range list), multiple of 8
	PayloadBytes int    // payload with its padding, multiple of 8; set by the Reader, ignored by the Writer
}

// TotalBytes is the ring space of the packet a Reader described by h.
func (h *Header) TotalBytes() int { return OverheadBytes + h.ExtBytes + h.PayloadBytes }

// checkHeader refuses headers that no Reader would accept.
func checkHeader(h Header, headBytes int) error {
	ok := h.Flags <= FlagCompletion
	switch h.Type {
	case InBand, Completion:
		ok = ok && h.ExtBytes == 0
	case TransferPages, GPADirect:
		ok = ok && h.ExtBytes >= rangesHeadBytes && h.ExtBytes%granuleBytes == 0 && h.ExtBytes <= headBytes
	default:
		ok = false
	}
	if !ok {
		return &HeaderError{Header: h, HeadBytes: headBytes}
	}
	return nil
}

// Init prepares the control page of a new ring: indices, mask and pending size
// zero, the feature bit set, reserved bytes zero. The guest calls it for both
// rings before it sends OpenChannel. pages[0] is the control page; data pages
// are left as they are, and must not hold bytes the peer may not see.
func Init(pages []*guestmem.Page) error {
	if err := checkGeometry(pages); err != nil {
		return err
	}
	control := pages[0]
	clear(control.Bytes()[offPendingSize+4 : offFeatures])
	clear(control.Bytes()[offFeatures+4:])
	control.Store32(offWriteIndex, 0)
	control.Store32(offReadIndex, 0)
	control.Store32(offMask, 0)
	control.Store32(offPendingSize, 0)
	control.Store32(offFeatures, featurePendingSize)
	return nil
}

// checkGeometry refuses page lists that are not a ring: one control page and
// at least one data page, none missing.
func checkGeometry(pages []*guestmem.Page) error {
	if n := len(pages); n < 1+minDataPages || n > 1+MaxDataPages {
		return &GeometryError{Pages: n}
	}
	for i, p := range pages {
		if p == nil {
			return &GeometryError{Pages: len(pages), Missing: i + 1}
		}
	}
	return nil
}
