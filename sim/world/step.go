package world

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hvlab/hvlab/endpoint/live"
)

// A Kind is a kind of Step.
type Kind uint8

// The kinds of steps.
const (
	HostStep    Kind = iota + 1 // the host's end of a guest's bus does Op, a live.Steps
	GuestStep                   // the guest does Op, a live.Steps
	RefusedPost                 // the guest posts, and the hypervisor is short of buffers
	SignalGuest                 // a doorbell of the host arrives: Arg is the VP times 2^16 plus the flag
	SignalHost                  // a doorbell of a guest arrives: Arg is the parameter of the hypercall
	LostSignal                  // a doorbell of the host is lost where that is allowed
	FireTimer                   // the timer that is due as the Arg-th, from 1, runs
	Advance                     // time passes until the next timer is due
	App                         // an application does Op
	Fault                       // a legal fault: Op
	Hostile                     // a hostile peer: Op
	Settle                      // everything but applications and time, until nothing is left: see World.settleBus
)

// A Step is one thing that happens. It is comparable, and its text form is
// complete: ParseStep(s.String()) is s.
type Step struct {
	Kind  Kind
	Op    uint8  // what, within the kind
	Guest uint8  // counted from 1; 0 is the host or nobody
	Actor uint32 // App: an end of a connection: see endName; else 0
	Arg   uint64
}

// side is one of the two ends of a bus.
type side uint8

const (
	neither side = iota
	hostSide
	guestSide
)

func (s side) String() string { return [...]string{"nobody", "host", "guest"}[s] }

func (s side) other() side { return [...]side{neither, guestSide, hostSide}[s] }

var liveNames = map[live.Steps]string{
	live.StepAction: "action", live.StepPost: "post", live.StepCall: "call", live.StepReceive: "receive",
}

// String is the text form of the step.
func (s Step) String() string {
	switch s.Kind {
	case HostStep:
		return fmt.Sprintf("host/guest%d %s", s.Guest, liveNames[live.Steps(s.Op)])
	case GuestStep:
		return fmt.Sprintf("guest%d %s", s.Guest, liveNames[live.Steps(s.Op)])
	case RefusedPost:
		return fmt.Sprintf("guest%d post refused", s.Guest)
	case SignalGuest:
		return fmt.Sprintf("signal host>guest%d %d:%d", s.Guest, s.Arg>>16, s.Arg&0xFFFF)
	case LostSignal:
		return fmt.Sprintf("lost host>guest%d %d:%d", s.Guest, s.Arg>>16, s.Arg&0xFFFF)
	case SignalHost:
		return fmt.Sprintf("signal guest%d>host %d", s.Guest, s.Arg)
	case FireTimer:
		return fmt.Sprintf("timer %d", s.Arg)
	case Advance:
		return "advance"
	case Settle:
		return "run"
	case App:
		return s.appText()
	case Fault, Hostile:
		return s.badText()
	}
	return fmt.Sprintf("step(%d)", s.Kind)
}

func (s Step) appText() string {
	op := appNames[s.Op]
	who := "host"
	switch {
	case s.Actor != 0:
		who = endName(s.Actor)
	case s.Guest != 0 && s.Op != opHostDial:
		who = fmt.Sprintf("guest%d", s.Guest)
	}
	text := "app " + who + " " + op
	if s.Op == opHostDial {
		text += fmt.Sprintf(" guest%d", s.Guest)
	}
	if opsWithArg[s.Op] {
		text += " " + strconv.FormatUint(s.Arg, 10)
	}
	return text
}

func (s Step) badText() string {
	names, verb := faultNames[:], "fault"
	if s.Kind == Hostile {
		names, verb = hostileNames[:], "hostile"
	}
	text := verb + " " + names[s.Op]
	if s.Guest != 0 {
		text += fmt.Sprintf(" guest%d", s.Guest)
	}
	if s.Arg != 0 {
		text += " " + strconv.FormatUint(s.Arg, 10)
	}
	return text
}

// endName names an end of a connection: c3.client dialed, c3.server accepted.
func endName(actor uint32) string {
	return fmt.Sprintf("c%d.%s", actor/2, [...]string{"client", "server"}[actor%2])
}

// A StepError is a text that is no step.
type StepError struct{ Text, Reason string }

func (e *StepError) Error() string { return fmt.Sprintf("world: step %q: %s", e.Text, e.Reason) }

// ParseStep is the inverse of Step.String. The error is a *StepError.
func ParseStep(text string) (Step, error) {
	f := strings.Fields(text)
	fail := func(reason string) (Step, error) { return Step{}, &StepError{text, reason} }
	if len(f) == 0 {
		return fail("it is empty")
	}
	switch f[0] {
	case "advance":
		return Step{Kind: Advance}, nil
	case "run":
		return Step{Kind: Settle}, nil
	case "timer":
		if n, ok := number(f, 1); ok && len(f) == 2 {
			return Step{Kind: FireTimer, Arg: n}, nil
		}
		return fail("want: timer NUMBER")
	case "signal", "lost":
		return parseSignal(text, f)
	case "app":
		return parseApp(text, f[1:])
	case "fault", "hostile":
		return parseBad(text, f)
	}
	if len(f) < 2 {
		return fail("no such step")
	}
	name, kind := f[0], GuestStep
	if rest, ok := strings.CutPrefix(name, "host/"); ok {
		name, kind = rest, HostStep
	}
	guest, ok := guestNumber(name)
	if !ok {
		return fail("it begins with no kind of step and no guest")
	}
	if kind == GuestStep && len(f) == 3 && f[1] == "post" && f[2] == "refused" {
		return Step{Kind: RefusedPost, Guest: guest}, nil
	}
	for op, n := range liveNames {
		if len(f) == 2 && n == f[1] {
			return Step{Kind: kind, Guest: guest, Op: uint8(op)}, nil
		}
	}
	return fail("an end of a bus can action, post, call or receive")
}

func parseSignal(text string, f []string) (Step, error) {
	fail := &StepError{text, "want: signal host>guestN VP:FLAG, or: signal guestN>host NUMBER"}
	if len(f) != 3 {
		return Step{}, fail
	}
	if name, ok := strings.CutPrefix(f[1], "host>"); ok {
		guest, ok := guestNumber(name)
		vpText, flagText, colon := strings.Cut(f[2], ":")
		vp, err1 := strconv.ParseUint(vpText, 10, 32)
		flag, err2 := strconv.ParseUint(flagText, 10, 16)
		if !ok || !colon || cmp.Or(err1, err2) != nil {
			return Step{}, fail
		}
		kind := SignalGuest
		if f[0] == "lost" {
			kind = LostSignal
		}
		return Step{Kind: kind, Guest: guest, Arg: vp<<16 | flag}, nil
	}
	name, ok := strings.CutSuffix(f[1], ">host")
	guest, ok2 := guestNumber(name)
	n, ok3 := number(f, 2)
	if !ok || !ok2 || !ok3 || f[0] == "lost" {
		return Step{}, fail
	}
	return Step{Kind: SignalHost, Guest: guest, Arg: n}, nil
}

func parseApp(text string, f []string) (s Step, err error) {
	fail := func(reason string) (Step, error) { return Step{}, &StepError{text, reason} }
	if len(f) < 2 {
		return fail("want: app WHO WHAT")
	}
	s = Step{Kind: App}
	if s.Actor, s.Guest, err = parseWho(f[0]); err != nil {
		return fail(err.Error())
	}
	at := slices.Index(appNames[:], f[1])
	if at <= 0 {
		return fail("no such call")
	}
	s.Op = uint8(at)
	f = f[2:]
	if s.Op == opDial && f0Host(s) { // the host says whom
		s.Op = opHostDial
		guest, ok := guestNumber(strings.Join(f[:min(len(f), 1)], ""))
		if !ok {
			return fail("want: app host dial guestN")
		}
		s.Guest, f = guest, f[1:]
	}
	if opsWithArg[s.Op] {
		n, ok := number(f, 0)
		if !ok {
			return fail("a number is missing")
		}
		s.Arg, f = n, f[1:]
	}
	if len(f) > 0 {
		return fail("too many words")
	}
	return s, nil
}

func f0Host(s Step) bool { return s.Actor == 0 && s.Guest == 0 }

func parseWho(who string) (actor uint32, guest uint8, err error) {
	if who == "host" {
		return 0, 0, nil
	}
	if g, ok := guestNumber(who); ok {
		return 0, g, nil
	}
	var pair uint32
	var end string
	if n, _ := fmt.Sscanf(who, "c%d.%s", &pair, &end); n == 2 && pair > 0 && pair < 1<<30 {
		switch end {
		case "client":
			return 2 * pair, 0, nil
		case "server":
			return 2*pair + 1, 0, nil
		}
	}
	return 0, 0, fmt.Errorf("%q is neither host, guestN, cN.client nor cN.server", who)
}

func parseBad(text string, f []string) (Step, error) {
	names, kind := faultNames[:], Fault
	if f[0] == "hostile" {
		names, kind = hostileNames[:], Hostile
	}
	fail := func(reason string) (Step, error) { return Step{}, &StepError{text, reason} }
	if len(f) < 2 {
		return fail("want: " + f[0] + " WHAT")
	}
	at := slices.Index(names, f[1])
	if at <= 0 {
		return fail("no such " + f[0])
	}
	s := Step{Kind: kind, Op: uint8(at)}
	f = f[2:]
	if len(f) > 0 {
		if g, ok := guestNumber(f[0]); ok {
			s.Guest, f = g, f[1:]
		}
	}
	if len(f) > 0 {
		n, ok := number(f, 0)
		if !ok {
			return fail("want a number at the end")
		}
		s.Arg, f = n, f[1:]
	}
	if len(f) > 0 {
		return fail("too many words")
	}
	return s, nil
}

// guestNumber reads "guest3".
func guestNumber(text string) (uint8, bool) {
	rest, ok := strings.CutPrefix(text, "guest")
	n, err := strconv.ParseUint(rest, 10, 8)
	return uint8(n), ok && err == nil && n > 0
}

func number(f []string, at int) (uint64, bool) {
	if at >= len(f) {
		return 0, false
	}
	n, err := strconv.ParseUint(f[at], 10, 64)
	return n, err == nil
}
