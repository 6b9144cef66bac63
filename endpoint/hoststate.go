package endpoint

import (
	"maps"
	"slices"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/internal/fsm"
	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
)

// HostState is where a guest's connection is. Source: vmbus-control.md 5.1.
type HostState uint8

// The host's connection states.
const (
	HostDisconnected HostState = iota
	Connecting                 // a contact was accepted, the driver is mapping
	Negotiated                 // connected, offers not requested yet
	OffersSent                 // connected, offers requested
	Disconnecting              // waiting for devices and GPADLs, then for the driver
)

func (s HostState) String() string {
	return [...]string{"Disconnected", "Connecting", "Negotiated", "OffersSent", "Disconnecting"}[s]
}

// HostEvent moves the connection.
type HostEvent uint8

// The host's connection events.
const (
	Contacts HostEvent = iota // InitiateContact that can be served
	SetUp
	SetUpFails
	RequestsOffers
	Unloads
	MachineResets
	BackEndReset // devices and GPADLs are gone and the driver has let go
)

func (e HostEvent) String() string {
	return [...]string{"Contacts", "SetUp", "SetUpFails", "RequestsOffers", "Unloads", "MachineResets", "BackEndReset"}[e]
}

// HostTransitions is the connection on the host. What is remembered for after a
// set-up or a disconnect is not a state: see nextAction.
var HostTransitions = fsm.Table[HostState, HostEvent]{
	Name:   "host connection",
	States: []HostState{HostDisconnected, Connecting, Negotiated, OffersSent, Disconnecting},
	Events: []HostEvent{Contacts, SetUp, SetUpFails, RequestsOffers, Unloads, MachineResets, BackEndReset},
	Edges: map[fsm.Edge[HostState, HostEvent]]HostState{
		{From: HostDisconnected, On: Contacts}:      Connecting,
		{From: HostDisconnected, On: MachineResets}: Disconnecting,
		{From: Connecting, On: Contacts}:            Connecting, // remembered
		{From: Connecting, On: SetUp}:               Negotiated,
		{From: Connecting, On: SetUpFails}:          HostDisconnected,
		{From: Connecting, On: MachineResets}:       Connecting, // remembered
		{From: Negotiated, On: Contacts}:            Disconnecting,
		{From: Negotiated, On: RequestsOffers}:      OffersSent,
		{From: Negotiated, On: Unloads}:             Disconnecting,
		{From: Negotiated, On: MachineResets}:       Disconnecting,
		{From: OffersSent, On: Contacts}:            Disconnecting,
		{From: OffersSent, On: Unloads}:             Disconnecting,
		{From: OffersSent, On: MachineResets}:       Disconnecting,
		{From: Disconnecting, On: Contacts}:         Disconnecting, // remembered
		{From: Disconnecting, On: MachineResets}:    Disconnecting, // remembered
		{From: Disconnecting, On: BackEndReset}:     HostDisconnected,
	},
}

// move is the only writer of h.state.
func (h *Host) move(on HostEvent) error {
	to, err := HostTransitions.Next(h.state, on)
	if err != nil {
		return err
	}
	h.state = to
	return nil
}

// thenKind says what follows a disconnect.
type thenKind uint8

const (
	thenNothing thenKind = iota
	thenReset
	thenUnloadComplete
	thenReconnect
)

// A nextAction is what was asked for while the connection was busy; a newer one
// replaces it.
type nextAction struct {
	kind    thenKind
	contact contact
}

// disconnect releases every channel and ends the connection; next follows.
func (h *Host) disconnect(on HostEvent, next nextAction) {
	h.after = next
	if on == MachineResets { // at once, also if the reset has to wait for a set-up
		h.out.clear()
	}
	immediate := on == Contacts && h.opts.Dialect.ResetOnContact
	already := h.state == Disconnecting
	if h.move(on) != nil || h.state != Disconnecting {
		return
	}
	h.paused = false
	delete(h.tokens, h.remap)
	h.remap = 0
	event := channel.GuestGone
	if on == MachineResets && !putback.On(putback.HC04) {
		event = channel.MachineGone
	}
	h.later.clear()
	for _, id := range slices.Sorted(maps.Keys(h.channels)) {
		c := h.channels[id]
		if c.open.Reserved() && on != MachineResets {
			c.stale = true
			continue
		}
		h.releaseGPADLs(c)
		h.releaseOpen(c, event)
		if c.stopped || immediate { // neither waits for the device
			h.abandon(c)
		}
	}
	h.table.Disconnect(func(e *offers.Entry) bool { return h.byEntry[e].open.Reserved() })
	for _, id := range slices.Sorted(maps.Keys(h.channels)) {
		if c := h.channels[id]; c.entry.State() == offers.Gone {
			h.forget(c)
		}
	}
	if !already {
		clear(h.sockets)
		h.emit(GuestGone{})
	}
	h.drained()
}

// drained goes on with a disconnect when no device and no GPADL is left.
func (h *Host) drained() {
	if h.state == Disconnecting && len(h.busy) == 0 && !h.resetting && h.gpadls.Len() == h.keptGPADLs() {
		h.resetting = true
		h.emit(ResetConnection{})
	}
}

// ResetDone answers ResetConnection.
func (h *Host) ResetDone() {
	if !h.resetting || h.move(BackEndReset) != nil {
		return
	}
	h.resetting = false
	version := h.negotiated.Version
	h.negotiated = vmbus.Negotiated{}
	h.monitors, h.trusted = false, false
	next := h.after
	h.after = nextAction{}
	switch next.kind {
	case thenUnloadComplete:
		if version >= vmbus.Win7 { // 0.13 does not have it
			h.send(&vmbus.UnloadComplete{})
		}
	case thenReset:
		h.targetVP = 0
		h.emit(ResetFinished{})
	case thenReconnect:
		h.beginContact(next.contact)
	}
}

// beingReset reports whether Reset was called and ResetFinished is still to come. A
// contact served meanwhile would take the reset's place, and would get the answer to
// an earlier one.
func (h *Host) beingReset() bool { return h.after.kind == thenReset }

// Reset is a reset of the virtual machine. ResetFinished follows. What the guest was
// to hear is discarded at once.
func (h *Host) Reset() {
	h.observe(MachineReset{})
	h.disconnect(MachineResets, nextAction{kind: thenReset})
}
