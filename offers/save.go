package offers

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/hvlab/hvlab/vmbus"
)

// A SavedOffer is one entry of a HostTable in a saved state.
type SavedOffer struct {
	Offer      Offer
	ID         vmbus.ChannelID // 0 while the guest has none
	MonitorID  uint8
	OwnMonitor bool // MonitorID came from the table's list
	State      State
}

// A RestoreError reports saved contents that no run can lead to.
type RestoreError struct{ Reason string }

func (e *RestoreError) Error() string { return "offers: saved state: " + e.Reason }

// Is makes a RestoreError match vmbus.ErrProtocol: somebody else wrote the bytes.
func (e *RestoreError) Is(target error) bool { return target == vmbus.ErrProtocol }

// Save returns every entry, sorted by key.
func (t *HostTable) Save() []SavedOffer {
	list := []SavedOffer{}
	for _, e := range t.byKey {
		list = append(list, SavedOffer{e.Offer, e.ID, e.MonitorID, e.ownMonitor, e.state})
	}
	slices.SortFunc(list, func(a, b SavedOffer) int {
		return cmp.Or(bytes.Compare(a.Offer.Interface[:], b.Offer.Interface[:]),
			bytes.Compare(a.Offer.Instance[:], b.Offer.Instance[:]), cmp.Compare(a.Offer.SubChannel, b.Offer.SubChannel))
	})
	return list
}

// Load fills an empty table with what Save returned and returns the entries in
// the same order. An error is a *RestoreError.
func (t *HostTable) Load(list []SavedOffer) ([]*Entry, error) {
	var entries []*Entry
	for _, s := range list {
		if why := t.refuses(s); why != "" {
			return nil, &RestoreError{fmt.Sprintf("offer %v: %s", s.Offer.Key, why)}
		}
		e := &Entry{Offer: s.Offer, ID: s.ID, MonitorID: s.MonitorID, ownMonitor: s.OwnMonitor, state: s.State}
		t.byKey[e.Key] = e
		if e.SubChannel == 0 {
			t.primaries[e.Instance] = struct{}{}
		}
		if e.ID != 0 {
			t.byID[e.ID] = e
			t.used++
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// refuses says why s cannot be part of t, or "". A monitor id of the table's own
// is claimed.
func (t *HostTable) refuses(s SavedOffer) string {
	_, primary := t.primaries[s.Offer.Instance]
	switch {
	case t.byKey[s.Offer.Key] != nil:
		return "the key is there twice"
	case primary && s.Offer.SubChannel == 0:
		return "the instance is there twice"
	case s.State > Reoffered:
		return "it is in no state"
	case (s.State == Hidden) != (s.ID == 0):
		return "its state and its channel id contradict each other"
	case s.ID > MaxOffers || s.ID != 0 && t.byID[s.ID] != nil:
		return "its channel id is out of range or taken"
	case s.ID == 0 && s.MonitorID != vmbus.NoMonitor:
		return "it has a monitor id and no channel id"
	case s.MonitorID != vmbus.NoMonitor && s.MonitorID >= vmbus.MaxMonitorIDs:
		return "there is no such monitor id"
	case s.MonitorID != vmbus.NoMonitor && s.Offer.Monitor == nil && s.State != Reoffered:
		return "it has a monitor id nobody asked for"
	case s.OwnMonitor && !t.monitors.Claim(s.MonitorID):
		return "its monitor id is taken"
	}
	return ""
}

// Load records an offer of a saved state. An error is an *OfferError, or a
// *RestoreError for a state no known offer is in.
func (c *Catalogue) Load(o vmbus.OfferChannel, s GuestState) (*Item, error) {
	if s != Known && s != Rescinded {
		return nil, &RestoreError{"a guest's offer is in no state"}
	}
	it, err := c.Offer(o)
	if err != nil {
		return nil, err
	}
	it.state = s
	return it, nil
}
