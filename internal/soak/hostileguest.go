package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/fuzz"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/sim"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// A hostileGuest posts, signals and writes into shared memory what it likes. It
// reads its messages, since a guest that does not is not listened to for long.
type hostileGuest struct {
	rnd        *rand.Rand
	heap       *guestmem.Heap
	part, mute *synic.Partition // mute has no host: what is posted there goes nowhere
	attachment *sim.Attachment
	host       *sim.Host
	vmid       uuid.UUID
	service    *service
	messages   *guestmem.Page
	rings      *guestmem.Block // two rings, announced again and again
	lines      [][][]byte      // of the fault catalogue
	opened     bool            // a channel was opened; looked at under the race detector only

	mu     sync.Mutex
	offers []vmbus.ChannelID // the last few
	over   int               // attacks since the connection may have ended; 0 while it stands
}

// ringSetPages are the pages of the attacker's ring pair.
const ringSetPages = 2 * ringPages

var attackerVM = uuid.UUID{0xBA, 0xD0}

func newHostileGuest(host *sim.Host, _ *lineCounter, seed uint64) (attacker, error) {
	g := &hostileGuest{
		rnd: rand.New(rand.NewPCG(seed, 1)), over: 18, heap: guestmem.NewHeap(guestmem.HeapOptions{Seed: seed}), host: host, vmid: attackerVM,
	}
	g.part, g.mute = synic.NewPartition(g.heap, 1), synic.NewPartition(g.heap, 1)
	for _, l := range fuzz.FaultLines("host") {
		g.lines = append(g.lines, l.Parts)
	}
	var err error
	if g.rings, err = g.heap.Alloc(ringSetPages); err != nil {
		return nil, err
	}
	if _, err := channel.NewGuestRings(g.rings.Pages, ringPages); err != nil {
		return nil, err
	}
	if err := g.setUp(); err != nil {
		return nil, err
	}
	if g.attachment, err = host.Attach("attacker", g.vmid, g.heap, g.part); err != nil {
		return nil, err
	}
	if g.service, err = serve(host.Listen, hvsock.Addr{VMID: attackerVM, ServiceID: hvsock.ServiceIDFromPort(attackPort)}); err != nil {
		g.attachment.Close()
		return nil, err
	}
	return g, nil
}

// setUp sets up the guest's interrupt controller, and reads what comes.
func (g *hostileGuest) setUp() error {
	const vector, enable = 0xF3, 1
	block, err := g.heap.Alloc(2)
	if err != nil {
		return err
	}
	g.messages = block.Pages[0]
	for _, w := range []struct {
		msr   uint32
		value uint64
	}{
		{synic.MSRSIMP, block.PFNs[0]*guestmem.PageSize | enable},
		{synic.MSRSIEFP, block.PFNs[1]*guestmem.PageSize | enable},
		{synic.MSRSINT0 + vmbus.SINT, vector},
		{synic.MSRSCONTROL, enable},
	} {
		if err := g.part.WriteMSR(0, w.msr, w.value); err != nil {
			return err
		}
	}
	g.part.SetInterrupt(func(uint32, uint8) {
		for {
			m, ok := synic.ReadSlot(g.messages, vmbus.SINT)
			if !ok {
				return
			}
			if synic.FreeSlot(g.messages, vmbus.SINT) {
				_ = g.part.WriteMSR(0, synic.MSREOM, 0) // a guest may always write it
			}
			g.heard(m.Payload())
		}
	})
	return nil
}

// heard remembers what is offered.
func (g *hostileGuest) heard(b []byte) {
	m, _, err := vmbus.ParseFrom(vmbus.HostToGuest, b, vmbus.Negotiated{Version: vmbus.Iron})
	if r, ok := m.(*vmbus.VersionResponse); ok && r.Supported != 0 && r.VersionOrConnectionID == endpoint.MessagePort {
		g.mu.Lock()
		g.over = 0 // from 5.0 on
		g.mu.Unlock()
	}
	if o, ok := m.(*vmbus.OfferChannel); ok && err == nil {
		g.mu.Lock()
		defer g.mu.Unlock()
		const remembered = 8
		if g.offers = append(g.offers, o.Channel); len(g.offers) > remembered {
			g.offers = g.offers[1:]
		}
	}
}

// channel is one that was offered lately, or any small id.
func (g *hostileGuest) channel() vmbus.ChannelID {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.offers) > 0 && g.rnd.IntN(4) > 0 {
		return g.offers[g.rnd.IntN(len(g.offers))]
	}
	return vmbus.ChannelID(g.rnd.IntN(8))
}

func (g *hostileGuest) attack(mute bool) {
	part := g.part
	if mute {
		part = g.mute
	}
	post := func(b []byte) {
		port := synic.ConnectionID(endpoint.MultiClientPort)
		if g.rnd.IntN(2) == 0 {
			port = endpoint.MessagePort
		}
		input := synic.AppendPostMessage(nil, port, b[:min(len(b), vmbus.MaxPayloadBytes)])
		const tries = 20
		for range tries { // a guest whose host is busy tries again
			if part.PostMessage(input) != synic.StatusInsufficientBuffers {
				return
			}
			time.Sleep(100 * time.Microsecond)
		}
	}
	if g.lost() { // back to where there is something to attack
		post(vmbus.Append(nil, &vmbus.InitiateContact{Version: vmbus.Iron, TargetInfo: vmbus.SINT}))
		post(vmbus.Append(nil, &vmbus.RequestOffers{}))
	}
	switch g.rnd.IntN(10) {
	case 0:
		g.fault(post)
	case 1:
		post(g.garbage())
	case 2, 3: // a ring pair and an open, as it should be
		g.open(post)
	case 4: // another connection
		post(vmbus.Append(nil, &vmbus.TLConnectRequest{
			Endpoint: vmbus.GUID{byte(g.rnd.Uint32()), byte(g.rnd.Uint32())}, Service: vmbus.GUIDFromUUID(hvsock.ServiceIDFromPort(attackPort + uint32(g.rnd.IntN(2))))}))
	case 5: // any byte of the rings, control words among them
		for range scribbles {
			page := g.rings.Pages[g.rnd.IntN(ringSetPages)]
			page.Store32(4*g.rnd.IntN(guestmem.PageSize/4), g.rnd.Uint32()>>g.rnd.IntN(32))
		}
	case 6: // doorbells, of its own channels and others
		for range 8 {
			part.SignalEvent(uint64(endpoint.EventConnection(g.channel())))
		}
	case 7: // page lists without end
		if g.rnd.IntN(10) == 0 {
			g.pageLists(post)
			return
		}
		post(vmbus.AppendWords(vmbus.Append(nil, &vmbus.GPADLHeader{
			Channel: g.channel(), GPADL: vmbus.GPADLID(g.rnd.Uint32()), RangeBufLen: 0xFFFF, RangeCount: uint16(g.rnd.Uint32())}), make([]uint64, 27)))
	default:
		post(g.message())
	}
}

// fault is a line of the catalogue of faults.
func (g *hostileGuest) fault(post func([]byte)) {
	for _, b := range g.lines[g.rnd.IntN(len(g.lines))] {
		if b[0] == byte(vmbus.TypeInitiateContact) {
			if g.rnd.IntN(endsRarely) > 0 {
				continue
			}
			g.ends()
		}
		post(b)
	}
}

// garbage is no message, although it starts like one.
func (g *hostileGuest) garbage() []byte {
	b := make([]byte, g.rnd.IntN(vmbus.MaxPayloadBytes+1))
	for i := range b {
		b[i] = byte(g.rnd.Uint32())
	}
	if len(b) > 3 {
		b[0], b[1], b[2], b[3] = byte(g.rnd.IntN(31)), 0, 0, 0
		if b[0] == byte(vmbus.TypeUnload) || b[0] == byte(vmbus.TypeInitiateContact) {
			b[0] = 0
		}
	}
	return b
}

// endsRarely is how rare a contact or an unload is: they end everything else.
const endsRarely = 500

// pageLists announces as many ranges as one GPADL can have, the shape that takes
// the most of the host's memory.
func (g *hostileGuest) pageLists(post func([]byte)) {
	const ranges = 4095
	list := make([]channel.Range, ranges)
	for i := range list {
		list[i] = channel.Range{ByteCount: 1, PFNs: []uint64{uint64(i)}}
	}
	parts, err := channel.Announce(g.channel(), vmbus.GPADLID(g.rnd.Uint32()), list...)
	if err != nil {
		panic(err) // 8190 words fit
	}
	for _, p := range parts {
		post(vmbus.AppendWords(vmbus.Append(nil, p.Message), p.Words))
	}
}

// lost reports whether the connection ended some attacks ago.
func (g *hostileGuest) lost() bool {
	const pause = 20
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over > 0 {
		g.over++
	}
	return g.over%pause == pause-1
}

// ends notes that a message ends the connection.
func (g *hostileGuest) ends() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = max(g.over, 1)
}

// open does what a guest does to use a channel.
func (g *hostileGuest) open(post func([]byte)) {
	id, gpadl := g.channel(), vmbus.GPADLID(1+g.rnd.IntN(4096))
	parts, err := channel.Announce(id, gpadl, channel.Range{ByteCount: ringSetPages * pageBytes, PFNs: g.rings.PFNs})
	if err != nil {
		panic(err) // ten pages always fit
	}
	for _, p := range parts {
		post(vmbus.AppendWords(vmbus.Append(nil, p.Message), p.Words))
	}
	if scribbles == 0 && g.opened {
		return // every channel has the same ring pages, and two ends that write to them are a race
	}
	g.opened = true
	post(vmbus.Append(nil, &vmbus.OpenChannel{Channel: id, OpenID: 1, Ring: gpadl, HostOffset: ringPages}))
}

// message is one of a guest's messages, about a channel that there may be.
func (g *hostileGuest) message() []byte {
	id, gpadl := g.channel(), vmbus.GPADLID(1+g.rnd.IntN(4096))
	versions := vmbus.Versions()
	all := [...]vmbus.Message{
		&vmbus.CloseChannel{Channel: id},
		&vmbus.RelIDReleased{Channel: id},
		&vmbus.GPADLTeardown{Channel: id, GPADL: gpadl},
		&vmbus.ModifyChannel{Channel: id, TargetVP: uint32(g.rnd.IntN(3))},
		&vmbus.RequestOffers{},
		&vmbus.Pause{},
		&vmbus.Resume{},
		&vmbus.InitiateContact{Version: vmbus.Iron, TargetInfo: vmbus.SINT},
		&vmbus.InitiateContact{Version: versions[g.rnd.IntN(len(versions))], TargetInfo: vmbus.SINT},
	}
	n := len(all)
	if g.rnd.IntN(endsRarely) > 0 {
		return vmbus.Append(nil, all[g.rnd.IntN(n-2)])
	}
	g.ends()
	if g.rnd.IntN(2) == 0 {
		return vmbus.Append(nil, &vmbus.Unload{})
	}
	return vmbus.Append(nil, all[g.rnd.IntN(n)])
}

func (g *hostileGuest) connections() int {
	return int(g.service.open.Load()) + g.attachment.Bus().Usage().Offers
}

func (g *hostileGuest) pages() int { return g.heap.InUsePages() }

func (g *hostileGuest) close() error {
	g.attachment.Close()
	err := g.service.close()
	g.part.SetInterrupt(nil)
	if u := g.attachment.Bus().Usage(); u.Channels+u.GPADLs+u.Operations+u.Requests != 0 {
		err = errors.Join(err, fmt.Errorf("after the close: %+v", u))
	}
	return err
}

// A service takes what the attacker dials: it reads for a moment and closes.
type service struct {
	listener *hvsock.Listener
	open     atomic.Int64
	done     sync.WaitGroup
}

func serve(listen func(hvsock.Addr) (*hvsock.Listener, error), addr hvsock.Addr) (*service, error) {
	l, err := listen(addr)
	if err != nil {
		return nil, err
	}
	s := &service{listener: l}
	s.done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.open.Add(1)
			s.done.Go(func() { s.read(c) })
		}
	})
	return s, nil
}

// read is a program that is not patient.
func (s *service) read(c net.Conn) {
	defer s.open.Add(-1)
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(200 * time.Millisecond)) // it is open
	_, _ = io.Copy(io.Discard, c)                             // any end will do
}

func (s *service) close() error {
	err := s.listener.Close()
	s.done.Wait()
	if errors.Is(err, net.ErrClosed) { // its stack was faster
		return nil
	}
	return err
}
