package channel

import (
	"testing"

	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
)

// A saved table is what was saved, orphans and half GPADLs included.
func TestGPADLSaveAndLoad(t *testing.T) {
	var table GPADLTable
	begin := func(ch vmbus.ChannelID, id vmbus.GPADLID, promised int, words ...uint64) *GPADL {
		g, err := table.Begin(vmbus.GPADLHeader{Channel: ch, GPADL: id, RangeBufLen: uint16(promised * 8), RangeCount: 1}, words)
		require.NoError(t, err)
		return g
	}
	whole := begin(1, 1, 2, 4096, 7)
	require.NoError(t, table.Move(whole, Completes))
	require.NoError(t, table.Move(whole, DeviceAccepts))
	require.NoError(t, table.Move(whole, ChannelReleased))
	begin(1, 1, 3, 8192, 7) // the released id again, one word missing

	list, index := table.Save()
	require.Equal(t, 0, index[whole])
	var restored GPADLTable
	all, err := restored.Load(list)
	require.NoError(t, err)
	again, _ := restored.Save()
	require.Equal(t, list, again)
	require.True(t, all[0].Complete())
	g, err := restored.Continue(vmbus.GPADLBody{GPADL: 1}, []uint64{8})
	require.NoError(t, err)
	require.Equal(t, []uint64{7, 8}, g.Ranges[0].PFNs)
	require.NoError(t, restored.Move(all[0], DeviceLetsGo))
	require.Equal(t, 1, restored.Len())
}

// Contents that no run can lead to are refused.
func TestGPADLLoadRefusals(t *testing.T) {
	good := SavedGPADL{ID: 1, Channel: 1, State: Accepted, WordCount: 2, RangeCount: 1, Words: []uint64{4096, 7}}
	change := func(f func(*SavedGPADL)) SavedGPADL { s := good; f(&s); return s }
	for name, list := range map[string][]SavedGPADL{
		"twice":                 {good, good},
		"gone":                  {change(func(s *SavedGPADL) { s.State = GPADLGone })},
		"in no state":           {change(func(s *SavedGPADL) { s.State = 77 })},
		"accepted but short":    {change(func(s *SavedGPADL) { s.WordCount = 3 })},
		"too many words":        {change(func(s *SavedGPADL) { s.WordCount = 1 })},
		"in progress but whole": {change(func(s *SavedGPADL) { s.State = InProgress })},
		"no ranges":             {change(func(s *SavedGPADL) { s.Words = []uint64{0, 7} })},
		"negative":              {change(func(s *SavedGPADL) { s.RangeCount = -1 })},
		"released and accepted": {change(func(s *SavedGPADL) { s.Orphan = true })},
		"torn down, not released": {change(func(s *SavedGPADL) {
			s.State = OfferedTearingDown
		})},
	} {
		_, err := new(GPADLTable).Load(list)
		require.ErrorIs(t, err, vmbus.ErrProtocol, name)
	}
}
