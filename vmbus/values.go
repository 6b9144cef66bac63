package vmbus

import "fmt"

// A ChannelID names a channel from its offer to its release; Linux says relid.
// 1..MaxChannels; chosen by the host, lowest free first.
type ChannelID uint32

// A GPADLID names a guest physical address descriptor list, a list of guest
// pages the guest shares with the host. Chosen by the guest.
type GPADLID uint32

// String is hexadecimal: guests count up from 0xe1e10.
func (id GPADLID) String() string { return fmt.Sprintf("0x%x", uint32(id)) }

// Status words of OpenResult, GPADLCreated, ModifyChannelResponse and
// TLConnectResult. Send exactly 0 for success and a negative NTSTATUS for
// failure: receivers disagree about positive values.
// Source: OpenVMM vmbus_core protocol.rs; vmbus-control.md 3.5, 3.14.
const (
	StatusSuccess           uint32 = 0
	StatusFailure           uint32 = 0x8000FFFF // the generic failure
	StatusConnectionRefused uint32 = 0xC0000236 // nobody listens; TLConnectResult only
)

// StatusText is the name of a status word, or its hexadecimal value.
func StatusText(status uint32) string {
	switch status {
	case StatusSuccess:
		return "SUCCESS"
	case StatusFailure:
		return "FAILURE"
	case StatusConnectionRefused:
		return "CONNECTION_REFUSED"
	}
	return fmt.Sprintf("0x%08x", status)
}

// NoInterrupt is the TargetVP of a channel whose guest polls.
const NoInterrupt uint32 = 0xFFFFFFFF

// OpenRedirectInterrupt is bit 0 of OpenChannel2.OpenFlags: the host sends the
// channel's interrupt to the redirect VTL and SINT. Needs RedirectInterrupt.
const OpenRedirectInterrupt uint16 = 1

// Connection states of VersionResponse and ModifyConnectionResponse.
const (
	ConnectionOK           uint8 = 0
	ConnectionLowResources uint8 = 1
	ConnectionFailed       uint8 = 2
)

// NoMonitor is the monitor id of a channel without monitored notification.
const NoMonitor uint8 = 0xFF

// The SynIC and hypercall numbers of VMBus. Source: vmbus-control.md 0.1, 1.3.
const (
	SlotBytes         = 256  // one SynIC message slot, MaxPayloadBytes of it payload
	SynICMessageType  = 1    // the SynIC message type that says "VMBus"
	SINT              = 2    // the synthetic interrupt source of VMBus
	EventFlagsPerSINT = 2048 // bits of one SINT in the event-flag page

	LegacyMessageConnection      uint32 = 1 // HvPostMessage target below 5.0
	LegacyEventConnection        uint32 = 2 // HvSignalEvent target at 0.13
	MonitorConnection            uint32 = 3 // unused today
	MultiClientMessageConnection uint32 = 4 // InitiateContact from 5.0 on
)

// OfferFlags describes an offered channel. Source: vmbus-control.md 3.1.1.
type OfferFlags uint16

// The bits of OfferFlags that a current host sets.
const (
	OfferEnumerate            OfferFlags = 0x0001 // the interface is listed to user mode
	OfferConfidentialRing     OfferFlags = 0x0002 // needs ConfidentialChannels
	OfferConfidentialExternal OfferFlags = 0x0004 // only together with OfferConfidentialRing
	OfferPinned               OfferFlags = 0x0008 // external memory must be pinned; needs GPAPinning
	OfferNamedPipe            OfferFlags = 0x0010 // user data is PipeUserData, packets carry a pipe header
	OfferTLNPI                OfferFlags = 0x2000 // a Hyper-V socket; user data is HVSockUserData
)

// The bits of OfferFlags that only old headers know.
const (
	OfferLoopback         OfferFlags = 0x0100
	OfferParent           OfferFlags = 0x0200
	OfferRequestMonitored OfferFlags = 0x0400
)

// OfferFlagsSocket is what an offer of a Hyper-V socket carries.
const OfferFlagsSocket = OfferEnumerate | OfferNamedPipe | OfferTLNPI

var offerFlagNames = []flagName[OfferFlags]{
	{OfferEnumerate, "Enumerate"},
	{OfferConfidentialRing, "ConfidentialRing"},
	{OfferConfidentialExternal, "ConfidentialExternal"},
	{OfferPinned, "Pinned"},
	{OfferNamedPipe, "NamedPipe"},
	{OfferLoopback, "Loopback"},
	{OfferParent, "Parent"},
	{OfferRequestMonitored, "RequestMonitored"},
	{OfferTLNPI, "TLNPI"},
}

// String lists the set bits, as in "Enumerate|NamedPipe|TLNPI"; "none" for 0.
func (f OfferFlags) String() string { return flagText(f, offerFlagNames) }
