package limits

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A row is one limit of faults.md 5.
type row struct {
	limit, value string
	change       string   // the option that changes it; "fixed" if the protocol or the construction says it
	tests        []string // "folder.TestName", or "scenario/NAME" below testdata
	reason       string   // why there is no test, or what the tests leave open
}

var rows = []row{
	{"control message payload", "240 bytes", "fixed", []string{"internal/limits.TestMessagePayload", "vmbus.TestLimits", "fuzz.FuzzSlots"}, ""},
	{"channels per connection, event flags", "2047", "fixed", []string{"endpoint.TestOfferLimit", "offers.TestIDLimit"}, ""},
	{"monitor ids", "128", "fixed", []string{"endpoint.TestMonitorLimit"}, ""},
	{"incoming message queue", "64 messages", "fixed", []string{"endpoint/live.TestIncomingLimit"}, ""},
	{"outgoing message queue", "128 messages", "fixed", []string{"endpoint.TestOutboxLimit", "endpoint.TestOutboxLimitHotAdd"}, ""},
	{"hv_sock connects outstanding per guest", "16 requests", "fixed", []string{"endpoint.TestSocketRequestLimit"}, ""},
	{"requests held for a stopped device", "2 per channel", "fixed", []string{"scenario/HC-08-stopped-device"}, ""},
	{"GPADL range buffer", "65,535 bytes, 8190 pages", "fixed", []string{"internal/limits.TestRangeBuffer", "channel.TestAnnounceMessageCounts"}, ""},
	{"incomplete GPADLs per guest", "64", "fixed", []string{"channel.TestGPADLLimits"}, ""},
	{"complete GPADLs per guest", "4096", "fixed", []string{"channel.TestGPADLLimits"}, ""},
	{"memory for PFN tables per guest", "64 MiB", "fixed", []string{"internal/limits.TestPageListMemory"}, ""},
	{"memory shared through GPADLs per guest", "1280 MiB", "fixed", []string{"channel.TestSharedMemoryLimit"}, ""},
	{"ring, per direction", "2 to 4095 pages, 5 by default", "sim.GuestOptions.RingPages", []string{"internal/limits.TestRingPages", "channel.TestSplitRings"}, ""},
	{"ring index", "below the data bytes, multiple of 8", "fixed", []string{"ringbuffer.TestHostileControlPage", "ringbuffer.TestControlWords"}, ""},
	{"pipe packet", "16,384 bytes", "fixed", []string{"channel.TestPipeTooLong"}, ""},
	{"bytes sent per packet", "4088", "channel.PipeOptions.ChunkBytes", []string{"channel.TestPipePacketTotals", "channel.TestPipeLinuxFill"}, ""},
	{"GPA ranges, PFNs per ring packet", "what the packet holds", "fixed", []string{"internal/limits.TestDeclaredCounts", "ringbuffer.TestRangeListErrors"}, ""},
	{"transactions outstanding per channel", "1024", "ringbuffer.NewRequestor", []string{"ringbuffer.TestRequestorDefaultLimit", "ringbuffer.TestRequestorModel"}, ""},
	{"ports", "automatic ones at most 0x7FFFFFFF", "hvsock.Profile", []string{"internal/limits.TestPorts", "hvsock.TestListenersAutomaticPort"},
		"listening above is not refused, although faults.md says so: Linux allows it since 5.5 (hvsock.md 2.6)"},
	{"accept backlog", "128, at most 4096", "hvsock.HostOptions.Backlog, Listener.SetBacklog", []string{"hvsock.TestBacklog", "hvsock.TestSetBacklog", "internal/limits.TestFullBacklog"}, ""},
	{"listeners per side", "1024", "fixed", []string{"hvsock.TestListenerLimit"}, ""},
	{"connections per guest", "channel limit", "fixed", []string{"internal/limits.TestConnectionsPerGuest"}, ""},
	{"dial timeout", "2 s, at most 300 s", "the context's deadline, hvsock.Profile", []string{"sim.TestDialTimeouts", "internal/limits.TestLongestDial"}, ""},
	{"host waits for the guest's Open", "5 s (guest dialed), 2 s (host dialed)", "the context's deadline", []string{"sim.testGuestNeverOpens", "sim.TestDialTimeouts"}, ""},
	{"close in the background", "8 s", "fixed", []string{"sim.testSilentPeer"}, ""},
	{"unload", "100 s", "fixed", []string{"endpoint/live.testSlowUnload"}, ""},
	{"look again after OpenResult", "at once", "fixed", []string{"endpoint/live.testSignalAfterOpenResult"}, ""},
	{"retry of a refused post", "1 ms doubling to 1 s, 100 attempts", "fixed", []string{"endpoint/live.TestPostRetryLimit"}, ""},
	{"goroutines / timers per connection", "2 / 3", "fixed", []string{"internal/limits.TestIdleConnection"}, "timers cannot be counted from outside: a Conn has one for each deadline, its socket one for the open and then the linger"},
	{"memory per idle connection", "1 MiB, rings included", "fixed", []string{"internal/limits.TestIdleConnection"}, ""},
	{"memory per guest beyond PFN tables and connections", "32 MiB", "fixed", []string{"internal/soak.TestSoak"}, ""},
	{"work per step", "linear in the message, or one pass over a ring", "fixed", []string{"fuzz.FuzzHostMessages", "hvsock.TestReadIsBounded", "hvsock.TestDiscardIsBounded"}, "the targets bound the steps until rest; time is not asserted"},
	{"log lines per peer", "10 per second", "fixed", []string{"endpoint/live.testDropsAreBounded", "internal/soak.TestSoak"}, ""},
	{"trace events kept", "65,536", "fixed", []string{"vmbus/trace.TestRecorder"}, ""},
	{"saved state", "16 MiB", "fixed", []string{"endpoint.TestTamperedState"}, ""},
	{"hybrid handshake line", "45 bytes, 5 s", "fixed", []string{"sim/bridge.TestHandshakeIsBounded", "sim/bridge.TestHandshake"}, ""},
}

// Every limit has a test, and every test that is named exists.
func TestTable(t *testing.T) {
	root := filepath.Join("..", "..")
	known := map[string]map[string]bool{} // functions of the tests in a folder
	for _, r := range rows {
		require.NotEmpty(t, r.value, r.limit)
		require.NotEmpty(t, r.change, r.limit)
		require.NotEmpty(t, append(r.tests, r.reason), r.limit)
		for _, name := range r.tests {
			if file, ok := strings.CutPrefix(name, "scenario/"); ok {
				require.FileExists(t, filepath.Join(root, "testdata", "scenario", file+".txt"), r.limit)
				continue
			}
			folder, function, _ := strings.Cut(name, ".")
			if known[folder] == nil {
				known[folder] = testFunctions(t, filepath.Join(root, filepath.FromSlash(folder)))
			}
			require.True(t, known[folder][function], "%s: %s does not exist: was it renamed?", r.limit, name)
		}
	}
}

// testFunctions are the functions of the tests in a folder.
func testFunctions(t *testing.T, folder string) map[string]bool {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	require.NoError(t, err)
	found := map[string]bool{}
	for _, name := range names {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				found[f.Name.Name] = true
			}
		}
	}
	return found
}
