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
	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// GuestOptions configures a GuestStack. The zero value is ready.
type GuestOptions struct {
	// VMID is the guest's own id, used in the addresses it reports.
	VMID uuid.UUID
	// Profile is the kind of guest; the zero value behaves best.
	Profile Profile
	// Unprivileged makes the guest's programs ordinary users: see
	// Profile.PrivilegedPorts.
	Unprivileged bool
	// Memory is where buffers come from, for profiles with BuffersWhileMoving;
	// nil means that there is always enough.
	Memory *guestmem.Heap
	// RingPages is the size of each ring in 4 KiB pages, control page included;
	// 0 means what the profile says.
	RingPages int
	// Backlog is the number of connections a listener queues; 0 means what the
	// profile says.
	Backlog int
	// Seed makes ports and endpoint ids repeatable; 0 means random.
	Seed uint64
	// Recheck is for a host that does not honour the pending send size as it
	// promises, which is known of very old ones: it is signalled whenever any space
	// was freed, and a Write that waits for space looks again every 10 ms. The
	// default is the strict rule (faults.md RG-06).
	Recheck bool
	// SiloParent says what Parent means in a container.
	SiloParent SiloParent
	// Clock is the time; nil is the system's.
	Clock live.Clock
}

// A GuestStack is the Hyper-V sockets of one guest.
type GuestStack struct {
	opts       GuestOptions
	bus        atomic.Pointer[live.Guest]
	root       site // the guest's own sockets, outside any container
	containers containers
	rnd        *random
	names      portAllocator
	local      *loopback

	mu      sync.Mutex
	closed  bool
	gone    bool                       // the bus is
	dialed  uint64                     // sockets so far
	dials   map[guestDial]*guestSocket // Requested
	ports   map[uuid.UUID]struct{}     // local endpoint ids in use by dials
	sockets map[*guestSocket]struct{}  // every socket that is not gone
}

// A guestDial names a request: both ids must match the answer.
type guestDial struct{ service, endpoint uuid.UUID }

// NewGuestStack returns a stack. Its Offered, Refused and Gone are the callbacks
// of the live.Guest that is then passed to Attach.
func NewGuestStack(opts GuestOptions) *GuestStack {
	if opts.RingPages != 0 {
		opts.Profile.Rings = RingSizes{SendPages: opts.RingPages}
	}
	if opts.Backlog == 0 {
		opts.Backlog = opts.Profile.Backlog
	}
	if opts.Clock == nil {
		opts.Clock = live.SystemClock()
	}
	rnd := newRandom(opts.Seed)
	names := portAllocator{rnd: rnd, down: opts.Profile.PortsDown, guids: opts.Profile.GUIDEndpoints}
	return &GuestStack{
		opts:    opts,
		root:    site{inVM, opts.VMID, newListenerTable(names, opts.Clock, opts.Profile.Options)},
		rnd:     rnd,
		names:   names,
		local:   newLoopback(cmp.Or(opts.RingPages, channel.DefaultRingPages), opts.Clock, rnd),
		dials:   map[guestDial]*guestSocket{},
		ports:   map[uuid.UUID]struct{}{},
		sockets: map[*guestSocket]struct{}{},
	}
}

// Attach gives the stack its bus. It must be called before Dial and Listen, and
// may be called again after Gone, for a guest that connects anew.
func (s *GuestStack) Attach(bus *live.Guest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bus.Store(bus)
	s.gone = false
}

// A guestSocket is one connection in the guest, from the dial or offer until
// the channel is gone. It is the live.Driver of its channel.
type guestSocket struct {
	stack         *GuestStack
	site          *site
	local, remote Addr
	endpoint      uuid.UUID // set for dials: the local port in use
	serial        uint64    // in the order in which they began
	listener      *Listener // set for accepts

	sendBytes, recvBytes int64 // buffers asked for, or 0

	mu      sync.Mutex
	state   guestState
	channel vmbus.ChannelID
	linger  live.Timer

	conn atomic.Pointer[Conn]
	done func(dialResult) // told the outcome of a dial, once; nil for accepts
}

// move is the only writer of k.state. It reports whether the edge exists.
func (k *guestSocket) move(on guestEvent) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.moveLocked(on)
}

func (k *guestSocket) moveLocked(on guestEvent) bool {
	to, ok := guestTransitions.To(k.state, on)
	if !ok {
		return false
	}
	k.state = to
	if to == guestGone && k.linger != nil {
		k.linger.Stop()
	}
	return true
}

// BeginDial is Dial for callers that cannot wait: done is told the outcome once,
// on any goroutine. cancel gives up, unless the outcome is decided: success wins.
// local is this end's address, zero if the dial has failed already.
func (s *GuestStack) BeginDial(addr Addr, timeout time.Duration, done func(*Conn, error)) (local Addr, cancel func()) {
	if addr.VMID != Parent {
		done(nil, dialError(Addr{}, addr, s.opts.Profile.unreachable()))
		return Addr{}, func() {}
	}
	d := &begunDial{remote: addr, done: done}
	k, err := s.newDial(&s.root, addr, dialOptions{}, d.end)
	if err != nil {
		done(nil, dialError(Addr{}, addr, err))
		return Addr{}, func() {}
	}
	d.local = k.local
	d.bound(s.opts.Clock, timeout, func() bool { return s.giveUp(k) })
	k.request()
	return k.local, d.cancel
}

// request sends the request of a new dial.
func (k *guestSocket) request() {
	var silo vmbus.GUID
	if k.site.place == inVMSilo {
		silo = wire(k.site.id)
	}
	k.stack.bus.Load().RequestSocketFrom(silo, wire(k.remote.ServiceID), wire(k.endpoint), func(err error) { k.fail(guestRefused, busError(err)) })
}

// busError maps what the bus says about a request to the errno of a system
// without a usable transport.
func busError(error) error { return syscall.ENODEV }

// newDial registers a dial under a fresh local port.
func (s *GuestStack) newDial(from *site, addr Addr, o dialOptions, done func(dialResult)) (*guestSocket, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.gone || s.bus.Load() == nil && !putback.On(putback.HV07) {
		return nil, syscall.ENODEV
	}
	p := s.opts.Profile
	if p.MaxSockets > 0 && len(s.sockets) >= p.MaxSockets {
		return nil, syscall.ENOMEM
	}
	ep, err := s.names.endpoint(func(id uuid.UUID) bool { _, used := s.ports[id]; return used })
	if err != nil {
		return nil, err
	}
	k := &guestSocket{
		stack: s, site: from, endpoint: ep, state: guestIdle, done: done,
		local: Addr{s.ownVMID(from), ep}, remote: addr,
		sendBytes: o.sendBytes, recvBytes: o.recvBytes,
	}
	k.move(guestDials)
	s.dialed++
	k.serial = s.dialed
	s.ports[ep] = struct{}{}
	s.dials[guestDial{addr.ServiceID, ep}] = k
	s.sockets[k] = struct{}{}
	return k, nil
}

// giveUp ends a dial that took too long. It reports false if the outcome was
// already decided.
func (s *GuestStack) giveUp(k *guestSocket) bool {
	k.mu.Lock()
	ok := k.moveLocked(guestGivesUp)
	opening, ch := k.state == guestAbandoned, k.channel
	k.mu.Unlock()
	if !ok {
		return false
	}
	if !putback.On(putback.SS02) {
		s.forget(k)
	}
	if opening {
		s.bus.Load().CloseChannel(ch, k)
	}
	return true
}

// forget removes a socket from every table. What removes one may come twice, and
// by then its port may be another's.
func (s *GuestStack) forget(k *guestSocket) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.sockets[k]; !known {
		return
	}
	delete(s.sockets, k)
	if k.done != nil {
		delete(s.ports, k.endpoint)
		delete(s.dials, guestDial{k.remote.ServiceID, k.endpoint})
	}
}

// fail ends a dial with err if event on is legal now. A dialer that has given up
// is not told: it knows.
func (k *guestSocket) fail(on guestEvent, err error) {
	k.mu.Lock()
	was := k.state
	legal := k.moveLocked(on)
	k.mu.Unlock()
	if !legal {
		return
	}
	k.stack.forget(k)
	if k.done != nil && was != guestAbandoned {
		k.done(dialResult{err: err})
	}
}

// dialOf returns the dial that an answer is for, or nil. The caller holds s.mu.
func (s *GuestStack) dialOf(service, ep uuid.UUID) *guestSocket {
	found := s.dials[guestDial{service, ep}]
	if putback.On(putback.HV03) {
		for at, k := range s.dials {
			if at.service == service && (found == nil || k.serial < found.serial) {
				found = k
			}
		}
	}
	return found
}

// Refused is the live.Guest's SocketRefused callback.
func (s *GuestStack) Refused(r endpoint.SocketRefused) {
	if s.opts.Profile.IgnoresRefusal {
		return
	}
	s.mu.Lock()
	k := s.dialOf(r.Service.UUID(), r.Endpoint.UUID())
	s.mu.Unlock()
	if k != nil {
		k.fail(guestRefused, syscall.ECONNREFUSED)
	}
}

// Offered is the live.Guest's Offered callback: it opens the channels that a
// dial or a listener waits for and leaves all others alone, as Linux does.
func (s *GuestStack) Offered(o vmbus.OfferChannel) {
	if o.Flags&vmbus.OfferTLNPI == 0 {
		return
	}
	service, ep := o.Interface.UUID(), o.Instance.UUID()
	var k *guestSocket
	if data := vmbus.DecodeHVSockUserData(o.UserDefined); data.ForGuestAccept {
		k = s.acceptOffer(o.Channel, data, service, ep)
	} else {
		k = s.takeOffer(o.Channel, service, ep)
	}
	if k == nil {
		return
	}
	send, recv := s.opts.Profile.ringPages(s.bus.Load().Version(), k.done == nil, k.sendBytes, k.recvBytes)
	s.bus.Load().OpenOffer(o, live.RingOptions{ToHostPages: send, ToGuestPages: recv}, k)
}

// takeOffer matches an offer to the dial it answers: both ids must match. From
// here on a dialer that gives up closes the channel.
func (s *GuestStack) takeOffer(ch vmbus.ChannelID, service, ep uuid.UUID) *guestSocket {
	s.mu.Lock()
	k := s.dialOf(service, ep)
	s.mu.Unlock()
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.moveLocked(guestOfferTaken) {
		return nil
	}
	k.channel = ch
	return k
}

// acceptOffer finds a listener with room for a connection of the host.
func (s *GuestStack) acceptOffer(ch vmbus.ChannelID, data vmbus.HVSockUserData, service, ep uuid.UUID) *guestSocket {
	to := s.offerSite(data)
	if to == nil {
		return nil
	}
	l := to.listener(service, fromVMHost, uuid.UUID{}, s.opts.SiloParent)
	if l == nil || !l.reserve() {
		return nil
	}
	p := s.opts.Profile
	k := &guestSocket{stack: s, site: to, listener: l, channel: ch, local: Addr{s.ownVMID(to), service}, remote: Addr{Parent, p.remoteService(ep)}}
	k.sendBytes, k.recvBytes = l.sockopts.ringHints()
	k.move(guestAccepts)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.MaxSockets > 0 && len(s.sockets) >= p.MaxSockets {
		l.cancel()
		return nil
	}
	s.dialed++
	k.serial = s.dialed
	s.sockets[k] = struct{}{}
	return k
}

// Opened makes the connection usable: the dialer or the listener gets it.
func (k *guestSocket) Opened(ch *live.GuestChannel) {
	ch.In.SignalOnAnyFree(k.stack.opts.Recheck)
	conn := newConn(k.local, k.remote, link{
		in: channel.NewPipeReader(ch.In), out: newPipeWriter(ch.Out, k.stack.opts.Profile.ChunkBytes),
		inPages: ch.InPages, outPages: ch.OutPages,
		signal: ch.Signal, events: k.event, clock: k.stack.opts.Clock, options: k.stack.connOptions(),
	})
	k.mu.Lock()
	was := k.state
	legal := k.moveLocked(guestOpened)
	k.mu.Unlock()
	if !legal || was == guestAbandoned { // nobody wants it any more
		conn.detach(detachReset)
		k.stack.bus.Load().CloseChannel(k.channel, k)
		return
	}
	k.conn.Store(conn)
	if k.done != nil {
		k.done(dialResult{conn: conn})
		return
	}
	if !k.listener.push(conn) { // closed meanwhile: open and close it (hvsock.md 14)
		_ = conn.Close()
	}
}

// OpenFailed ends the socket; the dialer learns why.
func (k *guestSocket) OpenFailed(err error) {
	if k.listener != nil && !putback.On(putback.HV05) {
		k.listener.cancel()
	} else if k.stack.opts.Profile.SilentOpenFailure && k.move(guestOpenIgnored) {
		return
	}
	errno := syscall.ECONNREFUSED
	var open *endpoint.OpenError
	switch {
	case errors.As(err, &open) && open.Rescinded, errors.Is(err, live.ErrNotOffered):
		errno = syscall.ECONNRESET
	case !errors.As(err, &open): // no pages, or the bus is gone
		errno = syscall.ENOMEM
		if errors.Is(err, live.ErrStopped) {
			errno = syscall.ENODEV
		}
	}
	k.fail(guestOpenFails, errno)
}

// Doorbell passes the host's signal to the connection.
func (k *guestSocket) Doorbell() {
	if c := k.conn.Load(); c != nil || putback.On(putback.GC13) {
		c.doorbell()
	}
}

// Rescinded ends the connection: what is in the ring stays readable.
func (k *guestSocket) Rescinded() {
	if c := k.conn.Load(); c != nil {
		c.detach(detachReset)
	}
	if k.move(guestRescinded) {
		k.stack.forget(k)
	}
}

// event is what the Conn reports.
func (k *guestSocket) event(e connEvent) {
	switch e {
	case evClosed:
		if putback.On(putback.HV01) {
			k.end(guestAppCloses)
		}
		k.lingerFor(closeTimeout)
		if k.stack.opts.Profile.ClosesAtOnce {
			k.end(guestLingerEnds)
		}
	case evFault: // the host broke the ring: it is useless to both
		k.end(guestAppCloses)
	case evEnded, evLateData: // the host rescinds
	}
}

// lingerFor keeps a closed socket until the host rescinds, or d has passed.
func (k *guestSocket) lingerFor(d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.moveLocked(guestAppCloses) && !putback.On(putback.HV10) {
		k.linger = k.stack.opts.Clock.AfterFunc(d, func() { k.end(guestLingerEnds) })
	}
}

// end closes the channel without waiting for a rescind.
func (k *guestSocket) end(on guestEvent) {
	if !k.move(on) {
		return
	}
	if c := k.conn.Load(); c != nil {
		c.detach(detachReset)
	}
	k.stack.bus.Load().CloseChannel(k.channel, k)
	k.stack.forget(k)
}

// Gone is the live.Guest's Gone callback: dials that wait for an answer fail.
func (s *GuestStack) Gone(error) {
	s.mu.Lock()
	s.gone = true
	waiting := slices.SortedFunc(maps.Values(s.dials), func(a, b *guestSocket) int { return cmp.Compare(a.serial, b.serial) })
	s.mu.Unlock()
	for _, k := range waiting {
		k.fail(guestRefused, syscall.ENODEV)
	}
}

// Close closes every listener and makes further dials fail. Connections
// with the host end with the bus; those within the guest end here.
func (s *GuestStack) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.root.listeners.closeAll()
	for _, c := range s.containers.all() {
		_ = c.Close() // closed meanwhile is closed too
	}
	s.local.close()
}

// Usage returns the sockets that are not gone and the listeners.
func (s *GuestStack) Usage() (sockets, listeners int) {
	listeners = s.root.listeners.len()
	for _, c := range s.containers.all() {
		listeners += c.listeners.len()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sockets) + s.local.len(), listeners
}
