package endpoint_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/google/uuid"
	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/endpoint/script"
	"github.com/hvlab/hvlab/internal/golden"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
)

// port5000 is the service of port 5000.
var port5000 = vmbus.GUIDFromUUID(uuid.MustParse("00001388-facb-11e6-bd58-64006a7986d3"))

// run steps until nothing moves.
func run(t require.TestingT, w *script.World) {
	require.NoError(t, w.Run(), "L-NO-LIVELOCK")
}

// TestScript runs every scenario under testdata/scenario; the expected output
// is the trace. "go test ./endpoint -run Script -rewrite" rewrites it.
func TestScript(t *testing.T) { runScripts(t, nil) }

// runScripts runs every scenario; restoring, if not nil, happens before each step.
func runScripts(t *testing.T, restoring func(*script.World)) {
	dir := filepath.Join(golden.Root(t), "testdata", "scenario")
	datadriven.Walk(t, dir, func(t *testing.T, path string) {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		file, err := script.Parse(string(text))
		require.NoError(t, err)
		r := script.NewRunner()
		r.Prepare = func(w *script.World) { w.BeforeStep = restoring }
		n := 0
		datadriven.RunTest(t, path, func(t *testing.T, td *datadriven.TestData) string {
			b := file.Blocks[n] // of our own parser, which hvlab run uses: it reads the same
			n++
			require.Equal(t, td.Cmd, b.Name)
			require.Equal(t, td.Input, b.Input)
			require.Equal(t, td.Expected, b.Expected)
			require.Equal(t, len(td.CmdArgs), len(b.Args))
			for i, a := range td.CmdArgs {
				require.Equal(t, script.Arg{Key: a.Key, Values: a.Vals}, b.Args[i])
			}
			trace, err := r.Do(b.Directive)
			require.NoError(t, err)
			return trace
		})
		require.Len(t, file.Blocks, n)
	})
}

// TestTables holds the full state x event matrices.
func TestTables(t *testing.T) {
	for _, table := range []struct {
		file  string
		check func() error
		text  string
	}{
		{"connection-host", endpoint.HostTransitions.Check, endpoint.HostTransitions.Matrix()},
		{"connection-guest", endpoint.GuestTransitions.Check, endpoint.GuestTransitions.Matrix()},
		{"open-host", channel.OpenTransitions.Check, channel.OpenTransitions.Matrix()},
		{"open-guest", channel.GuestTransitions.Check, channel.GuestTransitions.Matrix()},
		{"pause-guest", endpoint.PauseTransitions.Check, endpoint.PauseTransitions.Matrix()},
		{"gpadl-host", channel.GPADLTransitions.Check, channel.GPADLTransitions.Matrix()},
	} {
		t.Run(table.file, func(t *testing.T) {
			require.NoError(t, table.check())
			golden.Check(t, "table/"+table.file+".txt", table.text)
		})
	}
}

// TestEveryVersion connects, opens, closes and unloads at every version, with
// every feature set the host can grant.
func TestEveryVersion(t *testing.T) {
	for _, v := range vmbus.Versions() {
		for features := vmbus.Features(0); features <= vmbus.AllFeatures; features++ {
			if v < vmbus.Copper && features != 0 {
				continue
			}
			w := script.NewWorldOf(
				endpoint.HostOptions{Features: vmbus.AllFeatures, RedirectSINT: 7, ParentToChild: 0x1000, ChildToParent: 0x2000},
				endpoint.GuestOptions{Versions: []vmbus.Version{v}, Features: features})
			w.Trusted = true
			_, err := w.Host.Publish(endpoint.SocketOffer(port5000, vmbus.GUID{9}, true, v))
			require.NoError(t, err)
			require.NoError(t, w.Guest.Connect())
			run(t, w)
			require.Equal(t, endpoint.GuestConnected, w.Guest.State(), "version %v features %v", v, features)
			require.Equal(t, vmbus.Negotiated{Version: v, Features: features}, w.Host.Negotiated())
			require.Equal(t, w.Host.Negotiated(), w.Guest.Negotiated(), "both sides agree on what was agreed on")

			require.NoError(t, w.Open(1, 33))
			run(t, w)
			require.Contains(t, w.Trace(), "guest: channel 1 is open", "version %v features %v", v, features)
			require.NoError(t, w.Guest.Unload())
			run(t, w)
			require.Equal(t, endpoint.HostDisconnected, w.Host.State())
			require.Equal(t, endpoint.GuestDisconnected, w.Guest.State(), "version %v", v)
			require.Contains(t, w.Trace(), "guest: the pages of channel 1 are free")
			require.False(t, strings.Contains(w.Trace(), "drops:"), "an honest run drops nothing:\n%s", w.Trace())
			_, ids, gpadls, ops, reqs := w.Host.Usage()
			require.Zero(t, ids+gpadls+ops+reqs, "version %v leaves something behind", v)
		}
	}
}
