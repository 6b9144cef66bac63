package hvsock

import (
	"slices"

	"github.com/google/uuid"
)

// A place is a kind of site. Source of this file: hvsock.md 4, after Microsoft's
// hvsocket.h and "Make your own integration services".
type place uint8

const (
	inHost     place = iota // a process of the physical host
	inVM                    // a process of a virtual machine
	inHostSilo              // a container on the physical host
	inVMSilo                // a container (hosted silo) in a utility VM
)

// A site is where sockets live: a partition, or a container in one. Each has
// listeners of its own.
type site struct {
	place     place
	id        uuid.UUID // of the VM or container; zero for the host
	listeners *listenerTable
}

// A SiloParent says which partition Parent names in a container of a VM.
// Microsoft's documents disagree.
type SiloParent uint8

const (
	// ParentIsVMHost: the host of the VM, to which the connection is passed
	// through. Source: the current hvsocket.h.
	ParentIsVMHost SiloParent = iota
	// ParentIsUtilityVM: the VM that hosts the container, as SiloHost. Source:
	// older versions of "Make your own integration services".
	ParentIsUtilityVM
)

// A target is where a connect goes.
type target uint8

const (
	toNowhere  target = iota
	toSelf            // the connector's own site
	toVMHost          // the host, over VMBus
	toSiloHost        // the site that hosts the container
	toChild           // a VM or container that the connector's site hosts
)

// routes are the connects that have a destination; all others are unreachable.
// A site reaches its children under their ids as well.
var routes = map[place]map[uuid.UUID]target{
	inHost:     {Loopback: toSelf},
	inVM:       {Loopback: toSelf, Parent: toVMHost},
	inHostSilo: {Loopback: toSelf, Parent: toSiloHost, SiloHost: toSiloHost},
	inVMSilo:   {Loopback: toSelf, Parent: toVMHost, SiloHost: toSiloHost},
}

// route is where a connect to vmid goes. isChild says whether vmid is hosted by
// the site.
func (s *site) route(vmid uuid.UUID, isChild bool, parent SiloParent) target {
	switch {
	case isChild:
		return toChild
	case s.place == inVMSilo && vmid == Parent && parent == ParentIsUtilityVM:
		return toSiloHost
	}
	return routes[s.place][vmid]
}

// An origin is where a connection comes from, seen from the site it reaches.
type origin uint8

const (
	fromSelf     origin = iota
	fromChild           // a VM or container that this site hosts
	fromVMHost          // the host of this VM, or of the VM this container is in
	fromSiloHost        // the site that hosts this container
)

// acceptors are the names a listener may be bound to for a connection of an
// origin. Wildcard accepts them all, and a partition's own id that partition.
var acceptors = map[place]map[origin][]uuid.UUID{
	inHost:     {fromSelf: {Loopback}, fromChild: {Children}},
	inVM:       {fromSelf: {Loopback}, fromChild: {Children}, fromVMHost: {Parent}},
	inHostSilo: {fromSelf: {Loopback}, fromSiloHost: {SiloHost, Parent}},
	inVMSilo:   {fromSelf: {Loopback}, fromSiloHost: {SiloHost}, fromVMHost: {Parent}},
}

// acceptorsOlder replaces inVMSilo where Parent is the utility VM.
var acceptorsOlder = map[origin][]uuid.UUID{
	fromSelf: {Loopback}, fromSiloHost: {SiloHost, Parent}, fromVMHost: {},
}

// listener finds who accepts a connection to service that comes from an origin:
// the most specific bind wins. id is that of the connector's partition, or zero.
func (s *site) listener(service uuid.UUID, from origin, id uuid.UUID, parent SiloParent) *Listener {
	names := acceptors[s.place][from]
	if s.place == inVMSilo && parent == ParentIsUtilityVM {
		names = acceptorsOlder[from]
	}
	binds := make([]uuid.UUID, 0, 4)
	if id != Wildcard {
		binds = append(binds, id)
	}
	binds = append(binds, names...)
	return s.listeners.lookup(service, append(binds, Wildcard)...)
}

// mayBind reports whether a listener of the site may be bound to the name vmid.
func (s *site) mayBind(vmid uuid.UUID) bool {
	if vmid == Wildcard || vmid == s.id {
		return true
	}
	for _, names := range acceptors[s.place] {
		if slices.Contains(names, vmid) {
			return true
		}
	}
	return false
}

// named reports whether vmid is one of the well-known ids, and so not the id of
// any partition.
func named(vmid uuid.UUID) bool {
	switch vmid {
	case Wildcard, Broadcast, Children, Loopback, Parent, SiloHost:
		return true
	}
	return false
}
