package live

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/synic"
	"github.com/hvlab/hvlab/vmbus/trace"
)

// unloadTimeout is how long the host may take to let go of guest memory
// (faults.md GC-09).
const unloadTimeout = 100 * time.Second

// unloadReport is how often a trace says that it has not let go yet.
const unloadReport = 5 * time.Second

// Close unloads the bus: it returns when the host has let go of every page, or
// after 100 s with an error; the pages then stay out of use. Reserved channels would
// outlive the connection: they are closed first, before anybody else loses a channel.
func (g *Guest) Close() error {
	if !g.BeginClose() {
		return ErrStopped
	}
	<-g.gone
	g.shutdown()
	return g.unloadErr
}

// BeginClose starts to unload the bus. Gone is called when that is done or 100 s
// have passed; until then Close waits. Channels that were to be opened fail. It
// reports false if the guest was closed before.
func (g *Guest) BeginClose() bool {
	g.Thaw()
	return g.loop.do(func() {
		g.startUnloadTimer()
		g.afterReserved(g.unload)
	})
}

// startUnloadTimer begins to bound how long the guest waits for the host to let go.
func (g *Guest) startUnloadTimer() {
	if g.unloading == nil {
		g.unloading = g.clock.AfterFunc(unloadReport, func() { g.loop.do(g.unloadWaits) })
	}
}

// unload asks the host to let go of everything.
func (g *Guest) unload() {
	switch {
	case g.core.State() == endpoint.GuestUnloading: // somebody has asked already
	case g.core.Unload() == nil:
	case g.contacted && g.core.State() == endpoint.GuestConnecting:
		g.leaving = true // it may accept, and use our pages, until it has completed an unload
		g.finishConnect(ErrStopped)
	default:
		g.finish(nil)
	}
}

// leave ends a guest that was closed while it connected, once the host has
// answered.
func (g *Guest) leave() {
	if g.leaving && g.core.Unload() != nil { // it has refused every version
		g.finish(nil)
	}
}

// unloadWaits runs every 5 s of an unload, and ends one that the host does not
// complete.
func (g *Guest) unloadWaits() {
	select {
	case <-g.gone:
		return
	default:
	}
	g.waited += unloadReport
	if g.waited < unloadTimeout && !(putback.On(putback.GC09) && g.waited >= 10*time.Second) {
		if g.opts.Trace.On() {
			g.opts.Trace.Emit(trace.Event{Dir: trace.Guest, Name: "unload waits", Fields: []trace.Field{{Name: "seconds", Value: int(g.waited.Seconds())}}})
		}
		g.unloading.Reset(unloadReport)
		return
	}
	g.kept = true
	g.unloadErr = fmt.Errorf("live: the host did not complete the unload within %v", unloadTimeout)
	g.finish(g.unloadErr)
}

// OwnPages is the number of pages the guest uses for itself, without any channel.
func (g *Guest) OwnPages() int { return len(g.own.PFNs) }

// Abandon ends the guest without a word, as when its machine crashes: drivers lose
// their rings, Gone is called, every page is freed. The host must be closed, or it
// may use pages that belong to others by then.
func (g *Guest) Abandon() {
	g.Thaw()
	g.loop.call(func() {
		for _, id := range slices.Sorted(maps.Keys(g.openings)) {
			o := g.openings[id]
			g.abandon(id, o)
			g.opts.Memory.Free(o.block)
		}
		g.finish(nil)
	})
	g.shutdown()
}

// shutdown ends the loop, masks the SynIC and, if the host has let go, frees
// the guest's own pages.
func (g *Guest) shutdown() {
	g.opts.Port.SetInterrupt(func(uint32, uint8) {})
	g.loop.call(func() {
		g.retry.stop()
		if g.unloading != nil {
			g.unloading.Stop()
		}
		for _, id := range slices.Sorted(maps.Keys(g.modifying)) {
			g.finishModify(id, ErrStopped)
		}
		for _, id := range slices.Sorted(maps.Keys(g.openings)) {
			g.abandon(id, g.openings[id])
		}
		g.loop.stop()
	})
	<-g.loop.done
	g.maskSynIC()
	if !g.kept || putback.On(putback.GC09) { // else nobody may use them again (faults.md GC-16)
		g.opts.Memory.Free(g.own)
	}
}

// maskSynIC takes the guest's pages from the hypervisor.
func (g *Guest) maskSynIC() {
	for vp := range g.vps {
		for _, msr := range []uint32{synic.MSRSCONTROL, synic.MSRSIEFP, synic.MSRSIMP} {
			_ = g.opts.Port.WriteMSR(uint32(vp), msr, 0) // without the register there is nothing to take away
		}
	}
}

// abandon ends a channel whose connection is gone.
func (g *Guest) abandon(id vmbus.ChannelID, o *opening) {
	g.silence(o)
	o.answered()
	delete(g.openings, id)
	if o.open {
		o.driver.Rescinded()
		return
	}
	o.driver.OpenFailed(ErrStopped)
}
