package world

import (
	"encoding/binary"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/endpoint/invariant"
	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// A machine is one guest, its hypervisor and the host's end of its bus.
type machine struct {
	w       *World
	number  uint8 // from 1
	id      uuid.UUID
	version vmbus.Version
	pages   int // ring pages

	features vmbus.Features
	monitors bool // the guest has monitor pages
	ownFlags bool // the guest chooses its event flags

	memory  memory
	port    *port
	view    *view // of the bus, as an observer on the wire sees it
	devices []*device

	hostRules  *invariant.Host
	guestRules *invariant.Guest // of this life

	host      *live.Host
	hostOwner *owner
	peer      *hvsock.HostGuest
	overheard [][]byte // of an attacker's end: what it has said
	moving    bool     // the host's end is saved, and its successor about to take over

	// What follows is new after a crash.
	life      int
	owner     *owner
	guest     *live.Guest
	sockets   *hvsock.GuestStack
	listener  listener
	connected bool // the guest's bus is up
	closing   bool // BeginClose was called
	gone      bool // the guest's bus is over
	connects  bool // BeginConnect has not ended
	mute      bool // the attacker has fallen silent
	down      bool // no guest is running
	resetting bool // the host has not let go since a reset
	pause     pauseState
	short     bool             // an allocation has failed
	failNext  bool             // the next one does
	refusals  int              // of posts, in a row
	frozen    bool             // suspended
	slots     []*guestmem.Page // while down: of messages, by processor
	logged    []time.Duration  // when the attacked end wrote a line
}

type pauseState uint8

const (
	running pauseState = iota
	pausing
	paused
)

// vps is the number of virtual processors of a guest.
const vps = 2

// A listener is one of the applications'.
type listener struct {
	*hvsock.Listener
	full int // the last step after which the backlog was full
}

// memory is the guest's memory as the host sees it. After a crash the pages of the
// last lives are still there: a host that is restored finds what it has had.
type memory struct {
	heap *guestmem.Heap
	old  []*guestmem.Heap // of lives that ended without a reset
	m    *machine
}

// Page is part of guestmem.Memory.
func (m *memory) Page(pfn uint64) (*guestmem.Page, error) {
	w := m.m.w
	if w.actor == hostSide && w.o.Checks == CheckAll && !m.m.attacked() {
		if !m.m.view.shared[pfn] {
			w.fail(GPADLPFN, "guest%d: the host looks up page %#x, which the guest has not shared", m.m.number, pfn)
		} else {
			w.hit(GPADLPFN)
		}
	}
	page, err := m.heap.Page(pfn)
	for at := len(m.old) - 1; err != nil && at >= 0; at-- {
		if p, e := m.old[at].Page(pfn); e == nil {
			return p, nil
		}
	}
	return page, err
}

// Ports of the applications' listeners.
const (
	hostPort  = 5000
	guestPort = 6000
)

func (w *World) newMachine(number uint8) (*machine, error) {
	m := &machine{w: w, number: number}
	m.memory.m = m
	m.id = w.uuid()
	m.version = w.o.Version
	if m.version == 0 {
		all := vmbus.Versions()
		m.version = all[w.setup.Draw(len(all))]
		if w.setup.Draw(2) == 0 { // most of what there is to see needs sockets
			m.version = []vmbus.Version{vmbus.Iron, vmbus.Copper}[w.setup.Draw(2)]
		}
	}
	if m.pages = w.o.RingPages; m.pages == 0 {
		m.pages = [...]int{2, 2, 2, 3, 3, 5, 5, 6, 7, 9, 17, 65}[w.setup.Draw(12)]
	}
	m.features = vmbus.Features(w.setup.Draw(int(vmbus.AllFeatures) + 1))
	m.monitors, m.ownFlags = w.setup.Draw(2) == 0, w.setup.Draw(2) == 0
	m.newHeap()
	m.port = &port{Partition: synic.NewPartition(&m.memory, vps, synic.WithReferenceTime(m.referenceTime)), m: m}
	m.view = newView(m)
	m.hostOwner = &owner{clock: &w.clock, side: hostSide}
	var err error
	if m.peer, err = w.stack.AddGuest(m.id); err != nil {
		return nil, err
	}
	m.hostRules = invariant.NewHost(endpoint.HostOptions{})
	if m.host, err = live.NewHost(m.hostOptions()); err != nil {
		return nil, err
	}
	m.peer.Attach(m.host)
	m.newDevices()
	return m, m.boot()
}

// hostOptions are those of the host's end.
func (m *machine) hostOptions() live.HostOptions {
	var core endpoint.HostOptions
	if m.w.o.Checks == CheckAll {
		core.Observe = m.hostRules.Observe
	}
	return live.HostOptions{
		Core: core, Memory: &m.memory, Port: m.port, Manual: true, Clock: m.hostOwner, VPs: vps, Trace: m.log(hostSide),
		Connected: m.peer.Connected, Gone: m.peer.Gone, SocketRequested: m.peer.Requested,
	}
}

func (m *machine) newHeap() {
	layouts := []guestmem.Layout{guestmem.ScatteredPFNs, guestmem.ScatteredPages, guestmem.ContiguousPages}
	m.memory.heap = guestmem.NewHeap(guestmem.HeapOptions{
		Seed: m.w.o.Seed*31 + uint64(m.number)<<8 + uint64(m.life), Layout: layouts[m.w.setup.Draw(len(layouts))],
		Fail: m.fails,
	})
}

// fails is asked before each allocation.
func (m *machine) fails(int) bool {
	if !m.failNext {
		return false
	}
	m.failNext, m.short = false, true
	return true
}

func (m *machine) referenceTime() uint64 { return uint64(m.w.clock.now / 100) }

// boot starts the guest: its bus begins to connect.
func (m *machine) boot() error {
	m.connected, m.closing, m.gone, m.connects, m.down, m.pause = false, false, false, true, false, running
	m.newSockets()
	m.guestRules = invariant.NewGuest(m.coreOptions())
	var err error
	if m.guest, err = live.NewGuest(m.guestOptions()); err != nil {
		return err
	}
	if err := m.listen(); err != nil {
		return err
	}
	m.view.toGuest = nil // what is in the slots of the last life nobody will read
	m.guest.BeginConnect(m.whenConnected())
	return nil
}

// whenConnected is what happens when the guest of this life has connected, or not.
func (m *machine) whenConnected() func(error) {
	life := m.life
	return func(err error) {
		if m.life != life {
			return
		}
		m.connects = false
		m.connected = err == nil
		m.w.note("guest%d: connected: %v", m.number, err)
	}
}

// newSockets gives the guest's applications a stack of a life of its own.
func (m *machine) newSockets() {
	m.owner = &owner{clock: &m.w.clock, side: guestSide}
	seed := m.w.o.Seed*31 + uint64(m.number)<<16 + uint64(m.life) + 1
	m.sockets = hvsock.NewGuestStack(hvsock.GuestOptions{
		VMID: m.id, RingPages: m.pages, Backlog: m.w.backlog, Seed: seed, Clock: m.owner,
	})
}

// listen gives the stack its bus and its listener.
func (m *machine) listen() (err error) {
	m.sockets.Attach(m.guest)
	m.listener.Listener, err = m.sockets.Listen(hvsock.Addr{VMID: hvsock.Wildcard, ServiceID: hvsock.ServiceIDFromPort(guestPort)})
	return err
}

func (m *machine) coreOptions() endpoint.GuestOptions {
	return endpoint.GuestOptions{Versions: []vmbus.Version{m.version}, Features: m.features, OwnEventFlags: m.ownFlags}
}

// guestOptions are those of the guest's end in this life.
func (m *machine) guestOptions() live.GuestOptions {
	core, life, sockets := m.coreOptions(), m.life, m.sockets
	if m.w.o.Checks == CheckAll {
		core.Observe = m.guestRules.Observe
	}
	return live.GuestOptions{
		Core: core, Memory: m.memory.heap, Port: m.port, Manual: true, Clock: m.owner, VPs: vps, Monitors: m.monitors,
		Trace:   m.log(guestSide),
		Offered: func(o vmbus.OfferChannel) { m.sawOffer(o); sockets.Offered(o) }, SocketRefused: sockets.Refused,
		Gone: func(err error) {
			sockets.Gone(err)
			if m.life == life {
				m.connected, m.gone = false, true
				m.w.note("guest%d: the bus is gone: %v", m.number, err)
			}
		},
	}
}

// uuid draws an identity.
func (w *World) uuid() (id uuid.UUID) {
	binary.LittleEndian.PutUint64(id[:], w.setup.rng.Uint64())
	binary.LittleEndian.PutUint64(id[8:], w.setup.rng.Uint64())
	id[6], id[8] = id[6]&0x0F|0x40, id[8]&0x3F|0x80
	return id
}

// socketsWork reports whether the guest can dial and be dialed.
func (m *machine) socketsWork() bool { return m.connected && !m.closing && m.version >= vmbus.Win10 }
