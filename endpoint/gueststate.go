package endpoint

import "github.com/hvlab/hvlab/internal/fsm"

// GuestState is where the guest's connection is. Source: vmbus-control.md 6.1.
type GuestState uint8

// The guest's connection states.
const (
	GuestDisconnected GuestState = iota
	GuestConnecting              // walking down the versions
	GuestRequesting              // offers requested, not all delivered
	GuestConnected
	GuestUnloading
)

func (s GuestState) String() string {
	return [...]string{"Disconnected", "Connecting", "Requesting", "Connected", "Unloading"}[s]
}

// GuestEvent moves the guest's connection.
type GuestEvent uint8

// The guest's connection events.
const (
	Connects GuestEvent = iota
	VersionAccepted
	ListExhausted
	OffersComplete
	GuestUnloads
	UnloadCompletes
	LinkFails // the host's hypervisor refuses every post
)

func (e GuestEvent) String() string {
	return [...]string{"Connects", "VersionAccepted", "ListExhausted", "OffersComplete", "Unloads", "UnloadCompletes", "LinkFails"}[e]
}

// GuestTransitions is the connection in the guest. A refused version is no
// event: the guest stays Connecting and asks for the next.
var GuestTransitions = fsm.Table[GuestState, GuestEvent]{
	Name:   "guest connection",
	States: []GuestState{GuestDisconnected, GuestConnecting, GuestRequesting, GuestConnected, GuestUnloading},
	Events: []GuestEvent{Connects, VersionAccepted, ListExhausted, OffersComplete, GuestUnloads, UnloadCompletes, LinkFails},
	Edges: map[fsm.Edge[GuestState, GuestEvent]]GuestState{
		{From: GuestDisconnected, On: Connects}:      GuestConnecting,
		{From: GuestConnecting, On: VersionAccepted}: GuestRequesting,
		{From: GuestConnecting, On: ListExhausted}:   GuestDisconnected,
		{From: GuestRequesting, On: OffersComplete}:  GuestConnected,
		{From: GuestRequesting, On: GuestUnloads}:    GuestUnloading,
		{From: GuestConnected, On: GuestUnloads}:     GuestUnloading,
		{From: GuestUnloading, On: UnloadCompletes}:  GuestDisconnected,
		{From: GuestConnecting, On: LinkFails}:       GuestDisconnected,
		{From: GuestRequesting, On: LinkFails}:       GuestDisconnected,
		{From: GuestConnected, On: LinkFails}:        GuestDisconnected,
		{From: GuestUnloading, On: LinkFails}:        GuestDisconnected,
	},
}
