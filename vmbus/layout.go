package vmbus

import "encoding/binary"

// A layout is one form of one message type.
type layout struct {
	Type      Type
	Name      string // of the struct
	Since     Version
	AnyOf     Features // one of these must be granted; 0 = none is needed
	New       func() Message
	BodyBytes int // after the header, without GPADL words
	Choose    choice
}

// A choice is what tells a longer form from the shorter one below it.
type choice uint8

const (
	byNegotiation choice = iota // version and features alone: a shorter message is an error
	byLength                    // used when the message is long enough for it
	byOwnVersion                // the version and features inside the message: nothing is negotiated yet
)

// anyVersion marks the messages that exist before and below every version.
const anyVersion Version = 0

// layouts is the wire. Newest first within a type; the first row that fits wins.
// Source: vmbus-control.md 3.0, overview table.
var layouts = []layout{
	{TypeOfferChannel, "OfferChannel", V1, 0, mk[OfferChannel], 188, byNegotiation},
	{TypeRescindChannelOffer, "RescindChannelOffer", V1, 0, mk[RescindChannelOffer], 4, byNegotiation},
	{TypeRequestOffers, "RequestOffers", V1, 0, mk[RequestOffers], 0, byNegotiation},
	{TypeAllOffersDelivered, "AllOffersDelivered", V1, 0, mk[AllOffersDelivered], 0, byNegotiation},
	{TypeOpenChannel, "OpenChannel2", Copper, GuestSignalParams | RedirectInterrupt, mk[OpenChannel2], 148, byNegotiation},
	{TypeOpenChannel, "OpenChannel", V1, 0, mk[OpenChannel], 140, byNegotiation},
	{TypeOpenResult, "OpenResult", V1, 0, mk[OpenResult], 12, byNegotiation},
	{TypeCloseChannel, "CloseChannel", V1, 0, mk[CloseChannel], 4, byNegotiation},
	{TypeGPADLHeader, "GPADLHeader", V1, 0, mk[GPADLHeader], 12, byNegotiation},
	{TypeGPADLBody, "GPADLBody", V1, 0, mk[GPADLBody], 8, byNegotiation},
	{TypeGPADLCreated, "GPADLCreated", V1, 0, mk[GPADLCreated], 12, byNegotiation},
	{TypeGPADLTeardown, "GPADLTeardown", V1, 0, mk[GPADLTeardown], 8, byNegotiation},
	{TypeGPADLTorndown, "GPADLTorndown", V1, 0, mk[GPADLTorndown], 4, byNegotiation},
	{TypeRelIDReleased, "RelIDReleased", V1, 0, mk[RelIDReleased], 4, byNegotiation},
	{TypeInitiateContact, "InitiateContact2", anyVersion, 0, mk[InitiateContact2], 48, byOwnVersion},
	{TypeInitiateContact, "InitiateContact", anyVersion, 0, mk[InitiateContact], 32, byNegotiation},
	{TypeVersionResponse, "VersionResponse3", Copper, 0, mk[VersionResponse3], 32, byLength},
	{TypeVersionResponse, "VersionResponse2", Copper, 0, mk[VersionResponse2], 12, byLength},
	{TypeVersionResponse, "VersionResponse", anyVersion, 0, mk[VersionResponse], 8, byNegotiation},
	{TypeUnload, "Unload", V1, 0, mk[Unload], 0, byNegotiation},
	{TypeUnloadComplete, "UnloadComplete", Win7, 0, mk[UnloadComplete], 0, byNegotiation},
	{TypeOpenReservedChannel, "OpenReservedChannel", Win10, 0, mk[OpenReservedChannel], 20, byNegotiation},
	{TypeCloseReservedChannel, "CloseReservedChannel", anyVersion, 0, mk[CloseReservedChannel], 12, byNegotiation},
	{TypeCloseReservedChannelResponse, "CloseReservedChannelResponse", Win10, 0, mk[CloseReservedChannelResponse], 4, byNegotiation},
	{TypeTLConnectRequest, "TLConnectRequest2", Win10RS5, 0, mk[TLConnectRequest2], 48, byLength},
	{TypeTLConnectRequest, "TLConnectRequest", Win10, 0, mk[TLConnectRequest], 32, byNegotiation},
	{TypeModifyChannel, "ModifyChannel", Win10RS3, 0, mk[ModifyChannel], 8, byNegotiation},
	{TypeTLConnectResult, "TLConnectResult", Win10RS3, 0, mk[TLConnectResult], 36, byNegotiation},
	{TypeModifyChannelResponse, "ModifyChannelResponse", Iron, 0, mk[ModifyChannelResponse], 8, byNegotiation},
	{TypeModifyConnection, "ModifyConnection", Copper, ConnectionModify, mk[ModifyConnection], 16, byNegotiation},
	{TypeModifyConnectionResponse, "ModifyConnectionResponse", Copper, ConnectionModify, mk[ModifyConnectionResponse], 1, byNegotiation},
	{TypePause, "Pause", Copper, PauseResume, mk[Pause], 0, byNegotiation},
	{TypePauseResponse, "PauseResponse", Copper, PauseResume, mk[PauseResponse], 0, byNegotiation},
	{TypeResume, "Resume", Copper, PauseResume, mk[Resume], 0, byNegotiation},
}

// mk returns a new zero message of struct T.
func mk[T any, P interface {
	*T
	Message
}]() Message {
	return P(new(T))
}

// chooseLayout returns the form that b, the bytes after the header, of a type-t
// message has to be decoded in, or nil if n has no such type.
func chooseLayout(t Type, b []byte, n Negotiated) *layout {
	for i := range layouts {
		l := &layouts[i]
		if l.Type == t && l.available(n) && l.fits(b) {
			return l
		}
	}
	return nil
}

// available reports whether n has this form.
func (l *layout) available(n Negotiated) bool {
	return n.Version >= l.Since && (l.AnyOf == 0 || n.Features&l.AnyOf != 0)
}

// fits reports whether the bytes after the header call for this form.
func (l *layout) fits(b []byte) bool {
	switch l.Choose {
	case byLength:
		return len(b) >= l.BodyBytes
	case byOwnVersion:
		return announcesClientID(b)
	}
	return true
}

// announcesClientID reports whether an InitiateContact body asks for a version
// and a feature that put a client id behind the 40-byte form. Such a message
// without the client id is an error, not the shorter form.
// Source: vmbus-control.md 2.5, check 2.
func announcesClientID(b []byte) bool {
	if len(b) < 16 { // version, target VP, target info
		return false
	}
	v := Version(binary.LittleEndian.Uint32(b))
	return v >= Copper && UnpackTargetInfo(v, binary.LittleEndian.Uint64(b[8:])).Features&ClientIDs != 0
}

// Available reports whether messages of type t exist in what was negotiated.
func Available(t Type, n Negotiated) bool {
	for i := range layouts {
		if layouts[i].Type == t && layouts[i].available(n) {
			return true
		}
	}
	return false
}
