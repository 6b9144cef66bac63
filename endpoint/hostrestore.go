package endpoint

import (
	"bytes"
	"cmp"
	"maps"
	"slices"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/vmbus"
)

// RestoreHost returns the core that Save was called on. Given the same inputs it
// does the same, step for step. The options are the new host's own: a version
// above its maximum, or features it does not grant, are refused, as is everything
// no run can lead to. Errors match vmbus.ErrProtocol.
func RestoreHost(opts HostOptions, b []byte) (*Host, error) {
	var s hostSnapshot
	if err := unseal(savedHost, b, &s); err != nil {
		return nil, err
	}
	h := NewHost(opts)
	for _, part := range []func(*hostSnapshot) error{h.restoreConnection, h.restoreChannels, h.restoreOperations, h.restoreHeld, h.restoreQueues} {
		if err := part(&s); err != nil {
			return nil, err
		}
	}
	if err := canonical(b, h.Save); err != nil {
		return nil, err
	}
	if putback.On(putback.HC03) {
		_ = h.requestOffers()
	}
	return h, nil
}

// canonical reports whether saving again gives b: lists out of order, names used
// twice and the like end here.
func canonical(b []byte, save func() ([]byte, error)) error {
	again, err := save()
	if err != nil || !bytes.Equal(b, again) {
		return refuse("no save gives these contents", err)
	}
	return nil
}

func refuse(reason string, cause error) error { return &RestoreError{Reason: reason, Cause: cause} }

func (h *Host) restoreConnection(s *hostSnapshot) error {
	state := HostState(s.State)
	live := state == Negotiated || state == OffersSent
	switch {
	case !slices.Contains(HostTransitions.States, state) || s.After > uint8(thenReconnect):
		return refuse("the connection is in no state", nil)
	case live && !s.Negotiated.Version.Known() || state == HostDisconnected && s.Negotiated != (vmbus.Negotiated{}):
		return refuse("the connection's state and its version contradict each other", nil)
	case s.Resetting && state != Disconnecting || s.Paused && !live || s.After != 0 && state != Connecting && state != Disconnecting:
		return refuse("the connection's state and what it waits for contradict each other", nil)
	}
	for _, n := range []vmbus.Negotiated{s.Negotiated, s.Contact.Granted} {
		switch {
		case n.Version == 0 && n.Features == 0:
		case !n.Version.Known() || n.Version > h.opts.MaxVersion:
			return refuse("this host does not serve the version", nil)
		case n.Features&^h.opts.Features != 0 || n.Version < vmbus.Copper && n.Features != 0 || n.Features&vmbus.ConfidentialChannels != 0 && !s.Trusted:
			return refuse("this host does not grant the features", nil)
		}
	}
	if (state == Connecting) != (s.Contact.Granted.Version != 0) {
		return refuse("a contact is being served in the wrong state", nil)
	}
	h.state, h.negotiated, h.targetVP = state, s.Negotiated, s.TargetVP
	h.trusted, h.monitors, h.paused, h.resetting, h.remap = s.Trusted, s.Monitors, s.Paused, s.Resetting, s.Remap
	h.contact = s.Contact.contact()
	h.after = nextAction{thenKind(s.After), s.AfterContact.contact()}
	h.lastOffer, h.lastToken = s.LastOffer, s.LastToken
	return nil
}

func (h *Host) restoreChannels(s *hostSnapshot) error {
	entries, err := h.table.Load(s.Offers)
	if err != nil {
		return refuse("the offers", err)
	}
	if len(entries) != len(s.Channels) {
		return refuse("there are not as many channels as offers", nil)
	}
	for _, x := range s.Channels {
		if x.Entry < 0 || x.Entry >= len(entries) || h.byEntry[entries[x.Entry]] != nil ||
			x.Offer == 0 || x.Offer > s.LastOffer || h.channels[x.Offer] != nil {
			return refuse("a channel belongs to no offer", nil)
		}
		c := &hostChannel{
			id: x.Offer, entry: entries[x.Entry], open: channel.OpenState(x.Open), request: x.Request, openID: x.OpenID,
			reopen: x.Reopen, pending: x.Pending, modify: x.Modify, nextVP: x.NextVP,
			reply: target{x.ReplyVP, x.ReplySINT}, stale: x.Stale, trusted: x.Trusted,
			stopped: x.Stopped,
		}
		if why := h.contradicts(c, x.Busy); why != "" {
			return refuse(why, nil)
		}
		h.channels[c.id], h.byEntry[c.entry] = c, c
		if x.Busy {
			h.busy[c] = struct{}{}
		}
	}
	return nil
}

// contradicts says what of a restored channel no run can lead to, or "".
func (h *Host) contradicts(c *hostChannel, busy bool) string {
	released := c.open == channel.OpeningReleased || c.open == channel.ClosingReleased
	settled := c.open == channel.Closed || c.open == channel.Open || c.open == channel.OpenReserved
	switch {
	case !slices.Contains(channel.OpenTransitions.States, c.open):
		return "a channel is in no state"
	case busy != released:
		return "a released channel and its device contradict each other"
	case c.open != channel.Closed && !released && !c.entry.Visible():
		return "a channel is open that the guest does not know"
	case !h.connected() && c.entry.ID != 0 && !c.open.Reserved():
		return "a channel is offered to nobody"
	case settled == (c.pending != 0):
		return "a channel and the operation on it contradict each other"
	case c.modify != 0 && c.open != channel.Open && c.open != channel.Closing && c.open != channel.ClosingReopen && !released || c.nextVP != nil && c.modify == 0:
		return "a channel that is not open is being modified"
	case (c.reopen != nil) != (c.open == channel.ClosingReopen):
		return "a reopen waits for nothing"
	case c.open != channel.Closed && c.request.MonitorID != vmbus.NoMonitor && c.entry.Monitor == nil:
		return "a channel is monitored that did not ask for it"
	}
	return ""
}

func (h *Host) restoreOperations(s *hostSnapshot) error {
	gpadls, err := h.gpadls.Load(s.GPADLs)
	if err != nil {
		return refuse("the GPADLs", err)
	}
	for _, g := range gpadls {
		if h.gpadls.Lookup(g.Channel, g.ID) == g && h.table.Lookup(g.Channel) == nil {
			return refuse("a GPADL is on a channel the guest does not know", nil)
		}
	}
	for _, x := range s.Operations {
		op := &operation{channel: h.channels[x.Offer], vp: x.VP, parentToChild: x.ParentToChild, childToParent: x.ChildToParent}
		if x.Token == 0 || x.Token > s.LastToken || h.tokens[x.Token] != nil || x.GPADL >= len(gpadls) || x.GPADL < -1 {
			return refuse("an operation has no name or no subject", nil)
		}
		if x.GPADL >= 0 {
			op.gpadl = gpadls[x.GPADL]
			if op.channel == nil { // the offer is gone, its pages are not: only the name counts
				op.channel = &hostChannel{id: x.Offer}
			}
		}
		if h.operates(x.Token, op) == nil {
			return refuse("an operation is on nothing that waits for it", nil)
		}
		h.tokens[x.Token] = op
	}
	return h.allOperated(gpadls)
}

// allOperated checks that whatever waits for an operation has one.
func (h *Host) allOperated(gpadls []*channel.GPADL) error {
	waiting := 0
	for _, g := range gpadls {
		if g.State() == channel.GPADLOffered || g.State() == channel.OfferedTearingDown || g.State() == channel.TearingDown {
			waiting++
		}
	}
	for _, c := range h.channels {
		for _, t := range []Token{c.pending, c.modify} {
			if t != 0 {
				waiting++
			}
		}
	}
	if h.remap != 0 {
		waiting++
	}
	if waiting != len(h.tokens) {
		return refuse("something waits for an operation nobody works on", nil)
	}
	return nil
}

func (h *Host) restoreQueues(s *hostSnapshot) error {
	if len(s.Sockets) > MaxSocketRequests {
		return refuse("too many socket requests wait", nil)
	}
	for _, x := range s.Sockets {
		h.sockets[socketKey{x.Endpoint, x.Service}] = x.Silo
	}
	for _, x := range s.Out {
		m, _, err := vmbus.ParseFrom(vmbus.HostToGuest, x.Message, vmbus.Negotiated{Version: vmbus.Copper, Features: vmbus.AllFeatures})
		if err != nil || len(x.Message) != vmbus.Size(m) {
			return refuse("a message to the guest makes no sense", err)
		}
		h.out.push(Outgoing{VP: x.VP, SINT: x.SINT, Message: m, padded: x.Padded})
	}
	for _, x := range s.Later {
		l := later{kind: laterKind(x.Kind), channel: h.channels[x.Offer], id: x.Channel}
		if l.kind > laterDelivered || (l.kind == laterOffer) != (l.channel != nil) {
			return refuse("a message that waits for room makes no sense", nil)
		}
		h.later.push(l)
	}
	return nil
}

// Repeat emits once more whatever the driver and its devices have not answered,
// under the same tokens: for a restored host whose devices are new.
func (h *Host) Repeat() {
	if h.opts.Observe != nil {
		h.observe(DevicesReplaced{h.Established()})
	}
	for _, c := range h.channels { // a new device holds nothing, and is asked everything once more
		c.held = nil
	}
	if h.state == Connecting {
		h.emit(h.setup(h.contact))
	}
	for _, t := range slices.Sorted(maps.Keys(h.tokens)) {
		h.ask(h.tokens[t].channel, h.operates(t, h.tokens[t]))
	}
	keys := slices.SortedFunc(maps.Keys(h.sockets), func(a, b socketKey) int {
		return cmp.Or(bytes.Compare(a.endpoint[:], b.endpoint[:]), bytes.Compare(a.service[:], b.service[:]))
	})
	for _, k := range keys {
		h.emit(h.requested(k))
	}
	if h.resetting {
		h.emit(ResetConnection{})
	}
}

// operates returns what a device was asked under token t, or nil if nothing waits
// for it.
func (h *Host) operates(t Token, op *operation) Action {
	c := op.channel
	switch {
	case op.gpadl != nil:
		switch op.gpadl.State() {
		case channel.GPADLOffered, channel.OfferedTearingDown:
			return AddGPADL{c.id, t, op.gpadl.ID, op.gpadl.Ranges}
		case channel.TearingDown:
			return DropGPADL{c.id, t, op.gpadl.ID}
		}
		return nil
	case c == nil:
		if t == h.remap {
			return RemapMonitors{t, op.parentToChild, op.childToParent}
		}
		return nil
	case t == c.modify:
		return RetargetDevice{c.id, t, op.vp}
	case t != c.pending:
		return nil
	case c.open == channel.Opening || c.open == channel.OpeningReleased || c.open == channel.OpeningReserved:
		return OpenDevice{c.id, t, c.request}
	}
	return CloseDevice{c.id, t}
}
