package hvsock

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"syscall"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock/registry"
	"github.com/hvlab/hvlab/internal/putback"
)

// This file is how a host asks its registered services: hvsock.md 3.

// question is what a program of the host asks about a service.
func (s *HostStack) question(service uuid.UUID) registry.Question {
	return registry.Question{Service: service, Trustees: s.opts.Trustees, Strict: s.opts.Strict}
}

// serviceChanged ends the connections of a service that was disabled.
func (s *HostStack) serviceChanged(changed registry.Service) {
	if !changed.Disabled {
		return
	}
	var all []*HostGuest
	s.mu.Lock()
	for _, g := range s.guests {
		all = append(all, g)
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b *HostGuest) int { return bytes.Compare(a.vmid[:], b.vmid[:]) })
	for _, g := range all {
		g.cutOff(func(k *hostSocket) bool { return k.service() == changed.ID })
	}
	s.local.cutOff(func(p *loopPair) bool { return p.service == changed.ID })
}

// Suspend is what a pause of the guest does to the host's ends of connections:
// they are cut off, except where ConnectedSuspend is set (hvsock.md 11).
// Listeners stay, and so do offers that the guest has not opened.
func (g *HostGuest) Suspend() {
	g.cutOff(func(k *hostSocket) bool {
		c := k.conn.Load()
		return c != nil && !c.sockopts.flag(ConnectedSuspend)
	})
}

// cutOff ends those of the guest's connections that are chosen, in the order in
// which they began.
func (g *HostGuest) cutOff(chosen func(*hostSocket) bool) {
	g.mu.Lock()
	all := slices.SortedFunc(maps.Keys(g.sockets), func(a, b *hostSocket) int { return cmp.Compare(a.serial, b.serial) })
	g.mu.Unlock()
	for _, k := range all {
		if !chosen(k) || putback.On(putback.HV18) || putback.On(putback.SS10) {
			continue
		}
		if c := k.conn.Load(); c != nil {
			c.detach(detachReset)
		}
		k.end(hostCutsOff, syscall.ECONNREFUSED)
	}
}

// service is the listener's service, on whichever side it is.
func (k *hostSocket) service() uuid.UUID {
	if k.version != 0 { // a dial
		return k.remote.ServiceID
	}
	return k.local.ServiceID
}
