package world

import (
	"fmt"
	"strings"
)

// Invariants is the number of invariants there are.
const Invariants = 52

// An Invariant is the number of a property that must always hold, as in the
// table of invariants of the fault specification.
type Invariant int

// The invariants, by number.
const (
	RelidUniq Invariant = iota + 1
	RelidRange
	OfferOnce
	RescindOnce
	NoOpAfterRelease
	OpenResp
	GPADLResp
	GPADLTeardownOnce
	GPADLMem
	GPADLIncomplete
	GPADLPFN
	SubchannelOrder
	ReleaseAfterInflight
	StateLegal
	VersionRules
	Trust
	UnloadOnce
	Pause
	SaveID
	NoStaleAction
	DeterministicIDs
	Prefix
	Free
	Index
	Snapshot
	Len
	CorruptSticky
	SignalMin
	Stream
	HalfClose
	CloseGrace
	FINRoom
	ConnectMatch
	EstablishedWins
	Backlog
	Deadline
	Closed
	NoPanic
	Mem
	NoLeak
	Isolation
	Log
	Race
	ZeroOut
	LiveWriter
	LiveReader
	LiveCalls
	LiveClose
	LiveReset
	LiveReuse
	NoDeadlock
	NoLivelock
)

var invariantNames = [Invariants + 1]string{
	"", "I-RELID-UNIQ", "I-RELID-RANGE", "I-OFFER-ONCE", "I-RESCIND-ONCE", "I-NO-OP-AFTER-RELEASE", "I-OPEN-RESP",
	"I-GPADL-RESP", "I-GPADL-TEARDOWN-ONCE", "I-GPADL-MEM", "I-GPADL-INCOMPLETE", "I-GPADL-PFN", "I-SUBCHANNEL-ORDER",
	"I-RELEASE-AFTER-INFLIGHT", "I-STATE-LEGAL", "I-VERSION", "I-TRUST", "I-UNLOAD", "I-PAUSE", "I-SAVE-ID",
	"I-NO-STALE-ACTION", "I-DETERMINISTIC-IDS",
	"I-PREFIX", "I-FREE", "I-INDEX", "I-SNAPSHOT", "I-LEN", "I-CORRUPT-STICKY", "I-SIGNAL-MIN",
	"I-STREAM", "I-HALF-CLOSE", "I-CLOSE-GRACE", "I-FIN-ROOM", "I-CONNECT-MATCH", "I-ESTABLISHED-WINS", "I-BACKLOG",
	"I-DEADLINE", "I-CLOSED",
	"I-NO-PANIC", "I-MEM", "I-NO-LEAK", "I-ISOLATION", "I-LOG", "I-RACE", "I-ZERO-OUT",
	"L-WRITER", "L-READER", "L-CALLS", "L-CLOSE", "L-RESET", "L-REUSE", "L-NO-DEADLOCK", "L-NO-LIVELOCK",
}

// String is the id of the invariant, such as I-STREAM.
func (i Invariant) String() string {
	if i < 1 || int(i) >= len(invariantNames) {
		return fmt.Sprintf("Invariant(%d)", int(i))
	}
	return invariantNames[i]
}

// A Finding is a violated invariant.
type Finding struct {
	Invariant Invariant
	Step      int    // how many steps had been done
	After     string // the last of them
	Text      string
}

func (f Finding) String() string {
	return fmt.Sprintf("%d %v after step %d (%s): %s", int(f.Invariant), f.Invariant, f.Step, f.After, f.Text)
}

// A Result is what a run found.
type Result struct {
	Options   Options
	Steps     int    // done, in all phases
	Hash      uint64 // of everything that happened
	Findings  []Finding
	Exercised [Invariants + 1]uint64 // how often each invariant was at stake, by number
	Script    []Step                 // what happened in the first phase
	refused   string                 // why what Inject put in was not possible
}

// Same compares r with a second run of the same options, and adds a Finding if that
// was another run.
func (r *Result) Same(again Result) {
	r.Exercised[DeterministicIDs]++
	if r.Hash != again.Hash || r.Steps != again.Steps {
		r.Findings = append(r.Findings, Finding{
			Invariant: DeterministicIDs, Step: r.Steps,
			Text: fmt.Sprintf("run again, %d steps with hash %016x became %d with %016x", r.Steps, r.Hash, again.Steps, again.Hash),
		})
	}
}

// hit says that an invariant was at stake and held.
func (w *World) hit(i Invariant) { w.result.Exercised[i]++ }

// fail says that an invariant is violated. Only the first one counts: what
// follows from it is noise.
func (w *World) fail(i Invariant, format string, args ...any) {
	w.result.Exercised[i]++
	if len(w.result.Findings) > 0 {
		return
	}
	f := Finding{Invariant: i, Step: w.result.Steps, After: w.current.String(), Text: fmt.Sprintf(format, args...)}
	w.result.Findings = append(w.result.Findings, f)
	w.note("VIOLATED %v", f)
}

// failed reports whether the run is over.
func (w *World) failed() bool { return len(w.result.Findings) > 0 }

// note adds a line to the trace, below the step that caused it.
func (w *World) note(format string, args ...any) {
	if w.o.Trace != nil {
		fmt.Fprintf(w.o.Trace, "        "+format+"\n", args...)
	}
}

// heldElsewhere says which invariants no run of a World can put at stake, why, and
// what holds them.
var heldElsewhere = map[Invariant]string{
	Snapshot:      "needs a peer between two loads of one call: ringbuffer, go test -tags hvlab_mutate",
	Race:          "needs the race detector: CI runs all tests with -race",
	Trust:         "needs a trusted path, which no driver has: package fuzz, FuzzHostMessages, and scenarios",
	NoStaleAction: "needs devices that answer late, and the running driver answers at once: package fuzz, FuzzHostMessages, and cycle tests of endpoint",
}

// needs says which kind of run puts an invariant at stake, if not every one does.
var needs = map[Invariant]string{
	SubchannelOrder: "legal", Pause: "legal", SaveID: "legal", CorruptSticky: "hostile", Isolation: "hostile", Log: "hostile",
	LiveClose: "plain or legal",
}

// Needs says why a run of o cannot put i at stake although others do; "" if it can.
func (o Options) Needs(i Invariant) string {
	kind := "plain"
	switch {
	case o.Legal:
		kind = "legal"
	case o.Hostile:
		kind = "hostile"
	}
	if need := needs[i]; need != "" && !strings.Contains(need, kind) {
		return need + " runs do"
	}
	return ""
}

// HeldElsewhere says why a run cannot put i at stake and what holds it instead;
// "" if runs do.
func HeldElsewhere(i Invariant) string { return heldElsewhere[i] }
