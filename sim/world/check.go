package world

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hvlab/hvlab/endpoint/invariant"

	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/trace"
)

const (
	offerTLNPI = vmbus.OfferTLNPI
	// oldestDoorbells is where every channel has doorbells of its own, in both
	// directions.
	oldestDoorbells = vmbus.Win8
)

// checkSafety looks at everything that must hold after each step.
func (w *World) checkSafety() {
	w.checkBacklogs() // the applications' own expectations need it
	if w.o.Checks == CheckNone {
		return
	}
	if w.o.Hostile || w.result.Steps%16 == 0 {
		w.checkBounds()
	}
	if w.o.Checks == CheckAll {
		w.checkRings()
		w.checkCores()
	}
}

func (w *World) checkBacklogs() {
	w.checkBacklog(&w.service)
	for _, m := range w.machines {
		w.checkBacklog(&m.listener)
	}
}

func (w *World) checkBacklog(l *listener) {
	queued, promised := l.Waiting()
	switch n := queued + promised; {
	case n > w.backlog || promised < 0:
		w.fail(Backlog, "the listener %v has %d connections and %d promises, backlog %d", l.Addr(), queued, promised, w.backlog)
	case n == w.backlog:
		l.full = w.result.Steps
		w.hit(Backlog)
	case n > 0:
		w.hit(Backlog)
	}
}

// checkLiveness looks at what must have ended once everything is at rest.
func (w *World) checkLiveness() {
	for _, p := range w.apps.pairs {
		if p.pending && !(p.m.attacked() && p.dialer() == w.attacker()) {
			w.fail(LiveCalls, "c%d: the dial has not ended", p.id)
		}
	}
	for _, e := range w.apps.live {
		switch {
		case e.pair.m.attacked():
		case e.readWait && !e.eof && !e.cut:
			w.fail(LiveReader, "%s waits for data; %d bytes have come", e.name, e.got)
		case e.writeWait && !e.broken:
			w.fail(LiveWriter, "%s waits for space; %d bytes of %d are sent", e.name, e.sent, e.plan)
		}
	}
	w.hit(LiveReader)
	w.hit(LiveWriter)
	w.checkClosed()
	for _, m := range w.machines {
		if m.attacked() {
			continue
		}
		if m.connects || m.resetting || m.pause == pausing {
			w.fail(LiveCalls, "guest%d: connecting %v, resetting %v, pausing %v", m.number, m.connects, m.resetting, m.pause == pausing)
		}
		for _, d := range m.devices {
			d.checkLiveness()
		}
		if w.o.Checks == CheckAll && !m.attacked() {
			m.view.rules.checkLiveness()
			if err := m.hostRules.AtRest(); err != nil {
				w.broken(m, err)
			}
		}
	}
}

// closeTimeout is how long a socket may linger after Close, and restSlack what may
// be before it: 5 s for an open that does not come, 1 s for a post that was refused
// often. Source: hvsock.md 14, faults.md 5.
const (
	closeTimeout = 8 * time.Second
	restSlack    = 6 * time.Second
)

// checkClosed: once all applications have closed, the background work of closing
// is over in time.
func (w *World) checkClosed() {
	if w.o.Hostile {
		return
	}
	if late := w.clock.now - w.lastApp; late > closeTimeout+restSlack {
		w.fail(LiveClose, "something went on for %v after the last call of an application", late)
	}
	sockets, _ := w.stack.Usage()
	for _, m := range w.machines {
		n, _ := m.sockets.Usage()
		sockets += n
	}
	if sockets != 0 {
		w.fail(LiveClose, "%d sockets are left although everything is closed", sockets)
		return
	}
	w.hit(LiveClose)
}

// checkNothingLeft looks for leftovers after everything was closed.
func (w *World) checkNothingLeft() {
	for _, m := range w.machines {
		w.checkGuestEnded(m)
		if w.failed() {
			return
		}
		if u := m.host.Usage(); u.Channels+u.GPADLs+u.Operations+u.Requests != 0 {
			w.fail(NoLeak, "the host still holds for guest%d: %+v", m.number, u)
		}
		m.host.Close()
		m.peer.Remove()
	}
	if sockets, listeners := w.stack.Usage(); sockets+listeners != 0 {
		w.fail(NoLeak, "the host still has %d sockets and %d listeners", sockets, listeners)
	}
	if n := len(w.clock.armed); n != 0 {
		w.fail(NoLeak, "%d timers are left", n)
	}
	w.hit(NoLeak)
	w.hit(LiveReset)
	if w.o.Hostile && len(w.machines) > 1 {
		w.hit(Isolation) // the others have kept every promise; see Isolated
	}
}

func (w *World) checkGuestEnded(m *machine) {
	if m.down {
		return
	}
	if !m.gone {
		w.fail(LiveReset, "guest%d has not unloaded", m.number)
		return
	}
	if err := m.guest.Close(); err != nil && !m.attacked() {
		w.fail(LiveReset, "guest%d: %v", m.number, err)
		return
	}
	if m.attacked() { // pages that the host has not let go of stay out of use
		return
	}
	if sockets, listeners := m.sockets.Usage(); sockets+listeners != 0 {
		w.fail(NoLeak, "guest%d still has %d sockets and %d listeners", m.number, sockets, listeners)
	}
	if n := m.memory.heap.InUsePages(); n != 0 {
		w.fail(NoLeak, "guest%d still has %d pages in use", m.number, n)
	}
}

// checkCores asks the rules of package endpoint/invariant about both cores of each
// bus; the attacker's own is nobody's business.
func (w *World) checkCores() {
	for _, m := range w.machines {
		attacker := neither
		if m.attacked() {
			attacker = w.attacker()
		}
		if err := m.hostRules.Err(); err != nil && attacker != hostSide {
			w.broken(m, err)
		}
		if err := m.guestRules.Err(); err != nil && attacker != guestSide {
			w.broken(m, err)
		}
	}
}

// broken makes a finding of a rule's violation.
func (w *World) broken(m *machine, err error) {
	i := StateLegal
	var v *invariant.Violation
	if errors.As(err, &v) {
		if at := slices.Index(invariantNames[:], v.Rule); at > 0 {
			i = Invariant(at)
		}
	}
	w.fail(i, "guest%d: %v", m.number, err)
}

// maxLines is how many lines a second an attacker is worth. Source: faults.md 5.
const maxLines = 10

// log is where an attacked end tells what it drops; nil of all others, which drop
// nothing often.
func (m *machine) log(of side) *trace.Tracer {
	w := m.w
	if !m.attacked() || w.attacker() == of || w.o.Checks != CheckAll {
		return nil
	}
	return trace.New(func(e trace.Event) {
		if e.Name != "drop" && e.Name != "drops left out" {
			return // a message: see posted
		}
		m.logged = append(m.logged, w.clock.now)
		if n := len(m.logged) - 1 - maxLines; n >= 0 && w.clock.now-m.logged[n] < time.Second {
			w.fail(Log, "guest%d: %d lines within %v", m.number, maxLines+1, w.clock.now-m.logged[n])
			return
		}
		w.hit(Log)
	}, "")
}

// messageText is a message as the trace shows it.
func messageText(dir vmbus.Direction, guest uint8, msg vmbus.Message) string {
	var b strings.Builder
	if dir == vmbus.HostToGuest {
		b.WriteString("host>guest")
		b.WriteByte('0' + guest%10)
	} else {
		b.WriteString("guest")
		b.WriteByte('0' + guest%10)
		b.WriteString(">host")
	}
	b.WriteByte(' ')
	b.WriteString(msg.Type().String())
	for _, f := range vmbus.Fields(msg) {
		b.WriteByte(' ')
		b.WriteString(f.Name)
		b.WriteByte('=')
		fmt.Fprint(&b, f.Value)
	}
	return b.String()
}
