package endpoint

import (
	"strings"
	"testing"

	"github.com/hvlab/hvlab/channel"
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
			if w.host.WantsMessage() {
				_ = w.host.ReceiveFrom(Source{MultiClientPort, w.trusted}, b[1:1+n]) // any error is fine
			}
			w.run()
			checkHost(t, w.host)
			restoreBoth(t, w)
			b = b[1+n:]
		}
		w.host.Reset()
		w.run()
		require.Equal(t, HostDisconnected, w.host.State(), "L-RESET: reset ends from every state")
		_, ids, gpadls, ops, reqs := w.host.Usage()
		require.Zero(t, ids+gpadls+ops+reqs, "I-NO-LEAK")
	})
}

// FuzzGuestMessages is the same for a guest and a hostile host.
func FuzzGuestMessages(f *testing.F) {
	for _, m := range []vmbus.Message{
		&vmbus.OfferChannel{Channel: 2}, &vmbus.OfferChannel{Channel: 1}, &vmbus.RescindChannelOffer{Channel: 1},
		&vmbus.OpenResult{Channel: 1, OpenID: 1}, &vmbus.GPADLCreated{Channel: 1, GPADL: firstGPADL},
		&vmbus.GPADLTorndown{GPADL: firstGPADL}, &vmbus.AllOffersDelivered{}, &vmbus.UnloadComplete{},
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
		require.NoError(t, w.open(1, 2))
		if w.guest.Negotiated().Version >= vmbus.Win10 {
			require.NoError(t, w.openWith(2, 2, OpenParams{Reserved: &ReservedTarget{}}))
		}
		_ = w.guest.ModifyConnection(4096, 8192) // not at every version
		_ = w.guest.Pause()
		for len(b) > 0 {
			n := min(int(b[0]), len(b)-1)
			_ = w.guest.Receive(b[1 : 1+n]) // any error is fine
			_ = w.guest.ModifyChannel(1, uint32(n))
			w.run()
			restoreBoth(t, w)
			b = b[1+n:]
			ids, _ := w.guest.Usage()
			require.LessOrEqual(t, ids, offers.MaxOffers)
		}
		if w.guest.State() != GuestDisconnected {
			_ = w.guest.Unload() // it may be unloading already
			w.run()
		}
	})
}

// fuzzWorld is a connected world: the low bits of setup choose the version, the
// highest every feature there is, the next a Linux guest. Two devices and a
// sub-channel are offered, one of them monitored.
func fuzzWorld(t require.TestingT, setup uint8) *world {
	versions := vmbus.Versions()
	guest := GuestOptions{
		Versions:     []vmbus.Version{versions[int(setup&0x3F)%len(versions)]},
		SkipTeardown: setup&0x40 != 0, ParentToChild: 4096, ChildToParent: 8192,
	}
	host := HostOptions{RedirectSINT: 7}
	w := &world{}
	if setup&0x80 != 0 {
		host.Features, host.ParentToChild, host.ChildToParent = vmbus.AllFeatures, 0x10000, 0x11000
		guest.Features, guest.OwnEventFlags, w.trusted = vmbus.AllFeatures, true, true
	}
	w.host, w.guest = NewHost(host), NewGuest(guest)
	for _, o := range []offers.Offer{
		{Key: offers.Key{Instance: vmbus.GUID{7}}, Monitor: &offers.Monitor{Latency: 10}},
		{Key: offers.Key{Instance: vmbus.GUID{8}}},
		{Key: offers.Key{Instance: vmbus.GUID{7}, SubChannel: 1}},
	} {
		_, err := w.host.Publish(o)
		require.NoError(t, err)
	}
	require.NoError(t, w.guest.Connect())
	w.run()
	return w
}

// checkHost holds what must be true of a host core after every step.
func checkHost(t require.TestingT, h *Host) {
	live := map[vmbus.ChannelID]bool{}
	for _, c := range h.channels {
		if id := c.entry.ID; id != 0 {
			require.False(t, live[id], "I-RELID-UNIQ: channel id %d", id)
			require.LessOrEqual(t, int(id), offers.MaxOffers, "I-RELID-RANGE")
			live[id] = true
			require.Equal(t, c.entry, h.table.Lookup(id))
		}
	}
	require.LessOrEqual(t, h.gpadls.Len(), channel.MaxGPADLs, "limit of GPADLs")
	require.LessOrEqual(t, len(h.sockets), MaxSocketRequests, "limit of socket requests")
	require.LessOrEqual(t, h.out.len(), MaxOutgoingMessages, "limit of the outbox")
}

// TestHonestWorld drives both cores with random legal wishes and checks that no
// honest message is ever dropped, that ids stay unique, and that unload leaves
// nothing behind.
func TestHonestWorld(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		version := rapid.SampledFrom(vmbus.Versions()).Draw(t, "version")
		w := &world{host: NewHost(HostOptions{}), guest: NewGuest(GuestOptions{
			Versions: []vmbus.Version{version}, Features: vmbus.PauseResume | vmbus.GuestSignalParams, SkipTeardown: rapid.Bool().Draw(t, "linux")})}
		require.NoError(t, w.guest.Connect())
		w.run()
		published := []OfferID{}
		id := func() vmbus.ChannelID { return vmbus.ChannelID(rapid.IntRange(1, 6).Draw(t, "channel")) }
		t.Repeat(map[string]func(*rapid.T){
			"publish": func(t *rapid.T) {
				o := offers.Offer{Key: offers.Key{Instance: vmbus.GUID{rapid.Byte().Draw(t, "instance")}}}
				if n, err := w.host.Publish(o); err == nil {
					published = append(published, n)
				}
			},
			"revoke": func(t *rapid.T) {
				if len(published) > 0 {
					_ = w.host.Revoke(rapid.SampledFrom(published).Draw(t, "offer")) // it may be gone
				}
			},
			"open":  func(*rapid.T) { _ = w.open(id(), 2) },     // it may be open or unknown
			"close": func(*rapid.T) { _ = w.guest.Close(id()) }, // it may be closed
			"step": func(t *rapid.T) {
				for range rapid.IntRange(1, 5).Draw(t, "steps") {
					w.step()
				}
			},
			"modify":  func(*rapid.T) { _ = w.guest.ModifyChannel(id(), 1) }, // it may not be open
			"release": func(*rapid.T) { _ = w.guest.Release(id()) },          // it may be open
			"reserve": func(*rapid.T) { _ = w.openWith(id(), 2, OpenParams{Reserved: &ReservedTarget{}}) },
			"pause":   func(*rapid.T) { _ = w.guest.Pause() },  // not at every version
			"resume":  func(*rapid.T) { _ = w.guest.Resume() }, // it may not be silent yet
			"run":     func(*rapid.T) { w.run() },
			"":        func(t *rapid.T) { checkHost(t, w.host) },
		})
		w.run()
		require.NoError(t, w.guest.Unload())
		w.run()
		for id := range vmbus.ChannelID(7) { // what is left is reserved
			_ = w.guest.Close(id)
			w.run()
		}
		_, ids, gpadls, ops, reqs := w.host.Usage()
		gids, rings := w.guest.Usage()
		require.Zero(t, ids+gpadls+ops+reqs+gids+rings, "I-NO-LEAK\n%s", w.trace.String())
		for _, drop := range unexpectedDrops(w.trace.String()) {
			t.Fatalf("an honest message was dropped: %s\n%s", drop, w.trace.String())
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
