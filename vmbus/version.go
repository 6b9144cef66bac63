package vmbus

import (
	"fmt"
	"slices"
	"strings"
)

// A Version is a protocol version, major in the high and minor in the low
// 16 bits. A host accepts exactly the known ones; guests walk down the list.
type Version uint32

// The known versions. Source: Linux include/linux/hyperv.h; OpenVMM protocol.rs.
const (
	V1       Version = 0x0000000d // Windows Server 2008: messages 1..16
	Win7     Version = 0x00010001 // dedicated event connections, UnloadComplete
	Win8     Version = 0x00020004 // a target VP per channel, sub-channels
	Win81    Version = 0x00030000 // the target VP for messages is honoured
	Win10    Version = 0x00040000 // Hyper-V sockets, reserved channels
	Win10RS3 Version = 0x00040001 // ModifyChannel, TLConnectResult
	Win10V5  Version = 0x00050000 // SINT in InitiateContact, message connection ids
	Win10RS4 Version = 0x00050001 // VTL in InitiateContact
	Win10RS5 Version = 0x00050002 // silo id in TLConnectRequest
	Iron     Version = 0x00050003 // ModifyChannelResponse
	Copper   Version = 0x00060000 // feature flags, client id, Pause and Resume
)

// Versions returns all known versions, oldest first.
func Versions() []Version {
	return []Version{V1, Win7, Win8, Win81, Win10, Win10RS3, Win10V5, Win10RS4, Win10RS5, Iron, Copper}
}

// Known reports whether v is one of Versions.
func (v Version) Known() bool { return slices.Contains(Versions(), v) }

// String is major.minor, as in "5.3".
func (v Version) String() string { return fmt.Sprintf("%d.%d", uint32(v)>>16, uint16(v)) }

// ParseVersion reads a known version written as major.minor. For any other text
// it returns a *TextError.
func ParseVersion(text string) (Version, error) {
	for _, v := range Versions() {
		if v.String() == text {
			return v, nil
		}
	}
	return 0, &TextError{Kind: "VMBus version", Text: text}
}

// Features are the flags a guest proposes in InitiateContact and a host grants
// in VersionResponse2. Below Copper both sides act as if none were granted.
type Features uint32

// The feature flags. Source: vmbus-control.md 2.2; OpenVMM protocol.rs.
const (
	GuestSignalParams    Features = 1 << iota // OpenChannel2 with guest-chosen connection id and event flag
	RedirectInterrupt                         // OpenChannel2 with OpenRedirectInterrupt
	ConnectionModify                          // ModifyConnection
	ClientIDs                                 // InitiateContact2
	ConfidentialChannels                      // OfferConfidentialRing, OfferConfidentialExternal
	PauseResume                               // Pause, PauseResponse, Resume
	ServerMonitorPages                        // VersionResponse3
	GPAPinning                                // OfferPinned

	AllFeatures Features = 1<<iota - 1 // every bit with a meaning
)

var featureNames = []flagName[Features]{
	{GuestSignalParams, "GuestSignalParams"},
	{RedirectInterrupt, "RedirectInterrupt"},
	{ConnectionModify, "ConnectionModify"},
	{ClientIDs, "ClientIDs"},
	{ConfidentialChannels, "ConfidentialChannels"},
	{PauseResume, "PauseResume"},
	{ServerMonitorPages, "ServerMonitorPages"},
	{GPAPinning, "GPAPinning"},
}

// String lists the set bits, as in "ClientIDs|PauseResume"; "none" for 0.
func (f Features) String() string { return flagText(f, featureNames) }

// Negotiated is what the two ends agreed on, which decides which messages exist
// and what they look like. The zero value is a connection before its
// VersionResponse. A guest that waits for the VersionResponse uses the version
// it asked for.
type Negotiated struct {
	Version  Version
	Features Features
}

// flagName is one bit and its name.
type flagName[F ~uint16 | ~uint32] struct {
	bit  F
	name string
}

// flagText joins the names of the set bits with "|"; bits without a name follow
// as one hexadecimal number, so that no bit is hidden.
func flagText[F ~uint16 | ~uint32](f F, names []flagName[F]) string {
	if f == 0 {
		return "none"
	}
	var set []string
	for _, n := range names {
		if f&n.bit != 0 {
			set = append(set, n.name)
			f &^= n.bit
		}
	}
	if f != 0 {
		set = append(set, fmt.Sprintf("0x%x", uint32(f)))
	}
	return strings.Join(set, "|")
}
