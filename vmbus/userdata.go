package vmbus

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// UserData is the free-form part of an offer or an open.
type UserData [UserDataBytes]byte

// String is hexadecimal without the zero bytes at the end, "0" if there is
// nothing else and with "..." in their place otherwise.
func (u UserData) String() string {
	n := len(u)
	for n > 0 && u[n-1] == 0 {
		n--
	}
	switch n {
	case 0:
		return "0"
	case len(u):
		return hex.EncodeToString(u[:])
	}
	return hex.EncodeToString(u[:n]) + "..."
}

// MarshalText is all bytes in hexadecimal.
func (u UserData) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, u[:]), nil }

// Pipe types of PipeUserData and HVSockUserData.
const (
	PipeTypeByte    uint32 = 0
	PipeTypeMessage uint32 = 4
)

// PipeGPADirect is bit 0 of PipeUserData.Flags: GPA-direct packets are supported.
const PipeGPADirect uint32 = 1

// PipeUserData is the user data of an offer with OfferNamedPipe.
// Source: vmbus-control.md 3.1.2; OpenVMM protocol.rs.
type PipeUserData struct {
	PipeType uint32    `wire:"pipe_type"`
	Provider [112]byte `wire:"provider"`   // the device's own
	Flags    uint32    `wire:"pipe_flags"` // PipeGPADirect; older headers count it to Provider
}

// Encode returns the 120 bytes.
func (p PipeUserData) Encode() UserData { return encodeUserData(p) }

// DecodePipeUserData reads the 120 bytes of a pipe; every value is legal.
func DecodePipeUserData(u UserData) PipeUserData { return decodeUserData[PipeUserData](u) }

// Parameter versions of HVSockUserData.
const (
	HVSockBeforeRS5 uint32 = 0
	HVSockRS5       uint32 = 1 // Silo is meaningful
)

// HVSockUserData is the user data of an offer with OfferTLNPI. Its fields are
// packed: the version lies at byte 6 and the silo at byte 10.
// Source: vmbus-control.md 3.1.2; OpenVMM protocol.rs; Linux looks at
// ForGuestAccept only.
type HVSockUserData struct {
	PipeType          uint32 `wire:"pipe_type"`           // PipeTypeByte
	ForGuestAccept    bool   `wire:"is_for_guest_accept"` // true: the host dials a guest listener; false: answer to a TLConnectRequest
	ForGuestContainer bool   `wire:"is_for_guest_container"`
	ParametersVersion uint32 `wire:"parameters_version"` // HVSockRS5
	Silo              GUID   `wire:"silo_id"`            // zero = none
}

// Encode returns the 120 bytes, zero behind the silo.
func (h HVSockUserData) Encode() (u UserData) {
	h.wire(coder{b: u[:]})
	return u
}

// DecodeHVSockUserData reads the 120 bytes of a socket offer; every value is
// legal, and any byte but 0 is true.
func DecodeHVSockUserData(u UserData) (h HVSockUserData) {
	h.wire(coder{b: u[:], load: true})
	return h
}

func encodeUserData[T any](v T) (u UserData) {
	if _, err := binary.Encode(u[:], binary.LittleEndian, v); err != nil {
		panic(fmt.Sprintf("vmbus: %T does not fit user data: %v", v, err)) // our struct, not the peer
	}
	return u
}

func decodeUserData[T any](u UserData) (v T) {
	if _, err := binary.Decode(u[:], binary.LittleEndian, &v); err != nil {
		panic(fmt.Sprintf("vmbus: %T does not fit user data: %v", v, err)) // our struct, not the peer
	}
	return v
}
