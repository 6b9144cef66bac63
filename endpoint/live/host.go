package live

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
	"github.com/hvlab/hvlab/vmbus/trace"
)

// HostOptions configures a Host. Memory and Port are required.
type HostOptions struct {
	Core   endpoint.HostOptions
	Memory guestmem.Memory // the guest's pages
	Port   synic.Port      // the way to the guest
	Trace  *trace.Tracer   // nil is off
	// VPs is the number of the guest's virtual processors: an open, a contact or
	// a ModifyChannel that names another fails. 0 means what Port says.
	VPs uint32
	// Clock is the time; nil is the system's.
	Clock Clock
	// Manual leaves every step to the caller: see Steps.
	Manual bool

	// Connected, Gone and SocketRequested run on the loop and may be nil; a
	// socket request nobody handles is refused.
	Connected       func(vmbus.Negotiated)
	Gone            func()
	SocketRequested func(endpoint.SocketRequested)
}

// A Device is the host's half of one offer. Every method but Doorbell runs on
// the loop.
type Device interface {
	// Open hands over the rings of a channel the guest opens; an error refuses.
	Open(*HostChannel) error
	// Doorbell says the guest signalled; it runs on any goroutine.
	Doorbell()
	// Close takes the rings away: when it returns nobody touches them.
	Close()
	// Gone says the host has forgotten the offer; err tells why it could not
	// even be made, and is nil otherwise. It is the last call.
	Gone(err error)
}

// A HostChannel is an open channel, seen from the host.
type HostChannel struct {
	*channel.Rings
	Request    endpoint.OpenRequest
	Negotiated vmbus.Negotiated

	// Restored says that the rings were in use when the host was saved: their
	// indices are somewhere, and packets may be in them.
	Restored bool

	host *Host

	// mu is held to read while a signal is on its way, so that after a change of
	// targetVP none is raised on the old VP (vmbus-control.md 7.3).
	mu       sync.RWMutex
	targetVP uint32
}

// retarget moves the interrupt; when it returns the old VP is left alone.
func (c *HostChannel) retarget(vp uint32) {
	c.mu.Lock()
	c.targetVP = vp
	c.mu.Unlock()
}

// Signal rings the guest's doorbell for this channel. It may be called from any
// goroutine until the device is closed.
func (c *HostChannel) Signal() {
	if c.Request.NoInterrupt {
		return
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	to := synic.Target{VP: c.targetVP, SINT: endpoint.VMBusSINT}
	if c.Request.Redirected {
		to.SINT = c.host.opts.Core.RedirectSINT
	}
	flag := c.Request.EventFlag
	if page := c.host.interruptPage.Load(); page != nil && c.Negotiated.Version < vmbus.Win8 {
		setBit(page, 0, uint32(c.Request.Channel))
		to.VP, flag = 0, 0
	}
	// A guest without event page or with a masked SINT hears nothing; it is
	// its own business.
	_ = c.host.opts.Port.Signal(to, flag)
}

// An Offered is a published offer.
type Offered struct {
	host    *Host
	device  Device
	id      endpoint.OfferID // 0 before the loop has published it
	channel *HostChannel     // nil unless open
	revoked bool
}

// A Host runs the host core of one guest.
type Host struct {
	opts HostOptions
	core *endpoint.Host
	loop *loop

	offered map[endpoint.OfferID]*Offered // owned by the loop
	open    map[vmbus.ChannelID]*Offered  // owned by the loop
	closed  bool                          // owned by the loop
	resets  []func()                      // owned by the loop; told when a reset is done

	mapped        *endpoint.SetupConnection     // owned by the loop: whose pages are in use; nil for none
	interruptPage atomic.Pointer[guestmem.Page] // below version 2.4
	monitor       sampler
	legacy        switchboard // version 0.13
	slotBusy      atomic.Bool // the last post found the message slot full
	dropped       atomic.Uint64
	drops         dropLog // owned by the loop

	posting  []byte // owned by the loop; the message that is being posted
	received posted // owned by the loop; the message that is being handled

	mu    sync.Mutex
	queue fifo[posted] // guest messages not handled yet
}

type posted struct {
	port    uint32
	bytes   int
	payload [synic.MaxPayloadBytes]byte
}

func newPosted(port uint32, payload []byte) posted {
	m := posted{port: port, bytes: len(payload)}
	copy(m.payload[:], payload)
	return m
}

// NewHost starts the loop and listens on both message ports.
func NewHost(opts HostOptions) (*Host, error) {
	h, err := newHost(opts, endpoint.NewHost(opts.Core))
	if err != nil {
		return nil, err
	}
	h.loop.start()
	return h, nil
}

// newHost makes a host that listens but does not run yet.
func newHost(opts HostOptions, core *endpoint.Host) (*Host, error) {
	opts.VPs = cmp.Or(opts.VPs, opts.Port.VPs())
	h := &Host{
		opts:    opts,
		core:    core,
		offered: map[endpoint.OfferID]*Offered{},
		open:    map[vmbus.ChannelID]*Offered{},
	}
	h.loop = newLoop(h, opts.Manual)
	h.monitor.clock = orSystem(opts.Clock)
	h.drops = dropLog{tracer: opts.Trace, side: trace.Host, clock: h.monitor.clock}
	for _, port := range h.ports() {
		err := opts.Port.BindMessages(synic.ConnectionID(port), func(payload []byte) synic.Status { return h.post(port, payload) })
		if err != nil {
			h.unbindPorts()
			return nil, fmt.Errorf("live: message port %d: %w", port, err)
		}
	}
	opts.Port.SlotFree(func(synic.Target) {
		h.slotBusy.Store(false)
		h.loop.kick()
	})
	return h, nil
}

func (h *Host) unbindPorts() {
	for _, port := range h.ports() {
		h.opts.Port.Unbind(synic.ConnectionID(port))
	}
}

// ports are the connection ids this host takes messages on.
func (h *Host) ports() []uint32 {
	list := []uint32{endpoint.MessagePort, endpoint.MultiClientPort}
	if own := h.opts.Core.Dialect.MessageConnection; own != 0 && !slices.Contains(list, own) {
		list = append(list, own)
	}
	return list
}

// post takes one message off the guest's hands; with the queue full the guest
// retries.
func (h *Host) post(port uint32, payload []byte) synic.Status {
	if h.opts.Core.Dialect.Refuses(payload) {
		return synic.StatusInvalidHypercallInput
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.queue.len() >= endpoint.MaxIncomingMessages {
		return synic.StatusInsufficientBuffers
	}
	if len(payload) > synic.MaxPayloadBytes { // no port lets that through
		return synic.StatusInvalidParameter
	}
	h.queue.push(newPosted(port, payload))
	h.loop.kick()
	return synic.StatusSuccess
}

// Prepare returns an offer that d will serve; Publish or AcceptSocket makes it.
func (h *Host) Prepare(d Device) *Offered { return &Offered{host: h, device: d} }

// Publish makes o an offer of this bus. A failure is reported by Device.Gone.
func (p *Offered) Publish(o offers.Offer) {
	p.publish(func() (endpoint.OfferID, error) { return p.host.core.Publish(o) })
}

// AcceptSocket answers a socket request with an offer. A failure is reported by
// Device.Gone.
func (p *Offered) AcceptSocket(r endpoint.SocketRequested) {
	p.publish(func() (endpoint.OfferID, error) { return p.host.core.AcceptSocket(r.Endpoint, r.Service) })
}

func (p *Offered) publish(add func() (endpoint.OfferID, error)) {
	h := p.host
	ok := h.loop.do(func() {
		if h.closed {
			p.device.Gone(ErrStopped)
			return
		}
		id, err := add()
		if err != nil {
			p.device.Gone(err)
			return
		}
		p.id = id
		h.offered[id] = p
	})
	if !ok {
		p.device.Gone(ErrStopped)
	}
}

// RefuseSocket answers a socket request: nobody serves it.
func (h *Host) RefuseSocket(r endpoint.SocketRequested) {
	h.loop.do(func() { h.core.RefuseSocket(r.Endpoint, r.Service) })
}

// Revoke withdraws the offer: the device is closed, the guest gets a rescind,
// and Device.Gone follows when the guest has let go. A second call does
// nothing.
func (p *Offered) Revoke() { p.host.loop.do(p.revoke) }

func (p *Offered) revoke() {
	if p.revoked {
		return
	}
	p.revoked = true
	if p.id == 0 {
		return
	}
	for _, sub := range p.host.core.SubChannels(p.id) { // they go with it
		if s := p.host.offered[sub]; s != nil {
			s.revoke()
		}
	}
	p.host.closeDevice(p)
	// The guest may have released the offer already: then it is gone.
	_ = p.host.core.Revoke(p.id)
}

// Rescind revokes the offer that the guest knows as channel id, whoever made it;
// an id that is not in use is ignored.
func (h *Host) Rescind(id vmbus.ChannelID) {
	h.loop.do(func() {
		if offer, ok := h.core.OfferOf(id); ok && h.offered[offer] != nil {
			h.offered[offer].revoke()
		}
	})
}

// ErrStopped is what callers get from a Host or Guest that has been closed.
var ErrStopped = errors.New("live: stopped")

// Usage counts what the connection holds.
type Usage struct {
	Offers, Channels, GPADLs, Operations, Requests int
}

// Usage returns what the connection holds; zero after Close.
func (h *Host) Usage() (u Usage) {
	h.loop.look(func() {
		u.Offers, u.Channels, u.GPADLs, u.Operations, u.Requests = h.core.Usage()
	})
	return u
}

// Negotiated returns what was agreed on with the guest.
func (h *Host) Negotiated() (n vmbus.Negotiated) {
	h.loop.look(func() { n = h.core.Negotiated() })
	return n
}

// Dropped counts guest messages that were dropped as malformed or illegal.
func (h *Host) Dropped() uint64 { return h.dropped.Load() }

// Reset tells the core that the virtual machine was reset: every channel ends,
// and what the guest had posted is gone with the machine.
func (h *Host) Reset() { h.BeginReset(func() {}) }

// BeginReset is Reset; done runs on the loop when the host has let go of the
// guest, before which the machine must not start again.
func (h *Host) BeginReset(done func()) {
	h.mu.Lock()
	h.queue.clear() // now: what comes later is of the machine that has started again
	h.mu.Unlock()
	h.loop.do(func() {
		h.resets = append(h.resets, done)
		h.core.Reset()
	})
}

// Close ends the host: devices are closed and forgotten, the ports unbound, the
// goroutine has ended when it returns. It must not be called from a callback.
func (h *Host) Close() { h.end(nil) }

// end is Close; the devices are told err.
func (h *Host) end(err error) {
	h.loop.call(func() { h.quit(err) })
	<-h.loop.done
}

// quit is the last thing the loop does: nobody hears of this end any more.
func (h *Host) quit(err error) {
	h.unbindPorts()
	for _, id := range slices.Sorted(maps.Keys(h.offered)) {
		p := h.offered[id]
		h.closeDevice(p)
		p.device.Gone(err)
	}
	clear(h.offered)
	h.legacy.disconnect()
	h.closed = true
	if h.opts.Gone != nil {
		h.opts.Gone()
	}
	h.loop.stop()
}
