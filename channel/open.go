package channel

import "github.com/hvlab/hvlab/internal/fsm"

// OpenState is where a channel is between open and close, seen by the host.
type OpenState uint8

// The host's open states. Source: vmbus-control.md 5.2; Revoked and Reoffered
// there belong to the offer and are in package offers.
const (
	Closed          OpenState = iota
	Opening                   // the device is processing the open
	Open                      // running
	Closing                   // the device is processing the close
	ClosingReopen             // as Closing, and the guest asked to open again
	OpeningReleased           // the guest is gone, the open is still pending
	ClosingReleased           // the guest is gone, the close is still pending
	OpeningReserved           // as Opening, for a channel that outlives the connection
	OpenReserved              // as Open: only CloseReservedChannel or a reset ends it
	ClosingReserved           // as Closing: CloseReservedChannelResponse follows
)

func (s OpenState) String() string {
	return [...]string{"Closed", "Opening", "Open", "Closing", "ClosingReopen", "OpeningReleased", "ClosingReleased",
		"OpeningReserved", "OpenReserved", "ClosingReserved"}[s]
}

// Reserved reports whether the channel survives unload and reconnect
// (vmbus-control.md 3.13).
func (s OpenState) Reserved() bool { return s >= OpeningReserved && s <= ClosingReserved }

// OpenEvent moves a channel between open and close.
type OpenEvent uint8

// The host's open events.
const (
	GuestOpens OpenEvent = iota
	GuestCloses
	DeviceOpens
	DeviceRefuses
	DeviceCloses
	GuestGone   // released, unloaded or disconnected
	MachineGone // VM reset: the device's late answers are ignored
	Withdrawn   // the host revoked the offer; the device is being removed
	GuestReserves
	GuestUnreserves
)

func (e OpenEvent) String() string {
	return [...]string{"GuestOpens", "GuestCloses", "DeviceOpens", "DeviceRefuses", "DeviceCloses", "GuestGone", "MachineGone", "Withdrawn",
		"GuestReserves", "GuestUnreserves"}[e]
}

// OpenTransitions is the open lifecycle on the host. There is no reply to
// CloseChannel, so a reopen may overtake the device's close.
var OpenTransitions = fsm.Table[OpenState, OpenEvent]{
	Name: "host channel",
	States: []OpenState{Closed, Opening, Open, Closing, ClosingReopen, OpeningReleased, ClosingReleased,
		OpeningReserved, OpenReserved, ClosingReserved},
	Events: []OpenEvent{GuestOpens, GuestCloses, DeviceOpens, DeviceRefuses, DeviceCloses, GuestGone, MachineGone, Withdrawn,
		GuestReserves, GuestUnreserves},
	Edges: map[fsm.Edge[OpenState, OpenEvent]]OpenState{
		{From: Closed, On: GuestOpens}:             Opening,
		{From: Closed, On: GuestGone}:              Closed,
		{From: Closed, On: MachineGone}:            Closed,
		{From: Closed, On: Withdrawn}:              Closed,
		{From: Opening, On: DeviceOpens}:           Open,
		{From: Opening, On: DeviceRefuses}:         Closed,
		{From: Opening, On: GuestGone}:             OpeningReleased,
		{From: Opening, On: MachineGone}:           Closed,
		{From: Opening, On: Withdrawn}:             Closed, // no OpenResult: the rescind wakes the guest
		{From: Open, On: GuestCloses}:              Closing,
		{From: Open, On: GuestGone}:                ClosingReleased,
		{From: Open, On: MachineGone}:              ClosingReleased,
		{From: Open, On: Withdrawn}:                Closed,
		{From: Closing, On: GuestOpens}:            ClosingReopen,
		{From: Closing, On: DeviceCloses}:          Closed,
		{From: Closing, On: GuestGone}:             ClosingReleased,
		{From: Closing, On: MachineGone}:           ClosingReleased,
		{From: Closing, On: Withdrawn}:             Closed,
		{From: ClosingReopen, On: DeviceCloses}:    Opening,
		{From: ClosingReopen, On: GuestGone}:       ClosingReleased,
		{From: ClosingReopen, On: MachineGone}:     ClosingReleased,
		{From: ClosingReopen, On: Withdrawn}:       Closed,
		{From: OpeningReleased, On: DeviceOpens}:   ClosingReleased,
		{From: OpeningReleased, On: DeviceRefuses}: Closed,
		{From: OpeningReleased, On: GuestGone}:     OpeningReleased,
		{From: OpeningReleased, On: MachineGone}:   Closed,
		{From: OpeningReleased, On: Withdrawn}:     Closed,
		{From: ClosingReleased, On: DeviceCloses}:  Closed,
		{From: ClosingReleased, On: GuestGone}:     ClosingReleased,
		{From: ClosingReleased, On: MachineGone}:   ClosingReleased,
		{From: ClosingReleased, On: Withdrawn}:     Closed,
		{From: Closed, On: GuestReserves}:          OpeningReserved,
		{From: OpeningReserved, On: DeviceOpens}:   OpenReserved,
		{From: OpeningReserved, On: DeviceRefuses}: Closed,
		{From: OpeningReserved, On: GuestGone}:     OpeningReserved, // it outlives the connection
		{From: OpeningReserved, On: MachineGone}:   Closed,
		{From: OpeningReserved, On: Withdrawn}:     Closed,
		{From: OpenReserved, On: GuestUnreserves}:  ClosingReserved,
		{From: OpenReserved, On: GuestGone}:        OpenReserved,
		{From: OpenReserved, On: MachineGone}:      ClosingReleased,
		{From: OpenReserved, On: Withdrawn}:        Closed,
		{From: ClosingReserved, On: DeviceCloses}:  Closed,
		{From: ClosingReserved, On: GuestGone}:     ClosingReserved,
		{From: ClosingReserved, On: MachineGone}:   ClosingReleased,
		{From: ClosingReserved, On: Withdrawn}:     Closed,
	},
}
