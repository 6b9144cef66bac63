package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/fuzz"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/sim"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
	"github.com/hvlab/hvlab/vmbus/trace"
)

// A hostileHost has one of our guests: it answers what it likes, offers what it
// likes, and writes into the rings that the guest shares. A guest that had enough
// of it gives up its bus; then a new one is made.
type hostileHost struct {
	rnd        *rand.Rand
	heap       *guestmem.Heap
	part, mute *synic.Partition
	lines      *lineCounter
	faults     [][][]byte

	bus     *live.Guest
	stack   *hvsock.GuestStack
	service *service
	gone    atomic.Bool
	dialing atomic.Int64
	dials   sync.WaitGroup

	mu     sync.Mutex
	posted []vmbus.Message // by the guest, not answered yet
	shared []uint64        // that the guest has shared lately
	nextID vmbus.ChannelID
}

// firstGPADL is where guests count from, as Linux does.
const firstGPADL vmbus.GPADLID = 0xE1E10

func newHostileHost(_ *sim.Host, lines *lineCounter, seed uint64) (attacker, error) {
	h := &hostileHost{rnd: rand.New(rand.NewPCG(seed, 2)), heap: guestmem.NewHeap(guestmem.HeapOptions{Seed: seed}), lines: lines}
	h.mute = synic.NewPartition(h.heap, 1)
	for _, l := range fuzz.FaultLines("guest") {
		h.faults = append(h.faults, l.Parts)
	}
	return h, h.boot()
}

// boot makes a new guest, over new hypervisor ports.
func (h *hostileHost) boot() error {
	h.part = synic.NewPartition(h.heap, 1)
	h.gone.Store(false)
	h.mu.Lock()
	h.posted, h.shared, h.nextID = nil, nil, 1
	h.mu.Unlock()
	for _, port := range []synic.ConnectionID{endpoint.MessagePort, endpoint.MultiClientPort} {
		if err := h.part.BindMessages(port, h.heard); err != nil {
			return err
		}
	}
	h.stack = hvsock.NewGuestStack(hvsock.GuestOptions{VMID: uuid.UUID{7}})
	var err error
	h.bus, err = live.NewGuest(live.GuestOptions{
		Core:   endpoint.GuestOptions{Versions: []vmbus.Version{vmbus.Iron}},
		Memory: h.heap, Port: h.part, Trace: trace.New(h.lines.count, "attacked"),
		Offered: h.stack.Offered, SocketRefused: h.stack.Refused,
		Gone: func(err error) { h.gone.Store(true); h.stack.Gone(err) },
	})
	if err != nil {
		return err
	}
	h.lines.anew()
	h.stack.Attach(h.bus)
	h.bus.BeginConnect(func(error) {}) // whether it works is the attacker's choice
	h.service, err = serve(h.stack.Listen, hvsock.Addr{VMID: hvsock.Wildcard, ServiceID: hvsock.ServiceIDFromPort(attackPort)})
	return err
}

// heard takes what the guest posts; it remembers the pages that are shared.
func (h *hostileHost) heard(b []byte) synic.Status {
	m, tail, err := vmbus.ParseFrom(vmbus.GuestToHost, b, vmbus.Negotiated{Version: vmbus.Iron})
	if err != nil {
		return synic.StatusSuccess
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.posted) < endpoint.MaxIncomingMessages {
		h.posted = append(h.posted, m)
	}
	if _, ok := m.(*vmbus.GPADLHeader); ok {
		h.shared = vmbus.Words(tail)[1:]
	}
	return synic.StatusSuccess
}

func (h *hostileHost) attack(mute bool) {
	if h.gone.Load() && !mute {
		h.reboot()
		return
	}
	part := h.part
	if mute {
		part = h.mute
	}
	to := synic.Target{SINT: vmbus.SINT}
	post := func(m vmbus.Message) { _ = part.Post(to, vmbus.Append(nil, m)) } // a busy slot is as good
	switch h.rnd.IntN(10) {
	case 0, 1, 2: // what it should say
		if m := h.oldest(); m != nil {
			h.answer(m, post)
		}
	case 3: // the catalogue of faults
		for _, b := range h.faults[h.rnd.IntN(len(h.faults))] {
			if h.rnd.IntN(4) > 0 && (b[0] == byte(vmbus.TypeOfferChannel) || b[0] == byte(vmbus.TypeUnloadComplete)) {
				continue // an offer of an id in use ends the connection, so these are rare
			}
			_ = part.Post(to, b)
		}
	case 4: // any word of what is shared
		h.scribble()
	case 5: // doorbells
		for range 8 {
			_ = part.Signal(to, uint16(h.rnd.IntN(64)))
		}
	case 6: // a connection that nobody asked for
		h.mu.Lock()
		id := h.nextID
		h.nextID = h.nextID%vmbus.MaxChannels + 1
		h.mu.Unlock()
		post(h.offer(id, vmbus.GUIDFromUUID(hvsock.ServiceIDFromPort(attackPort+uint32(h.rnd.IntN(2)))), vmbus.GUID{byte(h.rnd.Uint32()), byte(h.rnd.Uint32())}, true))
	case 7: // the guest's own application dials
		h.dial(mute)
	default:
		post(h.message())
	}
}

// oldest is the oldest message that waits for an answer.
func (h *hostileHost) oldest() vmbus.Message {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.posted) == 0 {
		return nil
	}
	m := h.posted[0]
	h.posted = h.posted[1:]
	return m
}

func (h *hostileHost) answer(m vmbus.Message, post func(vmbus.Message)) {
	switch m := m.(type) {
	case *vmbus.InitiateContact:
		post(&vmbus.VersionResponse{Supported: 1, VersionOrConnectionID: endpoint.MessagePort})
	case *vmbus.RequestOffers:
		post(&vmbus.AllOffersDelivered{})
	case *vmbus.GPADLHeader:
		post(&vmbus.GPADLCreated{Channel: m.Channel, GPADL: m.GPADL})
	case *vmbus.OpenChannel:
		post(&vmbus.OpenResult{Channel: m.Channel, OpenID: m.OpenID})
	case *vmbus.GPADLTeardown:
		post(&vmbus.GPADLTorndown{GPADL: m.GPADL})
	case *vmbus.TLConnectRequest2:
		if h.rnd.IntN(2) == 0 {
			post(&vmbus.TLConnectResult{Endpoint: m.Endpoint, Service: m.Service, Status: vmbus.StatusConnectionRefused})
			return
		}
		h.mu.Lock()
		id := h.nextID
		h.nextID = h.nextID%vmbus.MaxChannels + 1
		h.mu.Unlock()
		post(h.offer(id, m.Service, m.Endpoint, false))
	case *vmbus.CloseChannel:
		post(&vmbus.RescindChannelOffer{Channel: m.Channel})
	case *vmbus.Unload:
		post(&vmbus.UnloadComplete{})
	}
}

func (h *hostileHost) offer(id vmbus.ChannelID, service, ep vmbus.GUID, guestAccepts bool) *vmbus.OfferChannel {
	o := endpoint.SocketOffer(service, ep, guestAccepts, vmbus.Iron)
	return &vmbus.OfferChannel{
		Interface: service, Instance: ep, Flags: o.Flags, UserDefined: o.UserDefined, Channel: id,
		MonitorID: vmbus.NoMonitor, IsDedicated: 1, ConnectionID: endpoint.EventConnection(id),
	}
}

// scribble writes into the pages that the guest shared last.
func (h *hostileHost) scribble() {
	h.mu.Lock()
	pages := h.shared
	h.mu.Unlock()
	for range min(8, len(pages), scribbles) {
		if page, err := h.heap.Page(pages[h.rnd.IntN(len(pages))]); err == nil { // it may have been given back
			page.Store32(4*h.rnd.IntN(guestmem.PageSize/4), h.rnd.Uint32()>>h.rnd.IntN(32))
		}
	}
}

// message is one of a host's messages, about a channel that there may be.
func (h *hostileHost) message() vmbus.Message {
	id := vmbus.ChannelID(h.rnd.IntN(64))
	status := [...]uint32{0, 1, vmbus.StatusFailure, vmbus.StatusConnectionRefused}[h.rnd.IntN(4)]
	all := [...]vmbus.Message{
		&vmbus.RescindChannelOffer{Channel: id},
		&vmbus.OpenResult{Channel: id, OpenID: uint32(id), Status: status},
		&vmbus.GPADLCreated{Channel: id, GPADL: firstGPADL + vmbus.GPADLID(h.rnd.IntN(64)), Status: status},
		&vmbus.GPADLTorndown{GPADL: firstGPADL + vmbus.GPADLID(h.rnd.IntN(64))},
		&vmbus.TLConnectResult{Endpoint: vmbus.GUID{byte(id)}, Service: vmbus.GUID{byte(id)}, Status: status},
		&vmbus.ModifyChannelResponse{Channel: id, Status: status},
		&vmbus.AllOffersDelivered{},
		&vmbus.VersionResponse{Supported: 1},
	}
	return all[h.rnd.IntN(len(all))]
}

// dial has the guest's application dial, a few at a time.
func (h *hostileHost) dial(mute bool) {
	const atOnce = 8
	if mute || h.dialing.Add(1) > atOnce {
		if !mute {
			h.dialing.Add(-1)
		}
		return
	}
	stack := h.stack
	h.dials.Go(func() {
		defer h.dialing.Add(-1)
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		c, err := stack.Dial(ctx, hvsock.Addr{VMID: hvsock.Parent, ServiceID: hvsock.ServiceIDFromPort(attackPort)})
		if err == nil {
			_ = c.SetDeadline(time.Now().Add(100 * time.Millisecond)) // it is open
			_, _ = c.Write(make([]byte, 10_000))                      // whatever happens
			_, _ = c.Read(make([]byte, 10_000))
			_ = c.Close()
		}
	})
}

// reboot ends a guest whose connection is over, and starts another.
func (h *hostileHost) reboot() {
	if err := errors.Join(h.end(), h.boot()); err != nil {
		panic(err) // the sandbox itself does not work
	}
}

// end closes the guest with a host that lets it go.
func (h *hostileHost) end() error {
	h.dials.Wait()
	h.stack.Close()
	err := h.service.close()
	done := make(chan error, 1)
	go func() { done <- h.bus.Close() }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case closed := <-done:
			if sockets, listeners := h.stack.Usage(); sockets+listeners != 0 {
				err = errors.Join(err, fmt.Errorf("after the close: %d sockets, %d listeners", sockets, listeners))
			}
			return errors.Join(err, closed)
		case <-tick.C:
			for m := h.oldest(); m != nil; m = h.oldest() {
				h.answer(m, func(m vmbus.Message) { _ = h.part.Post(synic.Target{SINT: vmbus.SINT}, vmbus.Append(nil, m)) })
			}
			_ = h.part.Post(synic.Target{SINT: vmbus.SINT}, vmbus.Append(nil, &vmbus.UnloadComplete{})) // an answer may have met a full slot
		}
	}
}

func (h *hostileHost) connections() int {
	sockets, _ := h.stack.Usage()
	return sockets + int(h.dialing.Load()) + channel.DefaultRingPages // those that are on their way
}

func (h *hostileHost) pages() int { return h.heap.InUsePages() }

func (h *hostileHost) close() error { return h.end() }
