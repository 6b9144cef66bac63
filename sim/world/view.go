package world

import (
	"slices"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// A view is what an observer on the wire knows of one bus: it sees every message
// when it is posted and when it is handled, and the memory that is shared.
type view struct {
	m        *machine
	n        vmbus.Negotiated
	channels map[vmbus.ChannelID]*channelView
	order    []*channelView    // with rings, in the order in which they were opened
	ids      []vmbus.ChannelID // of channels, in the order of their offers
	gpadls   map[vmbus.GPADLID]*gpadlView
	rescinds map[vmbus.ChannelID]int // faults that have not shown
	toHost   []inFlight
	toGuest  []inFlight
	rules    *contract
	used     [vmbus.MaxChannels + 1]bool // ids that were ever offered
	shared   map[uint64]bool             // page numbers the host may look up
	dead     []*deadRing
}

// An inFlight is a message that was posted and not handled.
type inFlight struct {
	msg   vmbus.Message
	vp    uint32 // whose slot it is in, if it is for the guest
	words int    // behind it
}

// A deadRing is a ring that the host has let go of and the guest has not freed.
type deadRing struct {
	gpadl vmbus.GPADLID
	ring  *ring
}

// A channelView is one offer, from its OfferChannel to its RelIDReleased.
type channelView struct {
	offer  vmbus.OfferChannel
	ep     uuid.UUID // of a socket
	rings  [2]*ring  // guest to host, host to guest; nil unless opened
	ring   vmbus.GPADLID
	opened bool   // the host has handled the open
	polls  bool   // it is reserved: the host rings no doorbell
	deaf   bool   // no OpenResult has been posted
	flag   uint64 // the host's doorbell
	bell   uint64 // the guest's doorbell

	looked bool // a ring has moved in this step
	wanted int  // doorbells that must ring because of it
}

// A gpadlView is a GPADL on its way or complete.
type gpadlView struct {
	channel vmbus.ChannelID
	want    int
	ranges  int
	words   []uint64
}

func newView(m *machine) *view {
	v := &view{
		m: m, channels: map[vmbus.ChannelID]*channelView{}, gpadls: map[vmbus.GPADLID]*gpadlView{},
		rescinds: map[vmbus.ChannelID]int{}, shared: map[uint64]bool{},
	}
	v.rules = newContract(v)
	return v
}

// excuse excuses the connection over channel id.
func (v *view) excuse(id vmbus.ChannelID) {
	if c := v.channels[id]; c != nil {
		if p := v.m.w.apps.byEP[c.ep]; p != nil {
			p.excuse("its channel was rescinded")
		}
	}
}

// posted is told of a message that was put on its way; vp is that of the slot, if it
// is for the guest.
func (m *machine) posted(dir vmbus.Direction, vp uint32, payload []byte) {
	w := m.w
	if w.o.Checks != CheckAll && w.o.Trace == nil {
		return
	}
	v := m.view
	w.mixBytes(payload)
	msg, tail, err := vmbus.ParseFrom(dir, payload, v.n)
	if err != nil {
		if !m.attacked() {
			w.fail(VersionRules, "%v sent what %v does not have: %v", dir, v.n, err)
		}
		return
	}
	w.hit(VersionRules)
	if w.o.Trace != nil {
		w.note("%v", messageText(dir, m.number, msg))
	}
	m.checkZeroOut(dir, msg, tail, payload)
	if dir == vmbus.GuestToHost {
		v.toHost = append(v.toHost, inFlight{msg: msg, words: len(tail) / 8})
		v.fromGuest(msg, tail)
		if !m.attacked() {
			v.rules.guestSays(msg)
		}
		return
	}
	v.toGuest = append(v.toGuest, inFlight{msg: msg, vp: vp})
	if !m.attacked() {
		v.rules.hostSays(msg)
	}
	v.fromHost(msg)
}

// notPosted is told of a message of the host that has found no room. All wait but the
// answers about reserved channels, which are lost (vmbus-control.md 5.5).
func (m *machine) notPosted(payload []byte) {
	w := m.w
	if w.o.Checks != CheckAll || m.attacked() {
		return
	}
	switch msg, _, _ := vmbus.ParseFrom(vmbus.HostToGuest, payload, m.view.n); msg := msg.(type) {
	case *vmbus.OpenResult:
		if msg.OpenID != 0 { // no channel has the id 0
			return
		}
		m.view.rules.hostSays(msg)
	case *vmbus.CloseReservedChannelResponse:
		m.view.rules.hostSays(msg)
	default:
		return
	}
	w.note("guest%d: the answer is lost", m.number)
}

// handled is told that an end is about to handle its oldest message.
func (m *machine) handled(at side) {
	if m.w.o.Checks != CheckAll {
		return
	}
	v := m.view
	list := &v.toHost
	if at == guestSide {
		list = &v.toGuest
	}
	if len(*list) == 0 {
		return
	}
	oldest := 0
	for i, waiting := range *list { // a slot holds one message; those of VP 0 come first
		if waiting.vp < (*list)[oldest].vp {
			oldest = i
		}
	}
	first := (*list)[oldest]
	*list = slices.Delete(*list, oldest, oldest+1)
	switch {
	case m.attacked():
	case at == guestSide && m.down: // nobody handles it
	case at == hostSide:
		v.rules.hostHandles(first.msg, first.words)
		v.hostHandles(first.msg)
	default:
		v.rules.guestHandles(first.msg)
		v.guestHandles(first.msg)
	}
}

// hostHandles: from now on the host may touch the rings of a channel it opens.
func (v *view) hostHandles(msg vmbus.Message) {
	var id vmbus.ChannelID
	switch msg := msg.(type) {
	case *vmbus.OpenChannel:
		id = msg.Channel
	case *vmbus.OpenChannel2:
		id = msg.Channel
	case *vmbus.OpenReservedChannel:
		id = msg.Channel
	}
	if c := v.channels[id]; c != nil {
		c.opened = true
	}
}

// guestHandles: after a GpadlTorndown the pages are the guest's own again.
func (v *view) guestHandles(msg vmbus.Message) {
	if msg, ok := msg.(*vmbus.GPADLTorndown); ok {
		v.dead = slices.DeleteFunc(v.dead, func(d *deadRing) bool { return d.gpadl == msg.GPADL })
	}
}

// checkZeroOut: every byte that leaves is one the codec has defined, and the
// padding is zero.
func (m *machine) checkZeroOut(dir vmbus.Direction, msg vmbus.Message, tail, payload []byte) {
	want := vmbus.Append(nil, msg)
	same := len(want) <= len(payload) && string(want) == string(payload[:len(want)])
	if t := msg.Type(); same && t != vmbus.TypeGPADLHeader && t != vmbus.TypeGPADLBody {
		for _, b := range tail {
			same = same && b == 0
		}
	}
	if !same && !m.attacked() {
		m.w.fail(ZeroOut, "%v %v has bytes that nobody defined: % x", dir, msg.Type(), payload)
		return
	}
	m.w.hit(ZeroOut)
}

func (v *view) fromGuest(msg vmbus.Message, tail []byte) {
	switch msg := msg.(type) {
	case *vmbus.InitiateContact:
		v.contact(msg)
	case *vmbus.InitiateContact2:
		v.contact(&msg.InitiateContact)
	case *vmbus.GPADLHeader:
		g := &gpadlView{channel: msg.Channel, want: int(msg.RangeBufLen) / 8, ranges: int(msg.RangeCount)}
		v.gpadls[msg.GPADL] = g
		v.share(g, vmbus.Words(tail))
	case *vmbus.GPADLBody:
		if g := v.gpadls[msg.GPADL]; g != nil {
			v.share(g, vmbus.Words(tail))
		}
	case *vmbus.OpenChannel:
		v.open(msg, vmbus.ChannelID(0), 0)
	case *vmbus.OpenChannel2:
		v.open(&msg.OpenChannel, vmbus.ChannelID(msg.EventFlag), msg.ConnectionID)
	case *vmbus.OpenReservedChannel:
		v.open(&vmbus.OpenChannel{Channel: msg.Channel, Ring: msg.Ring, HostOffset: msg.HostOffset}, 0, 0)
		if c := v.channels[msg.Channel]; c != nil {
			c.polls = true
		}
	case *vmbus.RelIDReleased:
		v.drop(msg.Channel)
		delete(v.channels, msg.Channel)
		v.ids = slices.DeleteFunc(v.ids, func(id vmbus.ChannelID) bool { return id == msg.Channel })
	}
}

// guestDied forgets what only the guest knew.
func (v *view) guestDied() {
	v.order, v.dead = nil, nil
	for _, c := range v.channels {
		c.rings = [2]*ring{}
	}
}

// deaf reports whether the guest need not hear doorbell v: it has not seen the
// result of its open yet, and the host rings again after that.
func (v *view) deaf(doorbell uint64) bool {
	for _, c := range v.order { // those of a life before are not in it, and may have had the same flag
		if !c.polls && c.flag == doorbell&0xFFFF { // no two that do not poll share one
			return c.deaf
		}
	}
	return false
}

// share notes the page numbers of a GPADL.
func (v *view) share(g *gpadlView, words []uint64) {
	for _, w := range words {
		if len(g.words) > 0 { // the first is the head of the one range
			v.shared[w] = true
		}
		g.words = append(g.words, w)
	}
}

// unshare forgets them.
func (v *view) unshare(id vmbus.GPADLID) {
	g := v.gpadls[id]
	if g == nil {
		return
	}
	for i, w := range g.words {
		if i > 0 {
			delete(v.shared, w)
		}
	}
	delete(v.gpadls, id)
}

// contact is a new beginning: whatever was shared before is the guest's own again
// once the host answers.
func (v *view) contact(m *vmbus.InitiateContact) {
	v.n = vmbus.Negotiated{Version: m.Version, Features: vmbus.AllFeatures}
	if m.Version < vmbus.Win10V5 { // newer ones have other things there
		v.shared[m.TargetInfo/guestmem.PageSize] = true
	}
	v.shared[m.ParentToChild/guestmem.PageSize] = true
	v.shared[m.ChildToParent/guestmem.PageSize] = true
}

func (v *view) fromHost(msg vmbus.Message) {
	switch msg := msg.(type) {
	case *vmbus.VersionResponse:
		v.n.Features = 0
	case *vmbus.VersionResponse2:
		v.n.Features = msg.Features
	case *vmbus.VersionResponse3:
		v.n.Features = msg.Features
	case *vmbus.OfferChannel:
		c := &channelView{offer: *msg, ep: msg.Instance.UUID(), deaf: true}
		if v.channels[msg.Channel] == nil {
			v.ids = append(v.ids, msg.Channel)
		}
		v.channels[msg.Channel] = c
	case *vmbus.RescindChannelOffer:
		if v.rescinds[msg.Channel] > 0 {
			v.rescinds[msg.Channel]--
			v.excuse(msg.Channel)
		}
	case *vmbus.OpenResult:
		if c := v.channels[msg.Channel]; c != nil {
			c.deaf = false
		}
	case *vmbus.GPADLTorndown:
		for id, c := range v.channels {
			if c.ring == msg.GPADL && c.rings[0] != nil {
				v.dead = append(v.dead, &deadRing{msg.GPADL, c.rings[0]}, &deadRing{msg.GPADL, c.rings[1]})
				v.drop(id)
			}
		}
		v.unshare(msg.GPADL)
	case *vmbus.UnloadComplete:
		v.forget()
	}
}

// forget ends everything that was shared.
func (v *view) forget() {
	clear(v.channels)
	for id := range v.gpadls {
		v.unshare(id)
	}
	v.ids, v.order, v.dead = nil, nil, nil
}

// open finds the rings of a channel that the guest opens.
func (v *view) open(msg *vmbus.OpenChannel, flag vmbus.ChannelID, bell uint32) {
	c, g := v.channels[msg.Channel], v.gpadls[msg.Ring]
	if c == nil || g == nil || len(g.words) < g.want {
		return
	}
	ranges, err := channel.ParseRanges(g.words[:g.want], g.ranges)
	if err != nil {
		return
	}
	toHost, toGuest, err := channel.SplitRings(ranges, msg.HostOffset)
	if err != nil {
		return
	}
	c.ring, c.deaf, c.opened = msg.Ring, true, false
	c.flag, c.bell = uint64(msg.Channel), uint64(c.offer.ConnectionID)
	if flag != 0 {
		c.flag = uint64(flag)
	}
	if bell != 0 {
		c.bell = uint64(bell)
	}
	for i, pfns := range [][]uint64{toHost, toGuest} {
		pages, err := guestmem.Resolve(&v.m.memory, pfns)
		if err != nil {
			return
		}
		c.rings[i] = newRing(pages, [...]side{guestSide, hostSide}[i])
	}
	v.order = append(v.order, c)
}

// drop forgets the rings of a channel.
func (v *view) drop(id vmbus.ChannelID) {
	c := v.channels[id]
	if c == nil || c.rings[0] == nil {
		return
	}
	c.rings = [2]*ring{}
	c.ring, c.polls = 0, false
	for i, o := range v.order {
		if o == c {
			v.order = append(v.order[:i], v.order[i+1:]...)
			return
		}
	}
}
