package channel

import (
	"fmt"

	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus"
)

// A pipe is a channel whose in-band packets start with 8 bytes: a u32 pipe
// packet type and the exact u32 number of data bytes, which the ring itself
// knows only to a granule.
// Source: ringbuffer.md 7; Linux include/linux/hyperv.h, struct vmpipe_proto_header.
const (
	pipeData    = 1 // data; without bytes it is the end of the stream (FIN)
	pipePartial = 2 // data of which a reader that was saved has taken a part

	pipeHeaderBytes = 8
	// pipeOverheadBytes is what a pipe packet takes besides its padded data.
	pipeOverheadBytes = ringbuffer.OverheadBytes + pipeHeaderBytes
	// pipeGranuleBytes stay free for ever: equal indices would mean empty.
	pipeGranuleBytes = 8
)

const (
	// MaxPipeBytes is the most data one pipe packet may carry. A larger claim
	// is an error of the peer, as it is for Linux (EIO).
	MaxPipeBytes = 16384

	// DefaultChunkBytes is how much data Linux and FreeBSD put into one packet:
	// with the pipe header it makes 4096 bytes.
	DefaultChunkBytes = 4088

	// finReserveBytes is the ring space kept for a FIN, so that closing never
	// has to wait for the peer.
	finReserveBytes = pipeOverheadBytes
)

// ErrFull says that a pipe had no room for a single byte. It is the ring's
// error under the name the callers of a pipe look for.
var ErrFull = ringbuffer.ErrFull

// A PipeFault says which rule of the pipe framing the peer broke.
type PipeFault uint8

// Kinds of broken framing.
const (
	PipeNotInBand     PipeFault = iota + 1 // a ring packet of another kind
	PipeNoHeader                           // too short for the pipe header
	PipeUnknownType                        // neither data nor, in byte mode, partial data
	PipeBeyondPacket                       // more data bytes than the packet holds
	PipeTooLong                            // more than MaxPipeBytes
	PipeConsumedWhole                      // partial data of which nothing is left
)

func (f PipeFault) String() string {
	switch f {
	case PipeNotInBand:
		return "packet is not in-band"
	case PipeNoHeader:
		return "no room for the pipe header"
	case PipeUnknownType:
		return "unknown pipe packet type"
	case PipeBeyondPacket:
		return "more data than the packet holds"
	case PipeTooLong:
		return "more data than a pipe packet may carry"
	case PipeConsumedWhole:
		return "partial packet with nothing left"
	}
	return fmt.Sprintf("PipeFault(%d)", uint8(f))
}

// A PipeError reports broken framing. It is sticky: the stream position is
// lost, so nothing from that packet or behind it is ever delivered.
type PipeError struct {
	Fault        PipeFault
	Packet       ringbuffer.PacketType
	Type         uint32 // first word of the pipe header
	Bytes        uint32 // second word: data bytes; for a partial packet consumed<<16 | original
	PayloadBytes int    // of the ring packet, pipe header included
}

func (e *PipeError) Error() string {
	return fmt.Sprintf("channel: pipe: %v (%v packet with %d bytes, pipe type %d, size %#x)",
		e.Fault, e.Packet, e.PayloadBytes, e.Type, e.Bytes)
}

// Is matches vmbus.ErrProtocol: the peer's fault.
func (e *PipeError) Is(target error) bool { return target == vmbus.ErrProtocol }

// A PipeStateError reports a call that the pipe's mode or state forbids.
type PipeStateError struct {
	Op       string
	Finished bool // the FIN is sent already; else the operation does not exist in this mode
}

func (e *PipeStateError) Error() string {
	if e.Finished {
		return "channel: pipe: " + e.Op + " after the end of the stream was sent"
	}
	return "channel: pipe: " + e.Op + " does not exist in this mode"
}

// Is matches vmbus.ErrState: the caller's misuse.
func (e *PipeStateError) Is(target error) bool { return target == vmbus.ErrState }
