package endpoint

import (
	"maps"
	"slices"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/vmbus"
)

// closeAll gives every ring back one by one: version 0.13 has no UnloadComplete,
// so GPADLTorndown is the only sign that the host has let go of a page.
func (g *Guest) closeAll() {
	for _, id := range slices.Sorted(maps.Keys(g.channels)) {
		c := g.channels[id]
		was := c.state
		if c.move(channel.Closes) == nil && was == channel.GuestOpen {
			g.post(&vmbus.CloseChannel{Channel: id})
			g.unshare(c)
		}
	}
}

// unloadWhenClosed ends a connection of version 0.13 once no ring is shared.
// Nothing answers its Unload, so nobody hears when the host unmaps the interrupt
// and monitor pages; but it touches them for open channels only, of which there
// is none (vmbus-control.md 1.4, 8).
func (g *Guest) unloadWhenClosed() {
	if g.state != GuestUnloading || g.negotiated.Version >= vmbus.Win7 || len(g.rings) != 0 {
		return
	}
	_ = g.move(UnloadCompletes) // legal: the guest is unloading
	g.forgetAll(true)
	g.post(&vmbus.Unload{})
	g.disconnected(true)
}
