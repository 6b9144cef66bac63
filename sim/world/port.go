package world

import (
	"slices"

	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// postHeadBytes is what precedes the payload in the input of HvCallPostMessage.
const postHeadBytes = 16

// A port stands between both ends of a bus and the hypervisor. Messages pass and
// are watched; they wait in the slot and in the host's queue, so their delay is a
// matter of when the receiver steps. Doorbells wait here until a step delivers
// them, merged as event flags are.
type port struct {
	*synic.Partition
	m       *machine
	toGuest []uint64 // as the Arg of a SignalGuest step
	toHost  []uint64 // as the Arg of a SignalHost step
	refuse  bool     // the next PostMessage finds no buffer
}

// Post is part of synic.Port.
func (p *port) Post(to synic.Target, payload []byte) error {
	err := p.Partition.Post(to, payload)
	if err == nil {
		p.m.posted(vmbus.HostToGuest, to.VP, payload)
		p.m.overhear(hostSide, payload)
	} else {
		p.m.notPosted(payload)
	}
	return err
}

// PostMessage is part of synic.GuestPort.
func (p *port) PostMessage(input []byte) synic.Status {
	if p.refuse {
		p.refuse = false
		return synic.StatusInsufficientBuffers
	}
	status := p.Partition.PostMessage(input)
	if status == synic.StatusSuccess {
		p.m.posted(vmbus.GuestToHost, 0, input[postHeadBytes:])
		p.m.overhear(guestSide, input[postHeadBytes:])
	}
	return status
}

// Signal is part of synic.Port.
func (p *port) Signal(to synic.Target, flag uint16) error {
	p.m.w.signalled(p.m, hostSide, uint64(flag))
	if p.m.w.losesSignal() {
		return nil
	}
	p.toGuest = merge(p.toGuest, uint64(to.VP)<<16|uint64(flag))
	return nil
}

// SignalEvent is part of synic.GuestPort.
func (p *port) SignalEvent(param uint64) synic.Status {
	p.m.w.signalled(p.m, guestSide, param)
	if p.m.w.losesSignal() {
		return synic.StatusSuccess
	}
	p.toHost = merge(p.toHost, param)
	return synic.StatusSuccess
}

// losesSignal is true for every n-th doorbell of a world whose doorbells get lost
// where nobody looks again: an illegal world, which tests the tests.
func (w *World) losesSignal() bool {
	if w.loseEvery == 0 {
		return false
	}
	w.rungs++
	return w.rungs%w.loseEvery == 0
}

// merge adds a doorbell unless it is ringing already.
func merge(list []uint64, v uint64) []uint64 {
	if slices.Contains(list, v) {
		return list
	}
	return append(list, v)
}

// deliverGuest lets a doorbell reach the guest. Nobody listens any more, or not
// yet: then it is lost, as on a real machine.
func (p *port) deliverGuest(v uint64) {
	if remove(&p.toGuest, v) {
		_ = p.Partition.Signal(synic.Target{VP: uint32(v >> 16), SINT: synic.MessageSINT}, uint16(v))
	}
}

// deliverHost lets a doorbell reach the host.
func (p *port) deliverHost(v uint64) {
	if remove(&p.toHost, v) {
		p.Partition.SignalEvent(v)
	}
}

func remove(list *[]uint64, v uint64) bool {
	at := slices.Index(*list, v)
	if at < 0 {
		return false
	}
	*list = slices.Delete(*list, at, at+1)
	return true
}
