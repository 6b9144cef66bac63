package invariant

import "github.com/hvlab/hvlab/vmbus"

// since is what a message type needs: the table of vmbus-control.md 3.0, written
// down once more so that it does not share a mistake with the one of package vmbus.
var since = map[vmbus.Type]struct {
	version  vmbus.Version
	features vmbus.Features // any of them; 0 needs none
}{
	vmbus.TypeOfferChannel: {vmbus.V1, 0}, vmbus.TypeRescindChannelOffer: {vmbus.V1, 0}, vmbus.TypeRequestOffers: {vmbus.V1, 0},
	vmbus.TypeAllOffersDelivered: {vmbus.V1, 0}, vmbus.TypeOpenChannel: {vmbus.V1, 0}, vmbus.TypeOpenResult: {vmbus.V1, 0},
	vmbus.TypeCloseChannel: {vmbus.V1, 0}, vmbus.TypeGPADLHeader: {vmbus.V1, 0}, vmbus.TypeGPADLBody: {vmbus.V1, 0},
	vmbus.TypeGPADLCreated: {vmbus.V1, 0}, vmbus.TypeGPADLTeardown: {vmbus.V1, 0}, vmbus.TypeGPADLTorndown: {vmbus.V1, 0},
	vmbus.TypeRelIDReleased: {vmbus.V1, 0}, vmbus.TypeUnload: {vmbus.V1, 0}, vmbus.TypeUnloadComplete: {vmbus.Win7, 0},
	vmbus.TypeOpenReservedChannel: {vmbus.Win10, 0}, vmbus.TypeTLConnectRequest: {vmbus.Win10, 0},
	vmbus.TypeModifyChannel: {vmbus.Win10RS3, 0}, vmbus.TypeTLConnectResult: {vmbus.Win10RS3, 0},
	vmbus.TypeModifyChannelResponse: {vmbus.Iron, 0},
	vmbus.TypeModifyConnection:      {vmbus.Copper, vmbus.ConnectionModify}, vmbus.TypeModifyConnectionResponse: {vmbus.Copper, vmbus.ConnectionModify},
	vmbus.TypePause: {vmbus.Copper, vmbus.PauseResume}, vmbus.TypePauseResponse: {vmbus.Copper, vmbus.PauseResume},
	vmbus.TypeResume: {vmbus.Copper, vmbus.PauseResume},
	// These need no connection: InitiateContact, VersionResponse, and the end of a
	// reserved channel with its answer.
	vmbus.TypeInitiateContact: {}, vmbus.TypeVersionResponse: {}, vmbus.TypeCloseReservedChannel: {}, vmbus.TypeCloseReservedChannelResponse: {},
}

// allowed says why t may not be used on a connection that agreed on n, or "".
func allowed(t vmbus.Type, n vmbus.Negotiated) string {
	need, known := since[t]
	switch {
	case !known:
		return "no such type exists"
	case n.Version < need.version:
		return "it begins with version " + need.version.String() + ", the connection has " + n.Version.String()
	case need.features != 0 && n.Features&need.features == 0:
		return "its feature was not granted"
	}
	return ""
}
