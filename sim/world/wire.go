package world

import (
	"github.com/hvlab/hvlab/vmbus"
)

// A contract is the rules of the control plane, followed message by message: what
// the host has said and what it has handled, what the guest has said and what it
// has handled. It begins anew with each connection.
type contract struct {
	v         *view
	asked     vmbus.Features
	requested bool // RequestOffers was handled
	delivered bool // AllOffersDelivered was posted
	unloading int  // Unloads handled without an UnloadComplete
	stale     bool // a pause held messages back, and the connection has ended meanwhile
	silent    bool // PauseResponse was posted, and no end of the pause handled
	offered   map[vmbus.ChannelID]*promise
	order     []vmbus.ChannelID
	gpadls    map[gpadlKey]*gpadlPromise
	sockets   map[socketKey]int // TlConnectRequests without an answer
}

type gpadlKey struct {
	channel vmbus.ChannelID
	gpadl   vmbus.GPADLID
}

type socketKey struct{ service, endpoint vmbus.GUID }

// A promise is what is owed about one channel.
type promise struct {
	offer     vmbus.OfferChannel
	rescinded bool     // the host has said so
	opens     []uint32 // open ids the host has handled and not answered
	released  bool     // the guest has said so
	inFlight  int      // the guest's GPADL and modify requests without an answer handled
	isOpen    bool     // the guest has sent OpenChannel, and no CloseChannel
	known     bool     // the guest has handled the offer
	modifies  int      // ModifyChannels the host has handled and not answered
	reserved  bool     // the host has handled OpenReservedChannel, and not ended it
	closing   bool     // and CloseReservedChannel
}

// A gpadlPromise is what is owed about one GPADL.
type gpadlPromise struct {
	want, have int // words
	answered   bool
	teardown   bool // handled by the host, and not answered
}

func newContract(v *view) *contract {
	return &contract{
		v: v, offered: map[vmbus.ChannelID]*promise{}, gpadls: map[gpadlKey]*gpadlPromise{}, sockets: map[socketKey]int{},
	}
}

// end forgets the connection: a new contact, an unload or a reset was handled.
func (c *contract) end() {
	stale := c.silent
	*c = *newContract(c.v)
	c.stale = stale
}

func (c *contract) fail(i Invariant, format string, args ...any) {
	c.v.m.w.fail(i, "guest%d: "+format, append([]any{c.v.m.number}, args...)...)
}

// must is hit or fail.
func (c *contract) must(ok bool, i Invariant, format string, args ...any) {
	if !ok {
		c.fail(i, format, args...)
		return
	}
	c.v.m.w.hit(i)
}

// hostSays follows a message that the host has posted.
func (c *contract) hostSays(msg vmbus.Message) {
	if c.silent && msg.Type() != vmbus.TypePauseResponse {
		c.fail(Pause, "the host sent %v during a pause", msg.Type())
	}
	if t := msg.Type(); c.stale && t != vmbus.TypeUnloadComplete && t != vmbus.TypeVersionResponse {
		return
	}
	c.stale = false
	switch msg := msg.(type) {
	case *vmbus.VersionResponse2:
		c.must(msg.Features&^c.asked == 0, VersionRules, "%v granted, %v asked for", msg.Features, c.asked)
	case *vmbus.VersionResponse3:
		c.must(msg.Features&^c.asked == 0, VersionRules, "%v granted, %v asked for", msg.Features, c.asked)
	case *vmbus.OfferChannel:
		c.hostOffers(msg)
	case *vmbus.AllOffersDelivered:
		c.must(c.requested && !c.delivered, OfferOnce, "AllOffersDelivered, requested %v, delivered before %v", c.requested, c.delivered)
		c.delivered = true
	case *vmbus.RescindChannelOffer:
		c.hostRescinds(msg.Channel)
	case *vmbus.OpenResult:
		p := c.offered[msg.Channel]
		ok := p != nil && len(p.opens) > 0 && p.opens[0] == msg.OpenID
		c.must(ok, OpenResp, "OpenResult for channel %d, open id %d: nobody waits for it", msg.Channel, msg.OpenID)
		if ok {
			p.opens = p.opens[1:]
			p.reserved = p.reserved && msg.Status == vmbus.StatusSuccess
		}
	case *vmbus.CloseReservedChannelResponse:
		p := c.offered[msg.Channel]
		c.must(p != nil && p.reserved && p.closing, StateLegal, "CloseReservedChannelResponse for channel %d: nobody waits for it", msg.Channel)
		if p != nil {
			p.reserved, p.closing = false, false
		}
	case *vmbus.GPADLCreated:
		g := c.gpadls[gpadlKey{msg.Channel, msg.GPADL}]
		c.must(g != nil && !g.answered && g.have >= g.want, GPADLResp, "GpadlCreated for %#x of channel %d: %+v", uint32(msg.GPADL), msg.Channel, g)
		switch {
		case g == nil:
		case msg.Status != 0:
			delete(c.gpadls, gpadlKey{msg.Channel, msg.GPADL})
		default:
			g.answered = true
		}
	case *vmbus.GPADLTorndown:
		c.hostTearsDown(msg.GPADL)
	case *vmbus.ModifyChannelResponse:
		p := c.offered[msg.Channel]
		c.must(p != nil && p.modifies > 0, StateLegal, "ModifyChannelResponse for channel %d: nobody waits for it", msg.Channel)
		if p != nil {
			p.modifies--
		}
	case *vmbus.TLConnectResult:
		c.socketAnswered(socketKey{msg.Service, msg.Endpoint}, "a TlConnectResult")
	case *vmbus.UnloadComplete:
		c.must(c.unloading == 1, UnloadOnce, "UnloadComplete, with %d unloads", c.unloading)
		c.unloading = 0
		u := c.v.m.host.Usage()
		c.must(u.Channels == 0, UnloadOnce, "UnloadComplete, with %d channels", u.Channels)
	case *vmbus.PauseResponse:
		c.silent = true
	}
}

func (c *contract) hostOffers(o *vmbus.OfferChannel) {
	id := o.Channel
	c.must(id >= 1 && id <= vmbus.MaxChannels, RelidRange, "channel id %d offered", id)
	c.must(c.offered[id] == nil, RelidUniq, "channel %d offered again before its release", id)
	c.must(c.requested, OfferOnce, "channel %d offered before anybody asked", id)
	for _, other := range c.order {
		p := c.offered[other]
		if p.offer.Interface == o.Interface && p.offer.Instance == o.Instance && p.offer.SubChannel == o.SubChannel {
			c.fail(OfferOnce, "the same device offered as channel %d and %d", other, id)
		}
	}
	if o.Flags&vmbus.OfferTLNPI != 0 && !vmbus.DecodeHVSockUserData(o.UserDefined).ForGuestAccept {
		c.socketAnswered(socketKey{o.Interface, o.Instance}, "an offer")
	}
	if c.v.used[id] {
		c.v.m.w.hit(LiveReuse)
	}
	c.v.used[id] = true
	c.offered[id] = &promise{offer: *o}
	c.order = append(c.order, id)
}

// socketAnswered: each request for a socket has one answer.
func (c *contract) socketAnswered(k socketKey, what string) {
	c.must(c.sockets[k] > 0, ConnectMatch, "%s for a socket that nobody asked for, or twice", what)
	c.sockets[k]--
}

func (c *contract) hostRescinds(id vmbus.ChannelID) {
	p := c.offered[id]
	c.must(p != nil && !p.rescinded, RescindOnce, "Rescind of channel %d, known %v", id, p != nil)
	if p == nil {
		return
	}
	p.rescinded = true
	p.opens = nil // the rescind is the answer
	p.reserved, p.closing = false, false
	for _, other := range c.order {
		s := c.offered[other]
		if p.offer.SubChannel == 0 && s.offer.SubChannel != 0 && s.offer.Instance == p.offer.Instance && s.offer.Interface == p.offer.Interface {
			c.must(s.rescinded, SubchannelOrder, "channel %d rescinded before its sub-channel %d", id, other)
		}
	}
}

func (c *contract) hostTearsDown(id vmbus.GPADLID) {
	for k, g := range c.gpadls {
		if k.gpadl == id && g.teardown {
			g.teardown = false
			c.v.m.w.hit(GPADLTeardownOnce)
			delete(c.gpadls, k)
			return
		}
	}
	c.fail(GPADLTeardownOnce, "GpadlTorndown for %#x: nobody waits for it", uint32(id))
}

// hostHandles follows a message of the guest that the host handles now.
// words is the number of range words behind it.
func (c *contract) hostHandles(msg vmbus.Message, words int) {
	switch msg := msg.(type) {
	case *vmbus.InitiateContact:
		c.end()
		c.asked = vmbus.UnpackTargetInfo(msg.Version, msg.TargetInfo).Features
	case *vmbus.InitiateContact2:
		c.end()
		c.asked = vmbus.UnpackTargetInfo(msg.Version, msg.TargetInfo).Features
	case *vmbus.RequestOffers:
		c.requested = true
	case *vmbus.OpenChannel:
		c.hostOpens(msg)
	case *vmbus.OpenChannel2:
		c.hostOpens(&msg.OpenChannel)
	case *vmbus.OpenReservedChannel:
		c.hostOpens(&vmbus.OpenChannel{Channel: msg.Channel})
		if p := c.offered[msg.Channel]; p != nil && !p.rescinded {
			p.reserved, p.closing = true, false
		}
	case *vmbus.CloseReservedChannel:
		if p := c.offered[msg.Channel]; p != nil && p.reserved && len(p.opens) == 0 { // else it is dropped
			p.closing = true
		}
	case *vmbus.GPADLHeader:
		if c.offered[msg.Channel] != nil {
			c.gpadls[gpadlKey{msg.Channel, msg.GPADL}] = &gpadlPromise{want: int(msg.RangeBufLen) / 8, have: words}
		}
	case *vmbus.GPADLBody:
		for k, g := range c.gpadls {
			if k.gpadl == msg.GPADL && !g.answered {
				g.have += words
			}
		}
	case *vmbus.GPADLTeardown:
		p := c.offered[msg.Channel]
		if g := c.gpadls[gpadlKey{msg.Channel, msg.GPADL}]; g != nil && g.answered && !(p != nil && p.reserved) {
			g.teardown = true
		}
	case *vmbus.ModifyChannel:
		if p := c.offered[msg.Channel]; p != nil && c.v.n.Version >= vmbus.Iron {
			p.modifies++
		}
	case *vmbus.TLConnectRequest:
		c.sockets[socketKey{msg.Service, msg.Endpoint}]++
	case *vmbus.TLConnectRequest2:
		c.sockets[socketKey{msg.Service, msg.Endpoint}]++
	case *vmbus.RelIDReleased:
		c.forget(msg.Channel)
	case *vmbus.Unload:
		n := c.unloading
		c.end()
		c.unloading = n + 1
	case *vmbus.Resume:
		c.silent = false
		c.v.m.w.hit(Pause)
	}
}

func (c *contract) hostOpens(msg *vmbus.OpenChannel) {
	if p := c.offered[msg.Channel]; p != nil && !p.rescinded {
		p.opens = append(p.opens, msg.OpenID)
	}
}

// forget ends channel id: the host has handled its release.
func (c *contract) forget(id vmbus.ChannelID) {
	delete(c.offered, id)
	for i, o := range c.order {
		if o == id {
			c.order = append(c.order[:i], c.order[i+1:]...)
			break
		}
	}
	for k, g := range c.gpadls {
		if k.channel == id {
			c.must(g.have >= g.want, GPADLIncomplete, "GPADL %#x is incomplete although its channel %d is released", uint32(k.gpadl), id)
			delete(c.gpadls, k)
		}
	}
}

// guestSays follows a message that the guest has posted.
func (c *contract) guestSays(msg vmbus.Message) {
	id, about := channelOf(msg)
	if !about {
		return
	}
	p := c.offered[id]
	if p == nil || !p.known || p.released {
		if msg.Type() == vmbus.TypeCloseReservedChannel {
			return
		}
		c.fail(NoOpAfterRelease, "%v for channel %d, which the guest does not have", msg.Type(), id)
		return
	}
	c.v.m.w.hit(NoOpAfterRelease)
	switch msg.(type) {
	case *vmbus.GPADLHeader:
		p.inFlight++
	case *vmbus.ModifyChannel:
		if c.v.n.Version >= vmbus.Iron {
			p.inFlight++
		}
	case *vmbus.OpenChannel, *vmbus.OpenChannel2:
		c.must(!p.isOpen, StateLegal, "channel %d opened twice", id)
		p.isOpen = true
	case *vmbus.OpenReservedChannel:
		c.must(!p.isOpen, StateLegal, "channel %d opened twice", id)
		p.isOpen = true
	case *vmbus.CloseReservedChannel: // asked again, if the answer was lost
		p.isOpen = false
	case *vmbus.CloseChannel:
		c.must(p.isOpen, StateLegal, "channel %d closed, and not open", id)
		p.isOpen = false
	case *vmbus.RelIDReleased:
		c.must(p.inFlight == 0, ReleaseAfterInflight, "channel %d released with %d requests unanswered", id, p.inFlight)
		p.released = true
	}
}

// guestHandles follows a message of the host that the guest handles now.
func (c *contract) guestHandles(msg vmbus.Message) {
	switch msg := msg.(type) {
	case *vmbus.OfferChannel:
		if p := c.offered[msg.Channel]; p != nil {
			p.known = true
		}
	case *vmbus.GPADLCreated:
		if p := c.offered[msg.Channel]; p != nil {
			p.inFlight--
		}
	case *vmbus.ModifyChannelResponse:
		if p := c.offered[msg.Channel]; p != nil {
			p.inFlight--
		}
	}
}

// channelOf is the channel that a message of the guest names.
func channelOf(msg vmbus.Message) (vmbus.ChannelID, bool) {
	switch msg := msg.(type) {
	case *vmbus.OpenChannel:
		return msg.Channel, true
	case *vmbus.OpenChannel2:
		return msg.Channel, true
	case *vmbus.CloseChannel:
		return msg.Channel, true
	case *vmbus.OpenReservedChannel:
		return msg.Channel, true
	case *vmbus.CloseReservedChannel:
		return msg.Channel, true
	case *vmbus.GPADLHeader:
		return msg.Channel, true
	case *vmbus.GPADLTeardown:
		return msg.Channel, true
	case *vmbus.RelIDReleased:
		return msg.Channel, true
	case *vmbus.ModifyChannel:
		return msg.Channel, true
	}
	return 0, false
}

// checkLiveness: when everything is at rest nothing is owed.
func (c *contract) checkLiveness() {
	for _, id := range c.order {
		p := c.offered[id]
		c.must(len(p.opens) == 0, OpenResp, "channel %d: no OpenResult for %v", id, p.opens)
		c.must(p.modifies == 0 || p.rescinded, LiveCalls, "channel %d: %d ModifyChannels without an answer", id, p.modifies)
		c.must(!p.rescinded || p.released, LiveCalls, "channel %d is rescinded and was never released", id)
	}
	for k, g := range c.gpadls {
		c.must(g.answered || g.have < g.want, GPADLResp, "no GpadlCreated for %#x of channel %d", uint32(k.gpadl), k.channel)
		c.must(!g.teardown, GPADLTeardownOnce, "no GpadlTorndown for %#x", uint32(k.gpadl))
	}
	for k, n := range c.sockets {
		silent := c.v.n.Version < vmbus.Win10RS3 // there is no message to refuse with
		c.must(n == 0 || silent, ConnectMatch, "%d requests for service %v without an answer", n, k.service)
	}
	u := c.v.m.host.Usage()
	c.must(u.GPADLs == len(c.gpadls), GPADLIncomplete, "the host holds %d GPADLs, %d exist", u.GPADLs, len(c.gpadls))
	c.must(u.Operations == 0 && u.Requests == 0, LiveCalls, "the host still works on %+v", u)
}
