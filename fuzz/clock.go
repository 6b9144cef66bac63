package fuzz

import (
	"slices"
	"time"

	"github.com/hvlab/hvlab/endpoint/live"
)

// A clock is virtual time: it stands still until advance.
type clock struct {
	now    time.Time
	timers []*timer // those that will fire, by time, equal ones in the order of their start
}

type timer struct {
	clock *clock
	at    time.Time
	f     func()
}

// newClock starts at a time that is not zero, since deadlines are compared with it.
func newClock() *clock { return &clock{now: time.Unix(1_000_000_000, 0)} }

// Now implements live.Clock.
func (c *clock) Now() time.Time { return c.now }

// AfterFunc implements live.Clock.
func (c *clock) AfterFunc(d time.Duration, f func()) live.Timer {
	t := &timer{clock: c, f: f}
	t.start(d)
	return t
}

func (t *timer) start(d time.Duration) {
	t.at = t.clock.now.Add(max(d, 0))
	at, _ := slices.BinarySearchFunc(t.clock.timers, t, func(a, b *timer) int {
		if a.at.After(b.at) {
			return 1
		}
		return -1 // behind those of the same time
	})
	t.clock.timers = slices.Insert(t.clock.timers, at, t)
}

// Stop implements live.Timer.
func (t *timer) Stop() bool {
	at := slices.Index(t.clock.timers, t)
	if at >= 0 {
		t.clock.timers = slices.Delete(t.clock.timers, at, at+1)
	}
	return at >= 0
}

// Reset implements live.Timer.
func (t *timer) Reset(d time.Duration) bool {
	was := t.Stop()
	t.start(d)
	return was
}

// advance lets d pass, and calls between after each timer.
func (c *clock) advance(d time.Duration, between func()) {
	end := c.now.Add(d)
	for len(c.timers) > 0 && !c.timers[0].at.After(end) {
		t := c.timers[0]
		c.timers = c.timers[1:]
		c.now = t.at
		t.f()
		between()
	}
	c.now = end
}
