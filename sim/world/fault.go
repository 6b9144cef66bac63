package world

import (
	"slices"
	"time"

	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// Legal faults.
const (
	faultNone     uint8 = iota
	faultRescind        // the host withdraws channel Arg
	faultReset          // the virtual machine is reset
	faultCrash          // the guest is gone from one moment to the next
	faultSpurious       // a doorbell rings that nobody has rung: flag Arg of processor 0
	faultJump           // the clock jumps forward
	faultMemory         // the guest's next allocation fails
	faultSuspend        // the machine stands still until opWake; its connections are cut off
)

var faultNames = [...]string{"", "rescind", "reset", "crash", "spurious", "jump", "memory", "suspend"}

// jump is how far the clock jumps: beyond every timeout but that of an unload.
const jump = 10 * time.Second

// guestSteps is what the guest can do next, if there is one.
func (m *machine) guestSteps() live.Steps {
	switch {
	case m.down:
		return m.leftSteps()
	case m.mute && m.w.attacker() == guestSide:
		return 0
	}
	return m.guest.Steps()
}

// leftSteps is what there is to do between two lives: after a crash, whatever boots
// the machine again takes what comes for its predecessor, and throws it away.
func (m *machine) leftSteps() live.Steps {
	for _, page := range m.slots {
		if synic.SlotFull(page, synic.MessageSINT) {
			return live.StepReceive
		}
	}
	return 0
}

// throwAway does the step of leftSteps.
func (m *machine) throwAway() {
	for vp, page := range m.slots {
		if !synic.SlotFull(page, synic.MessageSINT) {
			continue
		}
		if synic.FreeSlot(page, synic.MessageSINT) {
			_ = m.port.WriteMSR(uint32(vp), synic.MSREOM, 0) // write-only, always accepted
		}
		return
	}
}

// enableFaults lists what may always happen.
func (w *World) enableFaults() {
	if w.o.Hostile {
		w.enableHostile()
		return
	}
	for _, m := range w.machines {
		for _, id := range m.view.ids {
			w.add(Step{Kind: Fault, Op: faultSpurious, Guest: m.number, Arg: uint64(id)}, rareWeight)
			if w.rarely() {
				w.add(Step{Kind: Fault, Op: faultRescind, Guest: m.number, Arg: uint64(id)}, rareWeight)
			}
		}
		if m.down {
			continue
		}
		for _, op := range []uint8{faultReset, faultCrash, faultMemory, faultSuspend} {
			if w.rarely() && !(op == faultSuspend && (m.frozen || m.gone)) {
				w.add(Step{Kind: Fault, Op: op, Guest: m.number}, rareWeight)
			}
		}
	}
	if w.rarely() {
		w.add(Step{Kind: Fault, Op: faultJump}, rareWeight)
	}
}

// hostSteps is what the host's end can do next.
func (m *machine) hostSteps() live.Steps {
	if m.mute && m.w.attacker() == hostSide {
		return 0
	}
	return m.host.Steps()
}

// quiet reports whether no message is on its way or waits to be. A guest that
// begins anew without a reset cannot tell an answer to its contact from one to its
// predecessor's: a kernel that starts another lets the host finish first.
func (m *machine) quiet() bool { return m.host.Steps() == 0 && m.leftSteps() == 0 }

// rarely is true at one step in 32: what ends many things at once would else
// leave nothing to end. It is a matter of the step's number, so that a script is
// not forbidden what the run that wrote it was allowed.
func (w *World) rarely() bool { return w.o.Script != nil || w.result.Steps%32 == 31 }

func (w *World) doFault(s Step) {
	if s.Op == faultJump {
		w.clock.now += jump
		w.excuse(nil, "the clock jumped")
		return
	}
	m := w.machine(s.Guest)
	if m == nil {
		return
	}
	switch s.Op {
	case faultRescind:
		w.actor = hostSide
		id := vmbus.ChannelID(s.Arg)
		m.view.rescinds[id]++ // it takes effect later, maybe on the next offer under this id
		m.view.excuse(id)
		for _, d := range m.devices { // it may be published again before the guest has let go
			if c := m.view.channels[id]; c != nil && d.offer.Instance == c.offer.Instance && d.offer.SubChannel == c.offer.SubChannel {
				d.offered = nil
			}
		}
		m.host.Rescind(id)
	case faultReset:
		m.die("was reset")
		m.reset()
	case faultCrash:
		m.die("crashed")
	case faultSpurious:
		w.actor = guestSide
		m.port.toGuest = merge(m.port.toGuest, s.Arg)
	case faultMemory:
		m.failNext = !m.down
	case faultSuspend:
		m.suspend()
	}
}

// reset is what a machine without a guest does before it starts again: the host lets
// go of everything.
func (m *machine) reset() {
	m.slots, m.view.toGuest = m.slots[:0], nil
	m.port.Partition.Reset()
	m.port.toHost = m.port.toHost[:0]
	m.view.toHost = m.view.toHost[:0]
	m.resetting = true
	m.host.BeginReset(func() {
		m.resetting = false
		m.memory.old = nil
		m.view.rules.end()
		m.view.forget()
		m.w.hit(LiveReset)
	})
}

// haunted reports whether the host still has a reserved channel of the last life
// open. A guest that starts cannot know: a crash is no end of the connection, and the
// channel would outlive that, too (vmbus-control.md 3.13). A reset ends it.
func (m *machine) haunted() bool {
	return slices.ContainsFunc(m.devices, func(d *device) bool { return d.reserved && d.ends[0] != nil })
}

// suspend makes the machine stand still: hvsock.md 11, HV-18.
func (m *machine) suspend() {
	w := m.w
	if m.down || m.frozen {
		return
	}
	w.actor = guestSide
	if err := m.guest.Freeze(); err != nil {
		w.fail(LiveCalls, "guest%d: freezing: %v", m.number, err)
		return
	}
	m.frozen = true
	m.sockets.Hold()
	w.excuse(m, "its guest was suspended")
	w.turn(hostSide)
	m.peer.Suspend()
}

// wake ends it.
func (m *machine) wake() {
	if m.frozen {
		m.frozen = false
		m.sockets.Release()
		m.guest.Thaw()
	}
}

// excuse excuses every connection of m, or of every guest.
func (w *World) excuse(m *machine, why string) {
	for _, p := range w.apps.byEP {
		if m == nil || p.m == m {
			p.excuse(why)
		}
	}
	for _, p := range w.apps.pairs {
		if m == nil || p.m == m {
			p.excuse(why)
		}
	}
}

// die ends the guest without a word.
func (m *machine) die(how string) {
	w := m.w
	w.actor = guestSide
	m.life++
	m.down, m.connected, m.connects, m.closing, m.gone, m.pause, m.frozen = true, false, false, false, true, running, false
	m.owner.die()
	m.port.toGuest = m.port.toGuest[:0]
	m.view.guestDied()
	w.excuse(m, "its guest "+how)
	m.endSockets()
	for _, d := range m.devices {
		d.seen = nil
		d.lose("its guest " + how)
		d.drop(1, d.ends[1])
		d.driver = nil
	}
	m.failNext = false
	m.findSlots()
	m.memory.old = append(m.memory.old, m.memory.heap)
	m.newHeap()
}

// findSlots finds the pages of the message slots, before their heap goes.
func (m *machine) findSlots() {
	m.slots = m.slots[:0]
	for vp := range uint32(vps) {
		if v, err := m.port.ReadMSR(vp, synic.MSRSIMP); err == nil && v&1 != 0 {
			if page, err := m.memory.heap.Page(v / guestmem.PageSize); err == nil {
				m.slots = append(m.slots, page)
			}
		}
	}
}

// endSockets ends what the guest's applications had of connections, without a word.
func (m *machine) endSockets() {
	a := &m.w.apps
	for _, p := range slices.Clone(a.pairs) {
		if p.m != m {
			continue
		}
		if p.byGuest {
			p.pending = false
		}
		for _, e := range p.ends {
			if e != nil && e.side == guestSide && !e.finished {
				e.finish()
			}
		}
		a.tidy(p)
	}
}

// enableLife lists what can happen to the guest as a whole.
func (m *machine) enableLife() {
	w := m.w
	switch {
	case w.ending:
	case m.frozen:
		w.add(Step{Kind: App, Op: opWake, Guest: m.number}, lowWeight)
	case m.down:
		if m.mayBoot() {
			w.add(Step{Kind: App, Op: opBoot, Guest: m.number}, normalWeight)
		}
	case m.gone && m.closing && !w.resting:
		w.add(Step{Kind: App, Op: opBoot, Guest: m.number}, normalWeight)
	case m.pause == paused:
		w.add(Step{Kind: App, Op: opResume, Guest: m.number}, lowWeight)
	case m.connects && !m.closing && !w.resting && w.o.Legal:
		if w.rarely() {
			w.add(Step{Kind: App, Op: opUnload, Guest: m.number}, rareWeight)
			// Nothing answers an Unload of 0.13: until it is connected again, the host has
			// pages of the last life, which are not saved with it.
			if m.version >= vmbus.Win7 {
				w.add(Step{Kind: App, Op: opSave, Guest: m.number}, rareWeight)
			}
		}
	case !m.connected || m.closing || w.resting || !w.o.Legal:
	default:
		if w.rarely() {
			w.add(Step{Kind: App, Op: opUnload, Guest: m.number}, rareWeight)
		}
		if w.rarely() && m.pause != pausing {
			w.add(Step{Kind: App, Op: opSave, Guest: m.number}, rareWeight)
		}
		if m.pause == running && m.guest.Negotiated().Features&vmbus.PauseResume != 0 {
			w.add(Step{Kind: App, Op: opPause, Guest: m.number}, rareWeight)
		}
	}
}

// live does something with the guest as a whole.
func (m *machine) live(op uint8) {
	w := m.w
	switch op {
	case opPause:
		life := m.life
		m.pause = pausing
		m.guest.Pause(func(err error) {
			switch {
			case m.life != life:
			case err != nil:
				m.pause = running
				w.note("guest%d: no pause: %v", m.number, err)
			default:
				m.pause = paused
			}
		})
	case opResume:
		if m.pause == paused {
			m.pause = running
			m.guest.Resume()
		}
	case opUnload:
		m.closing, m.pause = true, running
		w.excuse(m, "its guest unloaded")
		m.guest.BeginClose()
	case opBoot:
		m.reboot()
	case opSave:
		m.save()
	case opWake:
		m.wake()
	}
}

// mayBoot reports whether a machine that is down may start: the host has let go of
// the last life, or has nothing more to say to it.
func (m *machine) mayBoot() bool { return !m.resetting && (m.quiet() || m.attacked()) }

// reboot starts the guest again, after an unload, a reset or a crash.
func (m *machine) reboot() {
	w := m.w
	if m.down && !m.mayBoot() || !m.down && !(m.gone && m.closing) {
		return
	}
	if m.down && m.haunted() {
		m.reset()
		return
	}
	if !m.down { // it has unloaded
		if err := m.guest.Close(); err != nil {
			w.fail(LiveReset, "guest%d: %v", m.number, err)
			return
		}
		if n := m.memory.heap.InUsePages(); n != 0 {
			w.fail(NoLeak, "guest%d has unloaded with %d pages in use", m.number, n)
			return
		}
		w.hit(NoLeak)
		m.die("unloaded")
	}
	_ = m.listener.Close() // of the last life
	if err := m.boot(); err != nil {
		w.fail(LiveCalls, "guest%d does not boot: %v", m.number, err)
	}
}
