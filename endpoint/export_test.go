package endpoint

import (
	"fmt"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
)

// What the tests of package endpoint_test look at inside. They are outside
// because the worlds of endpoint/script, which import this package, drive them.

// FirstGPADL is where guests begin to count.
const FirstGPADL = firstGPADL

// SavedHead is the size of a saved state before its contents.
const SavedHead = savedHead

// Options returns what the core was made with.
func (h *Host) Options() HostOptions { return h.opts }

// Options returns what the core was made with.
func (g *Guest) Options() GuestOptions { return g.opts }

// ActionsWaiting counts the actions nobody has taken.
func (h *Host) ActionsWaiting() int { return h.actions.len() }

// ActionsWaiting counts the actions nobody has taken.
func (g *Guest) ActionsWaiting() int { return g.actions.len() }

// Actions returns the actions nobody has taken.
func (h *Host) Actions() []Action { return h.actions.all() }

// Operations counts what the devices were asked for.
func (h *Host) Operations() int { return len(h.tokens) }

// Check says what is not as it must be after every step.
func (h *Host) Check() error {
	live := map[vmbus.ChannelID]bool{}
	for _, c := range h.channels {
		id := c.entry.ID
		switch {
		case id == 0:
		case live[id]:
			return fmt.Errorf("I-RELID-UNIQ: channel id %d has two offers", id)
		case int(id) > offers.MaxOffers:
			return fmt.Errorf("I-RELID-RANGE: channel id %d", id)
		case h.table.Lookup(id) != c.entry:
			return fmt.Errorf("channel id %d leads to another offer", id)
		}
		live[id] = id != 0
	}
	switch {
	case h.gpadls.Len() > channel.MaxGPADLs:
		return fmt.Errorf("%d GPADLs", h.gpadls.Len())
	case len(h.sockets) > MaxSocketRequests:
		return fmt.Errorf("%d socket requests", len(h.sockets))
	case h.out.len() > MaxOutgoingMessages:
		return fmt.Errorf("%d messages in the outbox", h.out.len())
	}
	return nil
}

// A HostSnapshot is what a saved host says, and a GuestSnapshot a saved guest.
type (
	HostSnapshot     = hostSnapshot
	GuestSnapshot    = guestSnapshot
	SavedOutgoing    = savedOutgoing
	SavedPosting     = savedPosting
	SavedLater       = savedLater
	SavedSocket      = savedSocket
	SavedHostChannel = savedHostChannel
)

// EditHost changes what a saved host says; the digest is right again.
func EditHost(b []byte, edit func(*HostSnapshot)) ([]byte, error) {
	var s hostSnapshot
	if err := unseal(savedHost, b, &s); err != nil {
		return nil, err
	}
	edit(&s)
	return seal(savedHost, &s)
}

// EditGuest is EditHost for a guest.
func EditGuest(b []byte, edit func(*GuestSnapshot)) ([]byte, error) {
	var s guestSnapshot
	if err := unseal(savedGuest, b, &s); err != nil {
		return nil, err
	}
	edit(&s)
	return seal(savedGuest, &s)
}
