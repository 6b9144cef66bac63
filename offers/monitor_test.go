package offers

import (
	"testing"

	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
)

// P54: 128 ids, then none; a chosen id can be claimed.
func TestMonitorIDs(t *testing.T) {
	var ids MonitorIDs
	require.True(t, ids.Claim(5))
	require.False(t, ids.Claim(5), "it is taken")
	require.False(t, ids.Claim(128), "ids are 0..127")
	for want := range vmbus.MaxMonitorIDs {
		if want == 5 {
			continue
		}
		id, ok := ids.Take()
		require.True(t, ok)
		require.EqualValues(t, want, id, "lowest free first")
	}
	id, ok := ids.Take()
	require.False(t, ok)
	require.Equal(t, vmbus.NoMonitor, id)
	ids.Give(77)
	ids.Give(vmbus.NoMonitor) // a channel without an id gives nothing back
	id, ok = ids.Take()
	require.True(t, ok)
	require.EqualValues(t, 77, id)
}

// P22: an id only while monitor pages are usable, preset ids past the list, and
// the id is free again with the channel's.
func TestMonitoredOffers(t *testing.T) {
	table := NewHostTable()
	publish := func(n byte, m *Monitor) *Entry {
		e, err := table.Publish(Offer{Key: Key{Instance: vmbus.GUID{n}}, Monitor: m})
		require.NoError(t, err)
		return e
	}
	first, second, preset, plain := publish(1, &Monitor{}), publish(2, &Monitor{}), publish(3, &Monitor{Preset: true, ID: 1}), publish(4, nil)
	require.NoError(t, table.Announce(first, false))
	require.Equal(t, vmbus.NoMonitor, first.MonitorID, "the guest has no pages")
	require.NoError(t, table.Announce(second, true))
	require.NoError(t, table.Announce(preset, true))
	require.NoError(t, table.Announce(plain, true))
	require.EqualValues(t, 0, second.MonitorID)
	require.EqualValues(t, 1, preset.MonitorID)
	require.Equal(t, vmbus.NoMonitor, plain.MonitorID)

	_, err := table.Release(second)
	require.NoError(t, err)
	require.Equal(t, vmbus.NoMonitor, second.MonitorID)
	third := publish(5, &Monitor{})
	require.NoError(t, table.Announce(third, true))
	require.EqualValues(t, 0, third.MonitorID, "the id came back")
	fourth := publish(6, &Monitor{})
	require.NoError(t, table.Announce(fourth, true))
	require.EqualValues(t, 1, fourth.MonitorID, "the preset id was never in the list")

	_, err = table.Publish(Offer{Key: Key{Instance: vmbus.GUID{7}}, Monitor: &Monitor{Preset: true, ID: 128}})
	require.ErrorIs(t, err, vmbus.ErrState, "there are 128 ids")
}
