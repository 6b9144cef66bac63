package hvsock

import "time"

// A deadline is an absolute time after which calls fail, until it is set anew.
// Whoever embeds it guards it with a lock, and passes set a function that takes
// the lock and calls check. The zero deadline never expires.
type deadline struct {
	at      time.Time
	timer   *time.Timer // made by the first set that needs one, then reused
	expired bool
}

// set replaces the deadline and reports whether it has passed already. The zero
// time means none. fire is always the same function.
func (d *deadline) set(t time.Time, fire func()) (expired bool) {
	d.at, d.expired = t, false
	if t.IsZero() {
		d.stop()
		return false
	}
	left := time.Until(t)
	if left <= 0 {
		d.stop()
		d.expired = true
		return true
	}
	if d.timer == nil {
		d.timer = time.AfterFunc(left, fire)
	} else {
		d.timer.Reset(left)
	}
	return false
}

// check is called when the timer fires, and reports whether the deadline has
// passed. A timer that was stopped or set anew too late fires all the same, and
// wall clocks are set back, so the time decides, not the timer.
func (d *deadline) check() (expired bool) {
	if d.at.IsZero() || d.expired {
		return false
	}
	if left := time.Until(d.at); left > 0 {
		d.timer.Reset(left)
		return false
	}
	d.expired = true
	return true
}

// stop forgets the deadline's timer, not whether it has expired.
func (d *deadline) stop() {
	d.at = time.Time{}
	if d.timer != nil {
		d.timer.Stop()
	}
}
