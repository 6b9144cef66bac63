package live

import (
	"fmt"
	"slices"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// A savedGuest is all a Guest knows, except its drivers and the memory.
type savedGuest struct {
	Core       []byte // as endpoint.Guest.Save returns it
	VPs        uint32
	Monitors   bool
	Own        []uint64 // page numbers of the SynIC, interrupt and monitor pages
	MonitorGPA uint64   // of the child-to-parent page in use, 0 without
	LowLatency []vmbus.ChannelID
}

// Save returns the state of the guest's end, for RestoreGuest: the connection, the
// channels with the page numbers of their rings, and every message that is not
// posted yet. The memory is not part of it, nor are calls that wait, such as
// Connect. Save changes nothing: the guest runs on. An error matches
// vmbus.ErrState.
func (g *Guest) Save() (b []byte, err error) {
	return g.SaveWith(func() error { return nil })
}

// SaveWith saves the guest and, before it says or hears anything else, calls rest
// on the loop: for saving its host (Host.SaveWith), and the memory of both, at the
// same moment. rest must not wait for this guest.
func (g *Guest) SaveWith(rest func() error) (b []byte, err error) {
	ok := g.loop.visit(func() {
		if b, err = g.save(); err == nil {
			err = rest()
		}
	})
	if !ok {
		return nil, ErrStopped
	}
	return b, err
}

func (g *Guest) save() ([]byte, error) {
	g.loop.settle()
	core, err := g.core.Save()
	if err != nil {
		return nil, err
	}
	s := savedGuest{Core: core, VPs: uint32(len(g.vps)), Monitors: g.opts.Monitors, Own: g.own.PFNs, MonitorGPA: g.monitorGPA}
	for id, o := range g.openings {
		if o.ring.LowLatency {
			s.LowLatency = append(s.LowLatency, id)
		}
	}
	slices.Sort(s.LowLatency)
	b, err := guestFormat.Seal(&s)
	if err != nil {
		return nil, fmt.Errorf("live: %w: %w", err, vmbus.ErrState)
	}
	return b, nil
}

// RestoreGuest returns the guest that Save was called on, over the same memory or a
// copy of it. It is frozen; Thaw starts it. Then driver is asked on the loop for
// the driver of each channel that is open or being opened; nil closes it. The driver of an open channel gets Opened
// again, with the same rings, which are Restored, and is rung once. The channels
// that are only offered are announced by Offered again.
//
// The hypervisor behind opts.Port must have the registers of the saved guest's: it
// is the same, or synic.Partition.Restore has set them. opts.VPs and opts.Monitors
// are those of the saved guest. The old guest's blocks of memory are adopted: it
// can free them no longer.
//
// Errors match vmbus.ErrProtocol if the state is damaged, or does not fit this
// memory or these options; then nothing is left but the memory.
func RestoreGuest(opts GuestOptions, b []byte, driver func(vmbus.OfferChannel) Driver) (*Guest, error) {
	var s savedGuest
	if err := guestFormat.Open(b, &s); err != nil {
		return nil, &RestoreError{Reason: err.Error()}
	}
	opts.Monitors, opts.VPs = s.Monitors, s.VPs
	g := newGuest(opts)
	if s.VPs <= opts.Core.TargetVP || len(s.Own) != g.ownPages(s.VPs) {
		return nil, &RestoreError{Reason: "the pages of the guest's own are not as many as it needs"}
	}
	block, err := opts.Memory.Adopt(s.Own)
	if err != nil {
		return nil, &RestoreError{"the pages of the guest's own", err}
	}
	if err := g.checkRegisters(block); err != nil {
		return nil, err
	}
	g.usePages(block, s.VPs)
	core, err := endpoint.RestoreGuest(g.opts.Core, s.Core)
	if err != nil {
		return nil, &RestoreError{"the core", err}
	}
	g.core = core
	g.contacted = true // if not, the host answers nothing, and a close while it connects waits for that
	if g.useMonitors(s.MonitorGPA); s.MonitorGPA != 0 && g.monitors == nil {
		return nil, &RestoreError{Reason: "there is no such monitor page"}
	}
	n := core.Negotiated()
	g.version.Store(uint32(n.Version))
	g.legacy.Store(n.Version != 0 && n.Version < vmbus.Win8)
	if err := g.restoreOpenings(s.LowLatency); err != nil {
		return nil, err
	}
	g.frozen.Store(true)
	g.loop.frozen = true
	g.loop.do(func() { g.takeOver(driver) })
	g.opts.Port.SetInterrupt(g.interrupt)
	g.loop.start()
	return g, nil
}

// AwaitConnect is for a restored guest, whose callers of Connect are gone: done runs
// on the loop, once, with the outcome of the connect that was under way when the
// guest was saved; nil if it had ended well, ErrStopped if there is none.
func (g *Guest) AwaitConnect(done func(error)) {
	ok := g.loop.do(func() {
		g.connected = done
		switch g.core.State() {
		case endpoint.GuestConnecting, endpoint.GuestRequesting:
		case endpoint.GuestConnected:
			g.finishConnect(nil)
		default:
			g.finishConnect(ErrStopped)
		}
	})
	if !ok {
		done(ErrStopped)
	}
}

// checkRegisters refuses a hypervisor whose registers do not name the pages in
// block. To set them here would be wrong: a write of SIMP empties the page.
func (g *Guest) checkRegisters(block *guestmem.Block) error {
	for vp := range g.opts.VPs {
		for msr, pfn := range map[uint32]uint64{synic.MSRSIMP: block.PFNs[2*vp], synic.MSRSIEFP: block.PFNs[2*vp+1]} {
			if v, err := g.opts.Port.ReadMSR(vp, msr); err != nil || v != overlay(pfn) {
				return &RestoreError{fmt.Sprintf("register %#x of VP %d does not name the guest's page", msr, vp), err}
			}
		}
	}
	return nil
}

// restoreOpenings adopts the rings of every channel that has some.
func (g *Guest) restoreOpenings(lowLatency []vmbus.ChannelID) error {
	for _, k := range g.core.Channels() {
		g.offers[k.Offer.Channel] = k.Offer
		if k.State == channel.Idle {
			continue
		}
		block, err := g.opts.Memory.Adopt(k.Params.PFNs)
		if err != nil {
			return &RestoreError{fmt.Sprintf("the rings of channel %d", k.Offer.Channel), err}
		}
		toHost := int(k.Params.HostOffset)
		o := &opening{
			block: block, offer: k.Offer, open: k.State == channel.GuestOpen,
			ring: RingOptions{
				ToHostPages: toHost, ToGuestPages: len(block.PFNs) - toHost, TargetVP: k.Params.TargetVP, Reserved: k.Params.Reserved,
				LowLatency: slices.Contains(lowLatency, k.Offer.Channel),
			},
		}
		switch k.State {
		case channel.Sharing, channel.GuestOpening, channel.GuestOpen: // else nobody uses them any more
			// Rings that the host has made a mess of end this channel, not the guest.
			o.rings, _ = channel.MapGuestRings(block.Pages, toHost)
		}
		g.openings[k.Offer.Channel] = o
	}
	return nil
}

// takeOver finds the drivers.
func (g *Guest) takeOver(driver func(vmbus.OfferChannel) Driver) {
	for _, k := range g.core.Channels() {
		id := k.Offer.Channel
		o := g.openings[id]
		if o == nil {
			if g.opts.Offered != nil {
				g.opts.Offered(k.Offer)
			}
			continue
		}
		if o.rings != nil {
			o.driver = driver(k.Offer)
		}
		if k.State == channel.Unreserving || k.State == channel.GuestOpening && o.ring.Reserved != nil {
			g.awaitAnswer(id, openPatience) // it may have been lost before
		}
		if o.driver == nil {
			o.left = true
			o.driver = noDriver{g, id}
			if o.open {
				g.closeChannel(id, o)
			}
			continue
		}
		if !o.open {
			continue
		}
		g.listen(o, k.EventFlag)
		ch := g.channelOf(o, k.ConnectionID)
		ch.Restored = true
		o.driver.Opened(ch)
		o.driver.Doorbell() // either side may have missed a signal
		ch.Signal()
	}
	for vp := range g.vps {
		g.drainFlags(uint32(vp))
	}
}

// noDriver is the driver of a channel that nobody has any more.
type noDriver struct {
	guest *Guest
	id    vmbus.ChannelID
}

func (d noDriver) Opened(*GuestChannel) {
	if o := d.guest.openings[d.id]; o != nil {
		d.guest.closeChannel(d.id, o)
	}
}
func (noDriver) OpenFailed(error) {}
func (noDriver) Doorbell()        {}
func (noDriver) Rescinded()       {}
