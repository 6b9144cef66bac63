package channel

import "github.com/hvlab/hvlab/internal/fsm"

// GuestState is where a channel's ring is, seen by the guest: the ring GPADL
// and the open states in one machine, since a guest only ever does them in this
// order (vmbus-control.md 4.3).
type GuestState uint8

// The guest's states of a channel.
const (
	Idle         GuestState = iota // no pages shared
	Sharing                        // ring GPADL announced, no answer yet
	Abandoning                     // as Sharing, but nobody wants the channel any more
	GuestOpening                   // OpenChannel sent, no answer yet
	Dropping                       // as GuestOpening, but nobody wants the channel any more
	GuestOpen                      // running
	Unsharing                      // GPADLTeardown sent, the pages are still the host's
	Unreserving                    // CloseReservedChannel sent
)

func (s GuestState) String() string {
	return [...]string{"Idle", "Sharing", "Abandoning", "Opening", "Dropping", "Open", "Unsharing", "Unreserving"}[s]
}

// GuestEvent moves a channel in the guest.
type GuestEvent uint8

// The guest's events.
const (
	Opens         GuestEvent = iota // the driver opens
	Closes                          // the driver closes, or gives up
	Created                         // GPADLCreated(0)
	CreateRefused                   // GPADLCreated(failure)
	Opened                          // OpenResult(0)
	OpenRefused                     // OpenResult(failure)
	Torndown                        // GPADLTorndown
	Rescinds                        // RescindChannelOffer
	Unreserves                      // the driver closes a reserved channel
	Unreserved                      // CloseReservedChannelResponse, the channel stays offered
	HostForgets                     // the same, and the host has dropped the channel and its pages
)

func (e GuestEvent) String() string {
	return [...]string{"Opens", "Closes", "Created", "CreateRefused", "Opened", "OpenRefused", "Torndown", "Rescinds",
		"Unreserves", "Unreserved", "HostForgets"}[e]
}

// GuestTransitions is the guest's life of a ring. A rescind ends a pending open
// in the same step (faults.md GC-01), but the pages stay shared until the host
// has answered every request about them (GC-15, GC-20). An Open channel stays
// open after a rescind until its driver closes it.
var GuestTransitions = fsm.Table[GuestState, GuestEvent]{
	Name:   "guest channel",
	States: []GuestState{Idle, Sharing, Abandoning, GuestOpening, Dropping, GuestOpen, Unsharing, Unreserving},
	Events: []GuestEvent{Opens, Closes, Created, CreateRefused, Opened, OpenRefused, Torndown, Rescinds, Unreserves, Unreserved, HostForgets},
	Edges: map[fsm.Edge[GuestState, GuestEvent]]GuestState{
		{From: Idle, On: Opens}:               Sharing,
		{From: Idle, On: Rescinds}:            Idle,
		{From: Sharing, On: Created}:          GuestOpening,
		{From: Sharing, On: CreateRefused}:    Idle,
		{From: Sharing, On: Closes}:           Abandoning,
		{From: Sharing, On: Rescinds}:         Abandoning,
		{From: Abandoning, On: Created}:       Unsharing,
		{From: Abandoning, On: CreateRefused}: Idle,
		{From: Abandoning, On: Rescinds}:      Abandoning,
		{From: GuestOpening, On: Opened}:      GuestOpen,
		{From: GuestOpening, On: OpenRefused}: Unsharing,
		{From: GuestOpening, On: Closes}:      Dropping,
		{From: GuestOpening, On: Rescinds}:    Unsharing, // the OpenResult will not come, or be late
		{From: Dropping, On: Opened}:          Unsharing, // CloseChannel goes first
		{From: Dropping, On: OpenRefused}:     Unsharing,
		{From: Dropping, On: Rescinds}:        Unsharing,
		{From: GuestOpen, On: Closes}:         Unsharing, // CloseChannel goes first
		{From: GuestOpen, On: Rescinds}:       GuestOpen,
		{From: Unsharing, On: Torndown}:       Idle,
		{From: Unsharing, On: Rescinds}:       Unsharing,
		{From: GuestOpening, On: Unreserves}:  Unreserving, // the OpenResult may be lost
		{From: GuestOpen, On: Unreserves}:     Unreserving,
		{From: Unreserving, On: Unreserves}:   Unreserving, // so may the answer to this
		{From: Unreserving, On: Unreserved}:   Unsharing,
		{From: Unreserving, On: HostForgets}:  Idle,
		{From: Unreserving, On: Rescinds}:     Unsharing,
		{From: Unreserving, On: Torndown}:     Idle, // only a host that has closed the channel does that
	},
}
