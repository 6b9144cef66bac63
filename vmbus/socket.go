package vmbus

// TLConnectRequest asks the host to connect a Hyper-V socket: the guest's
// Endpoint to the host's Service. (An offer has them the other way round:
// Interface is the service and comes first.)
// Guest to host, from Win10; answered by an OfferChannel or a TLConnectResult.
// Source: Linux include/linux/hyperv.h, struct vmbus_channel_tl_connect_request.
type TLConnectRequest struct {
	Endpoint GUID `wire:"endpoint_id"` // becomes OfferChannel.Instance
	Service  GUID `wire:"service_id"`  // becomes OfferChannel.Interface
}

// TLConnectRequest2 names the silo (container) that asks, from Win10RS5 on. The
// short form stays legal; the length decides.
// Source: OpenVMM protocol.rs, TlConnectRequest2.
type TLConnectRequest2 struct {
	TLConnectRequest
	Silo GUID `wire:"silo_id"` // zero = none
}

// TLConnectResult refuses a TLConnectRequest; success is an offer instead.
// Host to guest, from Win10RS3. Source: Linux struct vmbus_channel_tl_connect_result.
type TLConnectResult struct {
	Endpoint GUID   `wire:"endpoint_id"` // of the request
	Service  GUID   `wire:"service_id"`  // of the request
	Status   uint32 `wire:"status"`      // StatusConnectionRefused, or another negative NTSTATUS
}

// Type is TypeTLConnectRequest.
func (*TLConnectRequest) Type() Type { return TypeTLConnectRequest }

// Type is TypeTLConnectResult.
func (*TLConnectResult) Type() Type { return TypeTLConnectResult }
