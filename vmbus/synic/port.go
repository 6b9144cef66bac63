package synic

// A Port is the host's way to one guest. *Partition implements it; fault
// injectors and the deterministic world wrap one.
//
// All methods may be called from any goroutine and from inside every callback.
// Callbacks run on the goroutine that caused them, without any lock held, and
// several may run at once.
type Port interface {
	// Post writes a VMBus message of at most MaxPayloadBytes bytes into the
	// slot of a target and raises its interrupt. payload is copied. The error
	// is a *BusyError, which matches ErrSlotBusy, if the message cannot be
	// delivered now: nothing was written, and SlotFree's callback will run
	// when it may be tried again. It matches ErrState if an argument is out
	// of range.
	Post(to Target, payload []byte) error

	// VPs is the number of the guest's virtual processors.
	VPs() uint32

	// Signal sets an event flag and raises the interrupt if it was clear. The
	// error is a *LostError, which matches ErrSignalLost, if the guest does
	// not listen; it matches ErrState if an argument is out of range.
	Signal(to Target, flag uint16) error

	// BindMessages hands messages that the guest posts on id to fn, whose
	// result is the guest's. payload is valid only during the call. The error
	// matches ErrState if id is taken or out of range.
	BindMessages(id ConnectionID, fn func(payload []byte) Status) error

	// BindEvents hands events that the guest signals on id to fn. The error
	// matches ErrState if id is taken or out of range.
	BindEvents(id ConnectionID, fn func(flag uint16)) error

	// Unbind undoes either. After it has returned, no call of fn is running or
	// will start. There is one exception: called from inside a callback of any
	// port, it does not wait for running calls, because two callbacks that
	// unbind each other's ports would wait for ever. An id that is not bound
	// is ignored.
	//
	// Do not hold a lock that fn takes.
	Unbind(id ConnectionID)

	// SlotFree sets the function to call when a message that Post refused may
	// be delivered at last. It may be called without need, so only Post's
	// result counts. A later call replaces fn; nil removes it.
	SlotFree(fn func(Target))
}

// A GuestPort is a guest's way to its hypervisor: synthetic MSRs, the two
// hypercalls, and interrupts. All methods may be called from any goroutine and
// from inside every callback.
type GuestPort interface {
	// WriteMSR writes a synthetic MSR of a virtual processor. The error matches
	// ErrProtocol if the guest may not do so, ErrState if there is no such vp.
	WriteMSR(vp uint32, msr uint32, v uint64) error

	// ReadMSR reads a synthetic MSR of a virtual processor, with the errors of
	// WriteMSR.
	ReadMSR(vp, msr uint32) (uint64, error)

	// PostMessage is HvCallPostMessage with its input block: a head of 16 bytes
	// and the payload, as AppendPostMessage makes it. Bytes after the payload
	// are ignored. The caller must not change input during the call.
	PostMessage(input []byte) Status

	// SignalEvent is HvCallSignalEvent in its fast form: the connection id in
	// bits 0 to 31 of param, the flag number in bits 32 to 47.
	SignalEvent(param uint64) Status

	// SetInterrupt sets the function to call when an interrupt is raised on a
	// virtual processor. It runs on the goroutine of the host that caused it.
	// A later call replaces fn; nil removes it.
	SetInterrupt(fn func(vp uint32, vector uint8))
}

var (
	_ Port      = (*Partition)(nil)
	_ GuestPort = (*Partition)(nil)
)
