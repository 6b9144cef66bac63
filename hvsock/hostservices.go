package hvsock

import (
	"cmp"
	"slices"
	"syscall"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock/registry"
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
	var all []*hostSocket
	s.mu.Lock()
	for _, g := range s.guests {
		g.mu.Lock()
		for k := range g.sockets {
			if k.service() == changed.ID {
				all = append(all, k)
			}
		}
		g.mu.Unlock()
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b *hostSocket) int { return cmp.Compare(a.serial, b.serial) })
	for _, k := range all {
		if c := k.conn.Load(); c != nil {
			c.detach(detachReset)
		}
		k.end(hostDisabled, syscall.ECONNREFUSED)
	}
}

// service is the listener's service, on whichever side it is.
func (k *hostSocket) service() uuid.UUID {
	if k.version != 0 { // a dial
		return k.remote.ServiceID
	}
	return k.local.ServiceID
}
