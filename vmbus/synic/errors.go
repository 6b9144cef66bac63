package synic

import (
	"errors"
	"fmt"
)

var (
	// ErrSlotBusy says that a message could not be delivered yet. It stays the
	// caller's; SlotFree tells when to post it again.
	ErrSlotBusy = errors.New("synic: message slot busy")
	// ErrSignalLost says that the guest does not listen to a signal. Nothing
	// will bring it back; a real hypervisor drops it silently.
	ErrSignalLost = errors.New("synic: signal lost")
	// ErrProtocol says that the guest broke the rules.
	ErrProtocol = errors.New("synic: protocol violation")
	// ErrState says that the caller misused this package.
	ErrState = errors.New("synic: misuse")
)

// Obstacle is what keeps a message or a signal from the guest. Each but
// SlotOccupied is a setting of the guest's own.
type Obstacle uint8

// The obstacles, in the order in which they are looked for.
const (
	NoObstacle    Obstacle = iota
	SynICDisabled          // SCONTROL bit 0 is clear
	SINTMasked             // the SINT is masked, or a proxy
	PageDisabled           // SIMP or SIEFP bit 0 is clear
	PageAbsent             // SIMP or SIEFP names a page that does not exist
	SlotOccupied           // the guest has not freed the slot
)

func (o Obstacle) String() string {
	switch o {
	case NoObstacle:
		return "nothing"
	case SynICDisabled:
		return "the SynIC is disabled"
	case SINTMasked:
		return "the SINT is masked"
	case PageDisabled:
		return "the page is disabled"
	case PageAbsent:
		return "the page does not exist"
	case SlotOccupied:
		return "the slot is occupied"
	}
	return fmt.Sprintf("Obstacle(%d)", uint8(o))
}

// A BusyError reports a message that was not delivered. It matches ErrSlotBusy
// whatever the obstacle is, because messages wait for all of them.
type BusyError struct {
	Target Target
	Why    Obstacle
}

func (e *BusyError) Error() string { return fmt.Sprintf("synic: post to %v: %v", e.Target, e.Why) }

// Is matches ErrSlotBusy.
func (e *BusyError) Is(target error) bool { return target == ErrSlotBusy }

// A LostError reports a signal that was dropped. It matches ErrSignalLost.
type LostError struct {
	Target Target
	Flag   uint16
	Why    Obstacle
}

func (e *LostError) Error() string {
	return fmt.Sprintf("synic: signal flag %d to %v: %v", e.Flag, e.Target, e.Why)
}

// Is matches ErrSignalLost.
func (e *LostError) Is(target error) bool { return target == ErrSignalLost }

// A RangeError reports an argument out of range. It matches ErrState: what a
// peer chose must be checked before it gets here.
type RangeError struct {
	What         string // "VP", "SINT", "flag", "payload bytes", "connection id"
	Value, Limit int64  // Limit is the first value too large
}

func (e *RangeError) Error() string {
	return fmt.Sprintf("synic: %s %d: must be from 0 to %d", e.What, e.Value, e.Limit-1)
}

// Is matches ErrState.
func (e *RangeError) Is(target error) bool { return target == ErrState }

// A BindError reports a connection id that is bound already, or a binding to no
// function. It matches ErrState.
type BindError struct {
	ID     ConnectionID
	Reason string
}

func (e *BindError) Error() string { return fmt.Sprintf("synic: connection %#x: %s", e.ID, e.Reason) }

// Is matches ErrState.
func (e *BindError) Is(target error) bool { return target == ErrState }

// An MSRError reports an access to a synthetic MSR that the guest must not make.
// A monitor answers with a general protection fault (#GP). It matches
// ErrProtocol.
type MSRError struct {
	VP, MSR uint32
	Write   bool
	Value   uint64 // of a write
	Reason  string
}

func (e *MSRError) Error() string {
	if e.Write {
		return fmt.Sprintf("synic: VP %d writes %#x to MSR %#x: %s", e.VP, e.Value, e.MSR, e.Reason)
	}
	return fmt.Sprintf("synic: VP %d reads MSR %#x: %s", e.VP, e.MSR, e.Reason)
}

// Is matches ErrProtocol.
func (e *MSRError) Is(target error) bool { return target == ErrProtocol }
