package endpoint

import (
	"fmt"
	"maps"
	"slices"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
)

// GuestOptions configures a Guest. The zero value is a Linux-like guest that
// tries every version, newest first.
type GuestOptions struct {
	// Versions is tried in order; nil means every version, newest first.
	Versions []vmbus.Version
	// Features is asked for from version 6.0 on.
	Features vmbus.Features
	// TargetVP receives every control message.
	TargetVP uint32
	// InterruptPage is the guest physical address of the interrupt page, used
	// below version 2.4 and announced below 5.0.
	InterruptPage uint64
	// ParentToChild and ChildToParent are the monitor pages, both or none.
	ParentToChild, ChildToParent uint64
	// ClientID is sent if Features has vmbus.ClientIDs.
	ClientID vmbus.GUID
	// SkipTeardown makes the guest keep quiet about the ring GPADL of a
	// rescinded channel, as Linux does (hvsock.md 17).
	SkipTeardown bool
	// OwnEventFlags makes the guest choose the event flags of its channels,
	// lowest free first, where the host grants GuestSignalParams.
	OwnEventFlags bool
	// MinVersion ends the walk down the versions; 0 does not. An isolated Linux
	// guest has vmbus.Win10RS5.
	MinVersion vmbus.Version
	// Interfaces are the only ones this guest accepts offers of; nil accepts all.
	// Others are ignored without any message, as an isolated Linux guest does,
	// except those of Hyper-V sockets (hvsock.md 11).
	Interfaces []vmbus.GUID
	// RequirePrimary ignores a sub-channel without its primary and a second
	// primary, as FreeBSD does (vmbus-control.md 6.5 and 12, row 32). The default,
	// Linux, takes what is offered.
	RequirePrimary bool
	// ShortSocketRequest sends the 40-byte TLConnectRequest at every version, as
	// Linux does (vmbus-control.md 12, row 26).
	ShortSocketRequest bool
	// Observe, if not nil, is told of everything that crosses the edge of the
	// core. It runs inside the call and must not call the core.
	Observe func(Event)
}

// An OpenParams is what a driver opens a channel with.
type OpenParams struct {
	PFNs       []uint64 // both rings, guest-to-host first
	HostOffset uint32   // first page of the host-to-guest ring
	TargetVP   uint32
	UserData   vmbus.UserData
	// Redirect sends the interrupt to the redirect SINT, where the host grants
	// RedirectInterrupt.
	Redirect bool
	// EventFlag and ConnectionID replace the channel id and the offered
	// connection for this open, where the host grants GuestSignalParams; 0
	// leaves them alone.
	EventFlag    uint16
	ConnectionID uint32
	// Reserved makes the channel a reserved one, from version 4.0.
	Reserved *ReservedTarget
}

// A Guest is the guest core of a bus.
type Guest struct {
	opts       GuestOptions
	state      GuestState
	versions   []vmbus.Version // not tried yet, the first is in flight
	tried      []vmbus.Version // the whole list of this walk
	negotiated vmbus.Negotiated
	port       uint32 // connection id for everything but a contact

	catalogue offers.Catalogue
	channels  map[vmbus.ChannelID]*guestChannel
	rings     map[vmbus.GPADLID]*guestChannel
	nextGPADL vmbus.GPADLID
	flags     eventFlags
	cause     error // why the guest ends the connection, nil if asked to

	modifying bool // ModifyConnection waits for its answer
	pause     PauseState

	out     fifo[Posting]
	held    fifo[Posting] // waits for Resume
	actions fifo[Action]
}

// A guestChannel is one known offer and its ring.
type guestChannel struct {
	item   *offers.Item
	state  channel.GuestState
	ring   vmbus.GPADLID
	open   OpenParams
	modify *modification
	flag   uint16 // event flag of our own, 0 if it is the channel id
	stale  bool   // the host forgets the reserved channel when it closes
}

// NewGuest returns a core that waits for Connect.
func NewGuest(opts GuestOptions) *Guest {
	if opts.Versions == nil {
		opts.Versions = vmbus.Versions()
		slices.Reverse(opts.Versions)
	}
	return &Guest{
		opts:      opts,
		channels:  map[vmbus.ChannelID]*guestChannel{},
		rings:     map[vmbus.GPADLID]*guestChannel{},
		nextGPADL: firstGPADL,
	}
}

// State returns where the connection is.
func (g *Guest) State() GuestState { return g.state }

// Negotiated returns the version and features agreed on; zero before that.
func (g *Guest) Negotiated() vmbus.Negotiated { return g.negotiated }

// NextMessage returns the oldest message for the host without removing it.
func (g *Guest) NextMessage() (Posting, bool) { return g.out.peek() }

// MessageSent removes what NextMessage returned.
func (g *Guest) MessageSent() {
	if m, ok := g.out.pop(); ok && g.opts.Observe != nil {
		g.observe(MessageLeft{Message: m.Message, Payload: m.Payload, Port: m.Port})
	}
}

// PostFailed says the host's hypervisor refused what NextMessage returned for
// good. A refused contact counts as a refused version; anything else ends the
// connection.
func (g *Guest) PostFailed(err error) {
	m, ok := g.out.pop()
	if !ok {
		return
	}
	if m.Message.Type() == vmbus.TypeInitiateContact {
		g.versionRefused()
		return
	}
	g.unasked(m)
	if m.Message.Type() == vmbus.TypeResume { // the host stays paused and would drop what waited for it
		for _, p := range g.out.all() {
			g.unasked(p)
		}
		g.out.clear()
	}
	g.end(fmt.Errorf("endpoint: posting %v: %w", m.Message.Type(), err))
}

// Next returns the oldest action and removes it.
func (g *Guest) Next() (Action, bool) {
	a, ok := g.actions.pop()
	if ok && g.opts.Observe != nil {
		g.observe(ActionTaken{a})
	}
	return a, ok
}

// ActionPending reports whether Next has an action.
func (g *Guest) ActionPending() bool { return g.actions.len() > 0 }

// Usage counts known channel ids and ring GPADLs.
func (g *Guest) Usage() (ids, gpadls int) { return g.catalogue.Len(), len(g.rings) }

func (g *Guest) emit(a Action) { g.actions.push(a) }

// post appends m, followed by words, to the outbox.
func (g *Guest) post(m vmbus.Message, words ...uint64) {
	payload := vmbus.AppendWords(vmbus.Append(nil, m), words)
	p := Posting{Port: g.port, Message: m, Payload: payload}
	if g.pause != Running && m.Type() != vmbus.TypeResume && m.Type() != vmbus.TypeUnload {
		g.held.push(p) // a paused host would drop it
		return
	}
	g.out.push(p)
}

// Connect starts the walk down the versions. Connected or ConnectFailed
// follows.
func (g *Guest) Connect() error {
	if err := g.move(Connects); err != nil {
		return callerError(err)
	}
	g.versions = slices.DeleteFunc(slices.Clone(g.opts.Versions), func(v vmbus.Version) bool { return v < g.opts.MinVersion })
	g.tried = g.versions
	g.contactNext()
	return nil
}

// contactNext asks for the next version, or gives up.
func (g *Guest) contactNext() {
	if len(g.versions) == 0 {
		_ = g.move(ListExhausted)
		g.emit(ConnectFailed{&VersionError{Tried: g.tried}})
		return
	}
	v := g.versions[0]
	g.port = MessagePort
	if v >= vmbus.Win10V5 {
		g.port = MultiClientPort
	}
	m := vmbus.InitiateContact{Version: v, ParentToChild: g.opts.ParentToChild, ChildToParent: g.opts.ChildToParent}
	if v >= vmbus.Win81 {
		m.TargetVP = g.opts.TargetVP
	}
	m.TargetInfo = g.opts.InterruptPage
	if v >= vmbus.Win10V5 {
		info := vmbus.TargetInfo{SINT: VMBusSINT}
		if v >= vmbus.Copper {
			info.Features = g.opts.Features
		}
		m.TargetInfo = info.Pack(v)
	}
	if v >= vmbus.Copper && g.opts.Features&vmbus.ClientIDs != 0 {
		g.post(&vmbus.InitiateContact2{InitiateContact: m, ClientID: g.opts.ClientID})
		return
	}
	g.post(&m)
}

func (g *Guest) versionRefused() {
	g.versions = g.versions[1:]
	g.contactNext()
}

// A VersionError says the host accepts none of the versions that were tried.
type VersionError struct{ Tried []vmbus.Version }

func (e *VersionError) Error() string {
	return fmt.Sprintf("endpoint: the host accepts none of the VMBus versions %v", e.Tried)
}

// Receive handles one message of the host. An error says why it was dropped. A
// host that contradicts the guest's own tables ends the connection in order.
func (g *Guest) Receive(payload []byte) error {
	err := g.receive(payload)
	if g.opts.Observe == nil {
		return err
	}
	g.observe(MessageReceived{Payload: payload, Err: err})
	return err
}

func (g *Guest) receive(payload []byte) error {
	n := g.negotiated
	if g.state == GuestConnecting && len(g.versions) > 0 {
		n = vmbus.Negotiated{Version: g.versions[0], Features: vmbus.AllFeatures}
	}
	if n.Version < vmbus.Win10 && g.anySurvives() {
		n.Version = vmbus.Win10 // where reserved channels begin
	}
	m, _, err := vmbus.ParseFrom(vmbus.HostToGuest, payload, n)
	if err != nil {
		return err
	}
	if g.aboutReserved(m) {
		return g.dispatch(m)
	}
	switch g.state {
	case GuestDisconnected:
		return &DropError{Message: m.Type(), Reason: "the guest is not connected"}
	case GuestUnloading:
		if m.Type() != vmbus.TypeUnloadComplete && g.negotiated.Version >= vmbus.Win7 {
			return &DropError{Message: m.Type(), Reason: "the guest is unloading"}
		}
	case GuestConnecting:
		if m.Type() != vmbus.TypeVersionResponse {
			return &DropError{Message: m.Type(), Reason: "the guest waits for a VersionResponse"}
		}
	}
	err = g.dispatch(m)
	g.unloadWhenClosed()
	return err
}

func (g *Guest) dispatch(m vmbus.Message) error {
	switch m := m.(type) {
	case *vmbus.VersionResponse:
		return g.versionResponse(*m, 0, [2]uint64{})
	case *vmbus.VersionResponse2:
		return g.versionResponse(m.VersionResponse, m.Features&^vmbus.ServerMonitorPages, [2]uint64{})
	case *vmbus.VersionResponse3:
		return g.versionResponse(m.VersionResponse, m.Features, [2]uint64{m.ParentToChild, m.ChildToParent})
	case *vmbus.OfferChannel:
		return g.offer(*m)
	case *vmbus.AllOffersDelivered:
		if err := g.move(OffersComplete); err != nil {
			return &DropError{Message: m.Type(), Reason: "nobody asked for offers", Cause: err}
		}
		g.emit(OffersDelivered{})
		return nil
	case *vmbus.RescindChannelOffer:
		return g.rescind(m.Channel)
	case *vmbus.GPADLCreated:
		return g.gpadlCreated(*m)
	case *vmbus.OpenResult:
		return g.openResult(*m)
	case *vmbus.CloseReservedChannelResponse:
		return g.reservedClosed(m.Channel)
	case *vmbus.GPADLTorndown:
		return g.gpadlTorndown(*m)
	case *vmbus.ModifyConnectionResponse:
		return g.connectionModified(*m)
	case *vmbus.PauseResponse:
		return g.pauseResponse()
	case *vmbus.ModifyChannelResponse:
		return g.modifyResponse(*m)
	case *vmbus.TLConnectResult:
		return g.socketResult(*m)
	case *vmbus.UnloadComplete:
		if err := g.move(UnloadCompletes); err != nil {
			return &DropError{Message: m.Type(), Reason: "nothing was unloaded", Cause: err}
		}
		g.forgetAll(true)
		g.disconnected(true)
		return nil
	}
	return &DropError{Message: m.Type(), Reason: "this guest has no use for it"}
}

// versionResponse handles the answer to a contact; pages are the monitor pages
// the host supplies with the longest form.
func (g *Guest) versionResponse(m vmbus.VersionResponse, granted vmbus.Features, pages [2]uint64) error {
	if g.state != GuestConnecting {
		return &DropError{Message: vmbus.TypeVersionResponse, Reason: "no version is being negotiated"}
	}
	if m.Supported == 0 || m.ConnectionState != 0 {
		g.versionRefused()
		return nil
	}
	v := g.versions[0]
	g.negotiated = vmbus.Negotiated{Version: v, Features: granted & g.opts.Features}
	g.port = MessagePort
	if v >= vmbus.Win10V5 {
		g.port = m.VersionOrConnectionID
	}
	_ = g.move(VersionAccepted) // the state was checked
	if g.negotiated.Features&vmbus.ServerMonitorPages == 0 {
		pages = [2]uint64{g.opts.ParentToChild, g.opts.ChildToParent}
	}
	g.emit(Connected{g.negotiated, pages[0], pages[1]})
	g.post(&vmbus.RequestOffers{})
	return nil
}

// RequestSocket dials a host service. SocketRefused or an offer with the same
// interface and instance follows.
func (g *Guest) RequestSocket(service, endpoint vmbus.GUID) error {
	return g.RequestSocketFrom(vmbus.GUID{}, service, endpoint)
}

// RequestSocketFrom is RequestSocket for a container (silo) of the guest; the
// zero silo is none. The silo needs version 5.2.
func (g *Guest) RequestSocketFrom(silo, service, endpoint vmbus.GUID) error {
	if g.state != GuestConnected {
		return fmt.Errorf("endpoint: the guest is %v: %w", g.state, vmbus.ErrState)
	}
	if g.negotiated.Version < vmbus.Win10 {
		return fmt.Errorf("endpoint: VMBus %v has no Hyper-V sockets, 4.0 is needed: %w", g.negotiated.Version, vmbus.ErrState)
	}
	m := vmbus.TLConnectRequest{Endpoint: endpoint, Service: service}
	if g.negotiated.Version >= vmbus.Win10RS5 && !g.opts.ShortSocketRequest {
		g.post(&vmbus.TLConnectRequest2{TLConnectRequest: m, Silo: silo})
		return nil
	}
	if silo != (vmbus.GUID{}) {
		return fmt.Errorf("endpoint: VMBus %v has no silos in socket requests, 5.2 is needed: %w", g.negotiated.Version, vmbus.ErrState)
	}
	g.post(&m)
	return nil
}

func (g *Guest) socketResult(m vmbus.TLConnectResult) error {
	if int32(m.Status) >= 0 || putback.On(putback.HV02) {
		return &DropError{Message: vmbus.TypeTLConnectResult, Reason: "it reports success, which only an offer may do"}
	}
	g.emit(SocketRefused{Endpoint: m.Endpoint, Service: m.Service, Status: m.Status})
	return nil
}

// Unload ends the connection: every driver loses its channel at once.
// Disconnected follows when the host has let go of every page; until then no
// shared page may be reused.
func (g *Guest) Unload() error {
	if err := g.move(GuestUnloads); err != nil {
		return callerError(err)
	}
	for _, p := range g.held.all() {
		g.unasked(p)
	}
	g.held.clear()
	g.endChannels()
	if g.negotiated.Version >= vmbus.Win7 {
		g.post(&vmbus.Unload{})
		return nil
	}
	g.closeAll()
	g.unloadWhenClosed()
	return nil
}

// disconnected says that the connection is over; letGo as in forgetAll.
func (g *Guest) disconnected(letGo bool) {
	g.emit(Disconnected{Err: g.cause, Kept: !letGo})
	g.cause = nil
}

// end drops the connection because of err, in order if the host still listens:
// it is asked to let go of the pages.
func (g *Guest) end(err error) {
	g.cause = err
	if g.Unload() == nil {
		return
	}
	told := g.state == GuestUnloading // every driver, when the unload began
	if g.move(LinkFails) != nil {
		return
	}
	if !told {
		g.endChannels()
	}
	g.forgetAll(false)
	g.disconnected(false)
}

// endChannels tells the driver of every channel that it is over.
func (g *Guest) endChannels() {
	for _, id := range slices.Sorted(maps.Keys(g.channels)) {
		if g.channels[id].survives() || g.channels[id].item.Rescinded() { // the rescind has told the driver
			continue
		}
		switch g.channels[id].state {
		case channel.GuestOpen:
			g.emit(OfferRescinded{id})
		case channel.Sharing, channel.GuestOpening:
			g.emit(OpenFailed{id, &OpenError{Channel: id, Rescinded: true}})
		}
	}
}

// forgetAll empties every table; reserved channels stay unless the host is lost.
// The ring pages are free only if the host has let go of them; otherwise nobody
// may ever use them again.
func (g *Guest) forgetAll(letGo bool) {
	for _, id := range slices.Sorted(maps.Keys(g.channels)) {
		c := g.channels[id]
		if letGo && c.survives() {
			c.stale = true
			continue
		}
		if (letGo || putback.On(putback.GC16)) && c.state != channel.Idle {
			g.emit(RingFree{id})
		}
		delete(g.channels, id)
		delete(g.rings, c.ring)
		g.flags.give(c.flag)
		_ = g.catalogue.Release(id) // it is known: it has a channel
		g.emit(ChannelReleased{id})
	}
	g.negotiated = vmbus.Negotiated{}
	g.modifying, g.pause = false, Running
	g.out.clear()
	g.held.clear()
}

// move is the only writer of g.state.
func (g *Guest) move(on GuestEvent) error {
	to, err := GuestTransitions.Next(g.state, on)
	if err != nil {
		return err
	}
	g.state = to
	return nil
}
