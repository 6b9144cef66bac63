package offers

import (
	"testing"

	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
)

// device publishes an offer of interface i and instance n.
func device(t *testing.T, table *HostTable, i, n byte, sub uint16, order uint32) *Entry {
	t.Helper()
	e, err := table.Publish(Offer{Key: Key{Interface: vmbus.GUID{i}, Instance: vmbus.GUID{n}, SubChannel: sub}, Order: order})
	require.NoError(t, err)
	return e
}

// vmbus-control.md 2.7: ids are given by interface, then order, then instance, so
// that a guest that hibernates finds the same ones; a sub-channel follows its
// primary, whatever it says of its own order.
func TestOrderOfIDs(t *testing.T) {
	table := NewHostTable()
	late := device(t, table, 1, 1, 0, 9)
	early := device(t, table, 1, 2, 0, 3)
	other := device(t, table, 2, 3, 0, 1)
	second := device(t, table, 1, 1, 2, 0)
	first := device(t, table, 1, 1, 1, 50)
	twin := device(t, table, 1, 4, 0, 9)
	require.Equal(t, []*Entry{early, late, first, second, twin, other}, table.Sorted(false))
	require.Equal(t, []*Entry{other, early, late, first, second, twin}, table.Sorted(true), "with absolute order the interface comes after it")
	require.Equal(t, []*Entry{first, second}, table.SubChannels(late))
	require.Empty(t, table.SubChannels(first))
}

// vmbus-control.md 7.1: a sub-channel is offered after its primary and goes with it.
func TestSubChannelFollowsPrimary(t *testing.T) {
	table := NewHostTable()
	_, err := table.Publish(Offer{Key: Key{Instance: vmbus.GUID{1}, SubChannel: 1}})
	require.ErrorIs(t, err, ErrNoPrimary)
	primary, sub := device(t, table, 0, 1, 0, 0), device(t, table, 0, 1, 1, 0)
	require.True(t, table.MayAnnounce(primary))
	require.False(t, table.MayAnnounce(sub), "the guest does not know the primary yet")
	require.NoError(t, table.Announce(primary, false))
	require.True(t, table.MayAnnounce(sub))
	require.True(t, table.Revoke(primary))
	require.False(t, table.MayAnnounce(sub))
	_, err = table.Publish(Offer{Key: Key{Instance: vmbus.GUID{1}, SubChannel: 2}})
	require.ErrorIs(t, err, ErrNoPrimary, "it is withdrawn")
}

// What a table is asked at the wrong moment it refuses, and stays as it was.
func TestHostTableRefusals(t *testing.T) {
	table := NewHostTable()
	e := device(t, table, 0, 1, 0, 0)
	_, err := table.Release(e)
	require.ErrorIs(t, err, vmbus.ErrState, "the guest does not know it")
	require.NoError(t, table.Announce(e, false))
	require.ErrorIs(t, table.Announce(e, false), vmbus.ErrState, "I-OFFER-ONCE")
	require.Equal(t, e, table.Lookup(1))

	hidden := device(t, table, 0, 2, 0, 0)
	require.False(t, table.Revoke(hidden), "the guest never saw it: no rescind")
	require.Equal(t, Gone, hidden.State())
	n, ids := table.Len()
	require.Equal(t, []int{1, 1}, []int{n, ids})
	_, err = table.Publish(Offer{Key: Key{Instance: vmbus.GUID{2}}})
	require.NoError(t, err, "its key is free")
	require.Equal(t, "00000000-0000-0000-0000-000000000000/01000000-0000-0000-0000-000000000000#3",
		Key{Instance: vmbus.GUID{0, 0, 0, 1}, SubChannel: 3}.String())
}

// A re-offered entry keeps the id of the rescinded one, so 2047 ids can be taken by
// fewer offers than that only for as long as the guest has not released them.
func TestAnnounceWithEveryIDTaken(t *testing.T) {
	table := NewHostTable()
	for i := range MaxOffers {
		e, err := table.Publish(Offer{Key: Key{Instance: vmbus.GUID{1, byte(i), byte(i >> 8)}}})
		require.NoError(t, err)
		require.NoError(t, table.Announce(e, false))
	}
	late := &Entry{} // no table lets one more in
	require.ErrorIs(t, table.Announce(late, false), ErrFull)
	require.Zero(t, late.ID)
}

// The guest's catalogue tells what it knows; a broken promise of the host names the
// id and the reason.
func TestCatalogueKnows(t *testing.T) {
	var c Catalogue
	it, err := c.Offer(vmbus.OfferChannel{Channel: 5})
	require.NoError(t, err)
	require.Same(t, it, c.Lookup(5))
	require.Nil(t, c.Lookup(6))
	require.Equal(t, Known, it.State())
	_, err = c.Offer(vmbus.OfferChannel{Channel: 5})
	require.EqualError(t, err, "offers: the host offered channel 5, which is in use")
	_, err = c.Offer(vmbus.OfferChannel{Channel: 4000})
	require.EqualError(t, err, "offers: the host offered channel 4000, outside 1..2047")
	require.True(t, c.Rescind(5))
	require.Equal(t, Rescinded, it.State())
	c.Clear()
	require.Zero(t, c.Len(), "the connection is over, and with it every id")
	require.False(t, c.Rescind(5))
}
