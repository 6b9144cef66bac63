package fuzz

import (
	"io/fs"
	"strings"
	"time"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// A guestSocketWorld is a guest's socket stack, and a host that is the fuzzer.
type guestSocketWorld struct {
	socketWorld
	version vmbus.Version
	stack   *hvsock.GuestStack
	bus     *live.Guest
	gone    bool

	posted   [][]byte // by the guest, not handled yet
	toGuest  [][]byte // messages for a slot that is busy
	hold     bool     // the host goes on only when the fuzzer says so
	refuse   bool     // it refuses the guest's dials
	gpadls   channel.GPADLTable
	rings    map[vmbus.GPADLID]*channel.GPADL
	nextID   vmbus.ChannelID
	hostDial byte                // counts the endpoints of the host
	heard    func(vmbus.Message) // if set, told what the guest says
}

// GuestSockets runs a guest's sockets against a host that does what data says,
// in virtual time and without goroutines: a byte for the version, the kind of guest
// and the size of its rings, then steps.
func GuestSockets(data []byte) error {
	return traced(guestSockets(data, nil), func(trace *strings.Builder) error { return guestSockets(data, trace) })
}

func newGuestSocketWorld(trace *strings.Builder) *guestSocketWorld {
	w := &guestSocketWorld{socketWorld: newSocketWorld(trace), rings: map[vmbus.GPADLID]*channel.GPADL{}, nextID: 1}
	w.socketWorld.run = w.runAll
	return w
}

func guestSockets(data []byte, trace *strings.Builder) error {
	in := &input{data}
	w := newGuestSocketWorld(trace)
	if err := w.start(in.u8()); err != nil {
		return violated("I-STATE-LEGAL", "%v", err)
	}
	for in.more() && w.fault == nil {
		w.play(in, guestSocketMoves{w})
		w.run()
	}
	w.end()
	return w.fault
}

// start connects the guest at the version that setup chooses, 4.0 or newer.
func (w *guestSocketWorld) start(setup uint8) error {
	kind := int(setup) / 16 % 8
	return w.startAs(socketVersion(setup), hvsock.GuestOptions{
		RingPages: 2 + kind%4,
		Profile:   hvsock.Profiles()[kind%len(hvsock.Profiles())], // what is promised is the same for all
	}, setup&0x80 != 0)
}

// socketVersion is the version that setup chooses, 4.0 or newer.
func socketVersion(setup uint8) vmbus.Version {
	versions := vmbus.Versions()
	versions = versions[len(versions)-7:] // from 4.0 on
	return versions[int(setup)%len(versions)]
}

// startAs connects a guest whose profile and ring size are those of o.
func (w *guestSocketWorld) startAs(version vmbus.Version, o hvsock.GuestOptions, skipTeardown bool) error {
	for _, port := range []synic.ConnectionID{endpoint.MessagePort, endpoint.MultiClientPort} {
		err := w.part.BindMessages(port, func(b []byte) synic.Status {
			if len(w.posted) >= endpoint.MaxIncomingMessages {
				return synic.StatusInsufficientBuffers
			}
			w.posted = append(w.posted, append([]byte(nil), b...))
			return synic.StatusSuccess
		})
		if err != nil {
			return err
		}
	}
	w.version = version
	o.VMID, o.Seed, o.Clock, o.Backlog = fuzzVM, 1, w.clock, 3
	w.stack = hvsock.NewGuestStack(o)
	var err error
	w.bus, err = live.NewGuest(live.GuestOptions{
		Core:   endpoint.GuestOptions{Versions: []vmbus.Version{w.version}, SkipTeardown: skipTeardown},
		Memory: w.heap, Port: w.part, Manual: true, Clock: w.clock,
		Offered: w.stack.Offered, SocketRefused: w.stack.Refused,
		Gone: func(err error) { w.gone = true; w.stack.Gone(err) },
	})
	if err != nil {
		return err
	}
	w.stack.Attach(w.bus)
	w.bus.BeginConnect(func(error) {}) // whether it works is the host's business
	w.run()
	w.listener, err = w.stack.Listen(hvsock.Addr{VMID: hvsock.Wildcard, ServiceID: hvsock.ServiceIDFromPort(socketPort)})
	return err
}

// runAll lets the guest do all it can; the host goes on unless it holds back.
func (w *guestSocketWorld) runAll() {
	w.settle(func() bool {
		did := steps(w.bus)
		if len(w.toGuest) > 0 && w.part.Post(synic.Target{SINT: uint8(vmbus.SINT)}, w.toGuest[0]) == nil {
			if w.trace != nil {
				w.note("%v", said(vmbus.HostToGuest, w.toGuest[0], vmbus.Negotiated{Version: w.version}))
			}
			w.toGuest = w.toGuest[1:]
			did = true
		}
		return !w.hold && w.proceed() || did
	})
}

// send puts a message behind those that wait for the guest's slot.
func (w *guestSocketWorld) send(b []byte) {
	if len(b) <= vmbus.MaxPayloadBytes && len(w.toGuest) < endpoint.MaxOutgoingMessages {
		w.toGuest = append(w.toGuest, append([]byte(nil), b...))
	}
}

// proceed handles the oldest message of the guest as an honest host does.
func (w *guestSocketWorld) proceed() bool {
	if len(w.posted) == 0 {
		return false
	}
	b := w.posted[0]
	w.posted = w.posted[1:]
	n := vmbus.Negotiated{Version: w.version}
	if w.trace != nil {
		w.note("%v", said(vmbus.GuestToHost, b, n))
	}
	m, tail, err := vmbus.ParseFrom(vmbus.GuestToHost, b, n)
	if err != nil {
		w.fail("I-VERSION", "the guest under test posts %x: %v", b, err)
		return true
	}
	if w.heard != nil {
		w.heard(m)
	}
	switch m := m.(type) {
	case *vmbus.RequestOffers:
		w.send(vmbus.Append(nil, &vmbus.AllOffersDelivered{}))
	case *vmbus.TLConnectRequest:
		w.answerDial(m.Service, m.Endpoint)
	case *vmbus.TLConnectRequest2:
		w.answerDial(m.Service, m.Endpoint)
	case *vmbus.GPADLHeader:
		g, err := w.gpadls.Begin(*m, vmbus.Words(tail))
		w.grown(g, err)
	case *vmbus.GPADLBody:
		g, err := w.gpadls.Continue(*m, vmbus.Words(tail))
		w.grown(g, err)
	case *vmbus.OpenChannel:
		w.open(*m)
	case *vmbus.CloseChannel:
		w.lost(m.Channel)
		w.send(vmbus.Append(nil, &vmbus.RescindChannelOffer{Channel: m.Channel}))
	case *vmbus.RelIDReleased:
		w.lost(m.Channel)
	default:
		if _, ends := m.(*vmbus.Unload); ends { // a forged id clashed with one of ours: some profiles read that as the end
			w.hostile()
		}
		for _, answer := range honestAnswers(m, n) {
			w.send(answer)
		}
	}
	return true
}

func (w *guestSocketWorld) answerDial(service, ep vmbus.GUID) {
	if w.refuse {
		w.send(vmbus.Append(nil, &vmbus.TLConnectResult{Endpoint: ep, Service: service, Status: vmbus.StatusConnectionRefused}))
		return
	}
	w.offer(service, ep, false)
}

// offer is an offer of one connection, under an id of its own.
func (w *guestSocketWorld) offer(service, ep vmbus.GUID, guestAccepts bool) {
	id := w.nextID
	if id > 30 {
		return // enough for one input
	}
	w.nextID++
	w.channels = append(w.channels, &peerChannel{id: id, endpoint: ep})
	_ = w.part.BindEvents(synic.ConnectionID(endpoint.EventConnection(id)), func(uint16) {}) // the id is new
	w.send(offerOf(id, service, ep, guestAccepts, w.version))
}

// offerOf is the offer of a Hyper-V socket as bytes.
func offerOf(id vmbus.ChannelID, service, ep vmbus.GUID, guestAccepts bool, v vmbus.Version) []byte {
	o := endpoint.SocketOffer(service, ep, guestAccepts, v)
	return vmbus.Append(nil, &vmbus.OfferChannel{
		Interface: service, Instance: ep, Flags: o.Flags, UserDefined: o.UserDefined, Channel: id,
		MonitorID: vmbus.NoMonitor, IsDedicated: 1, ConnectionID: endpoint.EventConnection(id),
	})
}

func (w *guestSocketWorld) grown(g *channel.GPADL, err error) {
	if err != nil {
		w.fail("I-GPADL-PFN", "the guest under test announces what nobody accepts: %v", err)
		return
	}
	if g.Complete() {
		w.rings[g.ID] = g
		w.send(vmbus.Append(nil, &vmbus.GPADLCreated{Channel: g.Channel, GPADL: g.ID}))
	}
}

// open maps the rings and opens the channel.
func (w *guestSocketWorld) open(m vmbus.OpenChannel) {
	g := w.rings[m.Ring]
	if g == nil {
		w.fail("I-GPADL-MEM", "the guest under test opens over GPADL %v, which it has not announced", m.Ring)
		return
	}
	toHost, toGuest, err := channel.SplitRings(g.Ranges, m.HostOffset)
	if err != nil {
		w.fail("I-GPADL-PFN", "%v", err)
		return
	}
	c := w.channel(m.Channel)
	pages, err := guestmem.Resolve(w.heap, append(append([]uint64(nil), toHost...), toGuest...))
	rings, mapErr := channel.MapHostRings(w.heap, toHost, toGuest)
	if c == nil || err != nil || mapErr != nil {
		return // closed meanwhile: its pages may be gone
	}
	c.pages = pages
	c.in, c.out = channel.NewPipeReader(rings.In), channel.NewPipeWriter(rings.Out, channel.PipeOptions{ReserveFIN: true})
	w.send(vmbus.Append(nil, &vmbus.OpenResult{Channel: m.Channel, OpenID: m.OpenID}))
}

func (w *guestSocketWorld) channel(id vmbus.ChannelID) *peerChannel {
	for _, c := range w.channels {
		if c.id == id {
			return c
		}
	}
	return nil
}

// guestSocketMoves are those of a host.
type guestSocketMoves struct{ *guestSocketWorld }

func (w guestSocketMoves) raw(b []byte) { w.send(b) }

func (w guestSocketMoves) message(in *input) { w.send(w.typed(in)) }

func (w guestSocketMoves) signal(c *peerChannel) {
	_ = w.part.Signal(synic.Target{SINT: uint8(vmbus.SINT)}, uint16(c.id)) // a guest that does not listen hears nothing
}

// manner changes how the host behaves, or withdraws one of its offers.
func (w *guestSocketWorld) manner(what uint8) {
	switch what % 5 {
	case 0:
		w.hold = what&0x80 != 0
	case 1:
		w.proceed()
	case 2:
		w.refuse = what&0x80 != 0
	case 3, 4:
		if len(w.channels) > 0 {
			c := w.channels[int(what/5)%len(w.channels)]
			c.gone = true
			c.tampered = c.tampered || !c.finished // data that is not ended is not promised to arrive
			w.send(vmbus.Append(nil, &vmbus.RescindChannelOffer{Channel: c.id}))
		}
	}
}

// typed is a host message by kind, about channels and rings that exist.
func (w *guestSocketWorld) typed(in *input) []byte {
	kind, id, x := in.u8(), vmbus.ChannelID(in.u8()%6), in.u8()
	service := vmbus.GUIDFromUUID(hvsock.ServiceIDFromPort(socketPort))
	if x&1 != 0 {
		service = vmbus.GUID{x}
	}
	ep := vmbus.GUID{0xAA, x}
	if len(w.channels) > 0 {
		ep = w.channels[int(x)%len(w.channels)].endpoint
	}
	ring := vmbus.GPADLID(x)
	for _, b := range w.posted {
		if m, _, err := vmbus.Parse(b, vmbus.Negotiated{Version: w.version}); err == nil {
			if h, ok := m.(*vmbus.GPADLHeader); ok {
				ring = h.GPADL
			}
		}
	}
	status := [...]uint32{0, vmbus.StatusFailure, vmbus.StatusConnectionRefused, 1}[x>>6]
	switch kind % 9 {
	case 0:
		return offerOf(id, service, ep, x&2 != 0, w.version)
	case 1:
		return vmbus.Append(nil, &vmbus.TLConnectResult{Endpoint: ep, Service: service, Status: status})
	case 2:
		return vmbus.Append(nil, &vmbus.OpenResult{Channel: id, OpenID: uint32(id), Status: status})
	case 3:
		return vmbus.Append(nil, &vmbus.GPADLCreated{Channel: id, GPADL: ring, Status: status})
	case 4:
		return vmbus.Append(nil, &vmbus.GPADLTorndown{GPADL: ring})
	case 5:
		return vmbus.Append(nil, &vmbus.RescindChannelOffer{Channel: id})
	case 6:
		return vmbus.Append(nil, &vmbus.UnloadComplete{})
	case 7:
		return vmbus.Append(nil, &vmbus.VersionResponse{Supported: x & 1})
	default:
		return vmbus.Append(nil, &vmbus.AllOffersDelivered{})
	}
}

// dial dials the host, or is dialed by it.
func (w *guestSocketWorld) dial(what uint8) {
	if what%3 == 0 {
		w.hostDial++
		w.offer(vmbus.GUIDFromUUID(hvsock.ServiceIDFromPort(socketPort+uint32(what/3%2))), vmbus.GUID{0xDD, w.hostDial}, true)
		return
	}
	w.dials++
	_, cancel := w.stack.BeginDial(hvsock.Addr{VMID: hvsock.Parent, ServiceID: hvsock.ServiceIDFromPort(uint32(what))}, 2*time.Second, w.dialed)
	if what&0x80 != 0 {
		w.run()
		cancel()
	}
}

// end unloads the bus; with a host that is honest from now on nothing is left.
func (w *guestSocketWorld) end() {
	w.check("Listener.Close", w.listener.Close())
	w.hold = false
	w.finish()
	w.stack.Close()
	w.bus.BeginClose()
	w.run()
	w.clock.advance(200*time.Second, w.run) // more than an unload may take
	if !w.gone {
		w.fail("L-RESET", "the guest still waits for its host")
		return // Close would wait for ever
	}
	_ = w.bus.Close() // it says so if the host never let go
	if sockets, listeners := w.stack.Usage(); sockets+listeners != 0 {
		w.fail("I-NO-LEAK", "%d sockets, %d listeners", sockets, listeners)
	}
}

func guestSocketSeeds(vectors fs.FS) ([][]byte, error) {
	var seeds [][]byte
	for _, v := range []uint8{0, 5, 0x15, 0x25, 0x35, 0x45, 0x85} {
		for _, dial := range []uint8{0, 1} { // the host dials, the guest dials
			life := seed{v}.u8(socketDial, dial, socketPeer, 0).u16(100).u8(socketApp, 0).u16(50).
				u8(socketApp, 2).u16(8999).u8(socketPeer, 2).u16(5000).u8(socketPeer, 3).u16(0).u8(socketApp, 0).u16(100).u8(socketApp, 0).u16(1)
			seeds = append(seeds, append(seed{}, life...).u8(socketApp, 3).u16(0).u8(socketOpen, 3, socketTime).u16(9000),
				append(seed{}, life...).u8(socketApp, 5).u16(0).u8(socketPeer, 0).u16(9).u8(socketTime).u16(9000),
				append(seed{}, life...).u8(socketPeer, 4).u16(1).u32(4).u8(socketApp, 0).u16(1),
				append(seed{}, life...).u8(socketPeer, 5).u16(4096).block([]byte{6, 0, 2, 0, 1}).u8(socketApp, 0).u16(1))
		}
		seeds = append(seeds,
			seed{v}.u8(socketOpen, 0x82, socketDial, 1, socketOpen, 2, socketDial, 0x81, socketDial, 3, socketTime).u16(2500),
			seed{v}.u8(socketOpen, 0x80, socketDial, 1, socketOpen, 1, socketOpen, 1, socketOpen, 3, socketOpen, 1, socketTime).u16(6000),
			seed{v}.u8(socketDial, 1, socketTyped, 0, 1, 2, socketTyped, 5, 1, 0, socketTyped, 2, 1, 0, socketTime).u16(100))
	}
	for _, line := range FaultLines("guest") {
		s := seed{5}.u8(socketDial, 1)
		for _, b := range line.Parts {
			s = s.u8(socketRaw).block(b)
		}
		seeds = append(seeds, s)
	}
	all, err := conversations(vectors)
	for i, c := range all { // recorded at 4.1 and 5.3, in this order
		s := seed{[]byte{1, 5}[i%2]}
		for _, m := range c {
			if m.dir == vmbus.HostToGuest {
				s = s.u8(socketRaw).block(m.bytes)
			}
		}
		seeds = append(seeds, s)
	}
	return seeds, err
}
