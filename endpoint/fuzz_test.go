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

// FuzzHostMessages feeds a connected host any sequence of messages. Each input
// byte string is cut into messages by its own length bytes. Beyond "no panic":
// the tables stay within their limits, ids stay unique, and after a reset
// nothing is left.
func FuzzHostMessages(f *testing.F) {
	for _, m := range []vmbus.Message{
		&vmbus.RequestOffers{}, &vmbus.OpenChannel{Channel: 1, OpenID: 1, Ring: 1, HostOffset: 2},
		&vmbus.CloseChannel{Channel: 1}, &vmbus.GPADLTeardown{Channel: 1, GPADL: 1}, &vmbus.RelIDReleased{Channel: 1},
		&vmbus.TLConnectRequest{Endpoint: vmbus.GUID{1}, Service: vmbus.GUID{2}}, &vmbus.ModifyChannel{Channel: 1},
		&vmbus.InitiateContact{Version: vmbus.Copper}, &vmbus.Unload{}, &vmbus.Pause{}, &vmbus.Resume{},
		&vmbus.OpenReservedChannel{Channel: 1, Ring: 1, HostOffset: 2}, &vmbus.CloseReservedChannel{Channel: 1},
		&vmbus.ModifyConnection{ParentToChild: 4096, ChildToParent: 8192}, &vmbus.ModifyConnection{},
	} {
		b := vmbus.Append(nil, m)
		for _, setup := range []uint8{0, 10, 0x8A} { // 0.13, 6.0, 6.0 with every feature
			f.Add(setup, append([]byte{byte(len(b))}, b...))
		}
	}
	g := vmbus.AppendWords(vmbus.Append(nil, &vmbus.GPADLHeader{Channel: 1, GPADL: 1, RangeBufLen: 40, RangeCount: 1}), []uint64{4 * 4096, 1, 2, 3, 4})
	f.Add(uint8(0x8A), append([]byte{byte(len(g))}, g...))
	f.Fuzz(func(t *testing.T, setup uint8, b []byte) {
		w := fuzzWorld(t, setup)
		for len(b) > 0 {
			n := min(int(b[0]), len(b)-1)
			if w.Host.WantsMessage() {
				_ = w.Host.ReceiveFrom(endpoint.Source{Port: endpoint.MultiClientPort, Trusted: w.Trusted}, b[1:1+n]) // any error is fine
			}
			run(t, w)
			checkHost(t, w.Host)
			restoreBoth(t, w)
			b = b[1+n:]
		}
		w.Host.Reset()
		run(t, w)
		require.Equal(t, endpoint.HostDisconnected, w.Host.State(), "L-RESET: reset ends from every state")
		_, ids, gpadls, ops, reqs := w.Host.Usage()
		require.Zero(t, ids+gpadls+ops+reqs, "I-NO-LEAK")
	})
}

// FuzzGuestMessages is the same for a guest and a hostile host.
func FuzzGuestMessages(f *testing.F) {
	for _, m := range []vmbus.Message{
		&vmbus.OfferChannel{Channel: 2}, &vmbus.OfferChannel{Channel: 1}, &vmbus.RescindChannelOffer{Channel: 1},
		&vmbus.OpenResult{Channel: 1, OpenID: 1}, &vmbus.GPADLCreated{Channel: 1, GPADL: endpoint.FirstGPADL},
		&vmbus.GPADLTorndown{GPADL: endpoint.FirstGPADL}, &vmbus.AllOffersDelivered{}, &vmbus.UnloadComplete{},
		&vmbus.VersionResponse{Supported: 1}, &vmbus.TLConnectResult{Status: vmbus.StatusConnectionRefused},
		&vmbus.ModifyChannelResponse{Channel: 1}, &vmbus.PauseResponse{}, &vmbus.ModifyConnectionResponse{},
	} {
		b := vmbus.Append(nil, m)
		for _, setup := range []uint8{0, 10, 0x8A} { // 0.13, 6.0, 6.0 with every feature
			f.Add(setup, append([]byte{byte(len(b))}, b...))
		}
	}
	f.Fuzz(func(t *testing.T, setup uint8, b []byte) {
		w := fuzzWorld(t, setup)
		require.NoError(t, w.Open(1, 2))
		if w.Guest.Negotiated().Version >= vmbus.Win10 {
			require.NoError(t, w.OpenWith(2, 2, endpoint.OpenParams{Reserved: &endpoint.ReservedTarget{}}))
		}
		_ = w.Guest.ModifyConnection(4096, 8192) // not at every version
		_ = w.Guest.Pause()
		for len(b) > 0 {
			n := min(int(b[0]), len(b)-1)
			_ = w.Guest.Receive(b[1 : 1+n]) // any error is fine
			_ = w.Guest.ModifyChannel(1, uint32(n))
			run(t, w)
			restoreBoth(t, w)
			b = b[1+n:]
			ids, _ := w.Guest.Usage()
			require.LessOrEqual(t, ids, offers.MaxOffers)
		}
		if w.Guest.State() != endpoint.GuestDisconnected {
			_ = w.Guest.Unload() // it may be unloading already
			run(t, w)
		}
	})
}

// fuzzWorld is a connected world: the low bits of setup choose the version, the
// highest every feature there is, the next a Linux guest. Two devices and a
// sub-channel are offered, one of them monitored.
func fuzzWorld(t require.TestingT, setup uint8) *script.World {
	versions := vmbus.Versions()
	guest := endpoint.GuestOptions{
		Versions:     []vmbus.Version{versions[int(setup&0x3F)%len(versions)]},
		SkipTeardown: setup&0x40 != 0, ParentToChild: 4096, ChildToParent: 8192,
	}
	host := endpoint.HostOptions{RedirectSINT: 7}
	w := &script.World{}
	if setup&0x80 != 0 {
		host.Features, host.ParentToChild, host.ChildToParent = vmbus.AllFeatures, 0x10000, 0x11000
		guest.Features, guest.OwnEventFlags, w.Trusted = vmbus.AllFeatures, true, true
	}
	w.Host, w.Guest = endpoint.NewHost(host), endpoint.NewGuest(guest)
	for _, o := range []offers.Offer{
		{Key: offers.Key{Instance: vmbus.GUID{7}}, Monitor: &offers.Monitor{Latency: 10}},
		{Key: offers.Key{Instance: vmbus.GUID{8}}},
		{Key: offers.Key{Instance: vmbus.GUID{7}, SubChannel: 1}},
	} {
		_, err := w.Host.Publish(o)
		require.NoError(t, err)
	}
	require.NoError(t, w.Guest.Connect())
	run(t, w)
	return w
}

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
