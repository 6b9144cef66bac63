package kvmguest

import (
	"encoding/binary"

	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// Call codes. Source: Hyper-V TLFS, "Hypercall Reference".
const (
	hvCallPostMessage = 0x005C
	hvCallSignalEvent = 0x005D
)

// Fields of the control word in RCX. Source: Hyper-V TLFS, "Hypercall Interface".
const (
	controlCode     = 0xFFFF
	controlFast     = 1 << 16
	controlReserved = 0x0000F000_7FFE0000 | 0xF0000000_00000000 | controlReps
	controlReps     = 0x0FFF0FFF_00000000 // repetition count and start: zero for simple calls
	controlNested   = 1 << 31
)

const (
	postMessageBytes = 16 + synic.MaxPayloadBytes // head and payload
	signalEventBytes = 8
	hypercallAlign   = 8
)

// hypercalls carries out the calls that VMBus needs.
type hypercalls struct {
	port   synic.GuestPort
	memory guestmem.Memory
	note   func(format string, args ...any)
}

// call carries out one hypercall: control is RCX, input RDX. It returns RAX.
// No call here repeats or has output.
func (h *hypercalls) call(control, input uint64) uint64 {
	return uint64(h.dispatch(control, input))
}

func (h *hypercalls) dispatch(control, input uint64) synic.Status {
	fast := control&controlFast != 0
	switch code := control & controlCode; {
	case code != hvCallPostMessage && code != hvCallSignalEvent:
		h.note("unknown hypercall %#x (control %#x): answered HV_STATUS_INVALID_HYPERCALL_CODE", code, control)
		return synic.StatusInvalidHypercallCode
	case control&controlReserved != 0:
		return synic.StatusInvalidHypercallInput
	case code == hvCallPostMessage && fast:
		return synic.StatusInvalidHypercallCode // its input does not fit registers
	case code == hvCallPostMessage:
		block, status := h.inputBlock(input, signalEventBytes, postMessageBytes)
		if status != synic.StatusSuccess {
			return status
		}
		return h.port.PostMessage(block)
	case !fast:
		block, status := h.inputBlock(input, signalEventBytes, signalEventBytes)
		if status != synic.StatusSuccess {
			return status
		}
		input = binary.LittleEndian.Uint64(block)
	}
	return h.port.SignalEvent(input)
}

// inputBlock copies the input at guest physical address gpa: want bytes, or what
// is left of its page but at least least. Copied first, so that nothing that is
// checked can change afterwards. Input must be aligned and lie in one page.
func (h *hypercalls) inputBlock(gpa uint64, least, want int) ([]byte, synic.Status) {
	offset := int(gpa % pageBytes)
	if gpa%hypercallAlign != 0 || pageBytes-offset < least {
		return nil, synic.StatusInvalidAlignment
	}
	page, err := h.memory.Page(gpa / pageBytes)
	if err != nil {
		return nil, synic.StatusInvalidAlignment // also the status for an address outside memory
	}
	block := make([]byte, min(want, pageBytes-offset))
	copy(block, page.Bytes()[offset:])
	return block, synic.StatusSuccess
}
