package endpoint

import (
	"errors"
	"fmt"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
)

// HostOptions configures a Host. The zero value serves every version.
type HostOptions struct {
	// MaxVersion is the newest version served; 0 means vmbus.Copper.
	MaxVersion vmbus.Version
	// Features masks what may be granted; 0 means everything but GPAPinning, which
	// a host must be configured for. ConfidentialChannels is granted only to a
	// trusted contact.
	Features vmbus.Features
	// AbsoluteOrder makes Offer.Order come first when channel ids are assigned,
	// before the interface.
	AbsoluteOrder bool
	// ReportSetupFailure answers a contact that cannot be set up with
	// supported=1 and state 2, as OpenVMM does. The default, supported=0, lets
	// Linux try another version (vmbus-control.md 12, row 1).
	ReportSetupFailure bool
	// Dialect selects between sources that disagree.
	Dialect Dialect
	// RedirectSINT receives the interrupts of channels that ask for redirection;
	// 0 means this host does not redirect (vmbus-control.md 2.2).
	RedirectSINT uint8
	// ParentToChild and ChildToParent are monitor pages this host supplies, as
	// guest physical addresses; it then grants ServerMonitorPages. Both or none.
	ParentToChild, ChildToParent uint64
	// Observe, if not nil, is told of everything that crosses the edge of the
	// core. It runs inside the call and must not call the core.
	Observe func(Event)
}

// defaultFeatures is what a host grants that was told nothing else.
const defaultFeatures = vmbus.AllFeatures &^ vmbus.GPAPinning

// A Host is the host core of one guest's bus.
type Host struct {
	opts       HostOptions
	state      HostState
	negotiated vmbus.Negotiated
	targetVP   uint32
	trusted    bool  // the guest came on a path nobody can listen to
	monitors   bool  // monitor pages are in use
	remap      Token // ModifyConnection the driver is working on
	paused     bool
	contact    contact    // being set up
	after      nextAction // what follows a set-up or disconnect
	resetting  bool       // ResetConnection was emitted and not answered yet

	table    *offers.HostTable
	channels map[OfferID]*hostChannel
	byEntry  map[*offers.Entry]*hostChannel
	gpadls   channel.GPADLTable
	busy     map[*hostChannel]struct{} // channels the guest cannot see whose device is not closed yet
	sockets  map[socketKey]vmbus.GUID  // the silo
	tokens   map[Token]*operation

	lastOffer OfferID
	lastToken Token
	out       fifo[Outgoing]
	later     fifo[later]
	receiving bool             // ReceiveFrom is being observed
	announced []OfferAnnounced // during it
	actions   fifo[Action]
}

// A hostChannel is one published offer and its open state.
type hostChannel struct {
	id      OfferID
	entry   *offers.Entry
	open    channel.OpenState
	request OpenRequest
	openID  uint32
	reopen  *vmbus.OpenChannel2 // waits in ClosingReopen
	pending Token               // open or close the device is working on
	modify  Token               // ModifyChannel the device is working on
	trusted bool                // reserved by a trusted connection
	reply   target              // where answers about a reserved channel go
	stale   bool                // reserved by a connection that is over, or that never asked for offers
	stopped bool                // the device is asked nothing until it starts again
	held    []Action            // what it will be asked then
	// nextVP is the newest target asked for while modify is pending, before
	// version 5.3 (vmbus-control.md 7.3).
	nextVP *uint32
}

// An operation is what a token stands for.
type operation struct {
	channel                      *hostChannel
	gpadl                        *channel.GPADL
	vp                           uint32 // RetargetDevice
	parentToChild, childToParent uint64 // RemapMonitors
}

type socketKey struct{ endpoint, service vmbus.GUID }

// NewHost returns a core that waits for InitiateContact.
func NewHost(opts HostOptions) *Host {
	if opts.MaxVersion == 0 {
		opts.MaxVersion = vmbus.Copper
	}
	if opts.Features == 0 {
		opts.Features = defaultFeatures
	}
	opts.Features &= vmbus.AllFeatures
	if opts.RedirectSINT == 0 {
		opts.Features &^= vmbus.RedirectInterrupt
	}
	if opts.ChildToParent == 0 {
		opts.Features &^= vmbus.ServerMonitorPages
	}
	return &Host{
		opts:     opts,
		table:    offers.NewHostTable(),
		channels: map[OfferID]*hostChannel{},
		byEntry:  map[*offers.Entry]*hostChannel{},
		busy:     map[*hostChannel]struct{}{},
		sockets:  map[socketKey]vmbus.GUID{},
		tokens:   map[Token]*operation{},
	}
}

// State returns where the connection is.
func (h *Host) State() HostState { return h.state }

// Negotiated returns the version and features agreed on; zero before that.
func (h *Host) Negotiated() vmbus.Negotiated { return h.negotiated }

// WantsMessage reports whether the next guest message may be handed to Receive:
// nothing waits for the guest, fewer than MaxSocketRequests wait for the host
// (vmbus-control.md 5.5), and the machine is not being reset (5.1).
func (h *Host) WantsMessage() bool {
	if h.beingReset() {
		return false
	}
	if _, held := h.out.peek(); held && h.paused {
		_, held = h.NextMessage() // what waits for the end of the pause must not keep Resume out
		return !held
	}
	return h.out.len() == 0 && len(h.sockets) < MaxSocketRequests
}

// NextMessage returns the oldest message for the guest without removing it.
// While the connection is paused there is none.
func (h *Host) NextMessage() (Outgoing, bool) {
	if h.paused {
		if m, ok := h.out.peek(); !ok || m.Message.Type() != vmbus.TypePauseResponse {
			return Outgoing{}, false
		}
	}
	return h.out.peek()
}

// MessageSent removes what NextMessage returned.
func (h *Host) MessageSent() {
	m, ok := h.out.pop()
	if ok && h.opts.Observe != nil {
		h.observe(MessageLeft{Message: m.Message, Payload: m.Payload()})
	}
	h.refill()
}

// Next returns the oldest action and removes it.
func (h *Host) Next() (Action, bool) {
	a, ok := h.actions.pop()
	if ok && h.opts.Observe != nil {
		h.observe(ActionTaken{a})
	}
	return a, ok
}

// ActionPending reports whether Next has an action.
func (h *Host) ActionPending() bool { return h.actions.len() > 0 }

// Usage counts what the connection holds: offers, channel ids, GPADLs, device
// operations, socket requests.
func (h *Host) Usage() (offered, ids, gpadls, operations, requests int) {
	if putback.On(putback.HC11) && !h.connected() && h.gpadls.Len() > 0 {
		panic("no version")
	}
	offered, ids = h.table.Len()
	return offered, ids, h.gpadls.Len(), len(h.tokens), len(h.sockets)
}

// Refuses reports whether the hypervisor is to refuse a guest's post of payload
// with INVALID_HYPERCALL_INPUT; only some dialects do.
func (h *Host) Refuses(payload []byte) bool { return h.opts.Dialect.Refuses(payload) }

func (h *Host) emit(a Action) { h.actions.push(a) }

// send appends m to the outbox.
func (h *Host) send(m vmbus.Message) {
	h.out.push(Outgoing{VP: h.targetVP, SINT: VMBusSINT, Message: m, padded: h.opts.Dialect.PadMessages})
}

// token opens a device operation.
func (h *Host) token(op operation) Token {
	h.lastToken++
	h.tokens[h.lastToken] = &op
	return h.lastToken
}

// take closes a device operation; nil if it has been overtaken.
func (h *Host) take(t Token) *operation {
	op := h.tokens[t]
	delete(h.tokens, t)
	return op
}

// A Source says how a message reached the host.
type Source struct {
	Port uint32 // connection id it was posted on
	// Trusted says that nobody between guest and host could read or change it: a
	// paravisor's encrypted path. A trusted connection listens to nothing else.
	Trusted bool
}

// Receive handles one message the guest posted on connection id port, on a path
// that is not trusted. The payload is not kept. An error says why the message was
// dropped; the connection lives.
func (h *Host) Receive(port uint32, payload []byte) error {
	return h.ReceiveFrom(Source{Port: port}, payload)
}

// ReceiveFrom is Receive for a message from anywhere.
func (h *Host) ReceiveFrom(from Source, payload []byte) error {
	if h.opts.Observe == nil {
		return h.receive(from, payload)
	}
	h.receiving = true
	err := h.receive(from, payload)
	h.receiving = false
	h.observe(MessageReceived{From: from, Payload: payload, Err: err})
	for _, a := range h.announced { // what the message caused comes after it
		h.observe(a)
	}
	h.announced = nil
	return err
}

func (h *Host) receive(from Source, payload []byte) error {
	n := h.negotiated
	if h.opts.Dialect.AnswerEveryUnload && n.Version == 0 {
		n.Version = vmbus.V1 // where Unload begins
	}
	m, tail, err := vmbus.ParseFrom(vmbus.GuestToHost, payload, n)
	if err != nil {
		if putback.On(putback.HC02) && errors.As(err, new(*vmbus.DirectionError)) {
			panic("unreachable")
		}
		return err
	}
	if h.trusted && !from.Trusted {
		return &DropError{Message: m.Type(), Reason: "the connection is trusted and the message is not"}
	}
	if h.beingReset() {
		return &DropError{Message: m.Type(), Reason: "the machine is being reset"}
	}
	if m.Type() == vmbus.TypeInitiateContact {
		return h.receiveContact(from, m)
	}
	if t := m.Type(); h.opts.Dialect.NoReserved && (t == vmbus.TypeOpenReservedChannel || t == vmbus.TypeCloseReservedChannel) {
		return &DropError{Message: t, Reason: "this host does not serve it"}
	}
	if m, ok := m.(*vmbus.CloseReservedChannel); ok && !h.paused {
		return h.closeReserved(from, *m)
	}
	if !h.connected() {
		if m.Type() == vmbus.TypeUnload && h.state == HostDisconnected && h.opts.Dialect.AnswerEveryUnload {
			h.send(&vmbus.UnloadComplete{})
			return nil
		}
		return &DropError{Message: m.Type(), Reason: "the connection is " + h.state.String()}
	}
	if h.paused && m.Type() != vmbus.TypeResume && m.Type() != vmbus.TypeUnload {
		return &DropError{Message: m.Type(), Reason: "the connection is paused"}
	}
	return h.dispatch(m, tail)
}

func (h *Host) dispatch(m vmbus.Message, tail []byte) error {
	switch m := m.(type) {
	case *vmbus.RequestOffers:
		return h.requestOffers()
	case *vmbus.OpenChannel:
		return h.openChannel(vmbus.OpenChannel2{OpenChannel: *m})
	case *vmbus.OpenChannel2:
		return h.openChannel(*m)
	case *vmbus.CloseChannel:
		return h.closeChannel(m.Channel)
	case *vmbus.GPADLHeader:
		return h.gpadlHeader(*m, tail)
	case *vmbus.GPADLBody:
		return h.gpadlBody(*m, tail)
	case *vmbus.GPADLTeardown:
		return h.gpadlTeardown(*m)
	case *vmbus.RelIDReleased:
		return h.relIDReleased(m.Channel)
	case *vmbus.ModifyChannel:
		return h.modifyChannel(*m)
	case *vmbus.OpenReservedChannel:
		return h.openReserved(*m)
	case *vmbus.TLConnectRequest:
		return h.socketRequest(*m, vmbus.GUID{})
	case *vmbus.TLConnectRequest2:
		return h.socketRequest(m.TLConnectRequest, m.Silo)
	case *vmbus.ModifyConnection:
		return h.modifyConnection(*m)
	case *vmbus.Pause:
		h.send(&vmbus.PauseResponse{})
		h.paused = true
		return nil
	case *vmbus.Resume:
		if !h.paused {
			return &DropError{Message: m.Type(), Reason: "the connection is not paused"}
		}
		h.paused = false
		return nil
	case *vmbus.Unload:
		h.paused = false
		h.disconnect(Unloads, nextAction{kind: thenUnloadComplete})
		return nil
	}
	return &DropError{Message: m.Type(), Reason: "this host does not serve it"}
}

// requestOffers answers RequestOffers: every hidden offer in id order, then
// AllOffersDelivered (vmbus-control.md 3.3).
func (h *Host) requestOffers() error {
	if err := h.move(RequestsOffers); err != nil {
		return &DropError{Message: vmbus.TypeRequestOffers, Reason: "offers were requested already", Cause: err}
	}
	for _, e := range h.table.Sorted(h.opts.AbsoluteOrder) {
		h.later.push(later{kind: laterOffer, channel: h.byEntry[e]})
	}
	h.say(later{kind: laterDelivered})
	return nil
}

// Publish makes o an offer of this bus. It is sent at once when the guest has
// asked for offers, silently kept otherwise. Publishing a key that is rescinded
// but not released holds it back until the release. Errors match
// vmbus.ErrState: the key is live, or every channel id is taken.
func (h *Host) Publish(o offers.Offer) (OfferID, error) {
	e, err := h.table.Publish(o)
	if err != nil {
		return 0, err
	}
	h.lastOffer++
	c := h.byEntry[e]
	if c == nil {
		c = &hostChannel{entry: e}
		h.byEntry[e] = c
	} else {
		delete(h.channels, c.id)
		h.emit(OfferGone{c.id})
	}
	c.id = h.lastOffer
	c.stopped, c.held = false, nil // it is a new device
	h.channels[c.id] = c
	h.observe(OfferPublished{c.id, o})
	if h.state == OffersSent && e.State() == offers.Hidden {
		h.say(later{kind: laterOffer, channel: c})
	}
	return c.id, nil
}

// announce gives c an id and sends the offer. With every id taken the offer
// stays hidden; so does a sub-channel of a primary the guest does not know, and
// every sub-channel below 2.4.
func (h *Host) announce(c *hostChannel) {
	if c.open != channel.Closed { // its device has not closed since the last connection
		return
	}
	if !h.table.MayAnnounce(c.entry) || c.entry.SubChannel != 0 && h.negotiated.Version < vmbus.Win8 {
		return
	}
	if h.table.Announce(c.entry, h.monitors) == nil {
		h.sendOffer(c)
	}
}

func (h *Host) sendOffer(c *hostChannel) {
	e := c.entry
	h.observeOffer(OfferAnnounced{c.id, e.ID})
	h.send(&vmbus.OfferChannel{
		Interface:     e.Interface,
		Instance:      e.Instance,
		Flags:         h.visibleFlags(e.Flags),
		MMIOMegabytes: e.MMIOMegabytes,
		UserDefined:   e.UserDefined,
		SubChannel:    e.SubChannel,
		Channel:       e.ID,
		MonitorID:     h.opts.Dialect.monitorID(e.MonitorID),

		MMIOMegabytesOptional: e.MMIOMegabytesOptional,

		MonitorAllocated: monitorBit(e),

		IsDedicated:  dedicatedBit(e),
		ConnectionID: h.opts.Dialect.eventConnection(e.ID),
	})
}

func dedicatedBit(e *offers.Entry) uint16 {
	if e.NotDedicated {
		return 0
	}
	return 1
}

// visibleFlags clears the flags whose feature was not granted.
func (h *Host) visibleFlags(f vmbus.OfferFlags) vmbus.OfferFlags {
	if h.negotiated.Features&vmbus.ConfidentialChannels == 0 {
		f &^= vmbus.OfferConfidentialRing | vmbus.OfferConfidentialExternal
	}
	if h.negotiated.Features&vmbus.GPAPinning == 0 {
		f &^= vmbus.OfferPinned
	}
	return f
}

// connected reports whether a guest is there to talk to.
func (h *Host) connected() bool { return h.state == Negotiated || h.state == OffersSent }

// EventConnection is the connection id on which the guest signals channel id:
// channel, SINT and VTL 0 in one number, as OpenVMM builds it
// (vmbus-control.md 1.4).
func EventConnection(id vmbus.ChannelID) uint32 { return uint32(id) | VMBusSINT<<12 }

// Revoke withdraws an offer, the sub-channels of a primary channel before it
// (faults.md HC-13). The device must have stopped using the channel's
// rings; its pending operations are forgotten. OfferGone follows when the guest
// has released the id.
func (h *Host) Revoke(id OfferID) error {
	c := h.channels[id]
	if c == nil && !putback.On(putback.HC10) || c.entry.State() == offers.Revoked {
		return fmt.Errorf("endpoint: offer %d is not published: %w", id, vmbus.ErrState)
	}
	for _, sub := range h.table.SubChannels(c.entry) {
		if putback.On(putback.HC13) {
			defer func() { _ = h.Revoke(h.byEntry[sub].id) }()
			continue
		}
		if sub.State() != offers.Revoked {
			if err := h.Revoke(h.byEntry[sub].id); err != nil {
				return err
			}
		}
	}
	h.observe(OfferRevoked{id})
	h.endModify(c)
	h.cancel(c)
	if err := c.move(channel.Withdrawn); err != nil {
		return callerError(err)
	}
	if c.entry.ID != 0 {
		h.revokeGPADLs(c)
	}
	h.revokeOrphans(c)
	if h.table.Revoke(c.entry) {
		if h.connected() {
			h.say(later{kind: laterRescind, id: c.entry.ID})
		} else { // it was reserved: nobody is there to rescind it from
			h.releaseGPADLs(c)
			h.table.Hide(c.entry)
		}
	}
	if c.entry.State() == offers.Gone {
		h.forget(c)
	}
	h.drained()
	return nil
}

// OfferOf returns the offer the guest knows as channel id.
func (h *Host) OfferOf(id vmbus.ChannelID) (OfferID, bool) {
	e := h.table.Lookup(id)
	if e == nil || h.byEntry[e] == nil {
		return 0, false
	}
	return h.byEntry[e].id, true
}

// SubChannels returns the sub-channels of a primary channel's offer that are not
// revoked: Revoke of the primary revokes them first, so their devices must have
// stopped too.
func (h *Host) SubChannels(id OfferID) (subs []OfferID) {
	c := h.channels[id]
	if c == nil {
		return nil
	}
	for _, e := range h.table.SubChannels(c.entry) {
		if e.State() != offers.Revoked {
			subs = append(subs, h.byEntry[e].id)
		}
	}
	return subs
}

// cancel forgets the device operations of c, so that late answers are ignored.
func (h *Host) cancel(c *hostChannel) {
	if putback.On(putback.SS07) {
		c.pending = 0
	}
	delete(h.tokens, c.pending)
	delete(h.tokens, c.modify)
	c.pending, c.modify, c.nextVP, c.reopen = 0, 0, nil, nil
	c.held = nil
	delete(h.busy, c)
}

// forget removes a channel whose entry is gone from the table.
func (h *Host) forget(c *hostChannel) {
	delete(h.channels, c.id)
	delete(h.byEntry, c.entry)
	h.emit(OfferGone{c.id})
}

// move is the only writer of c.open.
func (c *hostChannel) move(on channel.OpenEvent) error {
	to, err := channel.OpenTransitions.Next(c.open, on)
	if err != nil {
		return err
	}
	c.open = to
	return nil
}
