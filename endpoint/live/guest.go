package live

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
	"github.com/hvlab/hvlab/vmbus/trace"
)

// GuestOptions configures a Guest. Memory and Port are required.
type GuestOptions struct {
	Core   endpoint.GuestOptions
	Memory *guestmem.Heap  // the guest's own pages
	Port   synic.GuestPort // its hypervisor
	Trace  *trace.Tracer   // nil is off
	// VPs is the number of virtual processors that take interrupts; 0 means as
	// many as Core.TargetVP needs.
	VPs uint32
	// Clock is the time; nil is the system's.
	Clock Clock
	// Manual leaves every step to the caller: see Steps.
	Manual bool

	// Monitors gives the host monitor pages, so that channels may be offered with
	// monitored notification.
	Monitors bool
	// Offered, SocketRefused and Gone run on the loop and may be nil.
	Offered       func(vmbus.OfferChannel)
	SocketRefused func(endpoint.SocketRefused)
	Gone          func(error) // the connection is over; nil after Close
}

// A Driver is the guest's half of one channel it opened. Every method but
// Doorbell runs on the loop.
type Driver interface {
	// Opened hands over the rings; a Doorbell follows.
	Opened(*GuestChannel)
	// OpenFailed is the last call unless Opened came first.
	OpenFailed(error)
	// Doorbell says the host signalled; it runs on any goroutine.
	Doorbell()
	// Rescinded takes the rings of an open channel away: when it returns nobody
	// touches them.
	Rescinded()
}

// A GuestChannel is an open channel, seen from the guest.
type GuestChannel struct {
	*channel.Rings
	Offer      vmbus.OfferChannel
	Negotiated vmbus.Negotiated
	// Restored says that the rings were in use when the guest was saved.
	Restored bool

	guest      *Guest
	connection uint32         // the host listens here
	monitor    *guestmem.Page // nil unless the channel is monitored
	bit        bool           // a bit in the interrupt page goes with the signal
}

// Signal rings the host's doorbell for this channel. It may be called from any
// goroutine while the channel is open.
func (c *GuestChannel) Signal() {
	if c.monitor != nil {
		trigger(c.monitor, c.Offer.MonitorID)
		return
	}
	if c.bit {
		setBit(c.guest.interrupts, guestToHost, uint32(c.Offer.Channel))
	}
	// A host that has unbound the connection hears nothing; it is closing.
	_ = c.guest.opts.Port.SignalEvent(uint64(c.connection))
}

// RingOptions is the geometry a driver opens a channel with, in 4 KiB pages
// including the control page.
type RingOptions struct {
	ToHostPages, ToGuestPages int
	TargetVP                  uint32
	// LowLatency signals the host at once, also on a monitored channel.
	LowLatency bool
	// Reserved makes the channel a reserved one, from version 4.0: the host never
	// signals, so the driver is rung once, when it opens, and polls its ring from
	// then on. The target is one that this guest reads: one of its VPs, and
	// endpoint.VMBusSINT.
	Reserved *endpoint.ReservedTarget
}

// An opening is a channel this guest has opened or is opening.
type opening struct {
	flag   uint16 // its doorbell, 0 while it has none
	driver Driver
	block  *guestmem.Block
	rings  *channel.Rings
	offer  vmbus.OfferChannel
	ring   RingOptions
	open   bool
	left   bool          // the driver has nothing to do with it any more
	answer Timer         // of a reserved channel: see awaitAnswer
	wait   time.Duration // the last one, for the answer to its close
}

// A processor has the SynIC pages of one virtual processor.
type processor struct{ messages, events *guestmem.Page }

// A Guest runs the guest core.
type Guest struct {
	opts GuestOptions
	core *endpoint.Guest
	loop *loop

	clock Clock

	vps        []processor
	interrupts *guestmem.Page  // the interrupt page
	monitors   *guestmem.Page  // the child-to-parent monitor page in use, nil without
	monitorGPA uint64          // its address
	own        *guestmem.Block // all of the above

	openings  map[vmbus.ChannelID]*opening // owned by the loop
	offers    map[vmbus.ChannelID]vmbus.OfferChannel
	modifying map[vmbus.ChannelID]func(error)
	doorbells [vmbus.MaxChannels + 1]atomic.Pointer[Driver]
	legacy    atomic.Bool // events come through the interrupt page
	frozen    atomic.Bool // no processor runs: see Freeze
	retry     retry
	drops     dropLog
	posting   []byte        // owned by the loop; the message that is being posted
	received  synic.Message // owned by the loop; the message that is being handled

	connected func(error)   // owned by the loop: told the outcome of BeginConnect, once
	paused    func()        // owned by the loop: told that the host is silent
	unloading Timer         // owned by the loop: ticks until BeginClose is done
	waited    time.Duration // owned by the loop: how long that has taken
	kept      bool          // owned by the loop: the host may still use our pages
	next      func()        // owned by the loop: waits until no reserved channel is left
	contacted bool          // the host was told of our pages
	leaving   bool          // closed before the host has answered the contact
	unloadErr error         // written before gone is closed
	gone      chan struct{}
	goneOnce  sync.Once
	version   atomic.Uint32 // of the connection
	dropped   atomic.Uint64
}

// NewGuest sets up the synthetic interrupt controller and starts the loop.
// Connect follows.
func NewGuest(opts GuestOptions) (*Guest, error) {
	g := newGuest(opts)
	block, err := g.opts.Memory.Alloc(g.ownPages(g.processors()))
	if err != nil {
		return nil, fmt.Errorf("live: SynIC pages: %w", err)
	}
	if err := g.setupSynIC(block, g.processors()); err != nil {
		g.opts.Port.SetInterrupt(nil)
		g.maskSynIC() // before the pages are somebody else's
		_ = g.opts.Memory.Free(block)
		return nil, err
	}
	g.core = endpoint.NewGuest(g.opts.Core)
	g.loop.start()
	return g, nil
}

// newGuest makes a guest without a core, which does not run yet.
func newGuest(opts GuestOptions) *Guest {
	g := &Guest{
		opts:      opts,
		clock:     orSystem(opts.Clock),
		openings:  map[vmbus.ChannelID]*opening{},
		modifying: map[vmbus.ChannelID]func(error){},
		offers:    map[vmbus.ChannelID]vmbus.OfferChannel{},
		gone:      make(chan struct{}),
	}
	g.loop = newLoop(g, opts.Manual)
	g.drops = dropLog{tracer: opts.Trace, side: trace.Guest, clock: g.clock}
	return g
}

// processors is how many virtual processors take interrupts.
func (g *Guest) processors() uint32 { return max(g.opts.VPs, g.opts.Core.TargetVP+1) }

// ownPages is how many pages a guest of n processors needs for itself.
func (g *Guest) ownPages(n uint32) int {
	pages := 2*int(n) + 1
	if g.opts.Monitors {
		pages += 2
	}
	return pages
}

// Connect returns once VMBus is connected and every static offer was delivered.
// ctx bounds the wait. A host that accepts no version gives
// *endpoint.VersionError. After an error only Close is left.
func (g *Guest) Connect(ctx context.Context) error {
	connected := make(chan error, 1)
	g.BeginConnect(func(err error) { connected <- err })
	var err error
	select {
	case err = <-connected:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("live: connecting to the bus: %w", err)
	}
	return nil
}

// BeginConnect is Connect for callers that cannot wait: done runs on the loop,
// once, with the outcome.
func (g *Guest) BeginConnect(done func(error)) {
	ok := g.loop.do(func() {
		g.connected = done
		if err := g.core.Connect(); err != nil {
			g.finishConnect(err)
		}
	})
	if !ok {
		done(ErrStopped)
	}
}

// vectorVMBus is the interrupt vector Linux uses (vmbus-control.md 9.2).
const vectorVMBus = 0xF3

// setupSynIC does what Linux does per CPU, in its order: message page, event
// page, SINT2, control. block has the pages for n processors.
func (g *Guest) setupSynIC(block *guestmem.Block, n uint32) error {
	g.usePages(block, n)
	g.opts.Port.SetInterrupt(g.interrupt)
	for vp := range n {
		if err := g.setupProcessor(vp, block.PFNs[2*vp], block.PFNs[2*vp+1]); err != nil {
			return err
		}
	}
	return nil
}

// usePages makes block the pages of the guest's own.
func (g *Guest) usePages(block *guestmem.Block, n uint32) {
	g.own = block
	g.interrupts = block.Pages[2*n]
	g.opts.Core.InterruptPage = block.PFNs[2*n] * guestmem.PageSize
	if g.opts.Monitors {
		g.opts.Core.ParentToChild = block.PFNs[2*n+1] * guestmem.PageSize
		g.opts.Core.ChildToParent = block.PFNs[2*n+2] * guestmem.PageSize
	}
	for vp := range n {
		g.vps = append(g.vps, processor{messages: block.Pages[2*vp], events: block.Pages[2*vp+1]})
	}
}

// synicEnable is bit 0 of SCONTROL, SIMP and SIEFP (vmbus-control.md 9.2).
const synicEnable = 1

// overlay is the SIMP or SIEFP value that names a page.
func overlay(pfn uint64) uint64 { return pfn*guestmem.PageSize | synicEnable }

func (g *Guest) setupProcessor(vp uint32, messages, events uint64) error {
	for _, w := range []struct {
		msr   uint32
		value uint64
	}{
		{synic.MSRSIMP, overlay(messages)},
		{synic.MSRSIEFP, overlay(events)},
		{synic.MSRSINT0 + endpoint.VMBusSINT, vectorVMBus},
		{synic.MSRSCONTROL, synicEnable},
	} {
		if err := g.opts.Port.WriteMSR(vp, w.msr, w.value); err != nil {
			return fmt.Errorf("live: setting up the SynIC of VP %d: %w", vp, err)
		}
	}
	return nil
}

// interrupt is the guest's interrupt handler: event flags first, then the
// message slot (vmbus-control.md 6.1). It runs on the signalling goroutine.
func (g *Guest) interrupt(vp uint32, _ uint8) {
	if vp >= uint32(len(g.vps)) || g.frozen.Load() {
		return
	}
	g.drainFlags(vp)
	if synic.SlotFull(g.vps[vp].messages, endpoint.VMBusSINT) {
		g.loop.kick()
	}
}

// Freeze stops the guest's virtual processors: until Thaw it takes no interrupt,
// reads no message, posts none and runs no callback. What the host says meanwhile
// waits in the message slot and the event flags, and calls of Guest's methods wait
// their turn; Usage, Negotiated and Save answer at once. Drivers that have rings
// are not stopped. It must not be called from a callback.
func (g *Guest) Freeze() error {
	if !g.loop.freeze() {
		return ErrStopped
	}
	g.frozen.Store(true)
	return nil
}

// Thaw lets a frozen guest go on: interrupts that were missed are taken. It does
// nothing otherwise.
func (g *Guest) Thaw() {
	if !g.frozen.CompareAndSwap(true, false) {
		return
	}
	g.loop.thaw()
	g.loop.do(func() {
		for vp := range g.vps {
			g.drainFlags(uint32(vp))
		}
	})
}

// drainFlags takes the event flags of one VP and rings their channels.
func (g *Guest) drainFlags(vp uint32) {
	synic.ScanFlags(g.vps[vp].events, endpoint.VMBusSINT, func(flag uint16) {
		if flag == 0 && g.legacy.Load() {
			takeBits(g.interrupts, 0, g.ring)
			return
		}
		g.ring(uint32(flag))
	})
}

// ring passes a doorbell to the driver of channel n; unknown and closed ones
// are ignored (faults.md GC-02).
func (g *Guest) ring(n uint32) {
	if n < uint32(len(g.doorbells)) {
		if d := g.doorbells[n].Load(); d != nil {
			(*d).Doorbell()
		}
	}
}

// ErrNotOffered is why Open fails if the offer is gone, or opened already.
var ErrNotOffered = fmt.Errorf("live: the offer is gone, or opened already: %w", vmbus.ErrState)

// Open opens the channel id for d, whatever is offered under it by then: an id is
// used again once its offer was rescinded. OpenOffer is for those who care.
func (g *Guest) Open(id vmbus.ChannelID, r RingOptions, d Driver) {
	if !g.loop.do(func() { g.startOpen(g.offers[id], r, d) }) {
		d.OpenFailed(ErrStopped)
	}
}

// OpenOffer opens the channel of this offer for d, as Offered was told of it.
func (g *Guest) OpenOffer(offer vmbus.OfferChannel, r RingOptions, d Driver) {
	if !g.loop.do(func() { g.startOpen(offer, r, d) }) {
		d.OpenFailed(ErrStopped)
	}
}

func (g *Guest) startOpen(offer vmbus.OfferChannel, r RingOptions, d Driver) {
	id := offer.Channel
	if now, ok := g.offers[id]; !ok || now != offer || g.openings[id] != nil {
		d.OpenFailed(fmt.Errorf("live: channel %d: %w", id, ErrNotOffered))
		return
	}
	if g.unloading != nil {
		d.OpenFailed(ErrStopped)
		return
	}
	if err := g.checkTarget(r.Reserved); err != nil {
		d.OpenFailed(err)
		return
	}
	block, err := g.opts.Memory.Alloc(r.ToHostPages + r.ToGuestPages)
	if err != nil {
		d.OpenFailed(err)
		return
	}
	rings, err := channel.NewGuestRings(block.Pages, r.ToHostPages)
	if err == nil {
		err = g.core.Open(id, endpoint.OpenParams{PFNs: block.PFNs, HostOffset: uint32(r.ToHostPages), TargetVP: r.TargetVP, Reserved: r.Reserved})
	}
	if err != nil {
		g.opts.Memory.Free(block)
		d.OpenFailed(err)
		return
	}
	g.openings[id] = &opening{driver: d, block: block, rings: rings, offer: offer, ring: r}
}

// CloseChannel gives up a channel that d opened or is opening. The driver must have
// stopped using the rings. It does nothing once the channel is closed.
func (g *Guest) CloseChannel(id vmbus.ChannelID, d Driver) {
	queue := g.loop.do
	if putback.On(putback.HV09) {
		queue = g.loop.call
	}
	queue(func() {
		if o := g.openings[id]; o != nil && o.driver == d {
			g.closeChannel(id, o)
		}
	})
}

func (g *Guest) closeChannel(id vmbus.ChannelID, o *opening) {
	if !putback.On(putback.GC02) {
		g.silence(o)
	}
	o.open, o.left = false, true
	// It may be closing already: then there is nothing to do.
	_ = g.core.Close(id)
}

// ModifyChannel moves the interrupt of an open channel to another VP. done runs
// on the loop, once, with the outcome; it may be nil.
func (g *Guest) ModifyChannel(id vmbus.ChannelID, vp uint32, done func(error)) {
	if done == nil {
		done = func(error) {}
	}
	ok := g.loop.do(func() {
		if vp != vmbus.NoInterrupt && vp >= uint32(len(g.vps)) {
			done(fmt.Errorf("live: the guest has %d VPs, not VP %d: %w", len(g.vps), vp, vmbus.ErrState))
			return
		}
		if err := g.core.ModifyChannel(id, vp); err != nil {
			done(err)
			return
		}
		g.modifying[id] = done
	})
	if !ok {
		done(ErrStopped)
	}
}

// modified ends a ModifyChannel: whatever was raised on the old VP before the
// move is taken now (faults.md GC-10).
func (g *Guest) modified(a endpoint.ChannelModified) {
	if a.OldVP < uint32(len(g.vps)) && !putback.On(putback.GC10) {
		g.drainFlags(a.OldVP)
	}
	g.finishModify(a.Channel, a.Err)
}

func (g *Guest) finishModify(id vmbus.ChannelID, err error) {
	if done := g.modifying[id]; done != nil {
		delete(g.modifying, id)
		done(err)
	}
}

// RequestSocket dials a host service; SocketRefused or an offer follows. The
// error is reported through failed, on the loop.
func (g *Guest) RequestSocket(service, ep vmbus.GUID, failed func(error)) {
	g.RequestSocketFrom(vmbus.GUID{}, service, ep, failed)
}

// RequestSocketFrom is RequestSocket for a container (silo) of the guest; the
// zero silo is none.
func (g *Guest) RequestSocketFrom(silo, service, ep vmbus.GUID, failed func(error)) {
	ok := g.loop.do(func() {
		if err := g.core.RequestSocketFrom(silo, service, ep); err != nil {
			failed(err)
		}
	})
	if !ok {
		failed(ErrStopped)
	}
}

// Negotiated returns what was agreed on with the host.
func (g *Guest) Negotiated() (n vmbus.Negotiated) {
	g.loop.look(func() { n = g.core.Negotiated() })
	return n
}

// Version returns the negotiated version, or 0 before there is one. Unlike
// Negotiated it may be called on the loop.
func (g *Guest) Version() vmbus.Version { return vmbus.Version(g.version.Load()) }

// Usage returns what the guest holds: offers and channels are the ids it
// knows.
func (g *Guest) Usage() (u Usage) {
	g.loop.look(func() {
		u.Channels, u.GPADLs = g.core.Usage()
		u.Offers = u.Channels
	})
	return u
}

// Dropped counts host messages that were dropped as malformed or illegal.
func (g *Guest) Dropped() uint64 { return g.dropped.Load() }
