package channel

import (
	"fmt"
	"slices"

	"github.com/hvlab/hvlab/vmbus"
)

// A SavedGPADL is one GPADL in a saved state. Ranges are parsed again on the way
// back, so that words nobody checked never become ranges.
type SavedGPADL struct {
	ID         vmbus.GPADLID
	Channel    vmbus.ChannelID
	State      GPADLState
	WordCount  int // promised by the header
	RangeCount int
	Words      []uint64
	Orphan     bool // its channel was released
}

// Save returns every GPADL in the order in which they were announced, and what
// each is called in that list.
func (t *GPADLTable) Save() ([]SavedGPADL, map[*GPADL]int) {
	var all []*GPADL
	for _, ids := range t.channels {
		for _, g := range ids {
			all = append(all, g)
		}
	}
	for g := range t.orphans {
		all = append(all, g)
	}
	slices.SortFunc(all, func(a, b *GPADL) int { return int(a.serial) - int(b.serial) })
	list, index := []SavedGPADL{}, map[*GPADL]int{}
	for i, g := range all {
		_, orphan := t.orphans[g]
		index[g] = i
		list = append(list, SavedGPADL{g.ID, g.Channel, g.state, g.want, g.count, g.words, orphan})
	}
	return list, index
}

// Load fills an empty table with what Save returned, and returns the GPADLs in
// the same order. Contents that no run can lead to, or that exceed a limit, are
// an error matching vmbus.ErrProtocol.
func (t *GPADLTable) Load(list []SavedGPADL) ([]*GPADL, error) {
	var all []*GPADL
	for i, s := range list {
		g, err := t.load(s)
		if err != nil {
			return nil, fmt.Errorf("channel: saved GPADL %d: %w", i, err)
		}
		all = append(all, g)
	}
	return all, nil
}

func (t *GPADLTable) load(s SavedGPADL) (*GPADL, error) {
	fail := func(reason string) (*GPADL, error) { return nil, &GPADLError{s.Channel, s.ID, reason} }
	complete := len(s.Words) == s.WordCount
	switch {
	case !slices.Contains(GPADLTransitions.States, s.State) || s.State == GPADLGone:
		return fail("it is in no state")
	case complete == (s.State == InProgress) || len(s.Words) > s.WordCount:
		return fail("its state and its words contradict each other")
	case s.WordCount < 0 || s.WordCount > MaxRangeBufferBytes/8 || s.RangeCount < 0 || s.RangeCount > 0xFFFF:
		return fail("no header can promise that")
	case s.Orphan && s.State != OfferedTearingDown && s.State != TearingDown:
		return fail("a released GPADL is in this state only while it is torn down")
	case !s.Orphan && s.State == OfferedTearingDown:
		return fail("only a released GPADL is in this state")
	}
	was := t.count
	g, err := t.Begin(vmbus.GPADLHeader{Channel: s.Channel, GPADL: s.ID, RangeBufLen: uint16(s.WordCount * 8), RangeCount: uint16(s.RangeCount)}, s.Words)
	if err != nil {
		return nil, err
	}
	if t.count != was+1 || g.Complete() != complete {
		return fail("its words are no ranges")
	}
	g.state = s.State
	if s.Orphan {
		t.unlink(g)
		t.orphans[g] = struct{}{}
	}
	return g, nil
}
