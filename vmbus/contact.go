package vmbus

// InitiateContact asks the host for one protocol version; the guest walks down
// the list until the host agrees.
// Guest to host, before anything else; answered by VersionResponse.
// Source: Linux include/linux/hyperv.h, struct vmbus_channel_initiate_contact.
type InitiateContact struct {
	Version  Version `wire:"version_requested"`
	TargetVP uint32  `wire:"target_message_vp"` // VP of all host-to-guest messages; honoured from Win81
	// TargetInfo is the GPA of the interrupt page below Win10V5 and a packed
	// TargetInfo from there on.
	TargetInfo    uint64 `wire:"interrupt_page_or_target_info"`
	ParentToChild uint64 `wire:"parent_to_child_monitor_page"` // GPA, page aligned, or 0
	ChildToParent uint64 `wire:"child_to_parent_monitor_page"` // GPA, page aligned, or 0
}

// InitiateContact2 is InitiateContact with the id of the client: the form of a
// guest that asks for Copper and the feature ClientIDs.
// Source: OpenVMM protocol.rs, InitiateContact2.
type InitiateContact2 struct {
	InitiateContact
	ClientID GUID `wire:"client_id"`
}

// VersionResponse says whether the host takes the version. The guest tells the
// three forms apart by length.
// Host to guest. Source: Linux struct vmbus_channel_version_response.
type VersionResponse struct {
	Supported       uint8   `wire:"version_supported"` // 0 or 1
	ConnectionState uint8   `wire:"connection_state"`  // ConnectionOK, ...; Linux ignores it
	_               [2]byte // padding
	// VersionOrConnectionID echoes the version below Win10V5. From there on it
	// is the connection id for every later message.
	VersionOrConnectionID uint32 `wire:"selected_version_or_connection_id"`
}

// VersionResponse2 is VersionResponse with the granted features, from Copper on.
// Source: OpenVMM protocol.rs, VersionResponse2.
type VersionResponse2 struct {
	VersionResponse
	Features Features `wire:"supported_features"`
}

// VersionResponse3 is VersionResponse2 of a host that provides the monitor pages:
// the form in which ServerMonitorPages is granted.
// Source: OpenVMM protocol.rs, VersionResponse3.
type VersionResponse3 struct {
	VersionResponse2
	_             uint32 // padding2
	ParentToChild uint64 `wire:"parent_to_child_monitor_page"` // GPA, may be 0
	ChildToParent uint64 `wire:"child_to_parent_monitor_page"` // GPA, not 0
}

// Unload ends the connection: the host closes every channel and lets go of all
// guest memory. Guest to host; answered by UnloadComplete from Win7 on.
type Unload struct{}

// UnloadComplete says that the host touches no page of the guest any more.
// Host to guest. Source: Linux CHANNELMSG_UNLOAD_RESPONSE.
type UnloadComplete struct{}

// ModifyConnection replaces the guest's monitor pages; both zero removes them.
// Guest to host, needs ConnectionModify; answered by ModifyConnectionResponse.
// Source: OpenVMM protocol.rs.
type ModifyConnection struct {
	ParentToChild uint64 `wire:"parent_to_child_monitor_page"` // GPA, page aligned, or 0
	ChildToParent uint64 `wire:"child_to_parent_monitor_page"` // GPA, page aligned, or 0
}

// ModifyConnectionResponse answers ModifyConnection. Host to guest; 9 bytes in all.
// Source: OpenVMM protocol.rs.
type ModifyConnectionResponse struct {
	ConnectionState uint8 `wire:"connection_state"` // ConnectionOK, ...
}

// Pause asks the host to hold back its messages. Guest to host, needs
// PauseResume; answered by PauseResponse. Source: OpenVMM protocol.rs.
type Pause struct{}

// PauseResponse is the last message before the host falls silent. Host to guest.
// Source: OpenVMM protocol.rs.
type PauseResponse struct{}

// Resume ends a pause; the held-back messages follow. Guest to host, no answer.
// Source: OpenVMM protocol.rs.
type Resume struct{}

// Type is TypeInitiateContact.
func (*InitiateContact) Type() Type { return TypeInitiateContact }

// Type is TypeVersionResponse.
func (*VersionResponse) Type() Type { return TypeVersionResponse }

// Type is TypeUnload.
func (*Unload) Type() Type { return TypeUnload }

// Type is TypeUnloadComplete.
func (*UnloadComplete) Type() Type { return TypeUnloadComplete }

// Type is TypeModifyConnection.
func (*ModifyConnection) Type() Type { return TypeModifyConnection }

// Type is TypeModifyConnectionResponse.
func (*ModifyConnectionResponse) Type() Type { return TypeModifyConnectionResponse }

// Type is TypePause.
func (*Pause) Type() Type { return TypePause }

// Type is TypePauseResponse.
func (*PauseResponse) Type() Type { return TypePauseResponse }

// Type is TypeResume.
func (*Resume) Type() Type { return TypeResume }

// A TargetInfo is what InitiateContact.TargetInfo holds from Win10V5 on. Hosts
// look at SINT and VTL only on a multi-client message connection.
type TargetInfo struct {
	SINT     uint8
	VTL      uint8    // from Win10RS4
	Features Features // proposed by the guest, from Copper
}

// Pack returns the word for a contact that asks for v: what v does not know is
// left out, and below Win10V5 the word is 0, which means no interrupt page.
// Source: vmbus-control.md 2.4.
func (i TargetInfo) Pack(v Version) uint64 {
	i = i.limit(v)
	if v < Win10V5 {
		return 0
	}
	return uint64(i.SINT) | uint64(i.VTL)<<8 | uint64(i.Features)<<32
}

// UnpackTargetInfo reads the word of a contact that asks for v. Below Win10V5
// the word is an address, and the answer what such a guest means: SINT 2, VTL 0.
func UnpackTargetInfo(v Version, w uint64) TargetInfo {
	return TargetInfo{SINT: uint8(w), VTL: uint8(w >> 8), Features: Features(w >> 32)}.limit(v)
}

// limit replaces what v does not know by its defaults.
func (i TargetInfo) limit(v Version) TargetInfo {
	if v < Win10V5 {
		i.SINT = SINT
	}
	if v < Win10RS4 {
		i.VTL = 0
	}
	if v < Copper {
		i.Features = 0
	}
	return i
}
