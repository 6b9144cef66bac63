// Package channel is everything between open and close: the GPADL that shares
// the ring pages, the open and close states of both sides, the ring pair and
// the pipe framing on top of it.
//
// Read in this order: ranges.go (how pages are listed on the wire), gpadl.go
// (the host's half of a GPADL's life), open.go (the host's open states),
// guest.go (the guest's half of both), rings.go (the ring pair in those pages),
// pipe.go (a byte stream in ring packets).
//
// The state machines are pure and know nothing of offers; package endpoint
// composes the two.
//
// Source: vmbus-control.md 4 (GPADL), 5.2 and 5.4 (states), ringbuffer.md 7.
package channel
