package vmbus

// OfferChannel announces a channel. The triple (Interface, Instance, SubChannel)
// identifies the offer, Channel names it until it is released.
// Host to guest, after RequestOffers and for hot-added channels at any time.
// Source: Linux include/linux/hyperv.h, struct vmbus_channel_offer_channel;
// FreeBSD vmbus_reg.h for the three reserved fields.
type OfferChannel struct {
	Interface             GUID       `wire:"interface_id"`        // the class of device, or the service of a socket
	Instance              GUID       `wire:"instance_id"`         // the device, or the endpoint of a socket
	InterruptLatency      uint64     `wire:"interrupt_latency"`   // reserved, 0; 100-ns units
	InterfaceRevision     uint32     `wire:"interface_revision"`  // reserved, 0
	ServerContextSize     uint32     `wire:"server_context_size"` // reserved, 0
	Flags                 OfferFlags `wire:"flags"`
	MMIOMegabytes         uint16     `wire:"mmio_megabytes"`
	UserDefined           UserData   `wire:"user_defined"`      // PipeUserData, HVSockUserData or the device's own
	SubChannel            uint16     `wire:"sub_channel_index"` // 0 is the primary channel; from Win8
	MMIOMegabytesOptional uint16     `wire:"mmio_megabytes_optional"`
	Channel               ChannelID  `wire:"channel_id"`
	MonitorID             uint8      `wire:"monitor_id"`        // 0..127, or NoMonitor
	MonitorAllocated      uint8      `wire:"monitor_allocated"` // bit 0
	IsDedicated           uint16     `wire:"is_dedicated"`      // bit 0: ConnectionID is the channel's own; from Win7
	ConnectionID          uint32     `wire:"connection_id"`     // for HvSignalEvent; from Win7
}

// RescindChannelOffer withdraws an offer. Its id stays taken until RelIDReleased.
// Host to guest, once per offer.
type RescindChannelOffer struct {
	Channel ChannelID `wire:"channel_id"`
}

// RequestOffers asks for all offers. Guest to host, once per connection.
type RequestOffers struct{}

// AllOffersDelivered follows the last offer that RequestOffers asked for.
// Host to guest.
type AllOffersDelivered struct{}

// RelIDReleased promises that the guest does not use the channel id any more.
// Guest to host, after RescindChannelOffer as a rule.
type RelIDReleased struct {
	Channel ChannelID `wire:"channel_id"`
}

// Type is TypeOfferChannel.
func (*OfferChannel) Type() Type { return TypeOfferChannel }

// Type is TypeRescindChannelOffer.
func (*RescindChannelOffer) Type() Type { return TypeRescindChannelOffer }

// Type is TypeRequestOffers.
func (*RequestOffers) Type() Type { return TypeRequestOffers }

// Type is TypeAllOffersDelivered.
func (*AllOffersDelivered) Type() Type { return TypeAllOffersDelivered }

// Type is TypeRelIDReleased.
func (*RelIDReleased) Type() Type { return TypeRelIDReleased }
