package endpoint

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/internal/golden"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
)

// TestScript runs every scenario under testdata/scenario; the expected output
// is the trace. "go test ./endpoint -run Script -rewrite" rewrites it.
func TestScript(t *testing.T) { runScripts(t, nil) }

// runScripts runs every scenario; restoring, if not nil, happens before each step.
func runScripts(t *testing.T, restoring func(*world)) {
	dir := filepath.Join(golden.Root(t), "testdata", "scenario")
	datadriven.Walk(t, dir, func(t *testing.T, path string) {
		w := newWorld()
		w.restoring = restoring
		datadriven.RunTest(t, path, func(t *testing.T, td *datadriven.TestData) string {
			w.trace.Reset()
			d := directive{td}
			if d.Cmd == "world" {
				w = configure(t, d)
				w.restoring = restoring
				return ""
			}
			if err := w.do(d); err != nil {
				w.log("error: %v", err)
			}
			if d.text("then", "run") == "run" {
				w.run()
			}
			if d.has("quiet") {
				return ""
			}
			return w.trace.String()
		})
	})
}

// configure builds a world from the arguments of a "world" directive.
func configure(t *testing.T, d directive) *world {
	version := func(key string) vmbus.Version {
		s := d.text(key, "")
		if s == "" {
			return 0
		}
		v, err := vmbus.ParseVersion(s)
		require.NoError(t, err)
		return v
	}
	guest := GuestOptions{
		SkipTeardown: d.text("profile", "") == "linux",
		Features:     vmbus.Features(d.num("features", 0)),
		TargetVP:     uint32(d.num("message-vp", 0)),

		OwnEventFlags: d.has("own-flags"),
		InterruptPage: d.num("interrupts", 0),
		MinVersion:    version("min"),

		RequirePrimary:     d.text("profile", "") == "freebsd",
		ShortSocketRequest: d.has("short-dial"),
		ParentToChild:      d.num("parent", 0),
		ChildToParent:      d.num("child", 0),
	}
	if d.has("client") {
		guest.ClientID = guid(d.text("client", ""))
	}
	if d.has("only") {
		guest.Interfaces = []vmbus.GUID{guid(d.text("only", ""))}
	}
	if v := version("guest"); v != 0 {
		guest.Versions = []vmbus.Version{v}
	}
	if v := version("newest"); v != 0 {
		guest.Versions = vmbus.Versions()
		guest.Versions = guest.Versions[:slices.Index(guest.Versions, v)+1]
		slices.Reverse(guest.Versions)
	}
	host := HostOptions{
		MaxVersion:         version("max"),
		ReportSetupFailure: d.text("setup-failure", "") == "openvmm",
		Features:           vmbus.Features(d.num("grant", 0)),
		ParentToChild:      d.num("host-parent", 0),
		ChildToParent:      d.num("host-child", 0),
		AbsoluteOrder:      d.has("absolute-order"),
		Dialect:            dialect(d),
		RedirectSINT:       uint8(d.num("redirect-sint", 0)),
	}
	return &world{trusted: d.has("trusted"), vps: uint32(d.num("vps", 0)), raw: d.has("raw"), mute: d.has("mute"), host: NewHost(host), guest: NewGuest(guest)}
}

// dialect is the "dialect=(...)" of a world: names of Dialect's fields.
func dialect(d directive) Dialect {
	x := Dialect{
		MessageConnection: uint32(d.num("message-connection", 0)),
		SignalBase:        uint32(d.num("signal-base", 0)),
		FailureStatus:     uint32(d.num("failure-status", 0)),
	}
	for name, set := range map[string]*bool{
		"no-version-echo": &x.NoVersionEcho, "pad-messages": &x.PadMessages, "monitor-id-zero": &x.MonitorIDZero,
		"silent-gpadl": &x.SilentGPADL, "global-gpadls": &x.GlobalGPADLs, "ignore-releases": &x.IgnoreReleases,
		"answer-every-unload": &x.AnswerEveryUnload, "message-vp-below-3.0": &x.MessageVPBelow30, "no-reserved": &x.NoReserved,
	} {
		*set = d.has(name)
	}
	return x
}

// TestTables holds the full state x event matrices.
func TestTables(t *testing.T) {
	for _, table := range []struct {
		file  string
		check func() error
		text  string
	}{
		{"connection-host", HostTransitions.Check, HostTransitions.Matrix()},
		{"connection-guest", GuestTransitions.Check, GuestTransitions.Matrix()},
		{"open-host", channel.OpenTransitions.Check, channel.OpenTransitions.Matrix()},
		{"open-guest", channel.GuestTransitions.Check, channel.GuestTransitions.Matrix()},
		{"pause-guest", PauseTransitions.Check, PauseTransitions.Matrix()},
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
			w := &world{trusted: true, host: NewHost(HostOptions{Features: vmbus.AllFeatures, RedirectSINT: 7, ParentToChild: 0x1000, ChildToParent: 0x2000}), guest: NewGuest(GuestOptions{Versions: []vmbus.Version{v}, Features: features})}
			_, err := w.host.Publish(SocketOffer(guid("port:1388"), guid("00000009"), true, v))
			require.NoError(t, err)
			require.NoError(t, w.guest.Connect())
			w.run()
			require.Equal(t, GuestConnected, w.guest.State(), "version %v features %v", v, features)
			require.Equal(t, vmbus.Negotiated{Version: v, Features: features}, w.host.Negotiated())
			require.Equal(t, w.host.Negotiated(), w.guest.Negotiated(), "both sides agree on what was agreed on")

			require.NoError(t, w.open(1, 33))
			w.run()
			require.Contains(t, w.trace.String(), "guest: channel 1 is open", "version %v features %v", v, features)
			require.NoError(t, w.guest.Unload())
			w.run()
			require.Equal(t, HostDisconnected, w.host.State())
			require.Equal(t, GuestDisconnected, w.guest.State(), "version %v", v)
			require.Contains(t, w.trace.String(), "guest: the pages of channel 1 are free")
			require.False(t, strings.Contains(w.trace.String(), "drops:"), "an honest run drops nothing:\n%s", w.trace.String())
			_, ids, gpadls, ops, reqs := w.host.Usage()
			require.Zero(t, ids+gpadls+ops+reqs, "version %v leaves something behind", v)
		}
	}
}
