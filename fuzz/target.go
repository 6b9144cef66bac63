package fuzz

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// A Target is one fuzz target: what its bytes are, and what must hold for any of
// them.
type Target struct {
	Name     string // its Go test is FuzzName
	Input    string // what the bytes mean
	Property string // what holds whatever they are, besides that nothing panics
	// Run feeds data to the code under test. It returns nil, or a *Violation;
	// a panic is a finding too. It keeps nothing of data, leaves no goroutine
	// behind, and may be called any number of times.
	Run func(data []byte) error
	// Seeds returns inputs worth starting from. vectors is the module's
	// testdata folder; nil leaves out what is made from it.
	Seeds func(vectors fs.FS) ([][]byte, error)
}

// Targets lists the targets in the order in which a campaign with little time
// should run them: what a peer reaches first comes first.
func Targets() []Target {
	return []Target{
		{"HostMessages", "a version, then steps: guest messages as bytes or by kind, the devices' answers, the host's own wishes",
			"no answer without a question and none twice, ids in range and never doubled, silence while paused, limits kept, save and restore change nothing, a reset always ends and leaves nothing",
			HostMessages, hostMessageSeeds},
		{"GuestMessages", "a version, then steps: host messages as bytes or by kind, the drivers' wishes",
			"pages are free only when the host has let go of them, a release comes last and once, nothing is asked twice, each open ends, limits kept, save and restore change nothing",
			GuestMessages, guestMessageSeeds},
		{"World", "guests, faults, version, then the choices of the deterministic world's scheduler",
			"all invariants of faults.md 3 that a world checks; a finding comes with a scenario file",
			World, worldSeeds},
		{"RingReader", "control words and data of a ring",
			"ends, stays within what was available, moves its own index alone and by the packets' totals, is dead for good after corruption; scattered and contiguous pages and the fast path agree",
			RingReader, ringReaderSeeds},
		{"RingWriter", "steps of a writer, of an honest reader, and of a peer that overwrites control words",
			"only whole packets are published; while the peer is honest what is read is what was written, free + used + 8 is the ring, and signals are the least there must be",
			RingWriter, ringWriterSeeds},
		{"PipeBytes", "a byte pipe's ring memory, the size of the reads",
			"ends, no more bytes than the ring holds, the stream depends neither on the size of the reads nor on a save nor on the way it is read, the end is final",
			PipeBytes, pipeSeeds},
		{"PipeMessages", "a message pipe's ring memory",
			"each message is as the packet says, none is cut short, the end is final",
			PipeMessages, pipeSeeds},
		{"PipeStream", "writes, reads, waits and the end of an honest byte pipe",
			"what is read is what was written, in order; a FIN always fits and comes last; a writer that was told to sleep is signalled",
			PipeStream, pipeStreamSeeds},
		{"HostSockets", "a version, then steps: a guest's messages and rings, the host's applications, time",
			"a stream is a prefix of what was written while the peer is honest, the end comes last and stays, each dial ends once, after a reset and the timeouts nothing is left",
			HostSockets, hostSocketSeeds},
		{"GuestSockets", "a version, then steps: a host's messages and rings, the guest's applications, time",
			"as for HostSockets; what the guest posts exists in its version and can be accepted, and it always gets rid of its host",
			GuestSockets, guestSocketSeeds},
		{"Profiles", "a version, then steps: dials, bytes each way, the end of the host's half, time",
			"guests of every profile get the same connections, bytes and ends, and say the same on the bus",
			Profiles, profileSeeds},
		{"Drivers", "a version, then guest messages as bytes or by kind",
			"a host with a goroutine and one that is stepped by hand say the same, in the same order, and hold the same in the end",
			Drivers, driverSeeds},
		{"GuestMessage", "a version, features, one message of a guest",
			"parsing and encoding are inverse, at any alignment; what is refused is the peer's fault",
			GuestMessage, guestMessageFormSeeds},
		{"HostMessage", "a version, features, one message of a host",
			"as for GuestMessage",
			HostMessage, hostMessageFormSeeds},
		{"GPADLs", "range words and the places where they are cut into messages",
			"the cuts do not matter, the ranges are those of a reference in exact arithmetic, parsing and encoding are inverse, nothing is left after the teardown",
			GPADLs, gpadlSeeds},
		{"Ranges", "the extension of a GPA-direct or transfer-page packet",
			"as the reference in exact arithmetic says; parsing and encoding are inverse; parts of a list add up to the list",
			Ranges, rangeSeeds},
		{"Slots", "a message page, an event page, a message, a flag",
			"each side changes exactly the bytes that the protocol says, and reads a message once",
			Slots, slotSeeds},
		{"Hypercalls", "a hypercall and the memory it points to",
			"the host is called only for what was asked in the right form, and once; input is only read",
			Hypercalls, hypercallSeeds},
		{"SavedState", "the contents of a saved host and guest behind a digest that fits",
			"what is accepted saves as the same bytes, works, and can be reset",
			SavedState, savedSeeds},
		{"Addresses", "an address as text",
			"what is accepted survives its text and both binary forms",
			Addresses, addressSeeds},
		{"Sockaddrs", "SOCKADDR_HV or sockaddr_vm",
			"parsing and encoding are inverse where a field has a meaning; services that are ports are exactly those of the template",
			Sockaddrs, sockaddrSeeds},
	}
}

// A Violation is a finding: a property that did not hold.
type Violation struct {
	Property string // the invariant's id, as in I-PREFIX, or a word of ours
	Detail   string
	Trace    string // what happened before, one thing per line; "" if the input says it all
}

func (v *Violation) Error() string {
	text := "fuzz: " + v.Property + ": " + v.Detail
	if v.Trace != "" {
		text += "\n" + v.Trace
	}
	return text
}

// violated returns a *Violation.
func violated(property, format string, args ...any) error {
	return &Violation{Property: property, Detail: fmt.Sprintf(format, args...)}
}

// traced runs once more what ended in a violation, with a trace.
func traced(fault error, again func(trace *strings.Builder) error) error {
	if fault == nil {
		return nil
	}
	var trace strings.Builder
	var v *Violation
	if err := again(&trace); errors.As(err, &v) {
		v.Trace = trace.String()
		return v
	}
	return fault // it does not happen every time: a finding of its own
}
