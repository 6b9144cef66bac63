package sim

import (
	"fmt"
	"net"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/vmbus"
)

// Pause stops the guest's virtual processors: it takes no interrupt and hears no
// message, and Reads and Writes of its connections with the host stand still,
// whatever their deadlines. The host's ends are reset, except those with the option
// hvsock.ConnectedSuspend; the guest learns it when it goes on. What the host says
// meanwhile waits; dials time out, either way. Listeners stay on both sides. It does
// nothing to a guest that is paused. After Close it is net.ErrClosed.
//
// Programs of the guest are goroutines, which go on where they do not touch its
// bus: they may close connections, and accept what was queued before.
func (g *Guest) Pause() error {
	g.closing.Lock()
	defer g.closing.Unlock()
	if err := g.running(); err != nil || g.paused {
		return err
	}
	if err := g.end().Freeze(); err != nil {
		return err
	}
	g.paused = true
	g.sockets.Hold()
	_, attachment := g.attached()
	attachment.peer.Suspend()
	return nil
}

// Resume lets a paused guest go on where it was: it takes the interrupts and
// messages that wait for it. A hibernated one connects again, with the version that
// it had; a host that does not serve that any more is an error matching
// *endpoint.VersionError. It does nothing to a guest that runs. After Close it is
// net.ErrClosed.
func (g *Guest) Resume() error {
	g.closing.Lock()
	defer g.closing.Unlock()
	if g.closed {
		return net.ErrClosed
	}
	if g.hibernated == 0 {
		g.goOn()
		return nil
	}
	opts := g.busOptions()
	opts.Core.Versions = []vmbus.Version{g.hibernated}
	if err := g.connect(opts); err != nil {
		return fmt.Errorf("sim: waking %s: %w", g.opts.Name, err)
	}
	g.hibernated = 0
	return nil
}

// goOn ends a pause; closing is held.
func (g *Guest) goOn() {
	if g.paused {
		g.paused = false
		g.sockets.Release()
		g.end().Thaw()
	}
}

// Hibernate makes the guest write itself to its disk and go off: it gives up every
// connection, as after a rescind of its channel, and unloads the bus. Listeners stay
// on both sides, until Resume. It does nothing to a guest that hibernates. The error
// is net.ErrClosed after Close, or that of an unload that the host does not complete.
// Source: hvsock.md 11, vmbus-control.md 2.7.
func (g *Guest) Hibernate() error {
	g.closing.Lock()
	defer g.closing.Unlock()
	if g.closed {
		return net.ErrClosed
	}
	if g.hibernated != 0 {
		return nil
	}
	g.goOn()
	version := g.Version()
	g.sockets.Disconnect()
	err := g.end().Close()
	g.hibernated = version
	return err
}

// running is an error for a guest that does not run; closing is held.
func (g *Guest) running() error {
	switch {
	case g.closed:
		return net.ErrClosed
	case g.hibernated != 0:
		return fmt.Errorf("sim: %s hibernates: %w", g.opts.Name, vmbus.ErrState)
	}
	return nil
}

// still runs f while the guest stands still and none of its connections is left;
// closing is held. The guest goes on afterwards unless it was paused before.
func (g *Guest) still(f func() error) error {
	bus := g.end()
	if err := bus.Freeze(); err != nil {
		return err
	}
	_, attachment := g.attached()
	attachment.peer.Disconnect()
	g.sockets.Disconnect()
	err := f()
	if !g.paused {
		bus.Thaw()
	}
	return err
}

// Listeners returns the guest's open listeners, in the order of their addresses;
// those of its containers are not among them. A guest that was restored has those
// that it had when it was saved, and nobody accepts from them yet.
func (g *Guest) Listeners() []*hvsock.Listener { return g.sockets.Listeners() }

// Crash ends the guest from one moment to the next, as a power cut does: nothing is
// said to the host, which resets its ends of the connections. The guest's own fail
// like those of a closed guest. After Close it is net.ErrClosed.
func (g *Guest) Crash() error {
	g.closing.Lock()
	defer g.closing.Unlock()
	if g.closed {
		return net.ErrClosed
	}
	g.closed = true
	g.sockets.Close()
	g.goOn()
	host, attachment := g.attached()
	attachment.Close()
	if g.hibernated == 0 {
		g.end().Abandon()
	}
	host.leave(g)
	return nil
}
