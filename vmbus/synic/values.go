package synic

import "fmt"

// Sizes and numbers of the SynIC. Source: vmbus-control.md 0.1, 9.3 and 9.4.
const (
	SINTs       = 16 // synthetic interrupt sources per virtual processor
	MessageSINT = 2  // the one VMBus uses

	SlotBytes       = 256 // a message slot
	MaxPayloadBytes = 240 // of a message
	FlagsPerSINT    = 2048

	MessageTypeVMBus = 1 // message type of every VMBus control message

	connectionIDBits = 24 // of the 32 on the wire; the rest is reserved (1.3)
)

// Synthetic MSRs. Source: vmbus-control.md 9.2.
const (
	MSRGuestOSID     = 0x40000000
	MSRHypercall     = 0x40000001
	MSRVPIndex       = 0x40000002
	MSRTimeRefCount  = 0x40000020 // 100-ns units
	MSRTSCFrequency  = 0x40000022 // Hz
	MSRAPICFrequency = 0x40000023 // Hz
	MSRVPAssistPage  = 0x40000073
	MSRSCONTROL      = 0x40000080
	MSRSVERSION      = 0x40000081
	MSRSIEFP         = 0x40000082
	MSRSIMP          = 0x40000083
	MSREOM           = 0x40000084
	MSRSINT0         = 0x40000090 // SINTn is MSRSINT0 + n
)

// Bits of those MSRs.
const (
	msrEnable       = 1 << 0 // HYPERCALL, SCONTROL, SIEFP, SIMP
	hypercallLocked = 1 << 1
	msrPFNShift     = 12

	sintVector  = 0xFF // bits 0 to 7
	sintMasked  = 1 << 16
	sintPolling = 1 << 18
	sintProxy   = 1 << 20

	minVector = 16 // vectors 0 to 15 are the CPU's exceptions
)

// Call codes of HvCallPostMessage and HvCallSignalEvent (9.6).
const (
	CallPostMessage = 0x005C
	CallSignalEvent = 0x005D
)

// A ConnectionID names a port of the host, as a guest's hypercalls do. It has
// 24 bits.
type ConnectionID uint32

// A Target is one interrupt source of one virtual processor of the guest.
type Target struct {
	VP   uint32
	SINT uint8
}

func (t Target) String() string { return fmt.Sprintf("VP %d SINT %d", t.VP, t.SINT) }
