package hvsock

import (
	"math/rand/v2"
	"sync"
	"syscall"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/vmbus"
)

// Automatic ports: above the privileged ones and below 0x80000000, which old
// Linux kernels keep for themselves (hvsock.md 2.6).
const (
	minAutoPort   = 1024
	maxAutoPort   = 0x7FFFFFFF
	autoPortTries = 24 // successive ports, as Linux tries
	// maxDownPorts bounds the search of FreeBSD's allocator; more cannot be in
	// use (limits on sockets and listeners).
	maxDownPorts = 8192
)

// A random is a source of identifiers that may be used from any goroutine.
type random struct {
	mu   sync.Mutex
	rng  *rand.Rand
	down uint32 // ports given out by downPort so far
}

// downPort returns ports from 0xFFFFFFFE downwards, each once before the first
// comes again: a host may still know the connection that used the last one.
func (r *random) downPort() uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	port := PortAny - 1 - r.down%(PortAny-minAutoPort)
	r.down++
	return port
}

// newRandom returns a source seeded with seed; 0 means a random seed.
func newRandom(seed uint64) *random {
	if seed == 0 {
		seed = rand.Uint64()
	}
	return &random{rng: rand.New(rand.NewPCG(seed, 0x68767362))}
}

func (r *random) port() uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return minAutoPort + r.rng.Uint32N(maxAutoPort-minAutoPort-autoPortTries)
}

// uuid returns a version 4 UUID.
func (r *random) uuid() uuid.UUID {
	r.mu.Lock()
	defer r.mu.Unlock()
	var id uuid.UUID
	for i := range id {
		id[i] = byte(r.rng.Uint32())
	}
	id[6], id[8] = id[6]&0x0F|0x40, id[8]&0x3F|0x80
	return id
}

// A portAllocator picks service ids for binds without one.
type portAllocator struct {
	rnd   *random
	down  bool // ports go down from the highest, as on FreeBSD
	guids bool // endpoints of dials are no ports
}

// endpoint picks the id of a dial's own end.
func (a portAllocator) endpoint(taken func(uuid.UUID) bool) (uuid.UUID, error) {
	if a.guids {
		return a.rnd.uuid(), nil
	}
	return a.pick(taken)
}

// pick returns the service id of a port that taken does not know: a random one,
// then its successors; or the next one below the last. All taken is
// EADDRNOTAVAIL.
func (a portAllocator) pick(taken func(uuid.UUID) bool) (uuid.UUID, error) {
	if a.down {
		for range maxDownPorts {
			if id := ServiceIDFromPort(a.rnd.downPort()); !taken(id) {
				return id, nil
			}
		}
		return uuid.Nil, syscall.EADDRNOTAVAIL
	}
	first := a.rnd.port()
	for i := range uint32(autoPortTries) {
		if id := ServiceIDFromPort(first + i); !taken(id) {
			return id, nil
		}
	}
	return uuid.Nil, syscall.EADDRNOTAVAIL
}

// wire is the wire order of a UUID.
func wire(id uuid.UUID) vmbus.GUID { return vmbus.GUIDFromUUID(id) }
