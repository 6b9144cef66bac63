package demo

import (
	"slices"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/trace"
)

// field returns the value of a field of e, or the zero value if e has no field of
// that name and type. Names are those of vmbus.Fields.
func field[T any](e trace.Event, name string) (v T) {
	for _, f := range e.Fields {
		if f.Name == name {
			v, _ = f.Value.(T)
		}
	}
	return v
}

// is reports whether e is a message of type t.
func is(e trace.Event, t vmbus.Type) bool { return e.Name == t.String() }

// socketOffer reports whether e offers a Hyper-V socket.
func socketOffer(e trace.Event) bool {
	return is(e, vmbus.TypeOfferChannel) && field[vmbus.OfferFlags](e, "flags")&vmbus.OfferTLNPI != 0
}

// forGuestAccept reports whether a socket offer is one that the host dials.
func forGuestAccept(e trace.Event) bool {
	return vmbus.DecodeHVSockUserData(field[vmbus.UserData](e, "user_defined")).ForGuestAccept
}

// gpadlPages is the number of pages of the one range that a GPADLHeader
// announces: 8 bytes of offset and length, then 8 bytes per page.
func gpadlPages(e trace.Event) int { return (int(field[uint16](e, "range_buflen")) - 8) / 8 }

// connections finds the Hyper-V sockets in a bus's messages, in their order. A
// channel id names the same socket from its offer to its release, and is used
// again after that.
func connections(events []trace.Event) (all []Connection) {
	for i, e := range events {
		if !socketOffer(e) {
			continue
		}
		c := Connection{
			offer:    i,
			Guest:    e.Who,
			Dialer:   "guest",
			Service:  field[vmbus.GUID](e, "interface_id").UUID(),
			Channel:  field[vmbus.ChannelID](e, "channel_id"),
			endpoint: field[vmbus.GUID](e, "instance_id"),
		}
		if forGuestAccept(e) {
			c.Dialer = "host"
		}
		c.Ring = ringOf(c, events[i:])
		all = append(all, c)
	}
	return all
}

// ringOf reads the ring geometry from the page list and the OpenChannel that
// follow c's offer.
func ringOf(c Connection, events []trace.Event) (ring Ring) {
	pages := 0
	for _, e := range events {
		if e.Who != c.Guest || field[vmbus.ChannelID](e, "channel_id") != c.Channel {
			continue
		}
		switch {
		case is(e, vmbus.TypeGPADLHeader):
			ring.GPADL = field[vmbus.GPADLID](e, "gpadl_id")
			pages = gpadlPages(e)
		case is(e, vmbus.TypeOpenChannel):
			ring.GuestPages = int(field[uint32](e, "downstream_page_offset"))
			ring.HostPages = pages - ring.GuestPages
			return ring
		}
	}
	return ring
}

// ofGuest returns the events of one guest's bus.
func ofGuest(events []trace.Event, name string) (own []trace.Event) {
	for _, e := range events {
		if e.Who == name {
			own = append(own, e)
		}
	}
	return own
}

// identities returns the ids in events that belong to one guest alone: the
// endpoints of its sockets. Channel ids and GPADL handles are numbered per guest,
// so two guests use the same ones.
func identities(events []trace.Event) (ids []uuid.UUID) {
	for _, e := range events {
		for _, name := range []string{"instance_id", "endpoint_id"} {
			if id := field[vmbus.GUID](e, name).UUID(); id != uuid.Nil && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// requested reports whether a guest asked for the socket with this endpoint.
func requested(events []trace.Event, endpoint vmbus.GUID) bool {
	return slices.ContainsFunc(events, func(e trace.Event) bool {
		return is(e, vmbus.TypeTLConnectRequest) && field[vmbus.GUID](e, "endpoint_id") == endpoint
	})
}

// ended reports whether c's channel went through all of its end after its offer:
// rescind, close, teardown of its pages, release.
func ended(events []trace.Event, c Connection) bool {
	for _, t := range []vmbus.Type{vmbus.TypeRescindChannelOffer, vmbus.TypeCloseChannel, vmbus.TypeGPADLTeardown, vmbus.TypeRelIDReleased} {
		if !slices.ContainsFunc(events[c.offer:], func(e trace.Event) bool {
			return e.Who == c.Guest && is(e, t) && field[vmbus.ChannelID](e, "channel_id") == c.Channel
		}) {
			return false
		}
	}
	return true
}

// port is the port of a service id, or 0 for one that has none.
func port(service uuid.UUID) uint32 {
	p, _ := hvsock.PortFromServiceID(service)
	return p
}
