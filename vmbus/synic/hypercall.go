package synic

import (
	"encoding/binary"
	"slices"

	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// Input block of HvCallPostMessage, in bytes. Source: vmbus-control.md 9.6.
const (
	postHeadBytes  = 16 // connection id, reserved, message type, payload size
	postBlockBytes = postHeadBytes + MaxPayloadBytes
)

// Control word of a hypercall: what a simple call may set. Source: 9.6.
const (
	controlCode = 0xFFFF
	controlFast = 1 << 16
)

// A Post is the input of HvCallPostMessage.
type Post struct {
	Connection ConnectionID
	Type       uint32
	Payload    []byte // aliases what was parsed
}

// AppendPostMessage appends the input block of HvCallPostMessage for a VMBus
// message: 256 bytes, zero after the payload, ready to be copied into a page.
// A payload of more than MaxPayloadBytes makes a longer block, which
// PostMessage refuses.
func AppendPostMessage(dst []byte, id ConnectionID, payload []byte) []byte {
	dst = slices.Grow(dst, postHeadBytes+max(MaxPayloadBytes, len(payload)))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(id))
	dst = binary.LittleEndian.AppendUint32(dst, 0)
	dst = binary.LittleEndian.AppendUint32(dst, MessageTypeVMBus)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(payload)))
	dst = append(dst, payload...)
	if rest := MaxPayloadBytes - len(payload); rest > 0 {
		var zeros [MaxPayloadBytes]byte
		dst = append(dst, zeros[:rest]...)
	}
	return dst
}

// ParsePostMessage checks an input block of HvCallPostMessage. Bytes after the
// payload are ignored. The status is StatusSuccess, StatusInvalidHypercallInput
// (block too short, reserved bits) or StatusInvalidParameter (message type,
// payload size).
func ParsePostMessage(input []byte) (Post, Status) {
	if len(input) < postHeadBytes {
		return Post{}, StatusInvalidHypercallInput
	}
	id := binary.LittleEndian.Uint32(input)
	reserved := binary.LittleEndian.Uint32(input[4:])
	messageType := binary.LittleEndian.Uint32(input[8:])
	payloadBytes := binary.LittleEndian.Uint32(input[12:])
	switch {
	case id>>connectionIDBits != 0 || reserved != 0:
		return Post{}, StatusInvalidHypercallInput
	case messageType == 0 || messageType>>31 != 0: // bit 31: the hypervisor's own
		return Post{}, StatusInvalidParameter
	case payloadBytes > MaxPayloadBytes:
		return Post{}, StatusInvalidParameter
	case int(payloadBytes) > len(input)-postHeadBytes:
		return Post{}, StatusInvalidHypercallInput
	}
	payload := input[postHeadBytes:][:payloadBytes:payloadBytes]
	return Post{ConnectionID(id), messageType, payload}, StatusSuccess
}

// PostMessage implements GuestPort. A message of a type other than
// MessageTypeVMBus is StatusInvalidParameter: no port here takes another.
func (p *Partition) PostMessage(input []byte) Status {
	m, status := ParsePostMessage(input)
	if status != StatusSuccess {
		return status
	}
	if m.Type != MessageTypeVMBus {
		return StatusInvalidParameter
	}
	port := p.ports.find(m.Connection)
	if port == nil && putback.On(putback.HC16) {
		return StatusSuccess
	}
	if port == nil {
		return StatusInvalidConnectionID
	}
	if port.messages == nil {
		return StatusInvalidPortID
	}
	return port.call(m.Payload, 0)
}

// SignalEvent implements GuestPort.
func (p *Partition) SignalEvent(param uint64) Status {
	id, flag := ConnectionID(uint32(param)), uint16(param>>32)
	switch {
	case id>>connectionIDBits != 0 || param>>48 != 0:
		return StatusInvalidHypercallInput
	case flag >= FlagsPerSINT:
		return StatusInvalidParameter
	}
	port := p.ports.find(id)
	if port == nil {
		return StatusInvalidConnectionID
	}
	if port.events == nil {
		return StatusInvalidPortID
	}
	return port.call(nil, flag)
}

// Hypercall decodes a hypercall of a guest that runs on a CPU: control is RCX,
// input is RDX (a guest physical address, or the parameter itself in the fast
// form), and the result goes to RAX. Neither call has an output, so R8 does not
// matter. The guest's memory is copied before anything in it is looked at.
//
// HvCallPostMessage takes the memory form, HvCallSignalEvent both.
// Source: vmbus-control.md 9.6.
func (p *Partition) Hypercall(control, input uint64) uint64 {
	return uint64(p.dispatch(control, input)) // reps completed, bits 32 to 43, is 0
}

func (p *Partition) dispatch(control, input uint64) Status {
	code, fast := control&controlCode, control&controlFast != 0
	switch {
	case code != CallPostMessage && code != CallSignalEvent, code == CallPostMessage && fast:
		return StatusInvalidHypercallCode
	case control&^(controlCode|controlFast) != 0: // reps, variable header, nesting, reserved
		return StatusInvalidHypercallInput
	case fast:
		return p.SignalEvent(input)
	}
	inputBytes := postBlockBytes
	if code == CallSignalEvent {
		inputBytes = 8
	}
	var block [postBlockBytes]byte
	if status := p.copyInput(block[:inputBytes], input); status != StatusSuccess {
		return status
	}
	if code == CallSignalEvent {
		return p.SignalEvent(binary.LittleEndian.Uint64(block[:]))
	}
	return p.PostMessage(block[:])
}

// copyInput fills dst, whole 8-byte words, from guest physical address gpa.
func (p *Partition) copyInput(dst []byte, gpa uint64) Status {
	off := int(gpa % guestmem.PageSize)
	if off%8 != 0 || off+len(dst) > guestmem.PageSize {
		return StatusInvalidAlignment
	}
	page, err := p.mem.Page(gpa / guestmem.PageSize)
	if err != nil {
		return StatusInvalidParameter
	}
	for i := 0; i < len(dst); i += 8 {
		binary.LittleEndian.PutUint64(dst[i:], page.Load64(off+i))
	}
	return StatusSuccess
}
