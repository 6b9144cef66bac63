package live

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/vmbus"
)

// The host sends its answers about a reserved channel past its queue: they are lost
// if the message slot is busy (vmbus-control.md 5.5). So this guest waits for each of
// them only so long. Without an answer to an open the driver is told that it has
// failed, and the channel is closed; without one to a close, the host is asked
// again, more and more seldom, until it answers or the guest ends.
const (
	openPatience  = 5 * time.Second
	closePatience = time.Second
	maxPatience   = 64 * time.Second
)

// checkTarget reports whether this guest reads what the host sends to t.
func (g *Guest) checkTarget(t *endpoint.ReservedTarget) error {
	if t == nil || t.VP < uint32(len(g.vps)) && t.SINT == endpoint.VMBusSINT {
		return nil
	}
	return fmt.Errorf("live: a reserved channel with answers at VP %d SINT %d: the guest reads SINT %d of VPs 0 to %d: %w",
		t.VP, t.SINT, endpoint.VMBusSINT, len(g.vps)-1, vmbus.ErrState)
}

// awaitAnswer begins to wait for an answer about a reserved channel; of any other it
// is not lost.
func (g *Guest) awaitAnswer(id vmbus.ChannelID, o *opening, patience time.Duration) {
	if o.ring.Reserved == nil {
		return
	}
	o.answered()
	o.wait = patience
	o.answer = g.clock.AfterFunc(patience, func() { g.loop.do(func() { g.unanswered(id, o) }) })
}

// answered ends awaitAnswer; without one it does nothing.
func (o *opening) answered() {
	if o.answer != nil {
		o.answer.Stop()
		o.answer = nil
	}
}

// unanswered asks again.
func (g *Guest) unanswered(id vmbus.ChannelID, o *opening) {
	if g.openings[id] != o || o.open || o.answer == nil {
		return
	}
	switch g.channelState(id) {
	case channel.GuestOpening: // or the host is slow: it then closes what it has opened
		o.driver.OpenFailed(fmt.Errorf("live: channel %d: %w", id, ErrNoAnswer))
		g.closeChannel(id, o)
		return
	case channel.Unreserving:
		_ = g.core.Close(id) // while the guest unloads that waits, see disconnected
	}
	o.wait = min(2*o.wait, maxPatience)
	o.answer.Reset(o.wait)
}

// ErrNoAnswer is why the open of a reserved channel fails if the host does not say
// what has become of it.
var ErrNoAnswer = fmt.Errorf("the host has not answered within %v", openPatience)

// channelState is where the core's channel id is; Idle if there is none.
func (g *Guest) channelState(id vmbus.ChannelID) channel.GuestState {
	for _, k := range g.core.Channels() {
		if k.Offer.Channel == id {
			return k.State
		}
	}
	return channel.Idle
}

// afterReserved takes all reserved channels from their drivers and closes them. next
// runs when the host has let go of their pages, which it would use beyond the end of
// the connection; at once if there are none. unloadWaits ends the waiting for a host
// that never answers: then the pages stay out of use.
func (g *Guest) afterReserved(next func()) {
	g.next = next
	for _, id := range slices.Sorted(maps.Keys(g.openings)) {
		o := g.openings[id]
		switch {
		case o.ring.Reserved == nil || o.left:
			continue
		case o.open:
			o.driver.Rescinded()
		default:
			o.driver.OpenFailed(ErrStopped)
		}
		g.closeChannel(id, o)
	}
	_ = g.core.Resume() // a silent host answers nothing; without a pause this does nothing
	g.reservedFreed()
}

// reservedFreed goes on with what waits for the last reserved channel.
func (g *Guest) reservedFreed() {
	if g.next == nil {
		return
	}
	for _, o := range g.openings {
		if o.ring.Reserved != nil {
			return
		}
	}
	next := g.next
	g.next = nil
	next()
}

// disconnected ends a guest without a connection. If it was not this guest that ended
// it, there may be reserved channels, which the host still uses.
func (g *Guest) disconnected(a endpoint.Disconnected) {
	g.kept = g.kept || a.Kept
	if a.Kept {
		g.finish(a.Err)
		return
	}
	g.startUnloadTimer()
	g.afterReserved(func() { g.finish(a.Err) })
}
