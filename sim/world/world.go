package world

import (
	"fmt"
	"hash/fnv"
	"runtime/debug"
	"time"

	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/hvsock"
)

// A World is a host and its guests.
type World struct {
	o       Options
	setup   *Random // of identities and sizes, apart from the choices
	choose  Chooser
	clock   clock
	stack   *hvsock.HostStack
	service listener // the host's
	backlog int

	hostOwner *owner // of the host's socket stack
	machines  []*machine
	apps      apps

	steps            []Step // that are possible now
	weights          []uint16
	current          Step
	actor            side // who does the current step
	signals          []rung
	rungs, loseEvery int           // see losesSignal
	lastApp          time.Duration // when an application last called
	resting          bool          // faults have stopped
	ending           bool          // and nothing begins any more
	result           Result
	hash             uint64
	record           *recorder // of one guest's steps, or nil
	blind            bool      // guests do not poll: tests the tests
	leak             bool      // the attacker reaches the second guest: tests the tests
}

// A rung is a doorbell rung during the current step.
type rung struct {
	m    *machine
	from side
	id   uint64 // event flag, or parameter of the hypercall
}

// New builds a world; nothing has happened in it yet. The error is an
// *OptionError.
func New(o Options) (*World, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	w := &World{o: o, setup: &Random{}}
	w.setup.rng.Seed(o.Seed, 0x7365747570)
	w.choose = o.Chooser
	if w.choose == nil {
		w.choose = NewRandom(o.Seed)
		if o.Seed%2 == 0 {
			w.choose = NewPriorities(o.Seed)
		}
	}
	w.result = Result{Options: o}
	if w.backlog = []int{1, 2, 128}[w.setup.Draw(3)]; o.roomy {
		w.backlog = 128
	}
	w.hostOwner = &owner{clock: &w.clock, side: hostSide}
	w.stack = hvsock.NewHostStack(hvsock.HostOptions{Backlog: w.backlog, Seed: o.Seed + 1, Clock: w.hostOwner})
	w.apps.init(w)
	var err error
	w.service.Listener, err = w.stack.Listen(hvsock.Addr{VMID: hvsock.Children, ServiceID: hvsock.ServiceIDFromPort(hostPort)})
	if err != nil {
		return nil, err
	}
	for n := range o.Guests {
		m, err := w.newMachine(uint8(n + 1))
		if err != nil {
			return nil, err
		}
		w.machines = append(w.machines, m)
	}
	return w, nil
}

// Run is New and World.Run. The error is an *OptionError.
func Run(o Options) (Result, error) {
	w, err := New(o)
	if err != nil {
		return Result{}, err
	}
	return w.Run(), nil
}

// Run does Options.Steps steps, lets everything come to rest, ends it and looks
// for leftovers. It stops at the first Finding.
func (w *World) Run() Result {
	defer func() {
		w.result.Hash = w.hash
	}()
	w.result.Script = make([]Step, 0, max(len(w.o.Script), min(w.o.Steps, defaultSteps)))
	w.guarded(func() {
		if w.o.Script != nil {
			w.replay()
		}
		for w.o.Script == nil && w.result.Steps < w.o.Steps && !w.failed() && w.step() {
		}
		if !w.failed() {
			w.rest()
		}
	})
	w.result.Hash = w.hash
	buf := w.apps.buf // not a part of w, which may go
	chunks.Put(&buf)
	return w.result
}

// guarded makes a panic a finding.
func (w *World) guarded(f func()) {
	defer func() {
		if p := recover(); p != nil {
			w.fail(NoPanic, "panic: %v", p)
			if w.o.Trace != nil {
				_, _ = w.o.Trace.Write(debug.Stack())
			}
		}
	}()
	f()
}

// step does one step and reports whether there was one.
func (w *World) step() bool {
	w.enabled()
	if len(w.steps) == 0 {
		return false
	}
	at := w.choose.Choose(w.steps, w.weights)
	s := w.fill(w.steps[at])
	w.result.Script = append(w.result.Script, s)
	w.do(s)
	return true
}

// tick is how much time passes with each step.
const tick = time.Microsecond

// do does s, if it is possible, and checks what came of it.
func (w *World) do(s Step) {
	w.current = s
	w.clock.guest = w.guestOf(s)
	var p played
	if w.record != nil {
		p = w.record.before(w, s)
	}
	w.result.Steps++
	w.clock.now += tick
	w.signals = w.signals[:0]
	if w.o.Trace != nil {
		fmt.Fprintf(w.o.Trace, "%6d  %v\n", w.result.Steps, s)
	}
	w.mix(uint64(s.Kind)<<56 | uint64(s.Op)<<48 | uint64(s.Guest)<<40 | uint64(s.Actor))
	w.mix(s.Arg)
	w.actor = neither
	switch s.Kind {
	case HostStep, GuestStep, RefusedPost, SignalGuest, SignalHost, LostSignal:
		if m := w.machine(s.Guest); m != nil {
			w.doBus(m, s)
		}
	case FireTimer:
		w.doTimer(s.Arg)
	case Advance:
		if d, ok := w.clock.next(); ok {
			w.clock.now += d
			w.note("the time is %v", w.clock.now)
		}
	case App:
		w.lastApp = w.clock.now
		w.apps.do(s)
	case Fault:
		w.doFault(s)
	case Hostile:
		w.doHostile(s)
	}
	if w.record != nil {
		w.record.after(w, p)
	}
	w.hit(NoPanic)
	w.checkSafety()
}

func (w *World) machine(number uint8) *machine {
	if number == 0 || int(number) > len(w.machines) {
		return nil
	}
	return w.machines[number-1]
}

func (w *World) doBus(m *machine, s Step) {
	switch s.Kind {
	case HostStep:
		w.actor = hostSide
		if m.hostSteps()&live.Steps(s.Op) == 0 {
			return
		}
		if live.Steps(s.Op) == live.StepReceive {
			m.handled(hostSide)
		}
		m.host.Do(live.Steps(s.Op))
	case GuestStep:
		w.actor = guestSide
		if m.guestSteps()&live.Steps(s.Op) == 0 {
			return
		}
		if live.Steps(s.Op) == live.StepReceive {
			m.handled(guestSide)
		}
		if live.Steps(s.Op) == live.StepPost {
			m.refusals = 0
		}
		if m.down {
			m.throwAway()
			return
		}
		m.guest.Do(live.Steps(s.Op))
	case RefusedPost:
		w.actor = guestSide
		m.refusals++
		m.port.refuse = true
		m.guest.Do(live.StepPost & m.guestSteps())
		m.port.refuse = false
	case SignalGuest:
		w.actor = guestSide
		m.port.deliverGuest(s.Arg)
	case SignalHost:
		w.actor = hostSide
		m.port.deliverHost(s.Arg)
	case LostSignal:
		remove(&m.port.toGuest, s.Arg)
	}
}

func (w *World) doTimer(n uint64) {
	if t := w.clock.take(n); t != nil {
		w.actor = t.owner.side
		t.f()
	}
}

// mix adds a number to the hash of everything that happened.
func (w *World) mix(v uint64) { w.hash = (w.hash ^ v) * 0x9E3779B97F4A7C15; w.hash ^= w.hash >> 29 }

// mixBytes does so for bytes.
func (w *World) mixBytes(b []byte) {
	h := fnv.New64a()
	_, _ = h.Write(b)
	w.mix(h.Sum64())
}

// Weights: how likely a step is beside others.
const (
	rareWeight   = 1
	lowWeight    = 10
	normalWeight = 30
)

// enabled lists what could happen next.
func (w *World) enabled() {
	w.steps, w.weights = w.steps[:0], w.weights[:0]
	for _, m := range w.machines {
		w.enableBus(m)
	}
	w.apps.enable()
	for n := range w.clock.due() {
		w.add(Step{Kind: FireTimer, Arg: uint64(n) + 1}, normalWeight)
	}
	if w.mayAdvance() {
		w.add(Step{Kind: Advance}, rareWeight)
	}
	if !w.resting && (w.o.Legal || w.o.Hostile) {
		w.enableFaults()
	}
}

func (w *World) add(s Step, weight uint16) {
	w.steps = append(w.steps, s)
	w.weights = append(w.weights, weight)
}

// busSteps are the steps of an end of a bus, each a bit.
var busSteps = [...]live.Steps{live.StepAction, live.StepPost, live.StepCall, live.StepReceive}

func (w *World) enableBus(m *machine) {
	if s := m.hostSteps(); s != 0 {
		for _, one := range busSteps {
			if s&one != 0 {
				w.add(Step{Kind: HostStep, Guest: m.number, Op: uint8(one)}, normalWeight)
			}
		}
	}
	if s := m.guestSteps(); s != 0 {
		for _, one := range busSteps {
			if s&one != 0 {
				w.add(Step{Kind: GuestStep, Guest: m.number, Op: uint8(one)}, normalWeight)
			}
		}
		if s&live.StepPost != 0 && w.o.Legal && !w.resting && m.refusals < maxRefusals {
			w.add(Step{Kind: RefusedPost, Guest: m.number}, lowWeight)
		}
	}
	for _, v := range m.port.toGuest {
		w.add(Step{Kind: SignalGuest, Guest: m.number, Arg: v}, normalWeight)
		if w.o.Legal && !w.resting && m.view.deaf(v) {
			w.add(Step{Kind: LostSignal, Guest: m.number, Arg: v}, lowWeight)
		}
	}
	for _, v := range m.port.toHost {
		w.add(Step{Kind: SignalHost, Guest: m.number, Arg: v}, normalWeight)
	}
}

// maxRefusals is how often in a row the hypervisor may refuse a post: a guest gives
// up after 100 attempts, and then its link has failed.
const maxRefusals = 50

// maxAdvance bounds how long nothing happens although something could: every
// timeout of the protocol is far longer, so that an end is slow, but not dead.
const maxAdvance = time.Millisecond

// mayAdvance reports whether time may pass up to the next timer.
func (w *World) mayAdvance() bool {
	d, ok := w.clock.next()
	if !ok {
		return false
	}
	return len(w.steps) == 0 || !w.resting && d <= maxAdvance
}
