package live

import (
	"time"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// actOne carries out the core's oldest wish.
func (g *Guest) actOne() bool {
	a, ok := g.core.Next()
	if ok {
		g.act(a)
	}
	return ok
}

// receiveOne hands the core one message of the host.
func (g *Guest) receiveOne() bool {
	if putback.On(putback.HC07) && g.retry.waiting {
		return false
	}
	for vp := range g.vps {
		if putback.On(putback.GC08) && uint32(vp) != g.opts.Core.TargetVP {
			continue
		}
		if g.takeMessage(uint32(vp)) {
			return true
		}
	}
	return false
}

// takeMessage hands the core what is in the message slot of one VP. All are
// looked at: UnloadComplete may come to another than the rest (faults.md GC-08).
func (g *Guest) takeMessage(vp uint32) bool {
	page := g.vps[vp].messages
	if !synic.SlotFull(page, endpoint.VMBusSINT) { // usually
		return false
	}
	m := &g.received // a Message is large, and the core does not keep it
	var ok bool
	if *m, ok = synic.ReadSlot(page, endpoint.VMBusSINT); !ok {
		return false
	}
	if synic.FreeSlot(page, endpoint.VMBusSINT) { // more is waiting for the slot
		_ = g.opts.Port.WriteMSR(vp, synic.MSREOM, 0) // write-only, always accepted
	}
	if putback.On(putback.GC06) {
		*m, _ = synic.ReadSlot(page, endpoint.VMBusSINT)
	}
	if m.Type != synic.MessageTypeVMBus {
		return true
	}
	if g.opts.Trace.On() {
		traceReceived(g.opts.Trace, vmbus.HostToGuest, m.Payload(), g.core.Negotiated())
	}
	if err := g.core.Receive(m.Payload()); err != nil {
		g.dropped.Add(1)
		g.drops.note(err)
	}
	return true
}

// postOne posts the oldest message that waits for the host. A host that is short
// of buffers is asked again later, while the guest goes on receiving (faults.md
// HC-07).
func (g *Guest) postOne() bool {
	if g.retry.waiting {
		return false
	}
	m, ok := g.core.NextMessage()
	if !ok {
		return false
	}
	g.posting = synic.AppendPostMessage(g.posting[:0], synic.ConnectionID(m.Port), m.Payload)
	status := g.opts.Port.PostMessage(g.posting)
	switch {
	case status == synic.StatusSuccess:
		g.core.MessageSent()
		g.reservedLeft(m.Message)
		g.retry.attempts = 0
		g.contacted = true
	case g.transient(m, status) && (g.retry.attempts < maxPostAttempts-1 || putback.On(putback.SS09)):
		g.retry.wait(g.loop, g.clock)
	default:
		g.core.PostFailed(status.Err())
		g.retry.attempts = 0
	}
	return true
}

// transient reports whether posting m again can help. An unknown connection id
// ends a version during contact and is retried later (vmbus-control.md 9.6).
func (g *Guest) transient(m endpoint.Posting, s synic.Status) bool {
	switch s {
	case synic.StatusInsufficientBuffers, synic.StatusInsufficientMemory:
		return true
	case synic.StatusInvalidConnectionID:
		return m.Message.Type() != vmbus.TypeInitiateContact
	}
	return false
}

// Retry of a refused post: 1 ms doubling to 1 s, 100 attempts (faults.md 5).
const (
	maxPostAttempts = 100
	minRetryDelay   = time.Millisecond
	maxRetryDelay   = time.Second
)

// A retry is the waiting between two attempts to post. The loop owns it.
type retry struct {
	attempts int
	waiting  bool
	timer    Timer
}

func (r *retry) wait(l *loop, clock Clock) {
	delay := min(minRetryDelay<<min(r.attempts, 10), maxRetryDelay)
	r.attempts++
	r.waiting = true
	r.timer = clock.AfterFunc(delay, func() { l.do(func() { r.waiting = false }) })
}

func (r *retry) stop() {
	if r.timer != nil {
		r.timer.Stop()
	}
}

func (g *Guest) act(a endpoint.Action) {
	switch a := a.(type) {
	case endpoint.Connected:
		g.version.Store(uint32(a.Negotiated.Version))
		g.legacy.Store(a.Negotiated.Version < vmbus.Win8)
		g.useMonitors(a.ChildToParent)
		g.leave()
	case endpoint.ConnectFailed:
		g.finishConnect(a.Err)
		g.leave()
	case endpoint.OffersDelivered:
		g.finishConnect(nil)
	case endpoint.OfferArrived:
		g.offers[a.Offer.Channel] = a.Offer
		if g.opts.Offered != nil {
			g.opts.Offered(a.Offer)
		}
	case endpoint.OfferRescinded:
		g.rescinded(a.Channel)
	case endpoint.ChannelOpened:
		if o := g.openings[a.Channel]; o != nil {
			o.open = true
			o.answered()
			g.listen(o, a.EventFlag)
			o.driver.Opened(g.channelOf(o, a.ConnectionID))
			// What the host wrote before we knew of the open it has signalled to nobody
			// (faults.md GC-14); so has it if its signal after OpenResult was quicker.
			o.driver.Doorbell()
		}
	case endpoint.OpenFailed:
		if o := g.openings[a.Channel]; o != nil {
			o.left = true
			o.driver.OpenFailed(a.Err)
		}
	case endpoint.RingFree:
		if o := g.openings[a.Channel]; o != nil {
			o.answered()
			delete(g.openings, a.Channel)
			g.opts.Memory.Free(o.block)
			g.reservedFreed()
		}
	case endpoint.Paused:
		g.hostPaused()
	case endpoint.ChannelModified:
		g.modified(a)
	case endpoint.ChannelReleased:
		g.finishModify(a.Channel, ErrStopped)
		delete(g.offers, a.Channel)
	case endpoint.SocketRefused:
		if g.opts.SocketRefused != nil {
			g.opts.SocketRefused(a)
		}
	case endpoint.Disconnected:
		g.disconnected(a)
	}
}

// useMonitors makes gpa the child-to-parent monitor page; 0 is none. Without a page
// channels signal by hypercall, which always works.
func (g *Guest) useMonitors(gpa uint64) {
	g.monitors, g.monitorGPA = nil, gpa
	if gpa != 0 {
		g.monitors, _ = g.opts.Memory.Page(gpa / guestmem.PageSize)
	}
}

// channelOf is what the driver of an open channel gets.
func (g *Guest) channelOf(o *opening, connection uint32) *GuestChannel {
	n := g.core.Negotiated()
	return &GuestChannel{
		Rings: o.rings, Offer: o.offer, Negotiated: n, guest: g, connection: connection,
		monitor: g.monitorOf(o), bit: n.Version < vmbus.Win7 || o.offer.IsDedicated&1 == 0,
	}
}

// monitorOf returns the page through which an open channel signals, or nil.
func (g *Guest) monitorOf(o *opening) *guestmem.Page {
	interrupts := o.ring.TargetVP != vmbus.NoInterrupt && o.ring.Reserved == nil // without them the host does not look at the page
	if o.offer.MonitorAllocated&1 == 0 || o.offer.MonitorID >= vmbus.MaxMonitorIDs || o.ring.LowLatency || !interrupts {
		return nil
	}
	return g.monitors
}

// listen makes the host's signals of an open channel, which arrive on flag, reach
// its driver. Until now they reached nobody: flag may have been another channel's
// when the open began.
func (g *Guest) listen(o *opening, flag uint16) {
	if o.ring.Reserved != nil { // it hears nothing
		return
	}
	if int(flag) < len(g.doorbells) {
		o.flag = flag
		g.doorbells[flag].Store(&o.driver)
	}
}

// silence undoes listen; a second call does nothing.
func (g *Guest) silence(o *opening) {
	if o.flag != 0 {
		g.doorbells[o.flag].Store(nil)
		o.flag = 0
	}
}

// rescinded ends an open channel: the driver lets go of the rings first.
func (g *Guest) rescinded(id vmbus.ChannelID) {
	o := g.openings[id]
	if o == nil || !o.open {
		return // unopened, or its open fails by itself
	}
	g.silence(o)
	o.driver.Rescinded()
	g.closeChannel(id, o)
}

// finishConnect tells BeginConnect's caller; only the first outcome counts.
func (g *Guest) finishConnect(err error) {
	if done := g.connected; done != nil {
		g.connected = nil
		done(err)
	}
}

// finish says the connection is over.
func (g *Guest) finish(err error) {
	g.finishConnect(ErrStopped)
	g.goneOnce.Do(func() {
		close(g.gone)
		if g.unloading != nil {
			g.unloading.Stop()
		}
		if g.opts.Gone != nil {
			g.opts.Gone(err)
		}
	})
}
