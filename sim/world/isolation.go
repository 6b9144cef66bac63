package world

import (
	"bytes"
	"fmt"
	"regexp"
	"time"
)

// What a hostile guest does must change nothing for its neighbours (I-ISOLATION).
// Isolated runs a hostile world and then, in a second one, the steps of the
// neighbour alone, at the same moments: the attacker is there and never wakes up.
// The neighbour's trace must be the same, byte for byte, but for what guests of one
// host share by design:
//
//   - the random numbers of the host's sockets: endpoint ids are compared by the
//     order in which they come up;
//   - the backlog of a listener that serves every guest: here it is never full.

// A played step is one of the neighbour's, and when it was done.
type played struct {
	s      Step // the Arg of a timer counts the neighbour's only
	now    time.Duration
	number int
	phase  phase
}

// A phase is what begins with a played step.
type phase uint8

const (
	sameAsBefore phase = iota
	allEnds            // listeners close and guests unload
)

// A recorder keeps what happens to one guest.
type recorder struct {
	guest uint8
	step  bytes.Buffer // what the current step has said
	trace bytes.Buffer // what the guest's steps have said
	steps []played
	phase phase
}

// Write is part of io.Writer: it takes the trace of the world.
func (r *recorder) Write(b []byte) (int, error) { return r.step.Write(b) }

// guestOf is whose step s is: 0 if it is nobody's alone.
func (w *World) guestOf(s Step) uint8 {
	switch {
	case s.Guest != 0:
		return s.Guest
	case s.Kind == FireTimer:
		if t := w.clock.peek(s.Arg); t != nil {
			return t.guest
		}
	case s.Kind == App && s.Actor != 0:
		if p := w.apps.find(s.Actor / 2); p != nil {
			return p.m.number
		}
	}
	return 0 // of an accept of the host: see apps.accept
}

// before and after enclose a step.
func (r *recorder) before(w *World, s Step) played {
	r.step.Reset()
	p := played{s: s, now: w.clock.now, number: w.result.Steps}
	if s.Kind == FireTimer {
		p.s.Arg = w.clock.ordinal(s.Arg)
	}
	return p
}

func (r *recorder) after(w *World, p played) {
	if w.clock.guest != r.guest {
		return
	}
	p.phase, r.phase = r.phase, sameAsBefore
	r.steps = append(r.steps, p)
	fmt.Fprintf(&r.trace, "%6d  %v\n", p.number+1, p.s)
	_, said, _ := bytes.Cut(r.step.Bytes(), []byte("\n"))
	r.trace.Write(said)
}

// Isolated runs o, which must be hostile and have a neighbour, and compares the
// neighbour's trace with that of a run without the attacker: a difference is a
// Finding of I-ISOLATION. The error is an *OptionError.
func Isolated(o Options) (Result, error) {
	if !o.Hostile || o.Guests < 2 || o.Trace != nil {
		return Result{}, &OptionError{"hostile", "isolation needs an attacker, a neighbour and the trace for itself"}
	}
	return isolated(o, func(*World) {})
}

// isolated is Isolated; prepare gets the first world before it runs.
func isolated(o Options, prepare func(*World)) (Result, error) {
	first := &recorder{guest: uint8(o.Guests)}
	o.Trace, o.roomy = first, true
	w, err := New(o)
	if err != nil {
		return Result{}, err
	}
	w.record = first
	prepare(w)
	r := w.Run()
	r.Options.Trace = nil
	if w.failed() {
		return r, nil
	}
	second := &recorder{guest: first.guest}
	o.Trace = second
	alone, err := New(o)
	if err != nil {
		return Result{}, err
	}
	alone.record = second
	alone.guarded(func() { alone.playAlone(first.steps) })
	r.Exercised[Isolation]++
	if alone.failed() {
		r.Findings = append(r.Findings, Finding{Invariant: Isolation, Step: r.Steps, Text: "without the attacker: " + alone.result.Findings[0].String()})
	} else if at, a, b := firstDifference(named(first.trace.Bytes()), named(second.trace.Bytes())); at > 0 {
		r.Findings = append(r.Findings, Finding{
			Invariant: Isolation, Step: r.Steps,
			Text: fmt.Sprintf("line %d of the neighbour's trace is %q, without the attacker %q", at, a, b),
		})
	}
	return r, nil
}

// playAlone does the neighbour's steps.
func (w *World) playAlone(steps []played) {
	for _, p := range steps {
		if w.failed() {
			return
		}
		if p.phase == allEnds {
			w.resting, w.ending = true, true
			w.apps.closeListeners()
			w.machine(w.record.guest).end()
		}
		w.clock.now, w.result.Steps = p.now, p.number
		w.do(p.s)
	}
}

var guid = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

// named gives every GUID of a trace a name, by the order in which they come up.
func named(trace []byte) []byte {
	names := map[string][]byte{}
	return guid.ReplaceAllFunc(trace, func(b []byte) []byte {
		name := names[string(b)]
		if name == nil {
			name = fmt.Appendf(nil, "GUID%d", len(names)+1)
			names[string(b)] = name
		}
		return name
	})
}

// firstDifference is the number of the first line, from 1, in which two texts
// differ, and both lines; 0 if they are the same.
func firstDifference(a, b []byte) (line int, inA, inB string) {
	if bytes.Equal(a, b) {
		return 0, "", ""
	}
	as, bs := bytes.Split(a, []byte("\n")), bytes.Split(b, []byte("\n"))
	for line = 0; line < len(as) && line < len(bs) && bytes.Equal(as[line], bs[line]); line++ {
	}
	at := func(list [][]byte) string {
		if line < len(list) {
			return string(list[line])
		}
		return "(its end)"
	}
	return line + 1, at(as), at(bs)
}
