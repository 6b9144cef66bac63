package vmbus

import "encoding/binary"

// A wired message has its codec written out, because it travels whenever a socket
// is opened or closed and reflection takes longer than everything else that
// happens to it. The struct stays what defines the wire: a test compares every
// wire method with encoding/binary, which serves all other messages.
type wired interface {
	Message
	// wire codes the fields in their order, whichever way c goes, and returns
	// c behind the last.
	wire(c coder) coder
}

// A coder goes over the bytes of a message body, storing or loading them.
type coder struct {
	b    []byte
	load bool
}

func u8[T ~uint8](c coder, v *T) coder {
	if c.load {
		*v = T(c.b[0])
	} else {
		c.b[0] = uint8(*v)
	}
	c.b = c.b[1:]
	return c
}

// flag codes a bool; any byte but 0 is true.
func flag(c coder, v *bool) coder {
	var b uint8
	if *v {
		b = 1
	}
	c = u8(c, &b)
	*v = b != 0
	return c
}

func u16[T ~uint16](c coder, v *T) coder {
	if c.load {
		*v = T(binary.LittleEndian.Uint16(c.b))
	} else {
		binary.LittleEndian.PutUint16(c.b, uint16(*v))
	}
	c.b = c.b[2:]
	return c
}

func u32[T ~uint32](c coder, v *T) coder {
	if c.load {
		*v = T(binary.LittleEndian.Uint32(c.b))
	} else {
		binary.LittleEndian.PutUint32(c.b, uint32(*v))
	}
	c.b = c.b[4:]
	return c
}

func u64[T ~uint64](c coder, v *T) coder {
	if c.load {
		*v = T(binary.LittleEndian.Uint64(c.b))
	} else {
		binary.LittleEndian.PutUint64(c.b, uint64(*v))
	}
	c.b = c.b[8:]
	return c
}

func octets(c coder, v []byte) coder {
	if c.load {
		copy(v, c.b)
	} else {
		copy(c.b, v)
	}
	c.b = c.b[len(v):]
	return c
}

func (m *OfferChannel) wire(c coder) coder {
	c = octets(octets(c, m.Interface[:]), m.Instance[:])
	c = u32(u32(u64(c, &m.InterruptLatency), &m.InterfaceRevision), &m.ServerContextSize)
	c = u16(u16(c, &m.Flags), &m.MMIOMegabytes)
	c = octets(c, m.UserDefined[:])
	c = u32(u16(u16(c, &m.SubChannel), &m.MMIOMegabytesOptional), &m.Channel)
	return u32(u16(u8(u8(c, &m.MonitorID), &m.MonitorAllocated), &m.IsDedicated), &m.ConnectionID)
}

func (m *RescindChannelOffer) wire(c coder) coder { return u32(c, &m.Channel) }

func (m *RelIDReleased) wire(c coder) coder { return u32(c, &m.Channel) }

func (m *OpenChannel) wire(c coder) coder {
	c = u32(u32(u32(c, &m.Channel), &m.OpenID), &m.Ring)
	return octets(u32(u32(c, &m.TargetVP), &m.HostOffset), m.UserData[:])
}

func (m *OpenChannel2) wire(c coder) coder {
	c = m.OpenChannel.wire(c)
	return u16(u16(u32(c, &m.ConnectionID), &m.EventFlag), &m.OpenFlags)
}

func (m *OpenResult) wire(c coder) coder {
	return u32(u32(u32(c, &m.Channel), &m.OpenID), &m.Status)
}

func (m *CloseChannel) wire(c coder) coder { return u32(c, &m.Channel) }

func (m *GPADLHeader) wire(c coder) coder {
	return u16(u16(u32(u32(c, &m.Channel), &m.GPADL), &m.RangeBufLen), &m.RangeCount)
}

func (m *GPADLBody) wire(c coder) coder { return u32(u32(c, &m.MessageNumber), &m.GPADL) }

func (m *GPADLCreated) wire(c coder) coder {
	return u32(u32(u32(c, &m.Channel), &m.GPADL), &m.Status)
}

func (m *GPADLTeardown) wire(c coder) coder { return u32(u32(c, &m.Channel), &m.GPADL) }

func (m *GPADLTorndown) wire(c coder) coder { return u32(c, &m.GPADL) }

func (m *TLConnectRequest) wire(c coder) coder {
	return octets(octets(c, m.Endpoint[:]), m.Service[:])
}

func (m *TLConnectRequest2) wire(c coder) coder {
	return octets(m.TLConnectRequest.wire(c), m.Silo[:])
}

func (m *TLConnectResult) wire(c coder) coder {
	return u32(octets(octets(c, m.Endpoint[:]), m.Service[:]), &m.Status)
}

// wire is the codec of the user data of a socket's offer, which is no message but
// goes with every one.
func (h *HVSockUserData) wire(c coder) coder {
	c = flag(flag(u32(c, &h.PipeType), &h.ForGuestAccept), &h.ForGuestContainer)
	return octets(u32(c, &h.ParametersVersion), h.Silo[:])
}
