package endpoint

import (
	"fmt"
	"slices"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/vmbus"
)

// A ReservedTarget is where a guest polls for the answers about a reserved
// channel: a channel without interrupts that survives unload and reconnect, for
// firmware and crash dumps. Source: vmbus-control.md 3.13.
type ReservedTarget struct {
	VP   uint32
	SINT uint8
}

// survives reports whether c outlives the connection: the host has been asked
// to reserve it, and has not taken the offer back.
func (c *guestChannel) survives() bool {
	return c.open.Reserved != nil && !c.item.Rescinded() && (c.state == channel.GuestOpening || c.state == channel.GuestOpen || c.state == channel.Unreserving)
}

// unasked says that p never reached the host: a channel it was to reserve does
// not outlive the connection.
func (g *Guest) unasked(p Posting) {
	if m, ok := p.Message.(*vmbus.OpenReservedChannel); ok && g.channels[m.Channel] != nil {
		g.channels[m.Channel].open.Reserved = nil
	}
}

// anySurvives reports whether a reserved channel is left.
func (g *Guest) anySurvives() bool {
	for _, c := range g.channels {
		if c.survives() {
			return true
		}
	}
	return false
}

// aboutReserved reports whether m is an answer about a reserved channel, which
// comes in every state of the connection, or the rescind that crosses an unload:
// it alone says that the channel will not outlive the connection.
func (g *Guest) aboutReserved(m vmbus.Message) bool {
	switch m := m.(type) {
	case *vmbus.CloseReservedChannelResponse:
		return true
	case *vmbus.RescindChannelOffer:
		c := g.channels[m.Channel]
		return g.state == GuestUnloading && c != nil && c.survives()
	case *vmbus.OpenResult:
		c := g.channels[m.Channel]
		return c != nil && c.survives()
	}
	return false
}

// closeReserved asks the host to close a reserved channel, connected or not. An
// answer may be lost, so asking again is legal. A host that has closed the channel
// says nothing more about that (vmbus-control.md 5.3), but it then tears down the
// ring as of any channel, with an answer that is not lost; one that has not drops
// that request (3.13). So the guest asks for both.
func (g *Guest) closeReserved(id vmbus.ChannelID, c *guestChannel) error {
	if g.state == GuestUnloading {
		return fmt.Errorf("endpoint: the guest is unloading: %w", vmbus.ErrState)
	}
	again := c.state == channel.Unreserving
	if again && g.pause != Running {
		return nil // the host is silent, and what is asked now is asked after Resume
	}
	if err := c.move(channel.Unreserves); err != nil {
		return callerError(err)
	}
	// Without RequestOffers in this connection the host lets go of everything
	// about the channel; otherwise it stays offered.
	c.stale = g.state != GuestRequesting && g.state != GuestConnected
	g.post(&vmbus.CloseReservedChannel{Channel: id, TargetVP: c.open.Reserved.VP, TargetSINT: uint32(c.open.Reserved.SINT)})
	if again && !c.stale {
		g.post(&vmbus.GPADLTeardown{Channel: id, GPADL: c.ring})
	}
	return nil
}

// reservedClosed handles CloseReservedChannelResponse.
func (g *Guest) reservedClosed(id vmbus.ChannelID) error {
	c := g.channels[id]
	if c == nil || c.state != channel.Unreserving {
		return &DropError{Message: vmbus.TypeCloseReservedChannelResponse, Channel: id, Reason: "no such close is waiting"}
	}
	if c.stale {
		_ = c.move(channel.HostForgets) // the state was checked
		g.forgetReserved(id, c)
		return nil
	}
	_ = c.move(channel.Unreserved) // the state was checked
	if g.state != GuestUnloading { // else the host drops the pages with everything
		g.unshare(c)
	}
	return nil
}

// offeredAnew lists the reserved channels of earlier connections that an offer shows
// to be gone: the host offers neither an id nor a device twice
// (vmbus-control.md 3.1, 5.3), so their close was answered and the answer lost.
func (g *Guest) offeredAnew(m vmbus.OfferChannel) (gone []vmbus.ChannelID) {
	for _, c := range g.rings { // a reserved channel has one
		o := c.item.Offer
		same := o.Interface == m.Interface && o.Instance == m.Instance && o.SubChannel == m.SubChannel
		if c.stale && (same || o.Channel == m.Channel) {
			gone = append(gone, o.Channel)
		}
	}
	slices.Sort(gone)
	return gone
}

// forgetReserved drops a channel the host knows nothing of any more.
func (g *Guest) forgetReserved(id vmbus.ChannelID, c *guestChannel) {
	delete(g.rings, c.ring)
	delete(g.channels, id)
	g.flags.give(c.flag)
	_ = g.catalogue.Release(id) // it is known: it has a channel
	g.emit(RingFree{id})
	g.emit(ChannelReleased{id})
}
