// Package putback puts historical faults back, one at a time, to show that the
// tests which guard against them would notice.
//
// Each row of faults.md, section 1, has a Fault named after it and, where hvlab
// has code that prevents it, one switch in that code:
//
//	if putback.On(putback.RG03) { // what some other implementation once did
//		return true
//	}
//
// In a normal build On is a constant false that the compiler drops, together with
// what the switch guards. In a build with -tags hvlab_putback it compares with the
// fault named by the environment variable HVLAB_PUTBACK, GC-05 for example.
//
// The rows, their tests and the command that runs them all are in
// internal/putback/check. This package imports nothing of hvlab and may be
// imported from everywhere. It is not related to the tag hvlab_mutate of package
// ringbuffer, which makes shared words change between two loads.
package putback
