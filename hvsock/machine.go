package hvsock

import "github.com/hvlab/hvlab/internal/fsm"

// guestState is where a socket is in the guest. Source: hvsock.md 12; the data
// phase (half-close, unread data) is the Conn's own business.
type guestState uint8

const (
	guestIdle      guestState = iota
	guestRequested            // TLConnectRequest sent
	guestOpening              // offer taken, ring pages shared, OpenChannel on its way
	guestAbandoned            // as guestOpening, but the dialer has given up
	guestOpen                 // data flows
	guestLingering            // the application closed; waiting for the host's rescind
	guestGone
)

func (s guestState) String() string {
	return [...]string{"Idle", "Requested", "Opening", "Abandoned", "Open", "Lingering", "Gone"}[s]
}

type guestEvent uint8

const (
	guestDials       guestEvent = iota // the application dials
	guestAccepts                       // an offer found a listener
	guestOfferTaken                    // the offer that answers the dial
	guestRefused                       // TLConnectResult, or no bus
	guestGivesUp                       // timeout or cancelled context
	guestOpened                        // OpenResult(0)
	guestOpenFails                     // refused or rescinded
	guestOpenIgnored                   // likewise, and the dial waits on for its timeout
	guestAppCloses                     // the application closes
	guestRescinded                     // the host ends the channel, or the bus is gone
	guestLingerEnds                    // the host never rescinded
)

func (e guestEvent) String() string {
	return [...]string{"Dials", "Accepts", "OfferTaken", "Refused", "GivesUp", "Opened", "OpenFails", "OpenIgnored", "AppCloses", "Rescinded", "LingerEnds"}[e]
}

// guestTransitions is the socket in the guest. Success wins: once Open, giving
// up has no edge (hvsock.md 14, connect success against timeout).
var guestTransitions = fsm.Table[guestState, guestEvent]{
	Name:   "guest socket",
	States: []guestState{guestIdle, guestRequested, guestOpening, guestAbandoned, guestOpen, guestLingering, guestGone},
	Events: []guestEvent{guestDials, guestAccepts, guestOfferTaken, guestRefused, guestGivesUp, guestOpened,
		guestOpenFails, guestOpenIgnored, guestAppCloses, guestRescinded, guestLingerEnds},
	Edges: map[fsm.Edge[guestState, guestEvent]]guestState{
		{From: guestIdle, On: guestDials}:           guestRequested,
		{From: guestIdle, On: guestAccepts}:         guestOpening,
		{From: guestRequested, On: guestOfferTaken}: guestOpening,
		{From: guestRequested, On: guestRefused}:    guestGone,
		{From: guestRequested, On: guestGivesUp}:    guestGone, // a late offer is left unopened
		{From: guestOpening, On: guestOpened}:       guestOpen,
		{From: guestOpening, On: guestOpenFails}:    guestGone,
		{From: guestOpening, On: guestOpenIgnored}:  guestRequested, // hvsock.md 5.1, step 5: only some guests
		{From: guestOpening, On: guestGivesUp}:      guestAbandoned,
		{From: guestAbandoned, On: guestOpened}:     guestGone, // closed at once
		{From: guestAbandoned, On: guestOpenFails}:  guestGone,
		{From: guestOpen, On: guestAppCloses}:       guestLingering,
		{From: guestOpen, On: guestRescinded}:       guestGone,
		{From: guestLingering, On: guestRescinded}:  guestGone,
		{From: guestLingering, On: guestLingerEnds}: guestGone,
	},
}

// hostState is where a socket is in the host. Source: hvsock.md 13.
type hostState uint8

const (
	hostIdle      hostState = iota
	hostOffered             // OfferChannel sent, the guest has not opened
	hostOpen                // data flows
	hostLingering           // the application closed; the guest may still finish
	hostRevoked             // rescinded, the guest has not released the id
	hostGone
)

func (s hostState) String() string {
	return [...]string{"Idle", "Offered", "Open", "Lingering", "Revoked", "Gone"}[s]
}

type hostEvent uint8

const (
	hostOffers      hostEvent = iota
	hostGuestOpens            // OpenChannel
	hostGivesUp               // open timeout, cancelled dial, listener closed
	hostAppCloses             // the application closes
	hostBothEnded             // FIN sent and FIN read
	hostLateData              // data after the application closed, or a corrupt ring
	hostGuestCloses           // CloseChannel, unload or reset
	hostLingerEnds            // the guest did not finish in time
	hostCutsOff               // the service was disabled, or the guest paused
	hostReleased              // the host has forgotten the offer
)

func (e hostEvent) String() string {
	return [...]string{"Offers", "GuestOpens", "GivesUp", "AppCloses", "BothEnded", "LateData", "GuestCloses", "LingerEnds", "CutsOff", "Released"}[e]
}

// hostTransitions is the socket in the host. Whatever ends it, the channel ends
// with a rescind: a Linux kernel thread waits for it without any bound.
var hostTransitions = fsm.Table[hostState, hostEvent]{
	Name:   "host socket",
	States: []hostState{hostIdle, hostOffered, hostOpen, hostLingering, hostRevoked, hostGone},
	Events: []hostEvent{hostOffers, hostGuestOpens, hostGivesUp, hostAppCloses, hostBothEnded, hostLateData,
		hostGuestCloses, hostLingerEnds, hostCutsOff, hostReleased},
	Edges: map[fsm.Edge[hostState, hostEvent]]hostState{
		{From: hostIdle, On: hostOffers}:           hostOffered,
		{From: hostOffered, On: hostGuestOpens}:    hostOpen,
		{From: hostOffered, On: hostGivesUp}:       hostRevoked,
		{From: hostOffered, On: hostGuestCloses}:   hostRevoked,
		{From: hostOffered, On: hostCutsOff}:       hostRevoked,
		{From: hostOffered, On: hostReleased}:      hostGone,
		{From: hostOpen, On: hostAppCloses}:        hostLingering,
		{From: hostOpen, On: hostBothEnded}:        hostRevoked,
		{From: hostOpen, On: hostLateData}:         hostRevoked,
		{From: hostOpen, On: hostGuestCloses}:      hostRevoked,
		{From: hostOpen, On: hostCutsOff}:          hostRevoked,
		{From: hostOpen, On: hostReleased}:         hostGone,
		{From: hostLingering, On: hostBothEnded}:   hostRevoked,
		{From: hostLingering, On: hostLateData}:    hostRevoked,
		{From: hostLingering, On: hostGuestCloses}: hostRevoked,
		{From: hostLingering, On: hostLingerEnds}:  hostRevoked,
		{From: hostLingering, On: hostCutsOff}:     hostRevoked,
		{From: hostLingering, On: hostReleased}:    hostGone,
		{From: hostRevoked, On: hostReleased}:      hostGone,
	},
}

// Tables are the transition tables of a socket, in the guest and in the host.
func Tables() []fsm.Counted { return []fsm.Counted{&guestTransitions, &hostTransitions} }
