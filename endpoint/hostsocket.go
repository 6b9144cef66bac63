package endpoint

import (
	"fmt"

	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
)

// socketRequest handles TLConnectRequest in both forms (vmbus-control.md 3.14).
func (h *Host) socketRequest(m vmbus.TLConnectRequest, silo vmbus.GUID) error {
	k := socketKey{m.Endpoint, m.Service}
	if _, dup := h.sockets[k]; dup {
		return &DropError{Message: vmbus.TypeTLConnectRequest, Reason: "the same request is waiting for its answer"}
	}
	h.sockets[k] = silo
	h.emit(h.requested(k))
	return nil
}

func (h *Host) requested(k socketKey) SocketRequested {
	return SocketRequested{Endpoint: k.endpoint, Service: k.service, Silo: h.sockets[k], SiloAware: h.negotiated.Version >= vmbus.Win10RS5}
}

// RefuseSocket answers SocketRequested: nobody serves it. The guest learns of
// it from version 4.1 on.
func (h *Host) RefuseSocket(endpoint, service vmbus.GUID) {
	k := socketKey{endpoint, service}
	if _, ok := h.sockets[k]; !ok {
		return // the guest has disconnected meanwhile
	}
	delete(h.sockets, k)
	if h.negotiated.Version >= vmbus.Win10RS3 {
		h.send(&vmbus.TLConnectResult{Endpoint: endpoint, Service: service, Status: vmbus.StatusConnectionRefused})
	}
}

// AcceptSocket answers SocketRequested with an offer, the only sign of success.
// If the offer cannot be made the request is refused and the error returned.
func (h *Host) AcceptSocket(endpoint, service vmbus.GUID) (OfferID, error) {
	k := socketKey{endpoint, service}
	if _, ok := h.sockets[k]; !ok {
		return 0, fmt.Errorf("endpoint: the socket request is no longer waiting: %w", vmbus.ErrState)
	}
	id, err := h.Publish(SiloOffer(SocketOffer(service, endpoint, false, h.negotiated.Version), h.sockets[k]))
	if err != nil {
		h.RefuseSocket(endpoint, service)
		return 0, err
	}
	delete(h.sockets, k)
	return id, nil
}

// SocketOffer is the offer of one Hyper-V socket connection: the interface is
// the listener's service, the instance the connector's endpoint. With
// guestAccepts the host is the connector. Source: vmbus-control.md 3.1.2, 5.6.
func SocketOffer(service, endpoint vmbus.GUID, guestAccepts bool, v vmbus.Version) offers.Offer {
	data := vmbus.HVSockUserData{ForGuestAccept: guestAccepts}
	if v >= vmbus.Win10RS5 {
		data.ParametersVersion = 1 // the silo id is valid
	}
	return offers.Offer{
		Key:         offers.Key{Interface: service, Instance: endpoint},
		Flags:       vmbus.OfferEnumerate | vmbus.OfferNamedPipe | vmbus.OfferTLNPI,
		UserDefined: data.Encode(),
	}
}

// SiloOffer is a SocketOffer for a container (silo) of the guest, instead of the
// guest itself; the zero silo leaves o alone. Guests below 5.2 do not know of
// silos. Source: hvsock.md 5.0.
func SiloOffer(o offers.Offer, silo vmbus.GUID) offers.Offer {
	if silo == (vmbus.GUID{}) {
		return o
	}
	data := vmbus.DecodeHVSockUserData(o.UserDefined)
	data.ForGuestContainer, data.Silo = true, silo
	o.UserDefined = data.Encode()
	return o
}
