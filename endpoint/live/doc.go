// Package live drives the cores of package endpoint with goroutines: one loop
// owns one core. A running [Host] is built from a guest's memory and a
// synic.Port alone, a running [Guest] from its memory and a synic.GuestPort.
//
// Everything that touches a core runs on its loop. Methods that ask the loop to
// do something return at once and may be called from anywhere, callbacks
// included; the answer comes through a callback. Callbacks run on the loop and
// must not block; only Doorbell runs on the signalling goroutine.
//
// The data path does not pass here: a device or driver gets its ring pair when
// the channel opens and a Signal function to ring the other side's doorbell.
//
// A channel may be opened as a reserved one ([RingOptions]), for firmware and crash
// dumps: the host never signals it, and the host's answers about it may be lost, so
// the guest asks again. It would outlive the connection; a Guest has only one, so it
// closes its reserved channels before it unloads. If the host does not let go of one
// within the 100 s of an unload, the guest's pages stay out of use.
//
// A running end can be saved and started again over the same memory or a copy of
// it: [Host.Save] and [RestoreHost], [Guest.Save] and [RestoreGuest]. The state
// holds what is outstanding and which pages the rings are; devices and drivers are
// found anew. [Guest.Freeze] stops a guest, for that or for its own sake.
package live
