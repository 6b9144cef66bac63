package tidy

// A layer is one row of the layer table: a package, the floor it stands on, and
// what it may import beyond the floors below it.
type layer struct {
	floor int
	// beside lists packages of the same floor that this one may import.
	beside []string
	// alone forbids every import from this module except those in beside.
	alone bool
	// modules lists the third-party modules that non-test files may import.
	modules []string
}

const (
	uuidModule = "github.com/google/uuid"
	syncModule = "golang.org/x/sync"
)

// core is what floors 1 to 4 may import besides the standard library; they are
// what other people's programs link.
var core = []string{uuidModule, syncModule}

// layers is the table. A package that is not in it fails the test: give it a
// row, or put it under internal/ when only tests use it. The floors are:
//
//	6  cmd/hvlab
//	5  sim, hvsock/native, fuzz: worlds in which the protocol runs
//	4  hvsock: sockets
//	3  endpoint, endpoint/live, endpoint/script, endpoint/invariant: the two ends of
//	   a bus, their goroutines, their scenarios, their promises
//	2  offers, channel: lifetime of an offer, lifetime of an open channel
//	1  ringbuffer: one ring over pages
//	0  vmbus and its leaves: bytes, pages, the hypervisor's mail, traces
var layers = map[string]layer{
	"cmd/hvlab":     {floor: 6, modules: anyModule},
	"sim":           {floor: 5, modules: core},
	"sim/kvmguest":  {floor: 5, beside: []string{"sim"}, modules: []string{uuidModule, syncModule, "golang.org/x/sys"}},
	"sim/services":  {floor: 5, modules: core},
	"sim/bridge":    {floor: 5, beside: []string{"sim"}, modules: core},
	"sim/world":     {floor: 5, modules: core},
	"hvsock/native": {floor: 5, modules: anyModule},
	"fuzz":          {floor: 5, beside: []string{"sim/world"}, modules: core},

	// Stand-ins for other socket packages, for programs under test. They work on
	// any machine that is given to them; sim is what their own tests give them.
	"hvsock/compat":       {floor: 5, modules: core},
	"hvsock/compat/vsock": {floor: 5, beside: []string{"hvsock/compat", "sim"}, modules: core},
	"hvsock/compat/winio": {floor: 5, beside: []string{"hvsock/compat", "sim"}, modules: []string{uuidModule, syncModule, "github.com/Microsoft/go-winio/pkg/guid"}},

	// The conformance suite is a test helper that other modules import, so it
	// stands beside hvsock and may use test libraries.
	"hvsock/hvsocktest":  {floor: 4, beside: []string{"hvsock"}, modules: anyModule},
	"hvsock":             {floor: 4, beside: []string{"hvsock/registry"}, modules: core},
	"hvsock/registry":    {floor: 4, modules: core},
	"endpoint/live":      {floor: 3, beside: []string{"endpoint"}, modules: core},
	"endpoint/script":    {floor: 3, beside: []string{"endpoint", "endpoint/invariant"}, modules: core},
	"endpoint/invariant": {floor: 3, beside: []string{"endpoint"}, modules: core},
	"endpoint":           {floor: 3, modules: core},
	"offers":             {floor: 2, modules: core},
	"channel":            {floor: 2, modules: core},
	"ringbuffer":         {floor: 1, modules: core},

	// Message slots and event flags are guest pages, shared with a guest that
	// writes to them at any time, so synic needs guestmem's atomic words; a second
	// implementation of those would need a second unsafe.
	"vmbus/synic":    {floor: 0, alone: true, beside: []string{"vmbus/guestmem", "internal/putback"}},
	"vmbus/guestmem": {floor: 0, alone: true},
	"vmbus/trace":    {floor: 0, alone: true},
	"vmbus":          {floor: 0, alone: true, beside: []string{"internal/putback"}, modules: []string{uuidModule}},

	// Transition tables, which the cores of floors 2 to 4 are made of.
	"internal/fsm": {floor: 0, alone: true},

	// The encoding of saved states, of a core, a running end and a machine.
	"internal/snapshot": {floor: 0, alone: true},

	// Switches that are constant false in every normal build.
	"internal/putback": {floor: 0, alone: true},
}

// anyModule marks packages whose imports are their own business: nobody who
// uses a core package gets them.
var anyModule = []string{"*"}

// topFolders is the whole top level, as design.md fixes it; read bottom up it is
// the protocol.
var topFolders = []string{
	"vmbus", "ringbuffer", "offers", "channel", "endpoint", "hvsock", "sim",
	"fuzz", "testdata", "cmd", "internal",
}

// unsafeAllowed names the packages that may import unsafe, with the reason.
var unsafeAllowed = map[string]string{
	"vmbus/guestmem": "atomic access to words of pages that a guest shares",
	"sim/kvmguest":   "arguments of KVM's ioctls, which are not on the data path",
}

// cores are the packages without goroutines, locks, clocks, randomness or logs:
// the same code runs under the live driver, the deterministic scheduler, a fuzzer
// and a real kernel. ringbuffer is the data path and hvsock half driver; they are
// not listed.
var cores = []string{"vmbus", "offers", "channel", "endpoint", "endpoint/script", "endpoint/invariant"}

// impure are the imports that a core must do without. Package time is not among
// them, since a core takes the time as an argument; it must not ask for it.
var impure = []string{"context", "crypto/rand", "log", "log/slog", "math/rand", "math/rand/v2", "net", "os", "runtime", "sync"}

const (
	maxFileLines     = 650
	maxFunctionLines = 70 // a screen
)
