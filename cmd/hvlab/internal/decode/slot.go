package decode

import (
	"encoding/binary"
	"fmt"

	"github.com/hvlab/hvlab/vmbus"
)

// slotHeader is what a message slot begins with. Source: vmbus-control.md 9.3.
type slotHeader struct {
	Type         uint32 `wire:"message_type"`
	PayloadBytes uint8  `wire:"payload_size"`
	Flags        uint8  `wire:"flags"`
	_            uint16
	Sender       uint64 `wire:"sender"`
}

// timerMessage is the payload of an expired synthetic timer, which competes with
// VMBus for the slot. Source: vmbus-control.md 9.3.
type timerMessage struct {
	Index      uint32 `wire:"timer_index"`
	_          uint32
	Expiration uint64 `wire:"expiration_time"`
	Delivery   uint64 `wire:"delivery_time"`
}

// postInput is what the input of HvCallPostMessage begins with.
// Source: vmbus-control.md 9.6.
type postInput struct {
	Connection   uint32 `wire:"connection_id"`
	_            uint32
	Type         uint32 `wire:"message_type"`
	PayloadBytes uint32 `wire:"payload_size"`
}

const (
	envelopeBytes = vmbus.SlotBytes - vmbus.MaxPayloadBytes // both are 16
	typeTimer     = 0x80000010
)

// looksPosted tells the input of HvCallPostMessage from a message slot, whose
// payload size is where the former has a reserved word.
func looksPosted(b []byte) bool {
	var in postInput
	decodePacked(b, &in)
	return in.Connection != 0 && le.Uint32(b[4:]) == 0 && in.Type == vmbus.SynICMessageType && in.PayloadBytes <= vmbus.MaxPayloadBytes
}

// decodePacked fills v from the start of b, missing bytes being zero.
func decodePacked(b []byte, v any) {
	padded := make([]byte, binary.Size(v))
	copy(padded, b)
	if _, err := binary.Decode(padded, le, v); err != nil {
		panic(fmt.Sprintf("decode: %T has no wire form: %v", v, err)) // our struct, not the input
	}
}

// envelope explains the packed struct v at the start of the input, and reports
// whether all of it is there.
func (e *explainer) envelope(v any, say func(vmbus.Field) (value, meaning string)) bool {
	decodePacked(e.in, v)
	next := 0
	for _, f := range vmbus.FieldsOf(v, 0) {
		if f.Offset+f.Bytes > len(e.in) {
			break
		}
		e.padding(next, f.Offset-next)
		next = f.Offset + f.Bytes
		value, meaning := say(f)
		e.field(f.Offset, f.Bytes, f.Name, value, meaning)
	}
	if next < envelopeBytes {
		e.problem(next, fmt.Sprintf("have %d of %d bytes", len(e.in), vmbus.SlotBytes))
		e.bad(next, len(e.in)-next, "cut short")
		return false
	}
	return true
}

// slot explains the input as a message slot.
func (e *explainer) slot() {
	e.part("vmbus-control.md 9.3", "SynIC message slot, %d bytes", len(e.in))
	var h slotHeader
	whole := e.envelope(&h, func(f vmbus.Field) (string, string) {
		n := number(f.Value)
		switch f.Name {
		case "message_type":
			return hexOf(n), slotMeaning(uint32(n))
		case "flags":
			return hexOf(n), choose(n&1, "", "more messages wait: write EOM after freeing the slot")
		case "payload_size":
			return fmt.Sprint(n), ""
		}
		return hexOf(n), unlessNumber(n, "partition or port; guests ignore it")
	})
	if !whole {
		return
	}
	size := int(h.PayloadBytes)
	switch {
	case size > vmbus.MaxPayloadBytes:
		e.problem(4, fmt.Sprintf("a payload of %d bytes: a slot holds %d", size, vmbus.MaxPayloadBytes))
		fields := e.last().Fields
		fields[1].Bad = true
		e.bad(envelopeBytes, len(e.in)-envelopeBytes, "payload")
	case h.Type == 0:
		e.unused(0, "left from an earlier message: the slot is empty")
	case h.Type == vmbus.SynICMessageType:
		e.payload(size)
	case h.Type == typeTimer && size >= binary.Size(timerMessage{}) && len(e.in) >= envelopeBytes+size:
		e.timer(size)
	default:
		e.field(envelopeBytes, len(e.in)-envelopeBytes, "payload", "", "of no message this program knows").Dump = true
	}
}

func slotMeaning(t uint32) string {
	switch t {
	case 0:
		return "the slot is empty"
	case vmbus.SynICMessageType:
		return "VMBus"
	case typeTimer:
		return "timer expired"
	}
	if t>>31 != 0 {
		return "from the hypervisor"
	}
	return "not VMBus"
}

func (e *explainer) timer(size int) {
	var m timerMessage
	decodePacked(e.in[envelopeBytes:], &m)
	at := envelopeBytes
	for _, f := range vmbus.FieldsOf(&m, at) {
		e.padding(at, f.Offset-at)
		meaning := ""
		if f.Bytes == wordBytes {
			meaning = "units of 100 ns"
		}
		e.field(f.Offset, f.Bytes, f.Name, fmt.Sprint(f.Value), meaning)
		at = f.Offset + f.Bytes
	}
	e.unused(size, "behind the payload")
}

// post explains the input as that of HvCallPostMessage.
func (e *explainer) post() {
	e.part("vmbus-control.md 9.6", "input of HvCallPostMessage, %d bytes", len(e.in))
	var in postInput
	whole := e.envelope(&in, func(f vmbus.Field) (string, string) {
		n := number(f.Value)
		switch f.Name {
		case "connection_id":
			return hexOf(n), connectionMeaning(uint32(n))
		case "message_type":
			return hexOf(n), slotMeaning(uint32(n))
		}
		return fmt.Sprint(n), ""
	})
	switch {
	case !whole:
	case in.PayloadBytes > vmbus.MaxPayloadBytes:
		e.problem(12, fmt.Sprintf("a payload of %d bytes: the limit is %d, the hypercall fails", in.PayloadBytes, vmbus.MaxPayloadBytes))
		fields := e.last().Fields
		fields[len(fields)-1].Bad = true
		e.bad(envelopeBytes, len(e.in)-envelopeBytes, "payload")
	case in.Type != vmbus.SynICMessageType:
		e.field(envelopeBytes, len(e.in)-envelopeBytes, "payload", "", "of no message this program knows").Dump = true
	default:
		e.payload(int(in.PayloadBytes))
	}
}

// payload explains the control message of an envelope, then what is behind it.
func (e *explainer) payload(size int) {
	have := min(size, len(e.in)-envelopeBytes)
	e.message(envelopeBytes, have)
	if have < size {
		e.problem(len(e.in), fmt.Sprintf("the payload has %d bytes, %d are here", size, have))
		return
	}
	e.unused(size, "behind the message")
}

// unused explains what is behind a payload of size bytes.
func (e *explainer) unused(size int, why string) {
	at := envelopeBytes + size
	end := min(len(e.in), vmbus.SlotBytes)
	if at < end {
		e.part("", "rest of the 256 bytes")
		e.field(at, end-at, "unused", "", why)
	}
	if len(e.in) < vmbus.SlotBytes {
		e.problem(len(e.in), fmt.Sprintf("have %d of %d bytes", len(e.in), vmbus.SlotBytes))
	}
	if surplus := len(e.in) - vmbus.SlotBytes; surplus > 0 {
		e.part("", "surplus")
		e.problem(vmbus.SlotBytes, fmt.Sprintf("there are %d bytes in all", vmbus.SlotBytes))
		e.bad(vmbus.SlotBytes, surplus, "surplus")
	}
}
