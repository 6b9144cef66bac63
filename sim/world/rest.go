package world

// maxRestSteps is the watchdog: what has not come to rest by then never will.
const maxRestSteps = 200_000

// rest lets everything end: faults have stopped and the schedule is fair, since
// every step that stays possible is chosen at last. First the applications finish,
// then the guests unload, then nothing may be left.
func (w *World) rest() {
	w.resting = true
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
	w.apps.closeListeners()
	for _, m := range w.machines {
		if !m.down {
			m.closing = true
			m.guest.BeginClose()
		}
	}
	if !w.settle(fair) {
		return
	}
	w.checkNothingLeft()
}

// settle takes steps until there are none.
func (w *World) settle(fair *Random) bool {
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
		w.do(w.fill(w.steps[fair.Draw(len(w.steps))]))
	}
}
