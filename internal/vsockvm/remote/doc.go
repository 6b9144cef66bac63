// Package remote lends the sockets of one machine to a program on another: a
// Server in a guest obeys a Client outside of it, over one connection. To the
// program the guest's listeners and connections look like its own, with
// deadlines, half-close and the guest's own error numbers, so that the
// conformance suite, which wants both ends in one program, can have one of them
// in a real kernel.
//
// Every call is one request and one response, and calls run at the same time. The
// two sides are the same program on the same operating system: error numbers
// travel as they are.
package remote
