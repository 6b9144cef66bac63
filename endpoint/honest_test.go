package endpoint_test

import (
	"strings"
	"testing"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/endpoint/script"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// checkHost holds what must be true of a host core after every step.
func checkHost(t require.TestingT, h *endpoint.Host) { require.NoError(t, h.Check()) }

// TestHonestWorld drives both cores with random legal wishes and checks that no
// honest message is ever dropped, that ids stay unique, and that unload leaves
// nothing behind.
func TestHonestWorld(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		version := rapid.SampledFrom(vmbus.Versions()).Draw(t, "version")
		w := &script.World{Host: endpoint.NewHost(endpoint.HostOptions{}), Guest: endpoint.NewGuest(endpoint.GuestOptions{
			Versions: []vmbus.Version{version}, Features: vmbus.PauseResume | vmbus.GuestSignalParams, SkipTeardown: rapid.Bool().Draw(t, "linux")})}
		require.NoError(t, w.Guest.Connect())
		run(t, w)
		published := []endpoint.OfferID{}
		id := func() vmbus.ChannelID { return vmbus.ChannelID(rapid.IntRange(1, 6).Draw(t, "channel")) }
		t.Repeat(map[string]func(*rapid.T){
			"publish": func(t *rapid.T) {
				o := offers.Offer{Key: offers.Key{Instance: vmbus.GUID{rapid.Byte().Draw(t, "instance")}}}
				if n, err := w.Host.Publish(o); err == nil {
					published = append(published, n)
				}
			},
			"revoke": func(t *rapid.T) {
				if len(published) > 0 {
					_ = w.Host.Revoke(rapid.SampledFrom(published).Draw(t, "offer")) // it may be gone
				}
			},
			"open":  func(*rapid.T) { _ = w.Open(id(), 2) },     // it may be open or unknown
			"close": func(*rapid.T) { _ = w.Guest.Close(id()) }, // it may be closed
			"step": func(t *rapid.T) {
				for range rapid.IntRange(1, 5).Draw(t, "steps") {
					w.Step()
				}
			},
			"modify":  func(*rapid.T) { _ = w.Guest.ModifyChannel(id(), 1) }, // it may not be open
			"release": func(*rapid.T) { _ = w.Guest.Release(id()) },          // it may be open
			"reserve": func(*rapid.T) { _ = w.OpenWith(id(), 2, endpoint.OpenParams{Reserved: &endpoint.ReservedTarget{}}) },
			"pause":   func(*rapid.T) { _ = w.Guest.Pause() },  // not at every version
			"resume":  func(*rapid.T) { _ = w.Guest.Resume() }, // it may not be silent yet
			"run":     func(*rapid.T) { run(t, w) },
			"":        func(t *rapid.T) { checkHost(t, w.Host) },
		})
		run(t, w)
		require.NoError(t, w.Guest.Unload())
		run(t, w)
		for id := range vmbus.ChannelID(7) { // what is left is reserved
			_ = w.Guest.Close(id)
			run(t, w)
		}
		_, ids, gpadls, ops, reqs := w.Host.Usage()
		gids, rings := w.Guest.Usage()
		require.Zero(t, ids+gpadls+ops+reqs+gids+rings, "I-NO-LEAK\n%s", w.Trace())
		for _, drop := range unexpectedDrops(w.Trace()) {
			t.Fatalf("an honest message was dropped: %s\n%s", drop, w.Trace())
		}
	})
}

// unexpectedDrops returns the drops of a trace that honest peers do not cause.
// Legal are only what crosses a rescind on its way: the answer to an open that
// has failed already; the rescind that crosses a release; a reserved close that
// is asked for again; and what an unload
// overtakes.
func unexpectedDrops(trace string) []string {
	var list []string
	for line := range strings.Lines(trace) {
		if !strings.Contains(line, "drops:") || strings.Contains(line, "OpenResult for channel") ||
			strings.Contains(line, "RescindChannelOffer for channel") || strings.Contains(line, "CloseReservedChannel for channel") || strings.Contains(line, "the guest is unloading") || strings.Contains(line, "the connection is Disconnect") {
			continue
		}
		list = append(list, line)
	}
	return list
}
