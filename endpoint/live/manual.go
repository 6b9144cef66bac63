package live

import (
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// Steps is a set of things that an end made with the option Manual can do next.
// Its owner chooses one at a time, so that the order in which things happen is
// the owner's: package sim/world tries many. Nothing an end does is left out, and
// nothing happens in between.
type Steps uint8

const (
	// StepAction carries out the oldest wish of the core: set up a connection,
	// open a device, tell a driver. Nothing else is possible while there is one.
	StepAction Steps = 1 << iota
	// StepPost posts the core's oldest message.
	StepPost
	// StepCall runs the oldest API call that waits for its turn.
	StepCall
	// StepReceive hands the core the oldest message that has arrived. It is not
	// possible while a call waits.
	StepReceive
)

// has reports whether s has all of t.
func (s Steps) has(t Steps) bool { return s&t == t }

// Steps returns what this host can do next; 0 is nothing.
func (h *Host) Steps() Steps {
	_, post := h.core.NextMessage()
	h.mu.Lock()
	arrived := h.queue.len() > 0
	h.mu.Unlock()
	return possible(h.core.ActionPending(), post && !h.slotBusy.Load(), h.loop, arrived && h.core.WantsMessage())
}

// Steps returns what this guest can do next; 0 is nothing.
func (g *Guest) Steps() Steps {
	_, post := g.core.NextMessage()
	arrived := false
	for vp := range g.vps {
		arrived = arrived || synic.SlotFull(g.vps[vp].messages, endpoint.VMBusSINT)
	}
	return possible(g.core.ActionPending(), post && !g.retry.waiting, g.loop, arrived)
}

func possible(action, post bool, l *loop, receive bool) (s Steps) {
	calls, over := l.manualState()
	if over {
		return 0
	}
	if action {
		return StepAction
	}
	if post {
		s |= StepPost
	}
	if calls > 0 {
		return s | StepCall
	}
	if receive {
		s |= StepReceive
	}
	return s
}

// manualState is how many calls wait, and whether nothing can happen: the loop has
// ended or is frozen.
func (l *loop) manualState() (calls int, over bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	calls = l.todo.len()
	return calls, l.frozen || l.stopped && calls == 0
}

// Do does one of the things that Steps names. A step that is not possible does
// nothing, and one on an end that is not Manual panics.
func (h *Host) Do(s Steps) { h.loop.doStep(s & h.Steps()) }

// Do does one of the things that Steps names, as Host.Do.
func (g *Guest) Do(s Steps) { g.loop.doStep(s & g.Steps()) }

func (l *loop) doStep(s Steps) {
	if !l.manual {
		panic("live: Do on an end that has a goroutine: set the option Manual")
	}
	switch {
	case s.has(StepAction):
		l.machine.actOne()
	case s.has(StepPost):
		l.machine.postOne()
	case s.has(StepCall):
		l.callOne()
	case s.has(StepReceive):
		l.machine.receiveOne()
	}
}
