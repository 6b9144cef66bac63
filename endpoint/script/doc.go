// Package script runs scenario files: small texts that drive a host core and a
// guest core through the VMBus control plane and show everything that happens.
// The files under testdata/scenario are the specification's rules, one lesson
// each; "hvlab run FILE" prints one.
//
// A file is a list of blocks: comments, a directive, a line "----", and the trace
// the directive is expected to cause. A blank line ends a block.
//
//	# The guest asks for 6.0 first; this host knows 5.3 at most.
//	world newest=6.0 max=5.3
//	----
//
//	connect
//	----
//	guest>host InitiateContact port=4 version_requested=6.0 ...
//	host>guest VersionResponse
//	...
//
// Parse reads the text, a Runner carries out the directives, and Directives is
// the list of them. A mistake in a file is a *Mistake, which names the line and
// says what to write instead; an error of a core is part of the trace.
//
// Underneath is a World: both cores, the two message queues between them, a
// device that answers the host and a driver that answers the guest. It holds no
// goroutine and no clock, so a scenario gives the same trace every time. Tests
// that are no scenarios use a World directly.
//
// The package is as pure as the cores it drives. The format is that of
// github.com/cockroachdb/datadriven, without its subtests.
package script
