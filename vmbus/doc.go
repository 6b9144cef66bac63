// Package vmbus is the language of the bus: the control messages that a Hyper-V
// host and its guests exchange, as values and as bytes. It holds no state.
//
// # A message
//
// A guest and a host set up everything, from the protocol version to a single
// socket, with 29 types of control message. One message is 8 to 240 bytes: the
// type (u32), a zero u32, and a packed little-endian body. Each type is a struct
// here, and the struct is the layout: its fields are what is on the wire, in that
// order, and padding is spelled _. Append writes a message, Parse reads one.
//
//	b := vmbus.Append(nil, &vmbus.RescindChannelOffer{Channel: 2})
//	m, tail, err := vmbus.Parse(b, vmbus.Negotiated{Version: vmbus.Iron})
//
// Start with InitiateContact (contact.go), then OfferChannel (offer.go),
// GPADLHeader (gpadl.go), OpenChannel (open.go) and TLConnectRequest (socket.go):
// that is the order in which a guest meets them.
//
// # Versions
//
// The bus grew from version 0.13 to 6.0, and from 6.0 on has feature flags. Both
// decide which types exist and which of up to three forms a type has, so Parse
// takes what was Negotiated. One table, layouts in layout.go, says all of it; a
// golden file, testdata/table/messages.txt, shows what follows from it. A longer
// form embeds the shorter one: OpenChannel2 embeds OpenChannel.
//
// # Bad messages
//
// Peers are hostile. A message that is too short is a *ParseError, a type that is
// unknown or was not negotiated a *TypeError, one that came from the wrong side a
// *DirectionError (ParseFrom). All match ErrProtocol; the receiver drops and
// counts the message, and the connection lives. A message that is too long is
// legal; the surplus is the tail. What a field may contain depends on state that
// this package does not have: packages offers, channel and endpoint decide it.
//
// # Names
//
// Field names are Go names here and the specification's names in Fields, which
// traces, the decoder and the test vectors use. A GUID is kept in wire order;
// GUID.UUID and GUIDFromUUID convert to and from the printed order.
package vmbus
