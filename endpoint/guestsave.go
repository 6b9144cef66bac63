package endpoint

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
)

// A guestSnapshot is all a Guest knows; options are not part of it.
type guestSnapshot struct {
	State           uint8
	Versions, Tried []vmbus.Version
	Negotiated      vmbus.Negotiated
	Port            uint32
	Channels        []savedGuestChannel
	NextGPADL       vmbus.GPADLID
	Cause           string // "" for none
	Modifying       bool
	Pause           uint8
	Out, Held       []savedPosting
}

type savedGuestChannel struct {
	Offer      vmbus.OfferChannel
	OfferState uint8
	State      uint8
	Ring       vmbus.GPADLID
	Open       OpenParams
	Modifying  bool
	ModifyVP   uint32
	ModifyRing vmbus.GPADLID
	Flag       uint16
	Stale      bool
}

type savedPosting struct {
	Port    uint32
	Payload []byte
}

// Save returns the whole core, for RestoreGuest. It may be called between any two
// steps once the actions have been drained with Next; an error matches
// vmbus.ErrState.
func (g *Guest) Save() ([]byte, error) {
	if g.actions.len() != 0 {
		return nil, fmt.Errorf("endpoint: saving with actions that were not taken: %w", vmbus.ErrState)
	}
	s := guestSnapshot{
		State: uint8(g.state), Versions: g.versions, Tried: g.tried, Negotiated: g.negotiated, Port: g.port,
		NextGPADL: g.nextGPADL, Modifying: g.modifying, Pause: uint8(g.pause),
		Out: savePostings(g.out), Held: savePostings(g.held),
	}
	if g.cause != nil {
		s.Cause = g.cause.Error()
	}
	for _, id := range slices.Sorted(maps.Keys(g.channels)) {
		c := g.channels[id]
		x := savedGuestChannel{
			Offer: c.item.Offer, OfferState: uint8(c.item.State()), State: uint8(c.state),
			Ring: c.ring, Open: c.open, Flag: c.flag, Stale: c.stale,
		}
		if c.modify != nil {
			x.Modifying, x.ModifyVP, x.ModifyRing = true, c.modify.vp, c.modify.ring
		}
		s.Channels = append(s.Channels, x)
	}
	return seal(savedGuest, &s)
}

func savePostings(q fifo[Posting]) (list []savedPosting) {
	for _, p := range q.all() {
		list = append(list, savedPosting{p.Port, p.Payload})
	}
	return list
}

// RestoreGuest returns the core that Save was called on. Given the same inputs it
// does the same, step for step. Errors match vmbus.ErrProtocol.
func RestoreGuest(opts GuestOptions, b []byte) (*Guest, error) {
	var s guestSnapshot
	if err := unseal(savedGuest, b, &s); err != nil {
		return nil, err
	}
	g := NewGuest(opts)
	for _, part := range []func(*guestSnapshot) error{g.restoreConnection, g.restoreChannels, g.restoreQueues} {
		if err := part(&s); err != nil {
			return nil, err
		}
	}
	if err := canonical(b, g.Save); err != nil {
		return nil, err
	}
	return g, nil
}

func (g *Guest) restoreConnection(s *guestSnapshot) error {
	state := GuestState(s.State)
	n := s.Negotiated
	known := func(v vmbus.Version) bool { return slices.Contains(g.opts.Versions, v) }
	live := state == GuestRequesting || state == GuestConnected || state == GuestUnloading
	switch {
	case !slices.Contains(GuestTransitions.States, state) || !slices.Contains(PauseTransitions.States, PauseState(s.Pause)):
		return refuse("the connection is in no state", nil)
	case live != (n.Version != 0) || (s.Pause != 0 || s.Modifying) && !live:
		return refuse("the connection's state and its version contradict each other", nil)
	case live && !known(n.Version) || n.Features&^g.opts.Features != 0 || n.Version < vmbus.Copper && n.Features != 0:
		return refuse("this guest does not ask for the version or the features", nil)
	case state == GuestConnecting && len(s.Versions) == 0:
		return refuse("no version is left to try", nil)
	}
	for _, v := range slices.Concat(s.Versions, s.Tried) {
		if !known(v) {
			return refuse("this guest does not try the version", nil)
		}
	}
	g.state, g.negotiated, g.port, g.versions, g.tried = state, n, s.Port, s.Versions, s.Tried
	g.nextGPADL, g.modifying, g.pause = s.NextGPADL, s.Modifying, PauseState(s.Pause)
	if s.Cause != "" {
		g.cause = errors.New(s.Cause)
	}
	return nil
}

func (g *Guest) restoreChannels(s *guestSnapshot) error {
	for _, x := range s.Channels {
		item, err := g.catalogue.Load(x.Offer, offers.GuestState(x.OfferState))
		if err != nil {
			return refuse("a channel", err)
		}
		c := &guestChannel{item: item, state: channel.GuestState(x.State), ring: x.Ring, open: x.Open, flag: x.Flag, stale: x.Stale}
		if x.Modifying {
			c.modify = &modification{x.ModifyVP, x.ModifyRing}
		}
		idle := c.state == channel.Idle
		switch {
		case !slices.Contains(channel.GuestTransitions.States, c.state):
			return refuse("a channel is in no state", nil)
		case idle != (c.ring == 0) || g.rings[c.ring] != nil:
			return refuse("a channel's ring and its state contradict each other", nil)
		case !x.Modifying && (x.ModifyVP != 0 || x.ModifyRing != 0):
			return refuse("a channel is modified and is not", nil)
		case idle && (c.item.Rescinded() && c.modify == nil || c.flag != 0):
			return refuse("a channel should be released", nil)
		case g.state == GuestDisconnected && !c.survives():
			return refuse("a channel outlives its connection", nil)
		case c.flag >= vmbus.EventFlagsPerSINT || c.flag != 0 && g.flags.taken(c.flag):
			return refuse("a channel's event flag is taken", nil)
		}
		if !idle {
			g.rings[c.ring] = c
		}
		g.flags.claim(c.flag)
		g.channels[x.Offer.Channel] = c
	}
	return nil
}

func (g *Guest) restoreQueues(s *guestSnapshot) error {
	n := g.negotiated
	if n.Version == 0 {
		n.Version = vmbus.V1 // what is left of a connection: contact, unload, reserved channels
	}
	for _, q := range []struct {
		from []savedPosting
		to   *fifo[Posting]
	}{{s.Out, &g.out}, {s.Held, &g.held}} {
		for _, p := range q.from {
			m, _, err := vmbus.ParseFrom(vmbus.GuestToHost, p.Payload, n)
			if err != nil || len(p.Payload) > vmbus.MaxPayloadBytes {
				return refuse("a message to the host makes no sense", err)
			}
			q.to.push(Posting{Port: p.Port, Message: m, Payload: p.Payload})
		}
	}
	return nil
}
