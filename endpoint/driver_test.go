package endpoint_test

import (
	"errors"
	"testing"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/endpoint/script"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
)

// What a driver asks its core for, besides messages and actions.

// publish makes sub-channel sub of a device an offer; 0 is the primary.
func publish(t *testing.T, w *script.World, instance byte, sub uint16) endpoint.OfferID {
	t.Helper()
	id, err := w.Host.Publish(offers.Offer{Key: offers.Key{Instance: vmbus.GUID{instance}, SubChannel: sub}})
	require.NoError(t, err)
	return id
}

// connectedWorld is a world with one offer, at rest.
func connectedWorld(t *testing.T, guest endpoint.GuestOptions) (*script.World, endpoint.OfferID) {
	t.Helper()
	w := script.NewWorldOf(endpoint.HostOptions{}, guest)
	id := publish(t, w, 1, 0)
	require.NoError(t, w.Guest.Connect())
	run(t, w)
	return w, id
}

// vmbus-control.md 5.3: an id leads to its offer until the guest has released it,
// also when the offer is rescinded.
func TestOfferOf(t *testing.T) {
	w, want := connectedWorld(t, endpoint.GuestOptions{})
	id, ok := w.Host.OfferOf(1)
	require.True(t, ok)
	require.Equal(t, want, id)
	for _, other := range []vmbus.ChannelID{0, 2, offers.MaxOffers, offers.MaxOffers + 1, 1<<32 - 1} {
		_, ok = w.Host.OfferOf(other)
		require.False(t, ok, "channel id %d is nobody's", other)
	}
	require.NoError(t, w.Host.Revoke(want))
	_, ok = w.Host.OfferOf(1)
	require.True(t, ok, "the guest has not released it")
	run(t, w)
	_, ok = w.Host.OfferOf(1)
	require.False(t, ok)
}

// HC-13: revoking a primary revokes its sub-channels first, so a driver has to know
// whose devices stop.
func TestSubChannelsOf(t *testing.T) {
	w, primary := connectedWorld(t, endpoint.GuestOptions{})
	second, first := publish(t, w, 1, 2), publish(t, w, 1, 1)
	publish(t, w, 2, 0) // of another device
	require.Equal(t, []endpoint.OfferID{first, second}, w.Host.SubChannels(primary), "by their index")
	require.Empty(t, w.Host.SubChannels(first), "a sub-channel has none of its own")
	require.Empty(t, w.Host.SubChannels(99), "there is no such offer")
	require.NoError(t, w.Host.Revoke(first))
	require.Equal(t, []endpoint.OfferID{second}, w.Host.SubChannels(primary), "the other is revoked already")
	require.NoError(t, w.Host.Revoke(primary))
	require.ErrorIs(t, w.Host.Revoke(second), vmbus.ErrState, "it went first")
}

// A restored host's new devices have to take what the old ones held, pages before
// the rings over them, and nothing that is still being asked for: that is Repeat's.
func TestEstablished(t *testing.T) {
	w := busyWorld(t)
	run(t, w)
	var got []string
	for _, a := range w.Host.Established() {
		switch a := a.(type) {
		case endpoint.AddGPADL:
			require.Zero(t, a.Token, "no answer is wanted")
			require.NotEmpty(t, a.Ranges)
			got = append(got, "pages")
		case endpoint.OpenDevice:
			require.Zero(t, a.Token)
			require.Equal(t, a.Offer == 2, a.Request.NoInterrupt, "the reserved channel is polled (vmbus-control.md 3.13)")
			got = append(got, "open")
		}
	}
	require.Equal(t, []string{"pages", "open", "pages", "open"}, got, "channels 1 and 2; the device of 3 has not answered")
}

// Drivers of restored cores learn from them what there is.
func TestWhatACoreKnows(t *testing.T) {
	w := busyWorld(t)
	run(t, w)
	require.NoError(t, w.Host.Revoke(5)) // the guest has not heard of it
	open := map[endpoint.OfferID]bool{}
	for _, p := range w.Host.Published() {
		open[p.ID] = p.Open
		require.Equal(t, vmbus.GUID{byte(p.ID)}, p.Offer.Instance)
		require.Equal(t, p.Open, len(p.Request.ToHost) > 0, "the rings are those of an open channel")
	}
	require.Equal(t, map[endpoint.OfferID]bool{1: true, 2: true, 3: false, 6: false}, open, "4 is gone, 5 withdrawn")

	states := map[vmbus.ChannelID]channel.GuestState{}
	for _, k := range w.Guest.Channels() {
		states[k.Offer.Channel] = k.State
		if k.State == channel.Idle {
			require.Zero(t, k.ConnectionID, "there is nothing to signal")
			continue
		}
		require.NotEmpty(t, k.Params.PFNs)
		require.Equal(t, k.Offer.ConnectionID, k.ConnectionID, "the guest has chosen no other")
		require.NotZero(t, k.EventFlag, "flag 0 is reserved (vmbus-control.md 1.4)")
	}
	require.Equal(t, map[vmbus.ChannelID]channel.GuestState{1: channel.GuestOpen, 2: channel.GuestOpen, 3: channel.Sharing, 5: channel.Idle}, states)
}

var errNoPost = errors.New("HV_STATUS_INVALID_CONNECTION_ID")

// vmbus-control.md 1.3: a host without port 4 refuses the post, which for a contact
// counts as a refused version.
func TestRefusedContactPost(t *testing.T) {
	g := endpoint.NewGuest(endpoint.GuestOptions{Versions: []vmbus.Version{vmbus.Iron, vmbus.Win10}})
	g.PostFailed(errNoPost) // nothing was posted: nothing failed
	require.NoError(t, g.Connect())
	for _, want := range []struct {
		port    uint32
		version vmbus.Version
	}{{endpoint.MultiClientPort, vmbus.Iron}, {endpoint.MessagePort, vmbus.Win10}} {
		m, ok := g.NextMessage()
		require.True(t, ok)
		require.Equal(t, want.port, m.Port)
		require.Equal(t, want.version, m.Message.(*vmbus.InitiateContact).Version)
		g.PostFailed(errNoPost)
	}
	a, ok := g.Next()
	require.True(t, ok)
	failed := a.(endpoint.ConnectFailed)
	require.ErrorContains(t, failed.Err, "accepts none of the VMBus versions [5.3 4.0]")
	require.Equal(t, endpoint.GuestDisconnected, g.State())
}

// Any other post that fails for good ends the connection: in order if the host
// still listens, at once if it does not. Then nobody heard it let go of the pages:
// no RingFree, and Kept (faults.md GC-16).
func TestRefusedPostEndsConnection(t *testing.T) {
	w, _ := connectedWorld(t, endpoint.GuestOptions{})
	require.NoError(t, w.Open(1, 2))
	run(t, w)
	require.NoError(t, w.Guest.RequestSocket(port5000, vmbus.GUID{9}))
	w.Guest.PostFailed(errNoPost)
	m, ok := w.Guest.NextMessage()
	require.True(t, ok)
	require.Equal(t, vmbus.TypeUnload, m.Message.Type(), "the host is asked to let go of the pages")
	require.Equal(t, endpoint.GuestUnloading, w.Guest.State())
	require.ErrorIs(t, w.Guest.Close(1), vmbus.ErrState, "the unload closes everything")
	require.ErrorIs(t, w.Guest.ModifyChannel(1, 1), vmbus.ErrState)

	w.Guest.PostFailed(errNoPost)
	require.Equal(t, endpoint.GuestDisconnected, w.Guest.State())
	var last endpoint.Action
	for a, ok := w.Guest.Next(); ok; a, ok = w.Guest.Next() {
		require.NotEqual(t, endpoint.RingFree{Channel: 1}, a, "the host may still use the pages")
		last = a
	}
	over := last.(endpoint.Disconnected)
	require.True(t, over.Kept)
	require.ErrorIs(t, over.Err, errNoPost, "and says why")
	ids, rings := w.Guest.Usage()
	require.Zero(t, ids+rings)
}

// A reserved channel outlives its connection only if the host was asked for it.
func TestRefusedReservePostDoesNotOutlive(t *testing.T) {
	w, _ := connectedWorld(t, endpoint.GuestOptions{Versions: []vmbus.Version{vmbus.Win10}})
	require.NoError(t, w.OpenWith(1, 2, endpoint.OpenParams{Reserved: &endpoint.ReservedTarget{}}))
	for m, _ := w.Guest.NextMessage(); m.Message == nil || m.Message.Type() != vmbus.TypeOpenReservedChannel; m, _ = w.Guest.NextMessage() {
		require.True(t, w.Step(), "the guest asks for the channel when its pages are shared")
	}
	w.Guest.PostFailed(errNoPost)
	run(t, w)
	require.Equal(t, endpoint.GuestDisconnected, w.Guest.State())
	ids, rings := w.Guest.Usage()
	require.Zero(t, ids+rings, "UnloadComplete has given back everything")
	_, hostIDs, gpadls, _, _ := w.Host.Usage()
	require.Zero(t, hostIDs+gpadls)
}

// hvsock.md 5.0: a container's connection says so in its offer; the guest's own
// leaves the bytes as they are.
func TestSiloOffer(t *testing.T) {
	plain := endpoint.SocketOffer(port5000, vmbus.GUID{9}, false, vmbus.Win10RS5)
	require.Equal(t, plain, endpoint.SiloOffer(plain, vmbus.GUID{}))
	silo := vmbus.GUID{0xAB}
	data := vmbus.DecodeHVSockUserData(endpoint.SiloOffer(plain, silo).UserDefined)
	require.Equal(t, vmbus.HVSockUserData{ForGuestContainer: true, ParametersVersion: 1, Silo: silo}, data)
	require.Equal(t, plain.Key, endpoint.SiloOffer(plain, silo).Key, "the connection is the same")
}

// vmbus-control.md 3.14: below 5.2 there is no field for the silo, so a guest that
// was asked for one says no and sends nothing.
func TestSiloNeedsVersion(t *testing.T) {
	w, _ := connectedWorld(t, endpoint.GuestOptions{Versions: []vmbus.Version{vmbus.Win10RS4}})
	require.ErrorIs(t, w.Guest.RequestSocketFrom(vmbus.GUID{1}, port5000, vmbus.GUID{9}), vmbus.ErrState)
	_, sent := w.Guest.NextMessage()
	require.False(t, sent)
}

// AcceptSocket answers a request once; an offer that cannot be made refuses it, so
// that the guest does not wait for ever.
func TestAcceptSocketFails(t *testing.T) {
	w, _ := connectedWorld(t, endpoint.GuestOptions{})
	_, err := w.Host.AcceptSocket(vmbus.GUID{9}, port5000)
	require.ErrorIs(t, err, vmbus.ErrState, "nobody asked")
	require.NoError(t, w.Guest.RequestSocket(port5000, vmbus.GUID{1})) // the instance of the device
	run(t, w)
	_, err = w.Host.AcceptSocket(vmbus.GUID{1}, port5000)
	require.ErrorIs(t, err, offers.ErrDuplicate, "Linux matches offers by the instance alone (vmbus-control.md 3.1)")
	w.Forget()
	run(t, w)
	require.Contains(t, w.Trace(), "TLConnectResult")
	require.Contains(t, w.Trace(), "status=0xc0000236", "vmbus-control.md 3.14")
}

// A save that is not one says why, and what is below it.
func TestRestoreErrorText(t *testing.T) {
	_, err := endpoint.RestoreHost(endpoint.HostOptions{}, nil)
	require.ErrorContains(t, err, "endpoint: saved state: ")
	cause := errors.New("the cause")
	err = &endpoint.RestoreError{Reason: "the offers", Cause: cause}
	require.Equal(t, "endpoint: saved state: the offers: the cause", err.Error())
	require.ErrorIs(t, err, cause)
}
