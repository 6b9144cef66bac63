package world

import (
	"fmt"
	"io"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/vmbus"
)

// A Level says how much is checked after each step.
type Level uint8

// The levels.
const (
	CheckAll   Level = iota // every safety invariant
	CheckCheap              // what costs no look at messages or rings
	CheckNone               // nothing but what the applications see of their streams
)

// Options describe a World. The zero value is one guest of the newest version and
// 1000 steps.
type Options struct {
	Seed   uint64 // of identities, stream contents and, unless Chooser is set, of the choices; 0 is a seed like any other
	Steps  int    // in the first phase, before everything comes to rest; 0 means 1000
	Guests int    // 0 means 1
	// Version is every guest's; 0 means that the seed decides for each.
	Version vmbus.Version
	// RingPages is the size of each ring, control page included; 0 means that
	// the seed decides for each guest.
	RingPages int
	Legal     bool // rescinds, resets, crashes, refused posts: everything stays live and lossless
	Hostile   bool // guest 1 and its host end break the rules: safe, bounded, isolated
	// NoDevices leaves the sockets alone: Shrink leaves out what a finding does not need.
	NoDevices bool
	roomy     bool // listeners have room for everybody
	injected  int  // the step of Script, from 1, that Inject has put in; 0 if none
	Checks    Level
	// Script is the first phase, instead of choices: its steps are done in order,
	// those left out that are not possible when their turn comes.
	Script  []Step
	Chooser Chooser   // nil: Random for odd seeds, Priorities for even ones
	Trace   io.Writer // gets every step with its consequences; nil is off
}

// Limits of Options.
const (
	MaxGuests    = 16
	MaxSteps     = 100_000_000
	defaultSteps = 1000
)

// An OptionError says what is wrong with an option.
type OptionError struct{ Option, Reason string }

func (e *OptionError) Error() string { return fmt.Sprintf("world: %s: %s", e.Option, e.Reason) }

// check fills in defaults.
func (o *Options) check() error {
	if o.Steps == 0 {
		o.Steps = defaultSteps
	}
	if o.Guests == 0 {
		o.Guests = 1
	}
	switch {
	case o.Steps < 0 || o.Steps > MaxSteps:
		return &OptionError{"steps", fmt.Sprintf("%d is not from 1 to %d", o.Steps, MaxSteps)}
	case o.Guests < 0 || o.Guests > MaxGuests:
		return &OptionError{"guests", fmt.Sprintf("%d is not from 1 to %d", o.Guests, MaxGuests)}
	case o.Version != 0 && !o.Version.Known():
		return &OptionError{"version", fmt.Sprintf("VMBus version %v does not exist", o.Version)}
	case o.RingPages != 0 && (o.RingPages < channel.MinRingPages || o.RingPages > channel.MaxRingPages):
		return &OptionError{"ring pages", fmt.Sprintf("%d is not from %d to %d", o.RingPages, channel.MinRingPages, channel.MaxRingPages)}
	case o.Legal && o.Hostile:
		return &OptionError{"faults", "legal and hostile ones never mix: what must stay live cannot be judged beside an attacker"}
	}
	return nil
}
