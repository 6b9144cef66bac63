package sim

import (
	"net"

	"github.com/hvlab/hvlab/hvsock"
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
	if g.closed {
		return net.ErrClosed
	}
	if g.paused {
		return nil
	}
	if err := g.bus.Freeze(); err != nil {
		return err
	}
	g.paused = true
	g.sockets.Hold()
	_, attachment := g.attached()
	attachment.peer.Suspend()
	return nil
}

// Resume lets a paused guest go on where it was: it takes the interrupts and
// messages that wait for it. It does nothing to a guest that runs. After Close it
// is net.ErrClosed.
func (g *Guest) Resume() error {
	g.closing.Lock()
	defer g.closing.Unlock()
	if g.closed {
		return net.ErrClosed
	}
	g.resume()
	return nil
}

// resume is Resume; closing is held.
func (g *Guest) resume() {
	if g.paused {
		g.paused = false
		g.sockets.Release()
		g.bus.Thaw()
	}
}

// still runs f while the guest stands still and none of its connections is left;
// closing is held. The guest goes on afterwards unless it was paused before.
func (g *Guest) still(f func() error) error {
	if err := g.bus.Freeze(); err != nil {
		return err
	}
	_, attachment := g.attached()
	attachment.peer.Disconnect()
	g.sockets.Disconnect()
	err := f()
	if !g.paused {
		g.bus.Thaw()
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
	g.resume()
	host, attachment := g.attached()
	attachment.Close()
	g.bus.Abandon()
	host.leave(g)
	return nil
}
