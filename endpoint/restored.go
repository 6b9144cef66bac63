package endpoint

import (
	"cmp"
	"maps"
	"slices"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
)

// A PublishedOffer is one offer of a Host, as far as its driver has to know to
// take over a restored core.
type PublishedOffer struct {
	ID      OfferID
	Offer   offers.Offer
	Open    bool        // the guest has it open, and a device works on its rings
	Request OpenRequest // valid if Open
}

// Published returns every offer the core knows and has not revoked, oldest first.
func (h *Host) Published() []PublishedOffer {
	var list []PublishedOffer
	for _, id := range slices.Sorted(maps.Keys(h.channels)) {
		c := h.channels[id]
		if s := c.entry.State(); s == offers.Revoked || s == offers.Gone {
			continue
		}
		p := PublishedOffer{ID: id, Offer: c.entry.Offer, Open: c.open == channel.Open || c.open == channel.OpenReserved}
		if p.Open {
			p.Request = c.request
		}
		list = append(list, p)
	}
	return list
}

// A KnownChannel is one channel of a Guest, as far as its driver has to know to
// take over a restored core.
type KnownChannel struct {
	Offer        vmbus.OfferChannel
	State        channel.GuestState
	Params       OpenParams // unless it is Idle
	ConnectionID uint32     // the guest signals here
	EventFlag    uint16     // the host signals here, from 2.4
}

// Channels returns every channel the core knows, by its id.
func (g *Guest) Channels() []KnownChannel {
	var list []KnownChannel
	for _, id := range slices.Sorted(maps.Keys(g.channels)) {
		c := g.channels[id]
		k := KnownChannel{Offer: c.item.Offer, State: c.state, Params: c.open, EventFlag: cmp.Or(c.open.EventFlag, c.flag, uint16(id))}
		if c.state != channel.Idle {
			k.ConnectionID = g.signalID(c)
		}
		list = append(list, k)
	}
	return list
}
