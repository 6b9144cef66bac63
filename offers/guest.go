package offers

import (
	"errors"
	"fmt"

	"github.com/hvlab/hvlab/internal/fsm"
	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/vmbus"
)

// GuestState is where an offer is, seen by the guest.
type GuestState uint8

// The guest's states of an offer.
const (
	Unknown   GuestState = iota // no such id
	Known                       // offered
	Rescinded                   // withdrawn by the host, not released yet
)

func (s GuestState) String() string { return [...]string{"Unknown", "Known", "Rescinded"}[s] }

// GuestEvent moves an offer in the guest's catalogue.
type GuestEvent uint8

// The events of the guest's catalogue.
const (
	OfferArrives GuestEvent = iota
	RescindArrives
	Releases
)

func (e GuestEvent) String() string {
	return [...]string{"OfferArrives", "RescindArrives", "Releases"}[e]
}

// GuestTransitions is the offer lifetime in the guest. A second rescind changes
// nothing (faults.md GC-05), a rescind of an unknown id is dropped by the
// caller, and an offer of an id in use has no edge (GC-21).
var GuestTransitions = fsm.Table[GuestState, GuestEvent]{
	Name:   "guest offer",
	States: []GuestState{Unknown, Known, Rescinded},
	Events: []GuestEvent{OfferArrives, RescindArrives, Releases},
	Edges: map[fsm.Edge[GuestState, GuestEvent]]GuestState{
		{From: Unknown, On: OfferArrives}:     Known,
		{From: Known, On: RescindArrives}:     Rescinded,
		{From: Known, On: Releases}:           Unknown, // offer handling failed in the guest
		{From: Rescinded, On: RescindArrives}: Rescinded,
		{From: Rescinded, On: Releases}:       Unknown,
	},
}

// An OfferError reports an offer the host had no right to make.
type OfferError struct {
	Channel vmbus.ChannelID
	Reason  string
}

func (e *OfferError) Error() string {
	return fmt.Sprintf("offers: the host offered channel %d, %s", e.Channel, e.Reason)
}

// Is makes an OfferError match vmbus.ErrProtocol: it is the peer's fault.
func (e *OfferError) Is(target error) bool { return target == vmbus.ErrProtocol }

// An Item is one offer in the guest's catalogue.
type Item struct {
	Offer vmbus.OfferChannel
	state GuestState
}

// Rescinded reports whether the host has withdrawn the offer.
func (i *Item) Rescinded() bool { return i.state == Rescinded }

// State returns where the offer is in its life.
func (i *Item) State() GuestState { return i.state }

// Catalogue is every offer the guest knows. The zero value is empty and ready.
type Catalogue struct {
	items map[vmbus.ChannelID]*Item
}

// Offer records o. An id of 0, above 2047 or in use is an *OfferError; the
// guest's connection then ends in order.
func (c *Catalogue) Offer(o vmbus.OfferChannel) (*Item, error) {
	if o.Channel == 0 || o.Channel > MaxOffers {
		return nil, &OfferError{o.Channel, fmt.Sprintf("outside 1..%d", MaxOffers)}
	}
	if c.items[o.Channel] != nil {
		return nil, &OfferError{o.Channel, "which is in use"}
	}
	it := &Item{Offer: o}
	if err := it.move(OfferArrives); err != nil {
		return nil, err
	}
	if c.items == nil {
		c.items = map[vmbus.ChannelID]*Item{}
	}
	c.items[o.Channel] = it
	return it, nil
}

// Rescind marks id as withdrawn. It reports whether this was the first rescind
// of a known id; any other is dropped.
func (c *Catalogue) Rescind(id vmbus.ChannelID) (first bool) {
	it := c.items[id]
	if it == nil {
		return false
	}
	first = it.state == Known
	return it.move(RescindArrives) == nil && (first || putback.On(putback.GC05))
}

// Release forgets id: the guest sends RelIDReleased.
func (c *Catalogue) Release(id vmbus.ChannelID) error {
	it := c.items[id]
	if it == nil {
		return fmt.Errorf("offers: channel %d is not in the catalogue: %w", id, vmbus.ErrState)
	}
	if err := it.move(Releases); err != nil {
		return err
	}
	delete(c.items, id)
	return nil
}

// Lookup returns the offer with id, or nil.
func (c *Catalogue) Lookup(id vmbus.ChannelID) *Item { return c.items[id] }

// Len returns the number of offers known and not released.
func (c *Catalogue) Len() int { return len(c.items) }

// Clear forgets everything: the connection is over.
func (c *Catalogue) Clear() { clear(c.items) }

// move is the only writer of i.state.
func (i *Item) move(on GuestEvent) error {
	to, err := GuestTransitions.Next(i.state, on)
	if err != nil {
		return errors.Join(vmbus.ErrState, err)
	}
	i.state = to
	return nil
}
