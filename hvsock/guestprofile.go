package hvsock

import (
	"encoding/binary"
	"syscall"

	"github.com/google/uuid"
)

// This file is what a guest's profile says of its addresses.

// mayListen returns nil, or the errno of a bind to addr.
func (s *GuestStack) mayListen(addr Addr) error {
	p := s.opts.Profile
	if !s.root.mayBind(addr.VMID) && s.containers.find(addr.VMID) == nil {
		return syscall.EADDRNOTAVAIL
	}
	if p.AnyBindOnly && addr.VMID != Wildcard && addr.VMID != Loopback || p.NoLoopback && addr.VMID == Loopback {
		return syscall.EADDRNOTAVAIL
	}
	if addr.ServiceID == uuid.Nil {
		return nil
	}
	port, isPort := PortFromServiceID(addr.ServiceID)
	switch {
	case p.PortsOnly && !isPort:
		return syscall.EINVAL
	case isPort && port == 0:
		return nil // an automatic one
	case isPort && port < p.PrivilegedPorts && s.opts.Unprivileged:
		return syscall.EACCES
	case s.bound(addr.ServiceID):
		return syscall.EADDRINUSE
	}
	return nil
}

// bound reports whether a service is in use in a way that keeps others from
// listening on it.
func (s *GuestStack) bound(service uuid.UUID) bool {
	conflict := s.opts.Profile.BindConflict
	if conflict == BindListeners {
		return false
	}
	if s.root.listeners.lookup(service, Wildcard, Loopback) != nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, dialing := s.ports[service]; dialing {
		return true
	}
	for k := range s.sockets {
		if conflict == BindConnected && k.local.ServiceID == service {
			return true
		}
	}
	return false
}

// ownVMID is how a socket of the site calls its own partition.
func (s *GuestStack) ownVMID(at *site) uuid.UUID {
	if s.opts.Profile.LocalAny {
		return Wildcard
	}
	return at.id
}

// remoteService is what an accepted connection says of the endpoint that dialed.
func (p Profile) remoteService(endpoint uuid.UUID) uuid.UUID {
	switch p.RemotePort {
	case RemoteData1: // the UUID holds it as printed, most significant byte first
		return ServiceIDFromPort(binary.BigEndian.Uint32(endpoint[:portBytes]))
	case RemoteUnknown:
		return ServiceIDFromPort(PortAny)
	}
	return endpoint
}

// bufferPages are taken for each transfer, where buffers exist only while bytes
// move: one page to send, one to receive (hvsock.md 1).
const bufferPages = 1

// connOptions are those of the guest's connections.
func (s *GuestStack) connOptions() connOptions {
	o := s.opts.Profile.connOptions()
	o.recheck = s.opts.Recheck
	if heap := s.opts.Memory; heap != nil && s.opts.Profile.BuffersWhileMoving {
		o.buffer = func() (release func(), ok bool) {
			block, err := heap.Alloc(bufferPages)
			if err != nil {
				return nil, false
			}
			return func() { _ = heap.Free(block) }, true // it is ours
		}
	}
	return o
}
