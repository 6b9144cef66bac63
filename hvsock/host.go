package hvsock

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/hvsock/registry"
	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/vmbus"
)

// HostOptions configures a HostStack. The zero value is ready.
type HostOptions struct {
	// Backlog is the number of connections a listener queues; 0 means 128.
	Backlog int
	// Seed makes ports and endpoint ids repeatable; 0 means random.
	Seed uint64
	// Recheck is GuestOptions.Recheck for guests like that.
	Recheck bool
	// Services are the registered services (GuestCommunicationServices), with
	// their permissions; nil means that there are none.
	Services *registry.Registry
	// Strict refuses services that are not registered, as Windows does: EACCES
	// to the host's programs, a refusal to guests. Otherwise anything goes.
	Strict bool
	// Trustees are who the host's programs are to Services' security
	// descriptors; nil means administrators.
	Trustees []string
	// Clock is the time; nil is the system's.
	Clock live.Clock
}

// A HostStack is the Hyper-V sockets of one host, over any number of guests.
type HostStack struct {
	opts       HostOptions
	unwatch    func()
	root       site       // the host's own sockets, outside any container
	containers containers // of the host itself
	rnd        *random
	local      *loopback

	mu     sync.Mutex
	closed bool
	guests map[uuid.UUID]*HostGuest
	silos  map[uuid.UUID]*HostGuest // containers of guests

	handlers map[uuid.UUID]*func(*Request) // for requests that no listener serves
}

// NewHostStack returns a stack without guests.
func NewHostStack(opts HostOptions) *HostStack {
	if opts.Clock == nil {
		opts.Clock = live.SystemClock()
	}
	if opts.Services == nil {
		opts.Services = registry.New()
	}
	if opts.Trustees == nil {
		opts.Trustees = []string{registry.Administrators, registry.Users}
	}
	rnd := newRandom(opts.Seed)
	s := &HostStack{
		opts:     opts,
		root:     site{inHost, uuid.UUID{}, newListenerTable(portAllocator{rnd: rnd}, opts.Clock, AllOptions)},
		rnd:      rnd,
		local:    newLoopback(channel.DefaultRingPages, opts.Clock, rnd),
		guests:   map[uuid.UUID]*HostGuest{},
		silos:    map[uuid.UUID]*HostGuest{},
		handlers: map[uuid.UUID]*func(*Request){},
	}
	s.unwatch = opts.Services.Watch(s.serviceChanged)
	return s
}

// A HostGuest is one guest as the host's sockets see it. Its Connected, Gone
// and Requested are the callbacks of the live.Host that is then passed to
// Attach.
type HostGuest struct {
	stack *HostStack
	vmid  uuid.UUID
	bus   *live.Host // set once by Attach

	mu      sync.Mutex
	version vmbus.Version // 0 while the guest is not connected
	added   uint64        // sockets so far
	sockets map[*hostSocket]struct{}
}

// AddGuest makes room for the guest vmid. A VM id in use is EADDRINUSE, one of the
// well-known ids EINVAL.
func (s *HostStack) AddGuest(vmid uuid.UUID) (*HostGuest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, syscall.ENODEV
	}
	if named(vmid) {
		return nil, syscall.EINVAL
	}
	if s.guests[vmid] != nil || s.silos[vmid] != nil || s.containers.find(vmid) != nil {
		return nil, syscall.EADDRINUSE
	}
	g := &HostGuest{stack: s, vmid: vmid, sockets: map[*hostSocket]struct{}{}}
	s.guests[vmid] = g
	return g, nil
}

// Attach gives the guest its bus. It must be called once, before the guest
// connects.
func (g *HostGuest) Attach(bus *live.Host) { g.bus = bus }

// Remove forgets the guest; its live.Host must have been closed.
func (g *HostGuest) Remove() {
	g.stack.mu.Lock()
	defer g.stack.mu.Unlock()
	if putback.On(putback.SS03) {
		maps.DeleteFunc(g.stack.root.listeners.byKey, func(a Addr, _ *Listener) bool { return a.VMID == g.vmid })
	}
	delete(g.stack.guests, g.vmid)
	maps.DeleteFunc(g.stack.silos, func(_ uuid.UUID, of *HostGuest) bool { return of == g })
}

// Connected is the live.Host's Connected callback.
func (g *HostGuest) Connected(n vmbus.Negotiated) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.version = n.Version
}

// Gone is the live.Host's Gone callback: every offer made for this connection
// is withdrawn.
func (g *HostGuest) Gone() {
	g.mu.Lock()
	g.version = 0
	sockets := slices.SortedFunc(maps.Keys(g.sockets), func(a, b *hostSocket) int { return cmp.Compare(a.serial, b.serial) })
	g.mu.Unlock()
	for _, k := range sockets {
		k.end(hostGuestCloses, syscall.ECONNRESET)
	}
}

// A hostSocket is one connection in the host, from the offer until the guest
// has released it. It is the live.Device of its channel.
type hostSocket struct {
	guest         *HostGuest
	silo          uuid.UUID // a dial's: the container in the guest, or zero
	local, remote Addr
	version       vmbus.Version // of a dial's offer
	serial        uint64        // among the guest's sockets
	listener      *Listener     // set for accepts

	mu      sync.Mutex
	state   hostState
	offered *live.Offered
	timer   live.Timer // open timeout, then linger

	conn atomic.Pointer[Conn]
	done func(dialResult) // told the outcome of a dial, once; nil for accepts
}

// moveLocked is the only writer of k.state. It reports whether the edge exists.
func (k *hostSocket) moveLocked(on hostEvent) bool {
	to, ok := hostTransitions.To(k.state, on)
	if !ok {
		return false
	}
	k.state = to
	return true
}

// newDial registers a dial of addr under a fresh endpoint id. A guest whose VMBus
// is not connected, because it boots or hibernates, is ENETDOWN (hvsock.md 10), one
// too old for Hyper-V sockets ENODEV; one too old to be told of the container silo
// is EHOSTUNREACH.
func (g *HostGuest) newDial(addr Addr, silo uuid.UUID, done func(dialResult)) (*hostSocket, error) {
	g.mu.Lock()
	version := g.version
	g.mu.Unlock()
	if version == 0 {
		return nil, syscall.ENETDOWN
	}
	if version < vmbus.Win10 {
		return nil, syscall.ENODEV
	}
	if silo != (uuid.UUID{}) && version < vmbus.Win10RS5 {
		return nil, syscall.EHOSTUNREACH
	}
	k := &hostSocket{guest: g, silo: silo, local: Addr{Parent, g.stack.rnd.uuid()}, remote: addr, version: version, done: done}
	g.add(k, 0)
	return k, nil
}

// offer makes the offer of a new dial.
func (k *hostSocket) offer() {
	offer := endpoint.SocketOffer(wire(k.remote.ServiceID), wire(k.local.ServiceID), true, k.version)
	k.offered.Publish(endpoint.SiloOffer(offer, wire(k.silo)))
}

// BeginDial is Dial for callers that cannot wait: done is told the outcome once,
// on any goroutine. cancel gives up, unless the outcome is decided: success wins.
// local is this end's address, zero if the dial has failed already.
func (g *HostGuest) BeginDial(service uuid.UUID, timeout time.Duration, done func(*Conn, error)) (local Addr, cancel func()) {
	d := &begunDial{remote: Addr{g.vmid, service}, done: done}
	k, err := g.newDial(d.remote, uuid.UUID{}, d.end)
	if err != nil {
		done(nil, dialError(Addr{}, d.remote, err))
		return Addr{}, func() {}
	}
	d.local = k.local
	d.bound(g.stack.opts.Clock, timeout, k.giveUp)
	k.offer()
	return k.local, d.cancel
}

// giveUp ends a socket that took too long to open. It reports false if the
// outcome was already decided.
func (k *hostSocket) giveUp() bool { return k.end(hostGivesUp, nil) }

// add registers k, which is about to be offered, and arms the timer that ends a
// socket the guest does not open; 0 means no timer of its own.
func (g *HostGuest) add(k *hostSocket, timeout time.Duration) {
	g.mu.Lock()
	g.added++
	k.serial = g.added
	g.sockets[k] = struct{}{}
	g.mu.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.moveLocked(hostOffers)
	k.offered = g.bus.Prepare(k)
	if timeout > 0 {
		k.timer = g.stack.opts.Clock.AfterFunc(timeout, func() { k.giveUp() })
	}
}

// Requested is the live.Host's SocketRequested callback: a guest dials. A
// service whose backlog is full is refused; one that nobody listens on is the
// handler's business (HandleRequests).
func (g *HostGuest) Requested(r endpoint.SocketRequested) {
	service, from := r.Service.UUID(), g.connector(r.Silo)
	if g.stack.opts.Services.MayServe(g.stack.question(service)) != nil {
		g.bus.RefuseSocket(r)
		return
	}
	l := g.stack.root.listener(service, fromChild, from, ParentIsVMHost)
	if l == nil {
		g.unclaimed(r)
		return
	}
	if !l.reserve() {
		g.bus.RefuseSocket(r)
		return
	}
	k := &hostSocket{
		guest: g, listener: l,
		local: Addr{Parent, service}, remote: Addr{from, r.Endpoint.UUID()},
	}
	g.add(k, openTimeout)
	k.offered.AcceptSocket(r)
}

// Open makes the connection usable: the dialer or the listener gets it.
func (k *hostSocket) Open(ch *live.HostChannel) error {
	ch.In.SignalOnAnyFree(k.guest.stack.opts.Recheck)
	conn := newConn(k.local, k.remote, link{
		in: channel.NewPipeReader(ch.In), out: newPipeWriter(ch.Out, 0),
		inPages: ch.InPages, outPages: ch.OutPages,
		signal: ch.Signal, events: k.event, clock: k.guest.stack.opts.Clock,
		options: connOptions{recheck: k.guest.stack.opts.Recheck},
	})
	k.mu.Lock()
	legal := k.moveLocked(hostGuestOpens)
	if legal {
		k.stopTimer()
	}
	k.mu.Unlock()
	if !legal {
		return errors.New("hvsock: nobody waits for this connection any more")
	}
	k.conn.Store(conn)
	if k.done != nil {
		k.done(dialResult{conn: conn})
		return nil
	}
	if !k.listener.push(conn) { // closed meanwhile
		_ = conn.Close()
	}
	return nil
}

func (k *hostSocket) stopTimer() {
	if k.timer != nil {
		k.timer.Stop()
	}
}

// Doorbell passes the guest's signal to the connection.
func (k *hostSocket) Doorbell() {
	if c := k.conn.Load(); c != nil || putback.On(putback.GC13) {
		c.doorbell()
	}
}

// Close takes the rings from the connection; what is in them stays readable.
func (k *hostSocket) Close() {
	if putback.On(putback.HV18) || putback.On(putback.SS10) {
		return
	}
	if c := k.conn.Load(); c != nil {
		c.detach(detachReset)
	}
	k.end(hostGuestCloses, syscall.ECONNRESET)
}

// Gone forgets the socket: the guest has released the channel, or the offer
// could not be made.
func (k *hostSocket) Gone(err error) {
	errno := syscall.ECONNRESET
	if err != nil {
		errno = syscall.ENOBUFS // every channel id is taken
	}
	k.end(hostReleased, errno)
	k.guest.mu.Lock()
	delete(k.guest.sockets, k)
	k.guest.mu.Unlock()
}

// end withdraws the offer because of event on, if that is legal now; a dialer
// that waits for the guest learns err, unless it gave up itself (nil).
func (k *hostSocket) end(on hostEvent, err error) bool {
	k.mu.Lock()
	was := k.state
	legal := k.moveLocked(on)
	if legal {
		k.stopTimer()
	}
	k.mu.Unlock()
	if !legal {
		return false
	}
	if was == hostOffered {
		if k.listener != nil {
			k.listener.cancel()
		}
		if k.done != nil && err != nil {
			k.done(dialResult{err: err})
		}
	}
	// A released offer is gone: there is nothing to withdraw.
	if on != hostReleased && !(putback.On(putback.HV04) && on == hostGivesUp) {
		k.offered.Revoke()
	}
	return true
}

// event is what the Conn reports.
func (k *hostSocket) event(e connEvent) {
	switch e {
	case evClosed:
		k.lingerFor(closeTimeout)
	case evEnded:
		k.end(hostBothEnded, nil)
	case evLateData, evFault:
		k.end(hostLateData, nil)
	}
}

// lingerFor leaves a closed socket to the guest until it has finished too, or d
// has passed.
func (k *hostSocket) lingerFor(d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.moveLocked(hostAppCloses) && !putback.On(putback.HV10) {
		k.timer = k.guest.stack.opts.Clock.AfterFunc(d, func() { k.end(hostLingerEnds, nil) })
	}
}

// Close closes every listener and makes further dials fail. Connections
// with a guest end with that; those within the host end here.
func (s *HostStack) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.unwatch()
	s.root.listeners.closeAll()
	for _, c := range s.containers.all() {
		_ = c.Close() // closed meanwhile is closed too
	}
	s.local.close()
}

// Usage returns the sockets that are not gone and the listeners.
func (s *HostStack) Usage() (sockets, listeners int) {
	listeners = s.root.listeners.len()
	for _, c := range s.containers.all() {
		listeners += c.listeners.len()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.guests {
		g.mu.Lock()
		sockets += len(g.sockets)
		g.mu.Unlock()
	}
	return sockets + s.local.len(), listeners
}
