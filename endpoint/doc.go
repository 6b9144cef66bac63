// Package endpoint is the two ends of a bus: [Host] and [Guest], the control
// plane as pure state machines.
//
// A core has no goroutine, lock, clock or randomness. Its inputs are method
// calls: a message that arrived, a device's answer, an application's wish. Its
// effects are values that the driver drains: messages in order from
// NextMessage, everything else from Next. The same core therefore runs under
// goroutines (package live), a deterministic scheduler, a fuzzer, or opposite a
// real kernel.
//
// Host composes package offers (who may see a channel id) and package channel
// (what happens between open and close) with what crosses both: negotiation,
// unload, reconnect and Hyper-V socket requests. Guest is its mirror.
//
// A message that is malformed, unknown, of the wrong direction or illegal in
// the current state is dropped: Receive returns an error that says why, and the
// connection lives (vmbus-control.md 3.0).
//
// Diagrams of all state machines, made from the tables, are in states.md; what
// each does in a story is in testdata/scenario.
//
// Source: vmbus-control.md 2 (negotiation), 5 (host), 6 (guest).
package endpoint
