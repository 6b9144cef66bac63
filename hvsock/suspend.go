package hvsock

import (
	"cmp"
	"maps"
	"slices"
)

// What happens to sockets when their virtual machine is paused, saved or moved.
// Source: hvsock.md 11.

// Disconnect ends every connection of the guest, as a Hyper-V host does when it
// saves or moves the machine: Suspend, whatever the sockets' options. The host's
// ends are reset at once, the guest is told by a rescind when it runs again.
func (g *HostGuest) Disconnect() {
	g.cutOff(func(k *hostSocket) bool { return k.conn.Load() != nil })
}

// conns returns the guest's ends of its connections with the host, oldest first.
func (s *GuestStack) conns() (list []*Conn) {
	s.mu.Lock()
	sockets := slices.SortedFunc(maps.Keys(s.sockets), func(a, b *guestSocket) int { return cmp.Compare(a.serial, b.serial) })
	s.mu.Unlock()
	for _, k := range sockets {
		if c := k.conn.Load(); c != nil {
			list = append(list, c)
		}
	}
	return list
}

// Hold makes the guest's programs stand still: Reads and Writes of its connections
// with the host do nothing until Release, whatever their deadlines. It is for a
// guest that does not run (live.Guest.Freeze).
func (s *GuestStack) Hold() {
	for _, c := range s.conns() {
		c.in.hold()
		c.out.hold()
	}
}

// Release ends Hold.
func (s *GuestStack) Release() {
	for _, c := range s.conns() {
		c.in.release()
		c.out.release()
	}
}

// Disconnect takes the rings from every connection with the host, as the rescind
// does that is to follow: when it returns no program of the guest touches them.
func (s *GuestStack) Disconnect() {
	for _, c := range s.conns() {
		c.detach(detachReset)
	}
}

// Listeners returns the guest's own listeners, those of its containers not
// included.
func (s *GuestStack) Listeners() []*Listener { return s.root.listeners.list() }

// list returns the listeners in the order of their addresses.
func (r *listenerTable) list() []*Listener {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Values(r.byKey), func(a, b *Listener) int {
		return cmp.Or(slices.Compare(a.addr.VMID[:], b.addr.VMID[:]), slices.Compare(a.addr.ServiceID[:], b.addr.ServiceID[:]))
	})
}
