package vmbus

// OpenChannel asks the host to open an offered channel over the rings at Ring.
// Guest to host; answered by OpenResult with the same OpenID.
// Source: Linux include/linux/hyperv.h, struct vmbus_channel_open_channel.
type OpenChannel struct {
	Channel    ChannelID `wire:"channel_id"`
	OpenID     uint32    `wire:"open_id"` // opaque
	Ring       GPADLID   `wire:"ring_buffer_gpadl"`
	TargetVP   uint32    `wire:"target_vp"`              // NoInterrupt disables interrupts to the guest
	HostOffset uint32    `wire:"downstream_page_offset"` // first page of the host-to-guest ring, in 4096-byte pages
	UserData   UserData  `wire:"user_data"`              // for the device
}

// OpenChannel2 is OpenChannel from Copper on with GuestSignalParams or
// RedirectInterrupt granted, and then the only form.
// Source: OpenVMM protocol.rs, OpenChannel2.
type OpenChannel2 struct {
	OpenChannel
	ConnectionID uint32 `wire:"connection_id"` // guest-to-host; used with GuestSignalParams
	EventFlag    uint16 `wire:"event_flag"`    // host-to-guest; used with GuestSignalParams
	OpenFlags    uint16 `wire:"open_flags"`    // OpenRedirectInterrupt; used with RedirectInterrupt
}

// OpenResult answers OpenChannel and OpenReservedChannel. Host to guest; not
// sent for an illegal open or one that a rescind overtook.
// Source: Linux struct vmbus_channel_open_result.
type OpenResult struct {
	Channel ChannelID `wire:"channel_id"`
	OpenID  uint32    `wire:"open_id"` // of the request, 0 for a reserved channel
	Status  uint32    `wire:"status"`
}

// CloseChannel closes an open channel. Guest to host, no answer: the guest waits
// for the GPADLTorndown of the ring.
type CloseChannel struct {
	Channel ChannelID `wire:"channel_id"`
}

// ModifyChannel moves the interrupt of an open channel to another VP.
// Guest to host, from Win10RS3; answered by ModifyChannelResponse from Iron.
// Source: Linux struct vmbus_channel_modifychannel.
type ModifyChannel struct {
	Channel  ChannelID `wire:"channel_id"`
	TargetVP uint32    `wire:"target_vp"`
}

// ModifyChannelResponse says that no interrupt goes to the old VP any more, or
// that nothing changed. Host to guest.
// Source: Linux struct vmbus_channel_modifychannel_response.
type ModifyChannelResponse struct {
	Channel ChannelID `wire:"channel_id"`
	Status  uint32    `wire:"status"`
}

// OpenReservedChannel opens a channel that survives Unload and reconnect, for
// firmware and crash dumps. Guest to host; the OpenResult goes to the VP and
// SINT named here. Source: OpenVMM protocol.rs.
type OpenReservedChannel struct {
	Channel    ChannelID `wire:"channel_id"`
	TargetVP   uint32    `wire:"target_vp"`
	TargetSINT uint32    `wire:"target_sint"` // low 8 bits
	Ring       GPADLID   `wire:"ring_buffer_gpadl"`
	HostOffset uint32    `wire:"downstream_page_offset"` // as in OpenChannel
}

// CloseReservedChannel closes a reserved channel, even when disconnected.
// Guest to host; CloseReservedChannelResponse goes to the VP and SINT named here.
// Source: OpenVMM protocol.rs.
type CloseReservedChannel struct {
	Channel    ChannelID `wire:"channel_id"`
	TargetVP   uint32    `wire:"target_vp"`
	TargetSINT uint32    `wire:"target_sint"` // low 8 bits
}

// CloseReservedChannelResponse says that the reserved channel is closed.
// Host to guest. Source: OpenVMM protocol.rs.
type CloseReservedChannelResponse struct {
	Channel ChannelID `wire:"channel_id"`
}

// Type is TypeOpenChannel.
func (*OpenChannel) Type() Type { return TypeOpenChannel }

// Type is TypeOpenResult.
func (*OpenResult) Type() Type { return TypeOpenResult }

// Type is TypeCloseChannel.
func (*CloseChannel) Type() Type { return TypeCloseChannel }

// Type is TypeModifyChannel.
func (*ModifyChannel) Type() Type { return TypeModifyChannel }

// Type is TypeModifyChannelResponse.
func (*ModifyChannelResponse) Type() Type { return TypeModifyChannelResponse }

// Type is TypeOpenReservedChannel.
func (*OpenReservedChannel) Type() Type { return TypeOpenReservedChannel }

// Type is TypeCloseReservedChannel.
func (*CloseReservedChannel) Type() Type { return TypeCloseReservedChannel }

// Type is TypeCloseReservedChannelResponse.
func (*CloseReservedChannelResponse) Type() Type { return TypeCloseReservedChannelResponse }
