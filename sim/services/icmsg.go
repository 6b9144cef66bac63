package services

import (
	"encoding/binary"
	"fmt"

	"github.com/hvlab/hvlab/vmbus"
)

// kind is the type of an integration component message.
type kind uint16

const (
	kindNegotiate kind = 0
	kindHeartbeat kind = 1
	kindShutdown  kind = 3
	kindTimeSync  kind = 4
)

// Flags of a message.
const (
	flagTransaction = 1
	flagRequest     = 2
	flagResponse    = 4
)

// A Version is major.minor of the framework or of a service.
type Version struct{ Major, Minor uint16 }

func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// A header precedes every message: 8 bytes of pipe header (flags, size of what
// follows), then 20 bytes.
type header struct {
	PipeFlags   uint32
	PipeBytes   uint32 // after the pipe header
	Framework   Version
	Kind        kind
	Message     Version
	BodyBytes   uint16
	Status      uint32
	Transaction uint8
	Flags       uint8
	_           [2]byte
}

const (
	pipeHeaderBytes = 8
	headerBytes     = 28
)

// encode puts a request together: header, then body.
func encode(k kind, framework, message Version, transaction uint8, body []byte) []byte {
	b, err := binary.Append(nil, binary.LittleEndian, header{
		PipeFlags: 1, PipeBytes: uint32(headerBytes - pipeHeaderBytes + len(body)),
		Framework: framework, Kind: k, Message: message, BodyBytes: uint16(len(body)),
		Transaction: transaction, Flags: flagTransaction | flagRequest,
	})
	if err != nil {
		panic(err) // the struct has a fixed size
	}
	return append(b, body...)
}

// A MessageError reports a response that cannot be used.
type MessageError struct{ Reason string }

func (e *MessageError) Error() string { return "services: response of the guest: " + e.Reason }

// Is makes a MessageError match vmbus.ErrProtocol: it is the guest's fault.
func (e *MessageError) Is(target error) bool { return target == vmbus.ErrProtocol }

// decode splits a response. The body is what the packet really holds, whatever
// the header claims.
func decode(b []byte) (h header, body []byte, err error) {
	if len(b) < headerBytes {
		return h, nil, &MessageError{fmt.Sprintf("%d bytes, a header has %d", len(b), headerBytes)}
	}
	if _, err := binary.Decode(b, binary.LittleEndian, &h); err != nil {
		return h, nil, &MessageError{err.Error()}
	}
	body = b[headerBytes:]
	if int(h.BodyBytes) > len(body) {
		return h, nil, &MessageError{fmt.Sprintf("claims %d bytes of body, has %d", h.BodyBytes, len(body))}
	}
	return h, body[:h.BodyBytes], nil
}

// offerVersions is the body of a negotiation: how many framework versions, how
// many message versions, then all of them.
func offerVersions(framework, message []Version) []byte {
	b := binary.LittleEndian.AppendUint16(nil, uint16(len(framework)))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(message)))
	b = append(b, 0, 0, 0, 0) // reserved
	for _, v := range append(append([]Version(nil), framework...), message...) {
		b = binary.LittleEndian.AppendUint16(b, v.Major)
		b = binary.LittleEndian.AppendUint16(b, v.Minor)
	}
	return b
}

// chosenVersions reads the guest's answer to offerVersions: one of each.
func chosenVersions(body []byte) (framework, message Version, err error) {
	if len(body) < 16 {
		return framework, message, &MessageError{fmt.Sprintf("negotiation of %d bytes, needs 16", len(body))}
	}
	if binary.LittleEndian.Uint16(body) == 0 || binary.LittleEndian.Uint16(body[2:]) == 0 {
		return framework, message, &MessageError{"the guest shares no version with us"}
	}
	word := func(at int) uint16 { return binary.LittleEndian.Uint16(body[at:]) }
	return Version{word(8), word(10)}, Version{word(12), word(14)}, nil
}
