package channel

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/hvlab/hvlab/internal/fsm"
	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/vmbus"
)

// GPADLState is where a GPADL is in the host's view.
type GPADLState uint8

// The host's states of a GPADL. Source: vmbus-control.md 5.4.
const (
	InProgress         GPADLState = iota // header seen, words missing
	GPADLOffered                         // complete, the device was asked
	Accepted                             // GPADLCreated(0) sent
	OfferedTearingDown                   // the guest released the channel while Offered
	TearingDown                          // the device was asked to let go
	GPADLGone                            // removed
)

func (s GPADLState) String() string {
	return [...]string{"InProgress", "Offered", "Accepted", "OfferedTearingDown", "TearingDown", "Gone"}[s]
}

// GPADLEvent moves a GPADL.
type GPADLEvent uint8

// The events of a GPADL. Those that end in Revoked happen on a channel whose
// offer was rescinded but not released: the device is not involved any more.
const (
	Completes GPADLEvent = iota
	CompletesRevoked
	Invalid
	DeviceAccepts
	DeviceRejects
	GuestTearsDown
	GuestTearsDownRevoked
	DeviceLetsGo
	OfferRevoked
	ChannelReleased
	ChannelReleasedRevoked
)

func (e GPADLEvent) String() string {
	return [...]string{"Completes", "CompletesRevoked", "Invalid", "DeviceAccepts", "DeviceRejects", "GuestTearsDown",
		"GuestTearsDownRevoked", "DeviceLetsGo", "OfferRevoked", "ChannelReleased", "ChannelReleasedRevoked"}[e]
}

// GPADLTransitions is the life of a GPADL on the host.
var GPADLTransitions = fsm.Table[GPADLState, GPADLEvent]{
	Name:   "host GPADL",
	States: []GPADLState{InProgress, GPADLOffered, Accepted, OfferedTearingDown, TearingDown, GPADLGone},
	Events: []GPADLEvent{Completes, CompletesRevoked, Invalid, DeviceAccepts, DeviceRejects, GuestTearsDown,
		GuestTearsDownRevoked, DeviceLetsGo, OfferRevoked, ChannelReleased, ChannelReleasedRevoked},
	Edges: map[fsm.Edge[GPADLState, GPADLEvent]]GPADLState{
		{From: InProgress, On: Completes}:               GPADLOffered,
		{From: InProgress, On: CompletesRevoked}:        Accepted,
		{From: InProgress, On: Invalid}:                 GPADLGone,
		{From: InProgress, On: OfferRevoked}:            InProgress, // bodies may still arrive
		{From: InProgress, On: ChannelReleased}:         GPADLGone,
		{From: InProgress, On: ChannelReleasedRevoked}:  GPADLGone,
		{From: GPADLOffered, On: DeviceAccepts}:         Accepted,
		{From: GPADLOffered, On: DeviceRejects}:         GPADLGone,
		{From: GPADLOffered, On: OfferRevoked}:          GPADLGone,
		{From: GPADLOffered, On: ChannelReleased}:       OfferedTearingDown,
		{From: Accepted, On: GuestTearsDown}:            TearingDown,
		{From: Accepted, On: GuestTearsDownRevoked}:     GPADLGone,
		{From: Accepted, On: OfferRevoked}:              Accepted,
		{From: Accepted, On: ChannelReleased}:           TearingDown,
		{From: Accepted, On: ChannelReleasedRevoked}:    GPADLGone,
		{From: OfferedTearingDown, On: DeviceAccepts}:   TearingDown,
		{From: OfferedTearingDown, On: DeviceRejects}:   GPADLGone,
		{From: OfferedTearingDown, On: OfferRevoked}:    GPADLGone,
		{From: TearingDown, On: DeviceLetsGo}:           GPADLGone,
		{From: TearingDown, On: OfferRevoked}:           GPADLGone,
		{From: TearingDown, On: ChannelReleased}:        TearingDown,
		{From: TearingDown, On: ChannelReleasedRevoked}: GPADLGone,
		{From: OfferedTearingDown, On: ChannelReleased}: OfferedTearingDown,
	},
}

// A GPADL is a list of guest pages shared with the host.
type GPADL struct {
	ID      vmbus.GPADLID
	Channel vmbus.ChannelID
	Ranges  []Range // valid once complete

	state  GPADLState
	words  []uint64
	want   int // words promised by the header
	count  int // ranges promised by the header
	shared int // bytes, once complete
	parsed int // words that Ranges take, once complete
	serial uint64
}

// State returns where the GPADL is in its life.
func (g *GPADL) State() GPADLState { return g.state }

// A GPADLError reports a GPADL message the host refuses.
type GPADLError struct {
	Channel vmbus.ChannelID // 0 if the message names none: a GPADLBody
	GPADL   vmbus.GPADLID
	Reason  string
}

func (e *GPADLError) Error() string {
	if e.Channel == 0 {
		return fmt.Sprintf("channel: GPADL %#x: %s", uint32(e.GPADL), e.Reason)
	}
	return fmt.Sprintf("channel: GPADL %#x of channel %d: %s", uint32(e.GPADL), e.Channel, e.Reason)
}

// Is makes a GPADLError match vmbus.ErrProtocol: it is the guest's fault.
func (e *GPADLError) Is(target error) bool { return target == vmbus.ErrProtocol }

// A GPADLTable holds the GPADLs of one guest connection. Complete ones are
// known by channel and id, those in progress by id alone, since bodies carry no
// channel (vmbus-control.md 4.2). The zero value is empty and ready.
type GPADLTable struct {
	channels   map[vmbus.ChannelID]map[vmbus.GPADLID]*GPADL
	inProgress map[vmbus.GPADLID]*GPADL
	orphans    map[*GPADL]struct{} // channel released, device still holds them
	count      int                 // GPADLs in channels
	announced  uint64              // GPADLs ever begun
	words      int                 // page list words of all GPADLs, and what their ranges take
	shared     int                 // bytes shared by all complete GPADLs
}

// Begin handles a GPADLHeader with words behind it. The GPADL is complete when
// Complete reports so. An error is answered with GPADLCreated(failure).
func (t *GPADLTable) Begin(h vmbus.GPADLHeader, words []uint64) (*GPADL, error) {
	fail := func(reason string) (*GPADL, error) { return nil, &GPADLError{h.Channel, h.GPADL, reason} }
	switch {
	case t.Lookup(h.Channel, h.GPADL) != nil:
		return fail("the id is in use on this channel")
	case t.inProgress[h.GPADL] != nil:
		return fail("the id is in progress")
	case len(t.inProgress) >= MaxIncompleteGPADLs:
		return fail(fmt.Sprintf("%d GPADLs are incomplete already", MaxIncompleteGPADLs))
	case t.Len() >= MaxGPADLs:
		return fail(fmt.Sprintf("%d GPADLs exist already", MaxGPADLs))
	}
	if t.channels == nil {
		t.channels = map[vmbus.ChannelID]map[vmbus.GPADLID]*GPADL{}
		t.inProgress = map[vmbus.GPADLID]*GPADL{}
		t.orphans = map[*GPADL]struct{}{}
	}
	g := &GPADL{ID: h.GPADL, Channel: h.Channel, want: int(h.RangeBufLen) / 8, count: int(h.RangeCount), serial: t.announced}
	t.announced++
	if t.channels[g.Channel] == nil {
		t.channels[g.Channel] = map[vmbus.GPADLID]*GPADL{}
	}
	t.channels[g.Channel][g.ID] = g
	t.count++
	t.inProgress[g.ID] = g
	return g, t.add(g, words)
}

// Continue handles a GPADLBody. A body for an id not in progress is a
// *GPADLError with a nil GPADL and is dropped.
func (t *GPADLTable) Continue(b vmbus.GPADLBody, words []uint64) (*GPADL, error) {
	g := t.inProgress[b.GPADL]
	if g == nil {
		return nil, &GPADLError{0, b.GPADL, "a body arrived for an id that is not in progress"}
	}
	return g, t.add(g, words)
}

// add appends words to g. When the last has arrived the ranges are checked; a
// GPADL that fails is gone.
func (t *GPADLTable) add(g *GPADL, words []uint64) error {
	words = words[:min(len(words), g.want-len(g.words))]
	if t.words+len(words) > MaxGPADLWords {
		t.drop(g, Invalid)
		return &GPADLError{g.Channel, g.ID, "the page lists of this guest take too much memory"}
	}
	g.words = append(g.words, words...)
	t.words += len(words)
	if len(g.words) < g.want {
		return nil
	}
	ranges, err := ParseRanges(g.words, g.count)
	if err != nil {
		t.drop(g, Invalid)
		return err
	}
	// A range of one page is two words on the wire, and twice that when parsed.
	if t.words+len(ranges)*rangeWords > MaxGPADLWords {
		t.drop(g, Invalid)
		return &GPADLError{g.Channel, g.ID, "the page lists of this guest take too much memory"}
	}
	for _, r := range ranges {
		g.shared += int(r.ByteCount)
	}
	if t.shared+g.shared > MaxSharedBytes {
		g.shared = 0
		t.drop(g, Invalid)
		return &GPADLError{g.Channel, g.ID, fmt.Sprintf("this guest would share more than %d bytes", MaxSharedBytes)}
	}
	t.shared += g.shared
	g.parsed = len(ranges) * rangeWords
	t.words += g.parsed
	g.Ranges = ranges
	delete(t.inProgress, g.ID)
	return nil
}

// Complete reports whether every word of g has arrived.
func (g *GPADL) Complete() bool { return g.Ranges != nil }

// Lookup returns the GPADL id of channel ch, or nil.
func (t *GPADLTable) Lookup(ch vmbus.ChannelID, id vmbus.GPADLID) *GPADL {
	return t.channels[ch][id]
}

// InUse reports whether any channel has a GPADL called id.
func (t *GPADLTable) InUse(id vmbus.GPADLID) bool {
	for _, ids := range t.channels {
		if ids[id] != nil {
			return true
		}
	}
	return false
}

// OfChannel returns the GPADLs of channel ch in the order of their ids.
func (t *GPADLTable) OfChannel(ch vmbus.ChannelID) []*GPADL {
	switch len(t.channels[ch]) { // nearly always: no need to sort
	case 0:
		return nil
	case 1:
		for _, g := range t.channels[ch] {
			return []*GPADL{g}
		}
	}
	return slices.SortedFunc(maps.Values(t.channels[ch]), func(a, b *GPADL) int { return cmp.Compare(a.ID, b.ID) })
}

// Len returns the number of GPADLs in any state.
func (t *GPADLTable) Len() int { return t.count + len(t.orphans) }

// Move applies event on to g and forgets it when it is gone. An illegal event
// is an error and changes nothing.
func (t *GPADLTable) Move(g *GPADL, on GPADLEvent) error {
	to, err := GPADLTransitions.Next(g.state, on)
	if err != nil {
		return errors.Join(vmbus.ErrState, err)
	}
	g.state = to
	if to == GPADLGone {
		t.forget(g)
		return nil
	}
	if on == ChannelReleased { // the channel id may be reused: the key must not collide
		t.unlink(g)
		t.orphans[g] = struct{}{}
	}
	return nil
}

func (t *GPADLTable) drop(g *GPADL, on GPADLEvent) {
	if err := t.Move(g, on); err != nil {
		panic(err) // only called in states that have the edge
	}
}

// unlink takes g out of its channel's list; a second call does nothing.
func (t *GPADLTable) unlink(g *GPADL) {
	ids := t.channels[g.Channel]
	if ids[g.ID] != g {
		return
	}
	delete(ids, g.ID)
	t.count--
	if len(ids) == 0 {
		delete(t.channels, g.Channel)
	}
}

func (t *GPADLTable) forget(g *GPADL) {
	t.unlink(g)
	if t.inProgress[g.ID] == g && !putback.On(putback.HC01) {
		delete(t.inProgress, g.ID)
	}
	delete(t.orphans, g)
	t.words -= len(g.words) + g.parsed
	t.shared -= g.shared
	g.words, g.shared, g.parsed = nil, 0, 0
}
