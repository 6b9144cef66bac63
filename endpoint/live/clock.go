package live

import "time"

// A Clock tells the time and runs functions later. Hosts, guests and sockets
// take every time from one, so that a world in virtual time can give its own;
// the system's serves everything else, synctest bubbles included.
type Clock interface {
	Now() time.Time
	// AfterFunc runs f after d, unless the Timer is stopped before. f must not
	// block.
	AfterFunc(d time.Duration, f func()) Timer
}

// A Timer is what Clock.AfterFunc returns; its methods are those of time.Timer.
type Timer interface {
	Stop() bool
	Reset(d time.Duration) bool
}

type systemClock struct{}

func (systemClock) Now() time.Time                            { return time.Now() }
func (systemClock) AfterFunc(d time.Duration, f func()) Timer { return time.AfterFunc(d, f) }

// SystemClock is the clock of package time.
func SystemClock() Clock { return systemClock{} }

// orSystem is c, or the system's clock if c is nil.
func orSystem(c Clock) Clock {
	if c == nil {
		return systemClock{}
	}
	return c
}
