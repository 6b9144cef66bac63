package ringbuffer

import "github.com/hvlab/hvlab/vmbus/guestmem"

const (
	// granuleBytes is the unit of everything in the data area: indices,
	// packet starts and packet lengths are multiples of it, so no 64-bit field
	// ever straddles the wrap.
	granuleBytes = 8

	// DescriptorBytes is the size of the packet descriptor.
	DescriptorBytes = 16

	// TrailerBytes is the size of the footer behind every packet; the
	// descriptor's length does not count it.
	TrailerBytes = 8

	// OverheadBytes is what a packet without extension takes besides its payload.
	OverheadBytes = DescriptorBytes + TrailerBytes

	// MaxPacketBytes is the longest packet the descriptor's 16-bit length in
	// granules can express, footer included, whatever the ring's size.
	// Known senders narrow without looking; this one refuses.
	MaxPacketBytes = 0xFFFF*granuleBytes + TrailerBytes

	// minDataPages is one: a ring of only a control page would have a data
	// area of zero bytes, and every index would be out of range.
	minDataPages = 1

	// MaxDataPages bounds a ring so that 32-bit index arithmetic cannot
	// overflow. One GPADL holds at most 8190 pages, so no real ring comes near.
	MaxDataPages = (1 << 30) / guestmem.PageSize

	// DefaultTransactions is the number of requests that may wait for their
	// completion on one channel (see Requestor).
	DefaultTransactions = 1024
)

// roundUp8 rounds bytes up to whole granules.
func roundUp8(bytes int) int { return (bytes + granuleBytes - 1) &^ (granuleBytes - 1) }

// PacketBytes is the ring space of a packet whose extension and payload
// together have bodyBytes: descriptor, body, padding and footer.
func PacketBytes(bodyBytes int) int { return OverheadBytes + roundUp8(bodyBytes) }
