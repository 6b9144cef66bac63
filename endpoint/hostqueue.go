package endpoint

import (
	"github.com/hvlab/hvlab/vmbus"
)

// What the host says of its own accord is produced as the outbox has room for
// it: an offer gets its id only then. Answers go straight to the outbox; there is
// at most one for every request a device is working on.
// Source: faults.md 5, outgoing message queue.

// A later is one message the host wants to send when there is room.
type later struct {
	kind    laterKind
	channel *hostChannel    // laterOffer
	id      vmbus.ChannelID // laterRescind
}

type laterKind uint8

const (
	laterOffer laterKind = iota
	laterRescind
	laterDelivered // AllOffersDelivered
)

// say sends l now, or when everything before it is sent and there is room.
func (h *Host) say(l later) {
	h.later.push(l)
	h.refill()
}

// refill fills the outbox up to its limit.
func (h *Host) refill() {
	for h.out.len() < MaxOutgoingMessages {
		l, ok := h.later.pop()
		if !ok {
			return
		}
		switch l.kind {
		case laterOffer:
			if h.state == OffersSent {
				h.announce(l.channel)
			}
		case laterRescind:
			h.send(&vmbus.RescindChannelOffer{Channel: l.id})
		case laterDelivered:
			h.send(&vmbus.AllOffersDelivered{})
		}
	}
}
