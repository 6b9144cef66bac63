// Package world runs a host and its guests in one goroutine, in virtual time,
// one step at a time.
//
// Nothing here speaks the protocol: the ends of the bus are those of package
// endpoint/live, the sockets those of package hvsock, the rings those of package
// ringbuffer. Only the driver differs. Where a live machine has goroutines, a
// World has a set of steps that could happen next, in a fixed order:
//
//	guest1 receive              the guest takes the message in its slot
//	host/guest1 post            the host puts its next message into that slot
//	signal host>guest1 0:3      a doorbell that was rung arrives: VP 0, flag 3
//	timer 1                     the first of the timers whose time has come runs
//	advance                     nothing but time passes, up to the next timer
//	app c2.client write 512     an application calls
//	fault rescind guest1 3      something that may always happen, happens
//	hostile guest1 post 0e00..  a peer that breaks the rules
//
// What the guests do is drawn from the seed: sockets both ways, devices that are
// offered early or late, with sub-channels and monitors, some of which their driver
// opens as reserved channels and polls; pauses, unloads and new beginnings.
//
// A [Chooser] picks one of them: by a seed, from a file, from the bytes of a
// fuzzer, or all of them in turn. The same options and the same choices give the
// same trace, byte for byte, on every machine.
//
// After each step the safety invariants are checked, and at the end, when faults
// have stopped and everything has come to rest, the liveness invariants: both are
// listed by [Invariants], numbered and named as in the fault specification. A
// violation ends the run with a [Finding]. [Result.Scenario] is a text that
// replays it, [Shrink] makes that text short.
package world
