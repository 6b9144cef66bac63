package endpoint_test

import (
	"slices"
	"testing"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
)

// savedBusy is busyWorld at rest, saved: channel 1 is open and being modified, 2
// reserved, 3 is shared with a device that has not answered, 5 withdrawn, 6 released by
// the guest and so hidden; the last is open, without monitored notification.
func savedBusy(t *testing.T) (host, guest []byte, hostOptions endpoint.HostOptions, guestOptions endpoint.GuestOptions) {
	t.Helper()
	w := busyWorld(t)
	run(t, w)
	_, err := w.Host.Publish(offers.Offer{Key: offers.Key{Instance: vmbus.GUID{7}}})
	require.NoError(t, err)
	run(t, w)
	w.Manual = false
	for _, known := range w.Guest.Channels() {
		if known.Offer.Instance == (vmbus.GUID{7}) {
			require.NoError(t, w.Open(known.Offer.Channel, 2))
		}
	}
	run(t, w)
	require.NoError(t, w.Host.Revoke(5)) // the guest has not heard of it
	host, err = w.Host.Save()
	require.NoError(t, err)
	guest, err = w.Guest.Save()
	require.NoError(t, err)
	return host, guest, w.Host.Options(), w.Guest.Options()
}

// Saved bytes are somebody else's word. What no run can lead to is refused by a
// sentence that says what it is (P17, S26), with the digest in order.
func TestRestoredHostContradictions(t *testing.T) {
	b, _, opts, _ := savedBusy(t)
	offered := func(s *endpoint.HostSnapshot, state offers.State, open channel.OpenState) int {
		i := slices.IndexFunc(s.Channels, func(x endpoint.SavedHostChannel) bool {
			return s.Offers[x.Entry].State == state && channel.OpenState(x.Open) == open && x.Modify == 0
		})
		require.GreaterOrEqual(t, i, 0)
		return i
	}
	for _, c := range []struct {
		reason string
		edit   func(*endpoint.HostSnapshot)
	}{
		{"the connection is in no state", func(s *endpoint.HostSnapshot) { s.State = 9 }},
		{"the connection is in no state", func(s *endpoint.HostSnapshot) { s.After = 9 }},
		{"its version contradict", func(s *endpoint.HostSnapshot) { s.Negotiated = vmbus.Negotiated{} }},
		{"its version contradict", func(s *endpoint.HostSnapshot) { s.State = uint8(endpoint.HostDisconnected) }},
		{"what it waits for contradict", func(s *endpoint.HostSnapshot) { s.Resetting = true }},
		{"what it waits for contradict", func(s *endpoint.HostSnapshot) { s.After = 1 }},
		{"what it waits for contradict", func(s *endpoint.HostSnapshot) { s.State, s.Paused = uint8(endpoint.Disconnecting), true }},
		{"a contact is being served in the wrong state", func(s *endpoint.HostSnapshot) { s.Contact.Granted.Version = vmbus.Iron }},
		{"a contact is being served in the wrong state", func(s *endpoint.HostSnapshot) { s.State = uint8(endpoint.Connecting) }},
		{"not as many channels as offers", func(s *endpoint.HostSnapshot) { s.Channels = s.Channels[1:] }},
		{"a channel belongs to no offer", func(s *endpoint.HostSnapshot) { s.Channels[0].Entry = -1 }},
		{"a channel belongs to no offer", func(s *endpoint.HostSnapshot) { s.Channels[0].Offer = s.LastOffer + 1 }},
		{"a channel is in no state", func(s *endpoint.HostSnapshot) { s.Channels[0].Open = 99 }},
		{"a released channel and its device", func(s *endpoint.HostSnapshot) { s.Channels[0].Busy = true }},
		{"open that the guest does not know", func(s *endpoint.HostSnapshot) {
			s.Channels[offered(s, offers.Revoked, channel.Closed)].Open = uint8(channel.Open)
		}},
		{"a channel is offered to nobody", func(s *endpoint.HostSnapshot) {
			s.State, s.Negotiated = uint8(endpoint.HostDisconnected), vmbus.Negotiated{}
		}},
		{"the operation on it contradict", func(s *endpoint.HostSnapshot) { s.Channels[0].Pending = 1 }},
		{"not open is being modified", func(s *endpoint.HostSnapshot) {
			s.Channels[offered(s, offers.Offered, channel.Closed)].Modify = s.LastToken
		}},
		{"not open is being modified", func(s *endpoint.HostSnapshot) {
			s.Channels[offered(s, offers.Offered, channel.Open)].NextVP = new(uint32)
		}},
		{"a reopen waits for nothing", func(s *endpoint.HostSnapshot) { s.Channels[0].Reopen = &vmbus.OpenChannel2{} }},
		{"did not ask for it", func(s *endpoint.HostSnapshot) {
			s.Channels[offered(s, offers.Offered, channel.Open)].Request.MonitorID = 3
		}},
		{"too many socket requests", func(s *endpoint.HostSnapshot) {
			s.Sockets = make([]endpoint.SavedSocket, endpoint.MaxSocketRequests+1)
		}},
		{"a message to the guest makes no sense", func(s *endpoint.HostSnapshot) { s.Out = []endpoint.SavedOutgoing{{Message: []byte{1}}} }},
		{"a message to the guest makes no sense", func(s *endpoint.HostSnapshot) { // it is not ours to send
			s.Out = []endpoint.SavedOutgoing{{Message: vmbus.Append(nil, &vmbus.RequestOffers{})}}
		}},
		{"a message to the guest makes no sense", func(s *endpoint.HostSnapshot) { // one byte more than we would send
			s.Out = []endpoint.SavedOutgoing{{Message: append(vmbus.Append(nil, &vmbus.UnloadComplete{}), 0)}}
		}},
		{"waits for room makes no sense", func(s *endpoint.HostSnapshot) { s.Later = []endpoint.SavedLater{{Kind: 9}} }},
		{"waits for room makes no sense", func(s *endpoint.HostSnapshot) { s.Later = []endpoint.SavedLater{{Kind: 0}} }}, // an offer of nothing
	} {
		edited, err := endpoint.EditHost(b, c.edit)
		require.NoError(t, err)
		_, err = endpoint.RestoreHost(opts, edited)
		require.ErrorIs(t, err, vmbus.ErrProtocol, c.reason)
		require.ErrorContains(t, err, c.reason)
	}
}

// The same of a guest.
func TestRestoredGuestContradictions(t *testing.T) {
	_, b, _, opts := savedBusy(t)
	for _, c := range []struct {
		reason string
		edit   func(*endpoint.GuestSnapshot)
	}{
		{"the connection is in no state", func(s *endpoint.GuestSnapshot) { s.State = 9 }},
		{"the connection is in no state", func(s *endpoint.GuestSnapshot) { s.Pause = 9 }},
		{"its version contradict", func(s *endpoint.GuestSnapshot) { s.Negotiated = vmbus.Negotiated{} }},
		{"its version contradict", func(s *endpoint.GuestSnapshot) {
			s.State, s.Negotiated, s.Modifying = uint8(endpoint.GuestDisconnected), vmbus.Negotiated{}, true
		}},
		{"no version is left to try", func(s *endpoint.GuestSnapshot) {
			s.State, s.Negotiated, s.Versions = uint8(endpoint.GuestConnecting), vmbus.Negotiated{}, nil
		}},
		{"does not try the version", func(s *endpoint.GuestSnapshot) { s.Tried = []vmbus.Version{7} }},
		{"a channel outlives its connection", func(s *endpoint.GuestSnapshot) {
			s.State, s.Negotiated = uint8(endpoint.GuestDisconnected), vmbus.Negotiated{}
		}},
		{"a channel is in no state", func(s *endpoint.GuestSnapshot) { s.Channels[0].State = 99 }},
		{"a channel's ring and its state", func(s *endpoint.GuestSnapshot) { s.Channels[0].Ring = 0 }},
		{"a channel's ring and its state", func(s *endpoint.GuestSnapshot) { s.Channels[1].Ring = s.Channels[0].Ring }},
		{"a channel's event flag is taken", func(s *endpoint.GuestSnapshot) { s.Channels[0].Flag = vmbus.EventFlagsPerSINT }},
		{"a message to the host makes no sense", func(s *endpoint.GuestSnapshot) { s.Out = []endpoint.SavedPosting{{Payload: []byte{1}}} }},
		{"a message to the host makes no sense", func(s *endpoint.GuestSnapshot) { // no hypercall carries it
			long := vmbus.AppendWords(vmbus.Append(nil, &vmbus.GPADLBody{}), make([]uint64, 29))
			s.Held = []endpoint.SavedPosting{{Payload: long}}
		}},
	} {
		edited, err := endpoint.EditGuest(b, c.edit)
		require.NoError(t, err)
		_, err = endpoint.RestoreGuest(opts, edited)
		require.ErrorIs(t, err, vmbus.ErrProtocol, c.reason)
		require.ErrorContains(t, err, c.reason)
	}
}
