package world

// maxRestSteps is the watchdog: what has not come to rest by then never will.
const maxRestSteps = 100_000

// maxTicks is how many timers in a row fire before the rest of a hostile world is
// seen to be a timer that starts itself again.
// Then the clock jumps, a few times, beyond the timeout of an unload.
const (
	maxTicks = 1000
	maxJumps = 12
)

// rest lets everything end: faults have stopped and the schedule is fair, since
// every step that stays possible is chosen at last. First the applications finish,
// then the guests unload, then nothing may be left.
func (w *World) rest() {
	w.resting = true
	w.lastApp = w.clock.now
	w.note("--- faults have stopped; everything comes to rest")
	fair := NewRandom(w.o.Seed ^ 0x72657374)
	if !w.settle(fair) {
		return
	}
	w.checkLiveness()
	if w.failed() {
		return
	}
	w.note("--- everything ends")
	w.ending = true
	if w.record != nil {
		w.record.phase = allEnds
	}
	w.apps.closeListeners()
	for _, m := range w.machines {
		m.end()
	}
	if !w.settle(fair) {
		return
	}
	w.checkNothingLeft()
}

// settle takes steps until there are none.
func (w *World) settle(fair *Random) bool {
	ticks, jumps := 0, 0 // in a row
	for n := 0; ; n++ {
		if w.failed() {
			return false
		}
		w.enabled()
		if len(w.steps) == 0 {
			w.hit(NoLivelock)
			return true
		}
		if n == maxRestSteps {
			w.fail(NoLivelock, "after %d fair steps something still goes on: %v", n, w.steps)
			return false
		}
		if ticks++; w.steps[0].Kind != FireTimer && w.steps[0].Kind != Advance {
			ticks, jumps = 0, 0
		}
		if w.o.Hostile && ticks > maxTicks { // the monitor page of a guest that is mute is looked at for ever
			if jumps++; jumps > maxJumps {
				return true
			}
			w.clock.now += jump
			ticks = 0
		}
		w.do(w.fill(w.steps[fair.Draw(len(w.steps))]))
	}
}

// end ends a guest at the end of everything. The host of an attacked bus gets a
// reset: nothing else is sure to make it let go.
func (m *machine) end() {
	if m.attacked() {
		m.mute = false
		m.host.BeginReset(func() {})
	}
	switch {
	case m.down && m.haunted() && !m.attacked():
		m.reset()
	case m.down:
	case m.attacked() && m.w.attacker() == guestSide:
		m.die("was the attacker")
	default:
		m.closing = true
		m.guest.BeginClose()
	}
}
