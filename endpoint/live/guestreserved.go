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
// again, more and more seldom, for about two minutes. After that the pages stay out
// of use; the end of the guest asks once more, and so does the end of a pause.
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

// reservedLeft is told of each message that has left for the host: from then on its
// answer may come. It does not come at all during a pause, when nothing leaves.
func (g *Guest) reservedLeft(m vmbus.Message) {
	switch m := m.(type) {
	case *vmbus.OpenReservedChannel:
		g.awaitAnswer(m.Channel, openPatience)
	case *vmbus.CloseReservedChannel:
		if o := g.openings[m.Channel]; o != nil {
			o.wait = max(2*o.wait, closePatience)
			g.awaitAnswer(m.Channel, o.wait)
		}
	}
}

// awaitAnswer begins to wait for an answer about a reserved channel.
func (g *Guest) awaitAnswer(id vmbus.ChannelID, patience time.Duration) {
	o := g.openings[id]
	if o == nil || patience > maxPatience {
		return
	}
	o.answered()
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
	if g.openings[id] != o || o.answer == nil {
		return
	}
	o.answer = nil
	switch g.channelState(id) {
	case channel.GuestOpening: // or the host is slow: it then closes what it has opened
		o.driver.OpenFailed(fmt.Errorf("live: channel %d: %w", id, ErrNoAnswer))
		g.closeChannel(id, o)
	case channel.Unreserving:
		_ = g.core.Close(id) // not while the guest unloads or is paused: see askAgain
	}
}

// askAgain does so now about every reserved channel that is to be closed.
func (g *Guest) askAgain() {
	for _, id := range slices.Sorted(maps.Keys(g.openings)) {
		if o := g.openings[id]; o.ring.Reserved != nil && o.left {
			o.wait = 0
			_ = g.core.Close(id) // it may be closed: then there is nothing to ask
		}
	}
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
	if !g.anyReserved() {
		next()
		return
	}
	g.next = next
	_ = g.core.Resume() // a silent host answers nothing; without a pause this does nothing
	g.askAgain()
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
}

// reservedFreed goes on with what waits for the last reserved channel.
func (g *Guest) reservedFreed() {
	if next := g.next; next != nil && !g.anyReserved() {
		g.next = nil
		next()
	}
}

// anyReserved reports whether the host may have pages of a reserved channel.
func (g *Guest) anyReserved() bool {
	for _, o := range g.openings {
		if o.ring.Reserved != nil {
			return true
		}
	}
	return false
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
