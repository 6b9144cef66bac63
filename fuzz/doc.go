// Package fuzz is the fuzz targets of hvlab: what a hostile peer, file or
// program can send, and what must hold whatever it sends.
//
// Each target is a function of bytes, such as HostMessages, that returns an
// error when a property does not hold; it says which one, by the names of
// faults.md, and what happened before. Targets lists them all with their seeds.
// The Go tests FuzzName wrap them for "go test -fuzz", internal/fuzzlong runs
// them one after another for a campaign, and package libfuzzer below builds them
// for libFuzzer, as OSS-Fuzz and ClusterFuzzLite do.
//
// An input is read from the front, and goes on with zeros when it ends (type
// input); numbers are little-endian. The stateful targets drive the real cores
// and rings and keep a small model beside them: what was asked and not answered,
// which pages the peer has, what must come out of a ring.
//
// testdata/faults.txt holds the seeds of the fault catalogue, S01 to S24, one
// line each; they are seeds of their layer's target, and a golden file says what
// becomes of each. testdata/fuzz has the corpora, without inputs that add no
// coverage.
//
// # All targets
//
// Those of this package, in the order of a campaign:
//
//	FuzzHostMessages    a host core against a guest and its devices, stateful
//	FuzzGuestMessages   a guest core against a host and its drivers, stateful
//	FuzzWorld           the deterministic world: the bytes choose what happens next
//	FuzzRingReader      a ring of arbitrary memory: scattered as contiguous, fast path as slow path
//	FuzzRingWriter      a writer, an honest reader, and a peer that overwrites control words
//	FuzzPipeBytes       a byte pipe's memory, read in four ways that must agree
//	FuzzPipeMessages    a message pipe's memory against a reference
//	FuzzPipeStream      both ends of an honest pipe: nothing lost, no wake-up lost, room for the FIN
//	FuzzHostSockets     a host's sockets in virtual time against a guest: messages, rings, timeouts
//	FuzzGuestSockets    a guest's sockets in virtual time against a host: messages, rings, timeouts
//	FuzzProfiles        guests of every profile in the same conversation must fare the same
//	FuzzDrivers         a host's goroutine and a host stepped by hand must say the same
//	FuzzGuestMessage    one message of a guest: encode of parse, parse of encode, at any alignment
//	FuzzHostMessage     one message of a host
//	FuzzGPADLs          range buffers in one piece and in many, against exact arithmetic
//	FuzzRanges          descriptors with ranges, against exact arithmetic
//	FuzzSlots           message slots and event flags, both halves
//	FuzzHypercalls      any hypercall over any memory
//	FuzzSavedState      saved hosts and guests with a digest that fits
//	FuzzAddresses       addresses as text
//	FuzzSockaddrs       addresses as bytes, service ids
//
// Beside their packages, since they need what is not exported:
//
//	sim/bridge                    FuzzHandshake      the hybrid-vsock line: at most 45 bytes are read, nothing is lost
//	sim/kvmguest                  FuzzParseKernel    kernel images: what is accepted can be loaded, the entry lies inside
//	endpoint/live                 FuzzRestore        a saved running end: what is accepted works
//	sim                           FuzzRestoreGuest   a guest saved as bytes: what is accepted works
//	internal/snapshot             FuzzOpen           the frame of saved states: one encoding of a value
//	hvsock/registry               FuzzLoad           .reg files of registered services
//	endpoint/script               FuzzScenarioFile   scenario files
//	cmd/hvlab/internal/decode     FuzzDecode         the decode command
//	cmd/hvlab/internal/decode     FuzzBytes          its reader of hexadecimal text
package fuzz
