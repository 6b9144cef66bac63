package script

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/endpoint/invariant"
	"github.com/hvlab/hvlab/vmbus"
)

// A Fault is something legal that may happen to an end of a bus at any moment.
type Fault string

// The faults that Inject knows.
const (
	Rescind Fault = "rescind" // the host withdraws its newest offer
	Reset   Fault = "reset"   // the machine is reset: the guest is gone, the host is told, the guest boots again
	Unload  Fault = "unload"  // the guest ends the connection
	Crash   Fault = "crash"   // the guest is gone, nobody is told, another one boots
	Save    Fault = "save"    // both cores are saved and restored: the trace stays the same
	Memory  Fault = "memory"  // the host has no memory for the next thing it is asked for
	Refuse  Fault = "refuse"  // the hypervisor refuses the guest's next message for good
)

// Faults lists them.
func Faults() []Fault { return []Fault{Rescind, Reset, Unload, Crash, Save, Memory, Refuse} }

// An Injected is a scenario that ran with one fault.
type Injected struct {
	Points int    // before so many steps a fault could be put
	Done   bool   // every fault was possible where it was put
	Trace  string // of the whole run
	// Err is the promise that was broken, an *invariant.Violation; nil if none.
	Err error
}

// A Put is a fault before the step Before, counted from 0: a directive, or a step of
// World.Step.
type Put struct {
	Fault  Fault
	Before int
}

// Inject runs the scenario with faults in it. The directives after the first one are
// carried out as far as they still mean something. At the end everything comes to
// rest, the guest connects, unloads, and the machine is reset: then nothing may be
// left. The error is a *Mistake of the file.
func (f *File) Inject(puts ...Put) (r Injected, err error) {
	i := &injector{puts: puts, result: &r}
	defer func() {
		if p := recover(); p != nil {
			r.Err = violation("I-NO-PANIC", "panic: %v", p)
		}
	}()
	runner := NewRunner()
	runner.Prepare = func(w *World) { w.BeforeStep = i.before }
	for _, b := range f.Blocks {
		if b.Name == "world" {
			i.end(runner.World)
		}
		if i.before(runner.World); r.Err != nil {
			return r, nil
		}
		trace, err := runner.Do(b.Directive)
		r.Trace += trace
		if stop, err := i.judge(runner.World, b, trace, err); stop || err != nil {
			return r, err
		}
	}
	i.end(runner.World)
	return r, nil
}

// An injector puts faults into a run.
type injector struct {
	puts   []Put
	done   int // of them
	result *Injected
	world  *World // where the last fault was
	boots  bool   // a new guest connects as soon as the host is quiet
	ending bool   // the scenario is over
}

func violation(rule, format string, args ...any) error {
	return &invariant.Violation{Rule: rule, Reason: fmt.Sprintf(format, args...)}
}

// judge looks at what came of a directive, and reports whether the run is over.
func (i *injector) judge(w *World, b Block, trace string, err error) (stop bool, mistake error) {
	r := i.result
	var broken *invariant.Violation
	switch {
	case r.Err != nil: // a fault of the injection itself
	case errors.As(err, &broken):
		r.Err = err
	case err != nil && i.world == nil:
		return true, err
	case err != nil: // what it needs is gone; or the world does not rest
		i.rest(w)
	case i.onlySaved() && trace != b.Expected:
		r.Err = violation("I-SAVE-ID", "after %q the restored cores did something else:\n%s", b.Directive, trace)
	}
	return r.Err != nil, nil
}

// onlySaved reports whether the run must be what the file expects: its cores were
// restored, and nothing else was done to them.
func (i *injector) onlySaved() bool {
	return i.world != nil && !slices.ContainsFunc(i.puts, func(p Put) bool { return p.Fault != Save })
}

// happened notes that a fault was done.
func (i *injector) happened(w *World) {
	i.world = w
	i.done++
	i.result.Done = i.done == len(i.puts)
}

// before is called before each step.
func (i *injector) before(w *World) {
	for _, p := range i.puts {
		if i.result.Points == p.Before && !i.ending && i.inject(w, p.Fault) {
			i.happened(w)
		}
	}
	i.result.Points++
	if i.boots && w == i.world && w.quiet() {
		i.boots = false
		_ = w.Guest.Connect() // a fresh core can
	}
}

// quiet reports whether the host is done with what the old guest has said.
func (w *World) quiet() bool {
	_, says := w.Host.NextMessage()
	return !says && len(w.toHost)+len(w.toGuest)+len(w.asked) == 0 && !w.Host.ActionPending()
}

// inject does a fault, if that is possible.
func (i *injector) inject(w *World, f Fault) bool {
	switch f {
	case Rescind:
		return i.rescind(w)
	case Unload:
		if w.Raw {
			w.arrive(endpoint.Source{Port: 1, Trusted: w.Trusted}, vmbus.Append(nil, &vmbus.Unload{}))
			return true
		}
		return w.Guest.Unload() == nil
	case Reset:
		w.toHost = nil
		w.Host.Reset()
		i.reboot(w)
		return true
	case Crash:
		if w.Raw || w.Guest.State() == endpoint.GuestDisconnected {
			return false
		}
		i.reboot(w)
		return true
	case Save:
		return i.save(w)
	case Memory:
		w.starved = func() { i.happened(w) } // if there is such a request
	case Refuse:
		return i.refuse(w)
	}
	return false
}

// refuse makes the hypervisor refuse the message that the guest is about to post.
func (i *injector) refuse(w *World) bool {
	if _, ok := w.Guest.NextMessage(); !ok {
		return false
	}
	w.log("the hypervisor refuses the post for good")
	w.Guest.PostFailed(errRefusedPost)
	return true
}

func (i *injector) rescind(w *World) bool {
	if w.Mute {
		known := w.Guest.Channels()
		if len(known) == 0 {
			return false
		}
		newest := known[len(known)-1].Offer.Channel
		w.dropped("guest", w.Guest.Receive(vmbus.Append(nil, &vmbus.RescindChannelOffer{Channel: newest})))
		return true
	}
	offered := w.Host.Published()
	return len(offered) > 0 && w.Host.Revoke(offered[len(offered)-1].ID) == nil
}

// reboot puts a new guest in the place of the old one.
func (i *injector) reboot(w *World) {
	i.boots = !w.Raw && w.Guest.State() != endpoint.GuestDisconnected
	w.toGuest = nil
	w.Busy = false
	w.rules.guest = invariant.NewGuest(w.guestOptions)
	w.guestOptions.Observe = w.rules.guest.Observe
	w.Guest = endpoint.NewGuest(w.guestOptions)
}

// save puts restored cores in the place of both. A core cannot be saved while an
// action waits to be taken.
func (i *injector) save(w *World) (done bool) {
	host, err := w.Host.Save()
	if err == nil {
		done = true
		i.identical(invariant.SaveIdentity(host, func(b []byte) ([]byte, error) {
			if w.Host, err = endpoint.RestoreHost(w.hostOptions, b); err != nil {
				return nil, err
			}
			return w.Host.Save()
		}))
	}
	guest, err := w.Guest.Save()
	if err == nil && i.result.Err == nil {
		done = true
		i.identical(invariant.SaveIdentity(guest, func(b []byte) ([]byte, error) {
			if w.Guest, err = endpoint.RestoreGuest(w.guestOptions, b); err != nil {
				return nil, err
			}
			return w.Guest.Save()
		}))
	}
	return done && !bytes.Equal(host, guest)
}

func (i *injector) identical(err error) {
	if err != nil {
		i.result.Err = err
	}
}

// starve makes the answer to a the refusal of a host that has no memory, once.
func (w *World) starve(a endpoint.Action) bool {
	if w.starved == nil {
		return false
	}
	switch a.(type) {
	case endpoint.SetupConnection, endpoint.OpenDevice, endpoint.AddGPADL, endpoint.RemapMonitors, endpoint.RetargetDevice:
		w.starved()
		w.starved = nil
		return true
	}
	return false
}

// end is the end of the world in which the fault was.
func (i *injector) end(w *World) {
	if i.world != w || i.result.Err != nil {
		return
	}
	i.ending = true
	defer func() { i.ending = false }()
	w.trace.Reset()
	w.Manual, w.Busy, w.Trusted, w.starved = false, false, true, nil
	for _, o := range w.Host.Published() {
		_ = w.Host.StartDevice(o.ID) // most are not stopped
	}
	i.rest(w)
	if gone := w.Guest.State() == endpoint.GuestDisconnected; !w.Raw && !w.Mute && (gone || w.Host.State() == endpoint.HostDisconnected) {
		if !gone { // a scenario may reset the machine and keep the guest
			i.reboot(w)
		}
		_ = w.Guest.Connect() // it is disconnected
		i.rest(w)
	}
	if !w.Raw && !w.Mute && w.Guest.Unload() == nil {
		i.rest(w)
		if s := w.Guest.State(); i.result.Err == nil && s != endpoint.GuestDisconnected {
			i.result.Err = violation("L-RESET", "the unload has not ended: the guest is %v, the host %v", s, w.Host.State())
		}
	}
	if i.result.Err == nil && !w.Mute {
		w.Host.Reset()
		i.rest(w)
		_, ids, gpadls, operations, requests := w.Host.Usage()
		if left := ids + gpadls + operations + requests; i.result.Err == nil && left != 0 {
			i.result.Err = violation("I-NO-LEAK", "after a reset there is: %s", w.usage())
		}
	}
	i.result.Trace += w.Trace()
}

// rest lets everything arrive and be answered.
func (i *injector) rest(w *World) {
	if i.result.Err != nil {
		return
	}
	for {
		if err := w.Run(); err != nil {
			i.result.Err = violation("L-NO-LIVELOCK", "%v", err)
			return
		}
		if w.Manual || !w.AnswerOldest() {
			break
		}
	}
	if err := w.Broken(!w.Manual); err != nil {
		i.result.Err = err
	}
}

// String is the trace and what was broken.
func (r Injected) String() string {
	var b strings.Builder
	b.WriteString(r.Trace)
	if r.Err != nil {
		fmt.Fprintf(&b, "VIOLATED %v\n", r.Err)
	}
	return b.String()
}
