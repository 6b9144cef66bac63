package world

import (
	"slices"
	"time"

	"github.com/hvlab/hvlab/endpoint/live"
)

// epoch is where virtual time begins. Any time would do.
var epoch = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// A clock is the virtual time of a World and its timers. No timer fires by
// itself: the World runs one that is due as a step.
type clock struct {
	now   time.Duration // since epoch
	armed []*timer      // by time, then by the order in which they were armed
	guest uint8         // whose step is being done, 0 if nobody's alone
}

// An owner is the end that made a timer: what it does when it fires is that end's
// doing. The timers of an end that has crashed never fire.
type owner struct {
	clock *clock
	side  side
	dead  bool
}

// A timer implements live.Timer.
type timer struct {
	owner *owner
	guest uint8 // whose step has made it
	at    time.Duration
	f     func()
	armed bool
}

// Now is part of live.Clock.
func (o *owner) Now() time.Time { return epoch.Add(o.clock.now) }

// AfterFunc is part of live.Clock.
func (o *owner) AfterFunc(d time.Duration, f func()) live.Timer {
	t := &timer{owner: o, f: f, guest: o.clock.guest}
	o.clock.arm(t, d)
	return t
}

// die makes sure that no timer of o fires any more.
func (o *owner) die() {
	o.dead = true
	o.clock.armed = slices.DeleteFunc(o.clock.armed, func(t *timer) bool {
		if t.owner == o {
			t.armed = false
		}
		return t.owner == o
	})
}

// Stop is part of live.Timer.
func (t *timer) Stop() bool { return t.owner.clock.disarm(t) }

// Reset is part of live.Timer.
func (t *timer) Reset(d time.Duration) bool {
	was := t.owner.clock.disarm(t)
	t.owner.clock.arm(t, d)
	return was
}

func (c *clock) arm(t *timer, d time.Duration) {
	if t.owner.dead {
		return
	}
	t.armed = true
	t.at = c.now + max(d, 0)
	if t.at < c.now { // so far away that the sum overflows
		t.at = 1<<63 - 1
	}
	at := len(c.armed)
	for at > 0 && c.armed[at-1].at > t.at {
		at--
	}
	c.armed = slices.Insert(c.armed, at, t)
}

func (c *clock) disarm(t *timer) bool {
	if !t.armed {
		return false
	}
	t.armed = false
	at := slices.Index(c.armed, t)
	c.armed = slices.Delete(c.armed, at, at+1)
	return true
}

// due is the timers whose time has come. They may fire in any order.
func (c *clock) due() []*timer {
	n := 0
	for n < len(c.armed) && c.armed[n].at <= c.now {
		n++
	}
	return c.armed[:n]
}

// next is how far away the next timer is that is not due, or false.
func (c *clock) next() (time.Duration, bool) {
	for _, t := range c.armed {
		if t.at > c.now {
			return t.at - c.now, true
		}
	}
	return 0, false
}

// take disarms the timer that is due as the n-th, counted from 1, and returns it;
// nil if there are not so many.
func (c *clock) take(n uint64) *timer {
	due := c.due()
	if n < 1 || n > uint64(len(due)) {
		return nil
	}
	t := due[n-1]
	c.disarm(t)
	return t
}

// peek is the n-th timer that is due, counted from 1; nil if there is none.
func (c *clock) peek(n uint64) *timer {
	due := c.due()
	if n < 1 || n > uint64(len(due)) {
		return nil
	}
	return due[n-1]
}

// ordinal is the place of the n-th timer that is due among those of its guest.
func (c *clock) ordinal(n uint64) (place uint64) {
	t := c.peek(n)
	for _, o := range c.due() {
		if t != nil && o.guest == t.guest {
			place++
		}
		if o == t {
			break
		}
	}
	return place
}
