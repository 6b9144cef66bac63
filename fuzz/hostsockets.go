package fuzz

import (
	"io/fs"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// Steps of the socket targets; a byte chooses one.
const (
	socketRaw   = iota // a message of the peer as bytes, behind their length
	socketTyped        // a message of the peer by kind
	socketOpen         // the peer goes on, honestly, with one of the offers or opens
	socketPeer         // the peer does something with a channel
	socketApp          // the application does something with a connection
	socketDial         // the application dials, or the peer does
	socketTime         // time passes
	socketSteps
)

const socketPort = 5000 // the service that is listened on

// A hostSocketWorld is a host's socket stack, and a guest that is the fuzzer.
type hostSocketWorld struct {
	socketWorld
	stack *hvsock.HostStack
	peer  *hvsock.HostGuest
	bus   *live.Host

	messages *guestmem.Page // the guest's
	offered  []vmbus.OfferChannel
}

// HostSockets runs a host's sockets against a guest that does what data says, in
// virtual time and without goroutines: a byte for the version, then steps.
func HostSockets(data []byte) error {
	return traced(hostSockets(data, nil), func(trace *strings.Builder) error { return hostSockets(data, trace) })
}

func hostSockets(data []byte, trace *strings.Builder) error {
	in := &input{data}
	w := &hostSocketWorld{socketWorld: newSocketWorld(trace)}
	w.socketWorld.run = w.runAll
	if err := w.start(in.u8()); err != nil {
		return violated("I-STATE-LEGAL", "%v", err)
	}
	for in.more() && w.fault == nil {
		w.play(in, hostSocketMoves{w})
		w.run()
	}
	w.end()
	return w.fault
}

var fuzzVM = uuid.UUID{1}

// start connects a guest of the version that setup chooses, 4.0 or newer.
func (w *hostSocketWorld) start(setup uint8) error {
	messages, _, err := setUpSynIC(w.heap, w.part, uint8(vmbus.SINT))
	if err != nil {
		return err
	}
	w.messages = messages
	w.stack = hvsock.NewHostStack(hvsock.HostOptions{Seed: 1, Clock: w.clock, Backlog: 3})
	if w.peer, err = w.stack.AddGuest(fuzzVM); err != nil {
		return err
	}
	w.bus, err = live.NewHost(live.HostOptions{
		Memory: w.heap, Port: w.part, Manual: true, Clock: w.clock, VPs: 1,
		Connected: w.peer.Connected, Gone: w.peer.Gone, SocketRequested: w.peer.Requested,
	})
	if err != nil {
		return err
	}
	w.peer.Attach(w.bus)
	if w.listener, err = w.stack.Listen(hvsock.Addr{VMID: hvsock.Children, ServiceID: hvsock.ServiceIDFromPort(socketPort)}); err != nil {
		return err
	}
	versions := vmbus.Versions()
	versions = versions[len(versions)-7:] // from 4.0 on
	v := versions[int(setup)%len(versions)]
	contact := vmbus.InitiateContact{Version: v}
	if v >= vmbus.Win10V5 {
		contact.TargetInfo = uint64(vmbus.SINT)
	}
	w.post(vmbus.Append(nil, &contact))
	w.run()
	w.post(vmbus.Append(nil, &vmbus.RequestOffers{}))
	w.run()
	return nil
}

// post is HvCallPostMessage of the guest, on the port for the state it is in.
func (w *hostSocketWorld) post(b []byte) {
	port := uint32(endpoint.MultiClientPort)
	if v := w.bus.Negotiated().Version; v != 0 && v < vmbus.Win10V5 {
		port = endpoint.MessagePort
	}
	if w.trace != nil {
		w.note("%v", said(vmbus.GuestToHost, b, w.bus.Negotiated()))
	}
	w.part.PostMessage(synic.AppendPostMessage(nil, synic.ConnectionID(port), b[:min(len(b), vmbus.MaxPayloadBytes)]))
}

// runAll lets the host do all it can; the guest reads its messages.
func (w *hostSocketWorld) runAll() {
	w.settle(func() bool { return steps(w.bus) || w.read() })
}

// read takes one message from the guest's slot.
func (w *hostSocketWorld) read() bool {
	m, ok := synic.ReadSlot(w.messages, uint8(vmbus.SINT))
	if !ok {
		return false
	}
	if synic.FreeSlot(w.messages, uint8(vmbus.SINT)) {
		_ = w.part.WriteMSR(0, synic.MSREOM, 0) // a guest may always write it
	}
	if w.trace != nil {
		w.note("%v", said(vmbus.HostToGuest, m.Payload(), w.bus.Negotiated()))
	}
	parsed, _, err := vmbus.ParseFrom(vmbus.HostToGuest, m.Payload(), vmbus.Negotiated{Version: vmbus.Iron})
	if err != nil {
		return true
	}
	switch m := parsed.(type) {
	case *vmbus.OfferChannel:
		w.offered = append(w.offered, *m)
	case *vmbus.RescindChannelOffer:
		w.withdrawn(m.Channel)
	}
	return true
}

// withdrawn: the channel is the host's again.
func (w *hostSocketWorld) withdrawn(id vmbus.ChannelID) {
	for i, o := range w.offered {
		if o.Channel == id {
			w.offered = append(w.offered[:i:i], w.offered[i+1:]...)
			break
		}
	}
	w.lost(id)
}

// hostSocketMoves are those of a guest, which may close or release any channel, or
// give its rings away.
type hostSocketMoves struct{ *hostSocketWorld }

func (w hostSocketMoves) raw(b []byte) { w.post(b) }

func (w hostSocketMoves) message(in *input) {
	for _, b := range guestTyped(in) {
		w.post(b)
		w.run()
	}
}

func (w hostSocketMoves) manner(what uint8) { w.proceed(int(what)) }

func (w hostSocketMoves) signal(c *peerChannel) {
	w.part.SignalEvent(uint64(endpoint.EventConnection(c.id)))
}

// dial asks the host for its service, or for another, or is dialed by it.
func (w *hostSocketWorld) dial(what uint8) {
	switch what % 4 {
	case 0, 1:
		w.post(vmbus.Append(nil, &vmbus.TLConnectRequest{
			Endpoint: vmbus.GUID{0xEE, what}, Service: vmbus.GUIDFromUUID(hvsock.ServiceIDFromPort(socketPort))}))
	case 2:
		w.post(vmbus.Append(nil, &vmbus.TLConnectRequest{Endpoint: vmbus.GUID{0xEE, what}, Service: vmbus.GUID{what}}))
	case 3:
		w.dials++
		_, cancel := w.peer.BeginDial(hvsock.ServiceIDFromPort(uint32(what)), 2*time.Second, w.dialed)
		if what&0x80 != 0 {
			w.run()
			cancel()
		}
	}
}

// proceed opens the oldest offer as an honest guest does, or releases, closes or
// finishes a channel.
func (w *hostSocketWorld) proceed(what int) {
	if what%4 != 0 || len(w.offered) == 0 {
		w.leave(what)
		return
	}
	o := w.offered[0]
	w.offered = w.offered[1:]
	pages := channel.MinRingPages + what/4%4
	block, err := w.heap.Alloc(2 * pages)
	if err != nil {
		return // the guest's memory is its own business
	}
	rings, err := channel.NewGuestRings(block.Pages, pages)
	if err != nil {
		w.fail("I-STATE-LEGAL", "%v", err)
		return
	}
	c := &peerChannel{
		id: o.Channel, endpoint: o.Instance, pages: block.Pages, in: channel.NewPipeReader(rings.In),
		out: channel.NewPipeWriter(rings.Out, channel.PipeOptions{ReserveFIN: true}),
	}
	w.channels = append(w.channels, c)
	gpadl := vmbus.GPADLID(0x1000 + len(w.channels))
	parts, err := channel.Announce(o.Channel, gpadl, channel.Range{ByteCount: uint32(len(block.PFNs)) * vmbus.PageBytes, PFNs: block.PFNs})
	if err != nil {
		w.fail("I-STATE-LEGAL", "%v", err)
		return
	}
	for _, p := range parts {
		w.post(vmbus.AppendWords(vmbus.Append(nil, p.Message), p.Words))
		w.run()
	}
	w.post(vmbus.Append(nil, &vmbus.OpenChannel{Channel: o.Channel, OpenID: 1, Ring: gpadl, HostOffset: uint32(pages)}))
}

// leave closes or releases one of the guest's channels; the host's stack has to
// cope with every order.
func (w *hostSocketWorld) leave(what int) {
	if len(w.channels) == 0 {
		return
	}
	c := w.channels[what/4%len(w.channels)]
	switch what % 4 {
	case 1:
		w.post(vmbus.Append(nil, &vmbus.CloseChannel{Channel: c.id}))
	case 2:
		w.post(vmbus.Append(nil, &vmbus.RelIDReleased{Channel: c.id}))
	case 3:
		w.post(vmbus.Append(nil, &vmbus.GPADLTeardown{Channel: c.id, GPADL: vmbus.GPADLID(0x1001 + what/4%len(w.channels))}))
	}
	if !c.gone {
		c.gone = true
		c.tampered = c.tampered || !c.finished // data that is not ended is not promised to arrive
	}
}

// end: with the guest gone nothing is left in the host.
func (w *hostSocketWorld) end() {
	w.check("Listener.Close", w.listener.Close())
	w.finish()
	w.bus.Reset()
	w.run()
	w.clock.advance(400*time.Second, w.run)
	if u := w.bus.Usage(); u.Channels+u.GPADLs+u.Operations+u.Requests != 0 {
		w.fail("I-NO-LEAK", "after a reset: %+v", u)
	}
	w.bus.Close()
	w.peer.Remove()
	if sockets, listeners := w.stack.Usage(); sockets+listeners != 0 {
		w.fail("I-NO-LEAK", "%d sockets, %d listeners", sockets, listeners)
	}
	w.stack.Close()
}

func hostSocketSeeds(fs.FS) ([][]byte, error) {
	var seeds [][]byte
	for _, v := range []uint8{0, 1, 5} {
		life := seed{v}.u8(socketDial, 0, socketOpen, 12, socketPeer, 0).u16(100).u8(socketApp, 0).u16(50).
			u8(socketApp, 2).u16(8999).u8(socketPeer, 2).u16(5000).u8(socketPeer, 3).u16(0).u8(socketApp, 0).u16(100).u8(socketApp, 0).u16(1)
		seeds = append(seeds, append(seed{}, life...).u8(socketApp, 3).u16(0).u8(socketTime).u16(9000),
			append(seed{}, life...).u8(socketApp, 5).u16(0).u8(socketPeer, 0).u16(9).u8(socketTime).u16(9000), // late data
			append(seed{}, life...).u8(socketOpen, 1, socketOpen, 2, socketDial, 0),
			append(seed{}, life...).u8(socketPeer, 4).u16(1).u32(4).u8(socketApp, 0).u16(1),
			append(seed{}, life...).u8(socketPeer, 5).u16(4096).block([]byte{6, 0, 2, 0, 1}).u8(socketApp, 0).u16(1))
		seeds = append(seeds,
			seed{v}.u8(socketDial, 3, socketOpen, 0, socketPeer, 1).u16(7000).u8(socketApp, 0).u16(8000).u8(socketDial, 7, socketTime).u16(2500),
			seed{v}.u8(socketDial, 2, socketDial, 2, socketDial, 0x83, socketDial, 0, socketDial, 0, socketTime).u16(6000))
	}
	for _, line := range FaultLines("host") {
		s := seed{5}.u8(socketDial, 0, socketOpen, 12)
		for _, b := range line.Parts {
			s = s.u8(socketRaw).block(b)
		}
		seeds = append(seeds, s)
	}
	return seeds, nil
}
