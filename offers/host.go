package offers

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/hvlab/hvlab/internal/fsm"
	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/vmbus"
)

// A Key identifies an offer; the host refuses to publish it twice.
// Source: vmbus-control.md 3.1.
type Key struct {
	Interface, Instance vmbus.GUID
	SubChannel          uint16
}

// String renders both GUIDs and, for a sub-channel, its index.
func (k Key) String() string {
	s := k.Interface.UUID().String() + "/" + k.Instance.UUID().String()
	if k.SubChannel != 0 {
		s += fmt.Sprintf("#%d", k.SubChannel)
	}
	return s
}

// An Offer is what a device publishes.
type Offer struct {
	Key
	Flags         vmbus.OfferFlags
	MMIOMegabytes uint16
	// MMIOMegabytesOptional is what the device can do without, in MiB.
	MMIOMegabytesOptional uint16
	UserDefined           vmbus.UserData
	// Order comes before the instance in the order in which ids are assigned.
	Order uint32
	// Monitor asks for monitored notification; nil does not.
	Monitor *Monitor
	// NotDedicated makes the guest set its bit of the interrupt page before it
	// signals, as hosts of old versions want it (vmbus-control.md 1.4).
	NotDedicated bool
}

// State is the guest-visible half of an offer's life.
type State uint8

// The states of an offer.
const (
	Hidden    State = iota // exists on the host, the guest does not see it
	Offered                // the guest knows it under a channel id
	Revoked                // rescinded, the guest has not released the id yet
	Reoffered              // as Revoked, and the same key was published again
	Gone                   // removed from the table
)

func (s State) String() string {
	return [...]string{"Hidden", "Offered", "Revoked", "Reoffered", "Gone"}[s]
}

// Event is what moves an offer.
type Event uint8

// The events of an offer's life.
const (
	Announce      Event = iota // RequestOffers, or hot add
	HostRevokes                // the device withdraws
	HostPublishes              // the same key is published again
	GuestReleases              // RelIDReleased
	Disconnects                // unload, new contact or reset
)

func (e Event) String() string {
	return [...]string{"Announce", "HostRevokes", "HostPublishes", "GuestReleases", "Disconnects"}[e]
}

// HostTransitions is the offer lifetime on the host.
// Source: vmbus-control.md 5.2, split off from the open states.
var HostTransitions = fsm.Table[State, Event]{
	Name:   "host offer",
	States: []State{Hidden, Offered, Revoked, Reoffered, Gone},
	Events: []Event{Announce, HostRevokes, HostPublishes, GuestReleases, Disconnects},
	Edges: map[fsm.Edge[State, Event]]State{
		{From: Hidden, On: Announce}:         Offered,
		{From: Hidden, On: HostRevokes}:      Gone,
		{From: Hidden, On: Disconnects}:      Hidden,
		{From: Offered, On: HostRevokes}:     Revoked,
		{From: Offered, On: GuestReleases}:   Hidden, // offered again after the next RequestOffers
		{From: Offered, On: Disconnects}:     Hidden,
		{From: Revoked, On: HostRevokes}:     Revoked, // one rescind per offer
		{From: Revoked, On: HostPublishes}:   Reoffered,
		{From: Revoked, On: GuestReleases}:   Gone,
		{From: Revoked, On: Disconnects}:     Gone,
		{From: Reoffered, On: HostRevokes}:   Revoked,
		{From: Reoffered, On: GuestReleases}: Offered, // offered again under the same id
		{From: Reoffered, On: Disconnects}:   Hidden,
	},
}

// Errors of a HostTable, all the publisher's own fault (vmbus.ErrState).
var (
	ErrDuplicate = fmt.Errorf("offers: the key is already published: %w", vmbus.ErrState)
	ErrNoPrimary = fmt.Errorf("offers: a sub-channel needs its primary channel: %w", vmbus.ErrState)
	ErrMonitor   = fmt.Errorf("offers: preset monitor ids are 0..%d: %w", vmbus.MaxMonitorIDs-1, vmbus.ErrState)
	ErrFull      = fmt.Errorf("offers: all %d channel ids are taken: %w", MaxOffers, vmbus.ErrState)
)

// An Entry is one offer in a HostTable. ID is 0 while the guest has none,
// MonitorID vmbus.NoMonitor without monitored notification.
type Entry struct {
	Offer
	ID        vmbus.ChannelID
	MonitorID uint8
	state     State
	// ownMonitor says that MonitorID came from the table's list.
	ownMonitor bool
}

// State returns where the offer is in its life.
func (e *Entry) State() State { return e.state }

// Visible reports whether the guest knows the offer and it is not rescinded.
func (e *Entry) Visible() bool { return e.state == Offered }

// HostTable is every offer of one guest connection.
// The zero value is not usable; call NewHostTable.
type HostTable struct {
	byKey map[Key]*Entry
	byID  [MaxOffers + 1]*Entry
	// primaries holds the instances of primary offers: they must be unique over
	// all interfaces, since Linux matches re-offers by the instance alone
	// (vmbus-control.md 3.1).
	primaries map[vmbus.GUID]struct{}
	used      int // ids taken
	next      int // no id below next is free
	monitors  MonitorIDs
}

// NewHostTable returns an empty table.
func NewHostTable() *HostTable {
	return &HostTable{byKey: map[Key]*Entry{}, primaries: map[vmbus.GUID]struct{}{}, next: 1}
}

// Publish adds o. If the same key is Revoked, the existing entry becomes
// Reoffered and is returned. It returns ErrDuplicate for a live key and ErrFull
// when there are as many offers as ids.
func (t *HostTable) Publish(o Offer) (*Entry, error) {
	if o.Monitor != nil && o.Monitor.Preset && o.Monitor.ID >= vmbus.MaxMonitorIDs {
		return nil, ErrMonitor
	}
	if o.SubChannel != 0 && !t.hasPrimary(o.Key) {
		return nil, ErrNoPrimary
	}
	if e := t.byKey[o.Key]; putback.On(putback.HC09) && e != nil && e.state == Revoked {
		t.remove(e)
	}
	if e, ok := t.byKey[o.Key]; ok {
		if err := e.move(HostPublishes); err != nil {
			return nil, ErrDuplicate
		}
		e.Offer = o
		return e, nil
	}
	if _, live := t.primaries[o.Instance]; live && o.SubChannel == 0 {
		return nil, ErrDuplicate
	}
	if len(t.byKey) >= MaxOffers {
		return nil, ErrFull
	}
	e := &Entry{Offer: o, MonitorID: vmbus.NoMonitor}
	t.byKey[o.Key] = e
	if o.SubChannel == 0 {
		t.primaries[o.Instance] = struct{}{}
	}
	return e, nil
}

// Announce gives e the lowest free id and makes it visible. With monitors, the
// monitor pages are usable and e gets a monitor id if it wants one.
func (t *HostTable) Announce(e *Entry, monitors bool) error {
	if t.used >= MaxOffers {
		return ErrFull
	}
	if err := e.move(Announce); err != nil {
		return err
	}
	for t.byID[t.next] != nil {
		t.next++
	}
	e.ID = vmbus.ChannelID(t.next)
	e.MonitorID = t.monitorID(e, monitors)
	t.byID[t.next] = e
	t.used++
	return nil
}

// Revoke withdraws e. It reports whether the guest must be sent a rescind.
func (t *HostTable) Revoke(e *Entry) (rescind bool) {
	rescind = e.state == Offered
	if e.move(HostRevokes) == nil && e.state == Gone {
		t.remove(e)
	}
	return rescind
}

// Release handles RelIDReleased for e: the id is free, except for a Reoffered
// entry, which keeps it and must be offered again (reoffer).
func (t *HostTable) Release(e *Entry) (reoffer bool, err error) {
	was := e.state
	if err := e.move(GuestReleases); err != nil {
		return false, err
	}
	if was == Reoffered {
		if e.Monitor == nil { // the new offer does not want what the old one had
			t.dropMonitor(e)
		}
		return true, nil
	}
	t.dropID(e)
	if e.state == Gone {
		t.remove(e)
	}
	return false, nil
}

// Disconnect hides every offer and frees every id; rescinded ones disappear.
// Entries for which keep is true stay as they are: reserved channels.
func (t *HostTable) Disconnect(keep func(*Entry) bool) {
	for _, e := range t.byKey {
		if !keep(e) {
			t.Hide(e)
		}
	}
}

// Hide does to e alone what Disconnect does.
func (t *HostTable) Hide(e *Entry) {
	t.dropID(e)
	if e.move(Disconnects) == nil && e.state == Gone {
		t.remove(e)
	}
}

// Lookup returns the entry known to the guest as id, or nil.
func (t *HostTable) Lookup(id vmbus.ChannelID) *Entry {
	if (id == 0 || id > MaxOffers) && !putback.On(putback.HC17) {
		return nil
	}
	return t.byID[id]
}

// Sorted returns the hidden offers in the order in which ids are assigned:
// interface, order, instance, sub-channel; with absolute, order comes before the
// interface. A sub-channel has the order of its primary, so that it follows it.
// The order is stable over reconnects (vmbus-control.md 2.7).
func (t *HostTable) Sorted(absolute bool) []*Entry {
	var list []*Entry
	for _, e := range t.byKey {
		if e.state == Hidden {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b *Entry) int {
		order := cmp.Compare(t.order(a), t.order(b))
		first := 0
		if absolute {
			first = order
		}
		return cmp.Or(first, slices.Compare(a.Interface[:], b.Interface[:]), order,
			slices.Compare(a.Instance[:], b.Instance[:]), cmp.Compare(a.SubChannel, b.SubChannel))
	})
	return list
}

// Len returns the number of offers and the number of ids taken.
func (t *HostTable) Len() (offers, ids int) { return len(t.byKey), t.used }

func (t *HostTable) dropID(e *Entry) {
	if e.ID == 0 {
		return
	}
	t.byID[e.ID] = nil
	t.next = min(t.next, int(e.ID))
	t.used--
	e.ID = 0
	t.dropMonitor(e)
}

func (t *HostTable) remove(e *Entry) {
	delete(t.byKey, e.Key)
	if e.SubChannel == 0 {
		delete(t.primaries, e.Instance)
	}
}

// move is the only writer of e.state.
func (e *Entry) move(on Event) error {
	to, err := HostTransitions.Next(e.state, on)
	if err != nil {
		return errors.Join(vmbus.ErrState, err)
	}
	e.state = to
	return nil
}
