package vmbus

import "fmt"

// A Type is the number at the start of every control message.
type Type uint32

// The message types. Source: Linux include/linux/hyperv.h, enum
// vmbus_channel_message_type; OpenVMM protocol.rs for 18..20 and 25..29.
const (
	TypeOfferChannel Type = iota + 1
	TypeRescindChannelOffer
	TypeRequestOffers
	TypeAllOffersDelivered
	TypeOpenChannel
	TypeOpenResult
	TypeCloseChannel
	TypeGPADLHeader
	TypeGPADLBody
	TypeGPADLCreated
	TypeGPADLTeardown
	TypeGPADLTorndown
	TypeRelIDReleased
	TypeInitiateContact
	TypeVersionResponse
	TypeUnload
	TypeUnloadComplete
	TypeOpenReservedChannel
	TypeCloseReservedChannel
	TypeCloseReservedChannelResponse
	TypeTLConnectRequest
	TypeModifyChannel
	TypeTLConnectResult
	TypeModifyChannelResponse
	TypeModifyConnection
	TypeModifyConnectionResponse
	TypePause
	TypePauseResponse
	TypeResume // 29, the last
)

// String is the name of the type's first form, as in "OpenChannel", or
// "Type(77)" for an unknown type.
func (t Type) String() string {
	// The first form is the last row of its type.
	for i := len(layouts) - 1; i >= 0; i-- {
		if layouts[i].Type == t {
			return layouts[i].Name
		}
	}
	return fmt.Sprintf("Type(%d)", uint32(t))
}

// Direction is the way messages of this type travel, 0 for an unknown type.
func (t Type) Direction() Direction {
	switch t {
	case TypeOfferChannel, TypeRescindChannelOffer, TypeAllOffersDelivered, TypeOpenResult, TypeGPADLCreated,
		TypeGPADLTorndown, TypeVersionResponse, TypeUnloadComplete, TypeCloseReservedChannelResponse,
		TypeTLConnectResult, TypeModifyChannelResponse, TypeModifyConnectionResponse, TypePauseResponse:
		return HostToGuest
	}
	if t >= TypeOfferChannel && t <= TypeResume {
		return GuestToHost
	}
	return 0
}

// A Direction is the way a message travels.
type Direction uint8

// The two directions.
const (
	HostToGuest Direction = iota + 1
	GuestToHost
)

// String is "host>guest" or "guest>host".
func (d Direction) String() string {
	switch d {
	case HostToGuest:
		return "host>guest"
	case GuestToHost:
		return "guest>host"
	}
	return fmt.Sprintf("Direction(%d)", uint8(d))
}
