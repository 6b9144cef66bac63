package endpoint

import (
	"fmt"
	"testing"

	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
)

// connected returns a host with n offers and a guest that has been accepted and
// has not asked for offers.
func connected(t *testing.T, n int) *Host {
	t.Helper()
	h := NewHost(HostOptions{})
	for i := range n {
		_, err := h.Publish(offers.Offer{Key: offers.Key{Instance: vmbus.GUID{byte(i), byte(i >> 8)}}})
		require.NoError(t, err)
	}
	require.NoError(t, h.Receive(MultiClientPort, vmbus.Append(nil, &vmbus.InitiateContact{Version: vmbus.Iron, TargetInfo: VMBusSINT})))
	h.SetupDone(true)
	m, ok := h.NextMessage()
	require.True(t, ok)
	require.Equal(t, vmbus.TypeVersionResponse, m.Message.Type())
	h.MessageSent()
	return h
}

// The outbox holds 128 messages. The answer to RequestOffers is made as room
// appears: no more ids are given out than offers fit, every offer comes once and
// in order, AllOffersDelivered last (faults.md 5, I-OFFER-ONCE).
func TestOutboxLimit(t *testing.T) {
	for _, n := range []int{0, MaxOutgoingMessages - 2, MaxOutgoingMessages - 1, MaxOutgoingMessages, MaxOutgoingMessages + 1, offers.MaxOffers} {
		h := connected(t, n)
		require.NoError(t, h.Receive(MessagePort, vmbus.Append(nil, &vmbus.RequestOffers{})))
		_, ids, _, _, _ := h.Usage()
		require.Equal(t, min(n, MaxOutgoingMessages), ids, "%d offers", n)
		for i := range n {
			require.False(t, h.WantsMessage(), "no guest message is handled while one waits")
			require.LessOrEqual(t, h.out.len(), MaxOutgoingMessages)
			m, ok := h.NextMessage()
			require.True(t, ok)
			o, ok := m.Message.(*vmbus.OfferChannel)
			require.True(t, ok, "message %d of %d", i, n)
			require.EqualValues(t, i+1, o.Channel)
			h.MessageSent()
		}
		m, ok := h.NextMessage()
		require.True(t, ok)
		require.Equal(t, vmbus.TypeAllOffersDelivered, m.Message.Type())
		h.MessageSent()
		require.True(t, h.WantsMessage())
		require.Zero(t, h.out.len()+h.later.len())
	}
}

// Hot add and rescind obey the same limit, in order: an offer the guest has not
// been sent is withdrawn without a word.
func TestOutboxLimitHotAdd(t *testing.T) {
	h := connected(t, 0)
	require.NoError(t, h.Receive(MessagePort, vmbus.Append(nil, &vmbus.RequestOffers{})))
	h.MessageSent()
	var ids []OfferID
	for i := range 300 {
		id, err := h.Publish(offers.Offer{Key: offers.Key{Instance: vmbus.GUID{byte(i), byte(i >> 8)}}})
		require.NoError(t, err)
		ids = append(ids, id)
	}
	for _, id := range ids {
		require.NoError(t, h.Revoke(id))
	}
	require.Equal(t, MaxOutgoingMessages, h.out.len())
	offered, rescinded := 0, 0
	for m, ok := h.NextMessage(); ok; m, ok = h.NextMessage() {
		switch m.Message.(type) {
		case *vmbus.OfferChannel:
			require.Zero(t, rescinded)
			offered++
		case *vmbus.RescindChannelOffer:
			rescinded++
		}
		h.MessageSent()
	}
	require.Equal(t, MaxOutgoingMessages, offered)
	require.Equal(t, offered, rescinded, "I-RESCIND-ONCE")
}

// A host that is saved in the middle of a burst goes on with it: what waits for room
// is saved, too (HC-03, HC-05).
func TestOutboxLimitSaved(t *testing.T) {
	all := func(h *Host, restore bool) (sent []string) {
		for m, ok := h.NextMessage(); ok; m, ok = h.NextMessage() {
			sent = append(sent, fmt.Sprint(m.Message.Type(), m.Payload()))
			h.MessageSent()
			if len(sent)%100 == 50 && restore {
				b, err := h.Save()
				require.NoError(t, err)
				h, err = RestoreHost(h.opts, b)
				require.NoError(t, err)
			}
		}
		return sent
	}
	begin := func() *Host {
		h := connected(t, 300)
		for a, ok := h.Next(); ok; a, ok = h.Next() {
			require.NotNil(t, a) // the driver has done it: only then may a core be saved
		}
		require.NoError(t, h.Receive(MessagePort, vmbus.Append(nil, &vmbus.RequestOffers{})))
		require.NoError(t, h.Revoke(1)) // the guest is to hear of it, after the other offers
		return h
	}
	want := all(begin(), false)
	require.Len(t, want, 300+1+1, "every offer, AllOffersDelivered and the rescind")
	require.Equal(t, want, all(begin(), true))
}

// 2047 offers, and not one more.
func TestOfferLimit(t *testing.T) {
	h := connected(t, offers.MaxOffers)
	_, err := h.Publish(offers.Offer{Key: offers.Key{Instance: vmbus.GUID{0xFF, 0xFF}}})
	require.ErrorIs(t, err, offers.ErrFull)
}

// 16 socket requests wait; then the guest has to.
func TestSocketRequestLimit(t *testing.T) {
	h := connected(t, 0)
	request := func(i int) error {
		return h.Receive(MessagePort, vmbus.Append(nil, &vmbus.TLConnectRequest{Endpoint: vmbus.GUID{byte(i)}, Service: vmbus.GUID{1}}))
	}
	for i := range MaxSocketRequests {
		require.True(t, h.WantsMessage(), "%d are waiting", i)
		require.NoError(t, request(i))
	}
	require.False(t, h.WantsMessage())
	h.RefuseSocket(vmbus.GUID{3}, vmbus.GUID{1})
	require.False(t, h.WantsMessage(), "the refusal is not sent yet")
	h.MessageSent()
	require.True(t, h.WantsMessage())
}

// P54: 128 monitored channels; the next is offered without monitoring.
func TestMonitorLimit(t *testing.T) {
	h := NewHost(HostOptions{})
	for i := range vmbus.MaxMonitorIDs + 1 {
		_, err := h.Publish(offers.Offer{Key: offers.Key{Instance: vmbus.GUID{byte(i)}}, Monitor: &offers.Monitor{}})
		require.NoError(t, err)
	}
	require.NoError(t, h.Receive(MessagePort, vmbus.Append(nil, &vmbus.InitiateContact{Version: vmbus.Win10, ParentToChild: 4096, ChildToParent: 8192})))
	h.SetupDone(true)
	h.MessageSent()
	require.NoError(t, h.Receive(MessagePort, vmbus.Append(nil, &vmbus.RequestOffers{})))
	for i := range vmbus.MaxMonitorIDs + 1 {
		m, _ := h.NextMessage()
		o := m.Message.(*vmbus.OfferChannel)
		if i < vmbus.MaxMonitorIDs {
			require.EqualValues(t, i, o.MonitorID)
			require.EqualValues(t, 1, o.MonitorAllocated)
		} else {
			require.Equal(t, vmbus.NoMonitor, o.MonitorID)
			require.Zero(t, o.MonitorAllocated)
		}
		h.MessageSent()
	}
}
