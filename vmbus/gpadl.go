package vmbus

// GPADLHeader starts a GPADL: a list of guest pages for the host. Its tail, and
// that of every GPADLBody after it, holds the range words.
// Guest to host; answered by GPADLCreated once all words have arrived.
// Source: Linux include/linux/hyperv.h, struct vmbus_channel_gpadl_header.
type GPADLHeader struct {
	Channel     ChannelID `wire:"channel_id"`
	GPADL       GPADLID   `wire:"gpadl_id"`
	RangeBufLen uint16    `wire:"range_buflen"` // bytes of all words, header and bodies together
	RangeCount  uint16    `wire:"range_count"`
}

// GPADLBody carries more words of a GPADL that does not fit its header. It names
// no channel: the id of an unfinished GPADL is unique on the connection.
// Guest to host, no answer of its own. Source: Linux struct vmbus_channel_gpadl_body.
type GPADLBody struct {
	MessageNumber uint32  `wire:"message_number"` // reserved, 0
	GPADL         GPADLID `wire:"gpadl_id"`
}

// GPADLCreated answers a complete GPADL. Host to guest.
// Source: Linux struct vmbus_channel_gpadl_created.
type GPADLCreated struct {
	Channel ChannelID `wire:"channel_id"`
	GPADL   GPADLID   `wire:"gpadl_id"`
	Status  uint32    `wire:"status"`
}

// GPADLTeardown asks for the pages back. Guest to host; answered by GPADLTorndown.
// Source: Linux struct vmbus_channel_gpadl_teardown.
type GPADLTeardown struct {
	Channel ChannelID `wire:"channel_id"`
	GPADL   GPADLID   `wire:"gpadl_id"`
}

// GPADLTorndown says that the host touches the pages no more. Host to guest.
// Source: Linux struct vmbus_channel_gpadl_torndown.
type GPADLTorndown struct {
	GPADL GPADLID `wire:"gpadl_id"`
}

// Type is TypeGPADLHeader.
func (*GPADLHeader) Type() Type { return TypeGPADLHeader }

// Type is TypeGPADLBody.
func (*GPADLBody) Type() Type { return TypeGPADLBody }

// Type is TypeGPADLCreated.
func (*GPADLCreated) Type() Type { return TypeGPADLCreated }

// Type is TypeGPADLTeardown.
func (*GPADLTeardown) Type() Type { return TypeGPADLTeardown }

// Type is TypeGPADLTorndown.
func (*GPADLTorndown) Type() Type { return TypeGPADLTorndown }
