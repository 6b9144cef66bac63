// Package synic is what a hypervisor carries between a guest and its host: the
// synthetic interrupt controller (SynIC), its messages and event flags, and the
// two hypercalls a guest answers with.
//
//	host                      Partition                     guest
//	Port.Post      --> message slot in a guest page --> interrupt, ReadSlot, FreeSlot, EOM
//	Port.Signal    --> bit in a guest page, 0 to 1  --> interrupt, ScanFlags
//	BindMessages   <-- HvCallPostMessage            <-- GuestPort.PostMessage
//	BindEvents     <-- HvCallSignalEvent            <-- GuestPort.SignalEvent
//
// [Port] is the host's view of one guest, [GuestPort] that guest's view of its
// hypervisor, and a [Partition] is both. The same Partition serves a simulated
// guest, whose goroutines call GuestPort, and an unmodified kernel, whose
// monitor turns exits into WriteMSR, ReadMSR and [Partition.Hypercall] and
// injects what SetInterrupt's callback is given.
//
// # Messages
//
// A virtual processor (VP) has 16 synthetic interrupt sources (SINTs). Each has
// one slot of 256 bytes in the VP's message page; VMBus uses SINT 2. A slot
// holds one message until the guest has freed it, so Post may have to be
// refused with ErrSlotBusy. The queue is the caller's: SlotFree tells when to
// try again.
//
// The slot is the only synchronisation. The host writes the message, then its
// type; the guest copies the message, sets the type to zero, and then looks for
// the "pending" flag that the host sets when it found the slot occupied. Since
// each side writes before it looks, one of the two always notices the other, and
// no message is left behind. Source: vmbus-control.md 9.3 and 9.5.
//
// # Event flags
//
// Each SINT also has 2048 event flags in the VP's event-flag page. Only setting
// a clear flag interrupts the guest (9.4). Signal and SignalEvent are the data
// path: they take no exclusive lock and allocate nothing.
//
// # Hostile guests
//
// A guest owns both pages and may scribble on them at any time, point both
// registers at one page or at no memory, and never end a message. Its messages
// then stay undelivered and its flags get lost; the host notices errors, and
// nothing else. No lock is held while a callback runs, so callbacks may call
// anything here.
package synic
