package world

import "slices"

// Injections are what Inject puts into a run: everything that may happen to an end
// at any moment. The channel to rescind is the newest.
func Injections(guest uint8) []Step {
	return []Step{
		{Kind: Fault, Op: faultRescind, Guest: guest},
		{Kind: Fault, Op: faultReset, Guest: guest},
		{Kind: App, Op: opUnload, Guest: guest},
		{Kind: Fault, Op: faultCrash, Guest: guest},
		{Kind: App, Op: opSave, Guest: guest},
		{Kind: Fault, Op: faultMemory, Guest: guest},
		{Kind: Fault, Op: faultSuspend, Guest: guest},
	}
}

// Name is what s does, without to whom.
func (s Step) Name() string {
	switch s.Kind {
	case Fault:
		return faultNames[s.Op]
	case Hostile:
		return hostileNames[s.Op]
	case App:
		return appNames[s.Op]
	}
	return s.String()
}

// Inject repeats a run with s before the step at, counted from 0. why is empty if
// that was done; otherwise it says why s was not possible there, and the result is
// that of the run without it.
func Inject(base Result, at int, s Step) (r Result, why string, err error) {
	o := base.Options
	at = min(at, len(base.Script))
	o.Legal, o.Trace, o.injected = true, nil, at+1
	o.Script = slices.Insert(slices.Clone(base.Script), at, s)
	r, err = Run(o)
	why, r.Options.injected = r.refused, 0
	return r, why, err
}

// whyNot says why s, a step that Inject puts in, is not possible now.
func (w *World) whyNot(s Step) string {
	m := w.machine(s.Guest)
	isRescind := s.Kind == Fault && s.Op == faultRescind
	switch {
	case m == nil:
		return "there is no such guest"
	case isRescind && len(m.view.ids) == 0:
		return "nothing is offered"
	case m.down:
		return "the guest is down already"
	case m.frozen:
		return "the guest is suspended already"
	case m.connects:
		return "the guest is not connected yet"
	case m.closing || m.gone:
		return "the guest has unloaded, or its bus has ended"
	case m.pause != running:
		return "the guest's bus is paused"
	}
	return "it is not possible then"
}

// aim gives a rescind without a channel the newest one.
func (w *World) aim(s Step) Step {
	if s.Kind != Fault || s.Op != faultRescind || s.Arg != 0 {
		return s
	}
	if m := w.machine(s.Guest); m != nil && len(m.view.ids) > 0 {
		s.Arg = uint64(m.view.ids[len(m.view.ids)-1])
	}
	return s
}
