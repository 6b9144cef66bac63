// Package conform is the work of `hvlab conform`: it puts every system at hand
// through the suite of hvsock/hvsocktest and sets the answers side by side.
//
// A row is a promise ("kept", or how it is broken) or a question (what this
// system does). A column is a system: the simulator in both roles and in both
// loopbacks, the sockets of this machine's operating system, and what was seen of
// other systems and recorded. The first column is the reference; every answer
// that is another one is a difference, and every difference wants an explanation.
//
// Records are files testdata/observed/conform-*.json: one System each, with its
// explanations. A difference that no record explains fails the command, and the
// test of this package; so does an explanation of what is no difference any more.
//
// Read it in the order of a run: systems.go finds what can be asked, observe.go
// asks, record.go has the files, compare.go judges, and text.go and json.go say so.
package conform
