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

// Inject repeats a run with s before the step at, counted from 0. It reports false
// if s was not possible there: the result is then that of the run without it.
func Inject(base Result, at int, s Step) (r Result, done bool, err error) {
	o := base.Options
	o.Legal, o.Trace = true, nil
	o.Script = slices.Insert(slices.Clone(base.Script), min(at, len(base.Script)), s)
	r, err = Run(o)
	done = slices.ContainsFunc(r.Script, func(t Step) bool {
		return t.Kind == s.Kind && t.Op == s.Op && t.Guest == s.Guest
	})
	return r, done, err
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
