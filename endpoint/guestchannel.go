package endpoint

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/vmbus"
)

// An OpenError says why a channel did not open.
type OpenError struct {
	Channel   vmbus.ChannelID
	Status    uint32 // of GPADLCreated or OpenResult; 0 if there was none
	Rescinded bool
}

func (e *OpenError) Error() string {
	if e.Rescinded {
		return fmt.Sprintf("endpoint: channel %d was rescinded while it opened", e.Channel)
	}
	return fmt.Sprintf("endpoint: the host refused channel %d with status %#x", e.Channel, e.Status)
}

// offer handles OfferChannel. An id out of range or in use contradicts the
// guest's own table: the connection ends in order (faults.md GC-21).
func (g *Guest) offer(m vmbus.OfferChannel) error {
	for _, id := range g.offeredAnew(m) {
		g.forgetReserved(id, g.channels[id])
	}
	if why := g.unwelcome(m); why != "" {
		return &DropError{Message: vmbus.TypeOfferChannel, Channel: m.Channel, Reason: why}
	}
	item, err := g.catalogue.Offer(m)
	if err != nil {
		g.end(err)
		return err
	}
	g.channels[m.Channel] = &guestChannel{item: item}
	g.emit(OfferArrived{m})
	return nil
}

// unwelcome says why this guest ignores an offer, or "". An id in use is not
// among the reasons: it is a contradiction.
func (g *Guest) unwelcome(m vmbus.OfferChannel) string {
	if g.channels[m.Channel] != nil {
		return ""
	}
	if g.opts.Interfaces != nil && !putback.On(putback.GC17) && !slices.Contains(g.opts.Interfaces, m.Interface) &&
		m.Flags&vmbus.OfferTLNPI == 0 { // sockets are always trusted: their interface is any service
		return "this guest does not trust the interface"
	}
	if !g.opts.RequirePrimary {
		return ""
	}
	primary := false
	for _, c := range g.channels {
		o := c.item.Offer
		primary = primary || o.Instance == m.Instance && o.Interface == m.Interface && o.SubChannel == 0
	}
	switch {
	case m.SubChannel == 0 && primary:
		return "the guest knows this device already"
	case m.SubChannel != 0 && !primary:
		return "it is a sub-channel of nothing"
	}
	return ""
}

// rescind handles RescindChannelOffer. A pending open ends in this very step;
// the id goes back once the host has answered all there is about its pages.
func (g *Guest) rescind(id vmbus.ChannelID) error {
	c := g.channels[id]
	// An unload told every driver that it is over, but those of reserved channels.
	told := g.state == GuestUnloading && !(c != nil && c.survives())
	if !g.catalogue.Rescind(id) {
		return &DropError{Message: vmbus.TypeRescindChannelOffer, Channel: id, Reason: "the channel is unknown or rescinded already"}
	}
	was := c.state
	_ = c.move(channel.Rescinds) // legal in every state
	if !told {
		g.emit(OfferRescinded{id})
	}
	if !told && (was == channel.Sharing || was == channel.GuestOpening) && !putback.On(putback.GC01) {
		g.emit(OpenFailed{id, &OpenError{Channel: id, Rescinded: true}})
	}
	if g.state == GuestUnloading && g.negotiated.Version >= vmbus.Win7 {
		return nil // UnloadComplete gives everything back
	}
	if was == channel.GuestOpening || was == channel.Dropping || was == channel.Unreserving {
		g.unshare(c)
	}
	g.release(c)
	return nil
}

// Open shares p.PFNs and opens channel id over them. ChannelOpened or
// OpenFailed follows. An error matching vmbus.ErrState means nothing was sent.
func (g *Guest) Open(id vmbus.ChannelID, p OpenParams) error {
	c := g.channels[id]
	if c == nil || c.item.Rescinded() || g.state == GuestUnloading { // the unload ends without an answer
		return fmt.Errorf("endpoint: channel %d is not offered: %w", id, vmbus.ErrState)
	}
	if err := g.paramsAllowed(p); err != nil {
		return err
	}
	if putback.On(putback.RG14) {
		p.HostOffset /= 16
	}
	ring := g.nextGPADL
	messages, err := channel.Announce(id, ring, channel.Range{ByteCount: uint32(len(p.PFNs)) * 4096, PFNs: p.PFNs})
	if err != nil {
		return err
	}
	if err := c.move(channel.Opens); err != nil {
		return callerError(err)
	}
	g.observe(OpenAsked{id})
	g.nextGPADL++
	c.ring, c.open = ring, p
	g.rings[ring] = c
	for _, m := range messages {
		g.post(m.Message, m.Words...)
	}
	return nil
}

// paramsAllowed reports whether the host has agreed to what p asks for.
func (g *Guest) paramsAllowed(p OpenParams) error {
	n := g.negotiated
	switch {
	case p.Reserved != nil && n.Version < vmbus.Win10:
		return fmt.Errorf("endpoint: VMBus %v has no reserved channels, 4.0 is needed: %w", n.Version, vmbus.ErrState)
	case (p.EventFlag != 0 || p.ConnectionID != 0) && n.Features&vmbus.GuestSignalParams == 0:
		return fmt.Errorf("endpoint: the host chooses the signal parameters: %w", vmbus.ErrState)
	case p.Redirect && n.Features&vmbus.RedirectInterrupt == 0:
		return fmt.Errorf("endpoint: the host does not redirect interrupts: %w", vmbus.ErrState)
	}
	return nil
}

// gpadlCreated handles the answer to a ring GPADL.
func (g *Guest) gpadlCreated(m vmbus.GPADLCreated) error {
	c := g.rings[m.GPADL]
	if c == nil && !putback.On(putback.GC21) || c.item.Offer.Channel != m.Channel || putback.On(putback.GC15) && c.item.Rescinded() {
		return &DropError{Message: vmbus.TypeGPADLCreated, Channel: m.Channel, Reason: "no such GPADL was announced"}
	}
	wanted := c.state == channel.Sharing
	event := channel.Created
	if m.Status != vmbus.StatusSuccess {
		event = channel.CreateRefused
	}
	if err := c.move(event); err != nil {
		return &DropError{Message: vmbus.TypeGPADLCreated, Channel: m.Channel, Reason: "the channel is " + c.state.String(), Cause: err}
	}
	switch c.state {
	case channel.GuestOpening:
		g.postOpen(c)
	case channel.Unsharing:
		g.unshare(c)
	case channel.Idle:
		if wanted {
			g.emit(OpenFailed{m.Channel, &OpenError{Channel: m.Channel, Status: m.Status}})
		}
		g.ringFree(c)
	}
	return nil
}

func (g *Guest) postOpen(c *guestChannel) {
	o := c.item.Offer
	if r := c.open.Reserved; r != nil {
		g.post(&vmbus.OpenReservedChannel{
			Channel: o.Channel, TargetVP: r.VP, TargetSINT: uint32(r.SINT), Ring: c.ring, HostOffset: c.open.HostOffset,
		})
		return
	}
	m := vmbus.OpenChannel{
		Channel: o.Channel, OpenID: uint32(o.Channel), Ring: c.ring,
		TargetVP: c.open.TargetVP, HostOffset: c.open.HostOffset, UserData: c.open.UserData,
	}
	if g.negotiated.Features&(vmbus.GuestSignalParams|vmbus.RedirectInterrupt) == 0 {
		g.post(&m)
		return
	}
	m2 := vmbus.OpenChannel2{OpenChannel: m, ConnectionID: g.signalID(c), EventFlag: g.eventFlag(c)}
	if c.open.Redirect {
		m2.OpenFlags = vmbus.OpenRedirectInterrupt
	}
	g.post(&m2)
}

// signalID is the connection id on which this open signals the host.
func (g *Guest) signalID(c *guestChannel) uint32 {
	if g.negotiated.Version < vmbus.Win7 { // the offer's own field does not exist yet
		return vmbus.LegacyEventConnection
	}
	return cmp.Or(c.open.ConnectionID, c.item.Offer.ConnectionID)
}

// eventFlag is the flag on which this open hears the host.
func (g *Guest) eventFlag(c *guestChannel) uint16 {
	if c.open.EventFlag == 0 && g.opts.OwnEventFlags && g.negotiated.Features&vmbus.GuestSignalParams != 0 {
		c.flag = g.flags.take()
	}
	return cmp.Or(c.open.EventFlag, c.flag, uint16(c.item.Offer.Channel))
}

// openID is what the answer to an open must carry.
func (c *guestChannel) openID() uint32 {
	if c.open.Reserved != nil {
		return 0
	}
	return uint32(c.item.Offer.Channel)
}

func (g *Guest) openResult(m vmbus.OpenResult) error {
	c := g.channels[m.Channel]
	if c == nil || m.OpenID != c.openID() {
		return &DropError{Message: vmbus.TypeOpenResult, Channel: m.Channel, Reason: "no such open is waiting"}
	}
	wanted := c.state == channel.GuestOpening
	event := channel.Opened
	if m.Status != vmbus.StatusSuccess {
		event = channel.OpenRefused
	}
	if err := c.move(event); err != nil {
		return &DropError{Message: vmbus.TypeOpenResult, Channel: m.Channel, Reason: "the channel is " + c.state.String(), Cause: err}
	}
	switch {
	case c.state == channel.GuestOpen:
		g.emit(ChannelOpened{m.Channel, g.signalID(c), cmp.Or(c.open.EventFlag, c.flag, uint16(m.Channel))})
	case m.Status == vmbus.StatusSuccess: // nobody wants it any more
		g.post(&vmbus.CloseChannel{Channel: m.Channel})
		g.unshare(c)
	default:
		if wanted {
			g.emit(OpenFailed{m.Channel, &OpenError{Channel: m.Channel, Status: m.Status}})
		}
		if c.stale { // the host kept nothing but this open: it may offer the id anew at once
			g.forgetReserved(m.Channel, c)
			return nil
		}
		g.unshare(c)
	}
	return nil
}

// Close gives up a channel that is open or opening. RingFree follows when the
// host has let go of the pages. Closing an idle channel is an error matching
// vmbus.ErrState.
func (g *Guest) Close(id vmbus.ChannelID) error {
	c := g.channels[id]
	if c != nil && c.survives() {
		return g.closeReserved(id, c)
	}
	if c == nil || g.state == GuestUnloading { // the unload closes everything
		return fmt.Errorf("endpoint: channel %d is not offered: %w", id, vmbus.ErrState)
	}
	was := c.state
	if err := c.move(channel.Closes); err != nil {
		return callerError(err)
	}
	g.observe(CloseAsked{id})
	if was == channel.GuestOpen {
		g.post(&vmbus.CloseChannel{Channel: id})
		g.unshare(c)
	}
	return nil
}

// unshare asks for the ring pages back. c is Unsharing.
func (g *Guest) unshare(c *guestChannel) {
	if putback.On(putback.GC03) && c.item.Rescinded() {
		return
	}
	if c.item.Rescinded() && g.opts.SkipTeardown {
		_ = c.move(channel.Torndown) // teardown on a rescinded channel counts as done
		g.ringFree(c)
		return
	}
	g.post(&vmbus.GPADLTeardown{Channel: c.item.Offer.Channel, GPADL: c.ring})
}

func (g *Guest) gpadlTorndown(m vmbus.GPADLTorndown) error {
	c := g.rings[m.GPADL]
	if c == nil {
		return &DropError{Message: vmbus.TypeGPADLTorndown, Reason: fmt.Sprintf("no GPADL %#x was announced", uint32(m.GPADL))}
	}
	if err := c.move(channel.Torndown); err != nil {
		return &DropError{Message: vmbus.TypeGPADLTorndown, Channel: c.item.Offer.Channel, Reason: "the channel is " + c.state.String(), Cause: err}
	}
	g.ringFree(c)
	return nil
}

// ringFree hands the pages back to the driver; c is Idle.
func (g *Guest) ringFree(c *guestChannel) {
	delete(g.rings, c.ring)
	g.flags.give(c.flag)
	c.ring, c.open, c.flag = 0, OpenParams{}, 0
	g.emit(RingFree{c.item.Offer.Channel})
	g.release(c)
}

// Release gives back an offered channel that nobody here can use, for example
// because handling the offer failed. It is offered again after the next
// RequestOffers. A channel that is open, opening or rescinded is an error
// matching vmbus.ErrState.
func (g *Guest) Release(id vmbus.ChannelID) error {
	c := g.channels[id]
	if c == nil || c.item.Rescinded() || c.state != channel.Idle || c.modify != nil {
		return fmt.Errorf("endpoint: channel %d is not idle: %w", id, vmbus.ErrState)
	}
	if putback.On(putback.GC12) {
		g.post(&vmbus.RelIDReleased{Channel: id})
		g.emit(ChannelReleased{id})
		return nil
	}
	g.drop(c)
	return nil
}

// release gives the id of a rescinded channel back once nothing about it is in
// flight (faults.md GC-20).
func (g *Guest) release(c *guestChannel) {
	if c.item.Rescinded() && c.state == channel.Idle && (c.modify == nil || putback.On(putback.GC20)) {
		g.drop(c)
	}
}

// drop forgets a channel and tells the host.
func (g *Guest) drop(c *guestChannel) {
	id := c.item.Offer.Channel
	if g.catalogue.Release(id) != nil {
		return
	}
	delete(g.channels, id)
	if o := c.item.Offer; putback.On(putback.GC04) && o.SubChannel == 0 {
		maps.DeleteFunc(g.channels, func(_ vmbus.ChannelID, s *guestChannel) bool { return s.item.Offer.Instance == o.Instance })
	}
	g.post(&vmbus.RelIDReleased{Channel: id})
	g.emit(ChannelReleased{id})
}

// move is the only writer of c.state.
func (c *guestChannel) move(on channel.GuestEvent) error {
	to, err := channel.GuestTransitions.Next(c.state, on)
	if err != nil {
		return err
	}
	c.state = to
	return nil
}
