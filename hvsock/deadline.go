package hvsock

import (
	"time"

	"github.com/hvlab/hvlab/endpoint/live"
)

// A deadline is an absolute time after which calls fail, until it is set anew.
// Whoever embeds it guards it with a lock, and makes its timer when set asks for
// one; the timer's function takes the lock and calls check. The zero deadline
// never expires.
type deadline struct {
	clock   live.Clock
	at      time.Time
	timer   live.Timer // made once, then reused
	expired bool
}

// set replaces the deadline and reports whether it has passed already. The zero
// time means none. If wait is not 0, the owner has to make the timer, to fire
// after wait. (A function passed here to do so would be allocated each time.)
func (d *deadline) set(t time.Time) (expired bool, wait time.Duration) {
	d.stop()
	d.at, d.expired = t, false
	if t.IsZero() {
		return false, 0
	}
	left := t.Sub(d.clock.Now())
	switch {
	case left <= 0:
		d.expired = true
		return true, 0
	case d.timer == nil:
		return false, left
	}
	d.timer.Reset(left)
	return false, 0
}

// check is called when the timer fires, and reports whether the deadline has
// passed. A timer that was stopped or set anew too late fires all the same, and
// wall clocks are set back, so the time decides, not the timer.
func (d *deadline) check() (expired bool) {
	if d.at.IsZero() || d.expired {
		return false
	}
	if left := d.at.Sub(d.clock.Now()); left > 0 {
		d.timer.Reset(left)
		return false
	}
	d.expired = true
	return true
}

// stop stops the timer; an expired deadline stays expired.
func (d *deadline) stop() {
	d.at = time.Time{}
	if d.timer != nil {
		d.timer.Stop()
	}
}
