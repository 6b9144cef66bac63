package endpoint

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
)

// A hostSnapshot is all a Host knows; options are not part of it.
type hostSnapshot struct {
	State                                uint8
	Negotiated                           vmbus.Negotiated
	TargetVP                             uint32
	Trusted, Monitors, Paused, Resetting bool
	Remap                                Token
	Contact                              savedContact
	After                                uint8
	AfterContact                         savedContact
	Offers                               []offers.SavedOffer
	GPADLs                               []channel.SavedGPADL
	Channels                             []savedHostChannel
	Sockets                              []savedSocket
	Operations                           []savedOperation
	LastOffer                            OfferID
	LastToken                            Token
	Out                                  []savedOutgoing
	Later                                []savedLater
}

type savedContact struct {
	Message  vmbus.InitiateContact
	ClientID vmbus.GUID
	Info     vmbus.TargetInfo
	Granted  vmbus.Negotiated
	Trusted  bool
}

type savedHostChannel struct {
	Offer           OfferID
	Entry           int // in Offers
	Open            uint8
	Request         OpenRequest
	OpenID          uint32
	Reopen          *vmbus.OpenChannel2
	Pending, Modify Token
	NextVP          *uint32
	ReplyVP         uint32
	ReplySINT       uint8
	Stale, Trusted  bool
	Busy            bool
	Stopped         bool
	Held            []savedHeld
}

type savedSocket struct{ Endpoint, Service, Silo vmbus.GUID }

type savedOperation struct {
	Token                        Token
	Offer                        OfferID // 0: of no channel
	GPADL                        int     // in GPADLs, -1: none
	VP                           uint32
	ParentToChild, ChildToParent uint64
}

type savedOutgoing struct {
	VP      uint32
	SINT    uint8
	Message []byte
	Padded  bool
}

type savedLater struct {
	Kind    uint8
	Offer   OfferID
	Channel vmbus.ChannelID
}

// Save returns the whole core, for RestoreHost. It may be called between any two
// steps once the actions have been drained with Next; an error matches
// vmbus.ErrState. The encoding is described with savedMagic.
func (h *Host) Save() ([]byte, error) {
	if h.actions.len() != 0 {
		return nil, fmt.Errorf("endpoint: saving with actions that were not taken: %w", vmbus.ErrState)
	}
	s := hostSnapshot{
		State: uint8(h.state), Negotiated: h.negotiated, TargetVP: h.targetVP,
		Trusted: h.trusted, Monitors: h.monitors, Paused: h.paused, Resetting: h.resetting, Remap: h.remap,
		Contact: saveContact(h.contact), After: uint8(h.after.kind), AfterContact: saveContact(h.after.contact),
		Offers: h.table.Save(), LastOffer: h.lastOffer, LastToken: h.lastToken,
	}
	var gpadls map[*channel.GPADL]int
	s.GPADLs, gpadls = h.gpadls.Save()
	entries := map[offers.Key]int{}
	for i, o := range s.Offers {
		entries[o.Offer.Key] = i
	}
	for _, id := range slices.Sorted(maps.Keys(h.channels)) {
		s.Channels = append(s.Channels, h.saveChannel(h.channels[id], entries))
	}
	for k, silo := range h.sockets {
		s.Sockets = append(s.Sockets, savedSocket{k.endpoint, k.service, silo})
	}
	slices.SortFunc(s.Sockets, func(a, b savedSocket) int {
		return cmp.Or(bytes.Compare(a.Endpoint[:], b.Endpoint[:]), bytes.Compare(a.Service[:], b.Service[:]))
	})
	for _, t := range slices.Sorted(maps.Keys(h.tokens)) {
		s.Operations = append(s.Operations, saveOperation(t, h.tokens[t], gpadls))
	}
	for _, o := range h.out.all() {
		s.Out = append(s.Out, savedOutgoing{o.VP, o.SINT, vmbus.Append(nil, o.Message), o.padded})
	}
	for _, l := range h.later.all() {
		switch {
		case l.channel == nil:
			s.Later = append(s.Later, savedLater{Kind: uint8(l.kind), Channel: l.id})
		case h.channels[l.channel.id] == l.channel: // else the offer is gone, and nothing would be said
			s.Later = append(s.Later, savedLater{Kind: uint8(l.kind), Offer: l.channel.id})
		}
	}
	return seal(savedHost, &s)
}

func saveContact(c contact) savedContact {
	return savedContact{c.message, c.clientID, c.info, c.granted, c.trusted}
}

func (s savedContact) contact() contact {
	return contact{s.Message, s.ClientID, s.Info, s.Granted, s.Trusted}
}

func (h *Host) saveChannel(c *hostChannel, entries map[offers.Key]int) savedHostChannel {
	_, busy := h.busy[c]
	return savedHostChannel{
		Offer: c.id, Entry: entries[c.entry.Key], Open: uint8(c.open), Request: c.request, OpenID: c.openID,
		Reopen: c.reopen, Pending: c.pending, Modify: c.modify, NextVP: c.nextVP,
		ReplyVP: c.reply.VP, ReplySINT: c.reply.SINT, Stale: c.stale, Trusted: c.trusted, Busy: busy,
		Stopped: c.stopped, Held: h.saveHeld(c),
	}
}

func saveOperation(t Token, op *operation, gpadls map[*channel.GPADL]int) savedOperation {
	s := savedOperation{Token: t, GPADL: -1, VP: op.vp, ParentToChild: op.parentToChild, ChildToParent: op.childToParent}
	if op.channel != nil {
		s.Offer = op.channel.id
	}
	if op.gpadl != nil {
		s.GPADL = gpadls[op.gpadl]
	}
	return s
}
