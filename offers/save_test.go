package offers

import (
	"testing"

	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
)

// A saved table is what was saved, and goes on giving out the same ids.
func TestSaveAndLoad(t *testing.T) {
	table := NewHostTable()
	publish := func(o Offer) *Entry {
		e, err := table.Publish(o)
		require.NoError(t, err)
		return e
	}
	primary := publish(Offer{Key: Key{Instance: vmbus.GUID{1}}, Monitor: &Monitor{Latency: 5}})
	sub := publish(Offer{Key: Key{Instance: vmbus.GUID{1}, SubChannel: 1}})
	gone := publish(Offer{Key: Key{Instance: vmbus.GUID{2}}})
	publish(Offer{Key: Key{Instance: vmbus.GUID{3}}}) // hidden
	for _, e := range []*Entry{primary, sub, gone} {
		require.NoError(t, table.Announce(e, true))
	}
	require.True(t, table.Revoke(gone))

	restored := NewHostTable()
	entries, err := restored.Load(table.Save())
	require.NoError(t, err)
	require.Len(t, entries, 4)
	require.Equal(t, table.Save(), restored.Save())
	next, err := restored.Publish(Offer{Key: Key{Instance: vmbus.GUID{4}}, Monitor: &Monitor{}})
	require.NoError(t, err)
	require.NoError(t, restored.Announce(next, true))
	require.EqualValues(t, 4, next.ID, "the rescinded id is still taken")
	require.EqualValues(t, 1, next.MonitorID)
	require.Equal(t, []*Entry{entries[1]}, restored.SubChannels(entries[0]))
}

// Contents that no run can lead to are refused.
func TestLoadRefusals(t *testing.T) {
	one := SavedOffer{Offer: Offer{Key: Key{Instance: vmbus.GUID{1}}, Monitor: &Monitor{}}, ID: 1, MonitorID: 3, OwnMonitor: true, State: Offered}
	change := func(f func(*SavedOffer)) SavedOffer { s := one; f(&s); return s }
	other := change(func(s *SavedOffer) { s.Offer.Instance = vmbus.GUID{2}; s.ID = 2; s.MonitorID = 4 })
	for name, list := range map[string][]SavedOffer{
		"same key":              {one, change(func(s *SavedOffer) { s.ID, s.MonitorID = 2, 4 })},
		"same instance":         {one, change(func(s *SavedOffer) { s.Offer.Interface = vmbus.GUID{9}; s.ID = 2; s.MonitorID = 4 })},
		"same id":               {one, func() SavedOffer { o := other; o.ID = 1; return o }()},
		"same monitor id":       {one, func() SavedOffer { o := other; o.MonitorID = 3; return o }()},
		"gone":                  {change(func(s *SavedOffer) { s.State = Gone })},
		"offered without an id": {change(func(s *SavedOffer) { s.ID = 0 })},
		"hidden with an id":     {change(func(s *SavedOffer) { s.State = Hidden })},
		"id out of range":       {change(func(s *SavedOffer) { s.ID = 2048 })},
		"no such monitor id":    {change(func(s *SavedOffer) { s.MonitorID = 128 })},
		"unwanted monitor id":   {change(func(s *SavedOffer) { s.Offer.Monitor = nil })},
		"hidden but monitored":  {change(func(s *SavedOffer) { s.State, s.ID = Hidden, 0 })},
	} {
		_, err := NewHostTable().Load(list)
		require.ErrorIs(t, err, vmbus.ErrProtocol, name)
		require.ErrorContains(t, err, "saved state", name)
	}
	var c Catalogue
	_, err := c.Load(vmbus.OfferChannel{Channel: 1}, Unknown)
	require.ErrorIs(t, err, vmbus.ErrProtocol)
	it, err := c.Load(vmbus.OfferChannel{Channel: 1}, Rescinded)
	require.NoError(t, err)
	require.True(t, it.Rescinded())
	_, err = c.Load(vmbus.OfferChannel{Channel: 1}, Known)
	require.ErrorIs(t, err, vmbus.ErrProtocol, "the id is in use")
}
