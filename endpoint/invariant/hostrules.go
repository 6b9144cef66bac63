package invariant

import (
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
)

// A hostRule is one promise. see looks at an event before the model has taken it
// in; rest, if not nil, looks at the model when nothing moves.
type hostRule struct {
	name string
	see  func(*Host, *hostModel) error
	rest func(*Host, *hostModel) error
}

// hostRules are the rows of faults.md section 3 that one run of a host can show,
// in their order.
var hostRules = []hostRule{
	{"I-RELID-UNIQ", relIDUnique, nil},
	{"I-RELID-RANGE", relIDRange, nil},
	{"I-OFFER-ONCE", offerOnce, nil},
	{"I-RESCIND-ONCE", rescindOnce, nil},
	{"I-NO-OP-AFTER-RELEASE", noOpAfterRelease, nil},
	{"I-OPEN-RESP", openAnswered, opensAnswered},
	{"I-GPADL-RESP", gpadlAnswered, gpadlsAnswered},
	{"I-GPADL-TEARDOWN-ONCE", teardownOnce, teardownsAnswered},
	{"I-GPADL-MEM", gpadlMemory, nil},
	{"I-GPADL-INCOMPLETE", gpadlIncomplete, nil},
	{"I-GPADL-PFN", gpadlPages, nil},
	{"I-SUBCHANNEL-ORDER", subChannelOrder, nil},
	{"I-STATE-LEGAL", stateLegal, nil},
	{"I-VERSION", versionAllows, nil},
	{"I-TRUST", trust, nil},
	{"I-UNLOAD", unloadOnce, unloadAnswered},
	{"I-PAUSE", pauseSilent, nil},
}

// relIDUnique: from an offer of an id until its release there is no second one.
func relIDUnique(_ *Host, m *hostModel) error {
	if a, ok := m.event.What.(endpoint.OfferAnnounced); ok && m.ids[a.Channel] != nil {
		return broken("I-RELID-UNIQ", "channel id %d was given to offer %d while offer %d had it", a.Channel, a.ID, m.ids[a.Channel].offer)
	}
	if o, ok := m.left().(*vmbus.OfferChannel); ok && m.wire[o.Channel] != nil {
		return broken("I-RELID-UNIQ", "channel id %d was offered twice without a release", o.Channel)
	}
	return nil
}

// relIDRange: ids lie in 1..2047.
func relIDRange(_ *Host, m *hostModel) error {
	if o, ok := m.left().(*vmbus.OfferChannel); ok && (o.Channel == 0 || o.Channel > offers.MaxOffers) {
		return broken("I-RELID-RANGE", "channel id %d was offered", o.Channel)
	}
	return nil
}

// offerOnce: nothing is offered before RequestOffers; between it and
// AllOffersDelivered every published channel appears exactly once.
func offerOnce(_ *Host, m *hostModel) error {
	switch msg := m.left().(type) {
	case *vmbus.OfferChannel:
		k := offers.Key{Interface: msg.Interface, Instance: msg.Instance, SubChannel: msg.SubChannel}
		if !m.mayOffer {
			return broken("I-OFFER-ONCE", "channel id %d was offered before RequestOffers", msg.Channel)
		}
		if m.burst[k] {
			return broken("I-OFFER-ONCE", "the same channel was offered twice, now as id %d", msg.Channel)
		}
	case *vmbus.AllOffersDelivered:
		for id := range m.expected {
			return broken("I-OFFER-ONCE", "AllOffersDelivered, but offer %d was not sent", id)
		}
	}
	return nil
}

// rescindOnce: at most one rescind for every offer of an id.
func rescindOnce(_ *Host, m *hostModel) error {
	r, ok := m.left().(*vmbus.RescindChannelOffer)
	if !ok {
		return nil
	}
	if w := m.wire[r.Channel]; w == nil {
		return broken("I-RESCIND-ONCE", "channel id %d is rescinded, which is not offered", r.Channel)
	} else if w.rescinded {
		return broken("I-RESCIND-ONCE", "channel id %d is rescinded twice", r.Channel)
	}
	return nil
}

// noOpAfterRelease: a message that names an id nobody has is refused.
func noOpAfterRelease(_ *Host, m *hostModel) error {
	r, taken, ok := m.received()
	if !ok || !taken {
		return nil
	}
	id, names := channelOf(m.message)
	if names && m.ids[id] == nil {
		return broken("I-NO-OP-AFTER-RELEASE", "%v for channel id %d was accepted (%x), which is nobody's", m.message.Type(), id, r.Payload)
	}
	return nil
}

// channelOf is the channel a guest's message is about.
func channelOf(m vmbus.Message) (id vmbus.ChannelID, names bool) {
	switch m := m.(type) {
	case *vmbus.OpenChannel:
		return m.Channel, true
	case *vmbus.OpenChannel2:
		return m.Channel, true
	case *vmbus.CloseChannel:
		return m.Channel, true
	case *vmbus.GPADLHeader:
		return m.Channel, true
	case *vmbus.GPADLTeardown:
		return m.Channel, true
	case *vmbus.RelIDReleased:
		return m.Channel, true
	case *vmbus.ModifyChannel:
		return m.Channel, true
	case *vmbus.OpenReservedChannel:
		return m.Channel, true
	case *vmbus.CloseReservedChannel:
		return m.Channel, true
	}
	return 0, false
}

// openAnswered: an OpenResult answers an open, and none follows a rescind.
func openAnswered(h *Host, m *hostModel) error {
	if d, ok := m.action().(endpoint.SendDirect); ok {
		r, ok := d.Message.(*vmbus.OpenResult)
		if id := channelOfResult(r); ok && m.ids[id] != nil && m.reservedOpens[id] == 0 {
			return broken("I-OPEN-RESP", "channel id %d: an OpenResult to a reserved target that nobody waits for", r.Channel)
		}
		return nil
	}
	r, ok := m.left().(*vmbus.OpenResult)
	if !ok || h.opts.Dialect.AnswerRescindedOpens {
		return nil
	}
	w := m.wire[r.Channel]
	switch {
	case w == nil:
		return broken("I-OPEN-RESP", "OpenResult for channel id %d, which is nobody's", r.Channel)
	case w.rescinded:
		return broken("I-OPEN-RESP", "OpenResult for channel id %d after its rescind", r.Channel)
	}
	for _, id := range w.opens {
		if id == r.OpenID {
			return nil
		}
	}
	return broken("I-OPEN-RESP", "OpenResult for channel id %d with open id %#x, which nobody waits for", r.Channel, r.OpenID)
}

func channelOfResult(r *vmbus.OpenResult) vmbus.ChannelID {
	if r == nil {
		return 0
	}
	return r.Channel
}

func opensAnswered(_ *Host, m *hostModel) error {
	if m.waiting() {
		return nil
	}
	for id, w := range m.wire {
		if len(w.opens) > 0 && !w.revoked {
			return broken("I-OPEN-RESP", "the open of channel id %d with open id %#x was not answered", id, w.opens[0])
		}
	}
	return nil
}

// gpadlAnswered: a GPADLCreated answers a header, and success one that is complete.
func gpadlAnswered(h *Host, m *hostModel) error {
	c, ok := m.left().(*vmbus.GPADLCreated)
	if !ok || h.opts.Dialect.SilentGPADL {
		return nil
	}
	g := m.gpadls[gpadlKey{c.Channel, c.GPADL}]
	switch {
	case g == nil:
		return broken("I-GPADL-RESP", "GPADLCreated for GPADL %#x of channel id %d, which nobody waits for", uint32(c.GPADL), c.Channel)
	case g.owed == 1 && g.rescinded && c.Status != vmbus.StatusSuccess: // refusing has broken guests (faults.md HC-12)
		return broken("I-GPADL-RESP", "GPADL %#x was refused on channel id %d, which is rescinded", uint32(c.GPADL), c.Channel)
	case g.owed == 1 && g.incomplete && c.Status == vmbus.StatusSuccess:
		return broken("I-GPADL-RESP", "GPADL %#x of channel id %d was created with %d of %d words", uint32(c.GPADL), c.Channel, g.have, g.want)
	}
	return nil
}

func gpadlsAnswered(_ *Host, m *hostModel) error {
	if m.waiting() {
		return nil
	}
	for k, g := range m.gpadls {
		if !g.incomplete || g.owed > 1 {
			return broken("I-GPADL-RESP", "GPADL %#x of channel id %d was not answered", uint32(k.gpadl), k.channel)
		}
	}
	return nil
}

// teardownOnce: a device is asked to let go once of what it was given, and
// GPADLTorndown answers a teardown.
func teardownOnce(_ *Host, m *hostModel) error {
	switch a := m.action().(type) {
	case endpoint.AddGPADL:
		if _, has := m.device(a.Offer).pages[a.GPADL]; has {
			return broken("I-GPADL-TEARDOWN-ONCE", "the device of offer %d was given GPADL %#x twice", a.Offer, uint32(a.GPADL))
		}
	case endpoint.DropGPADL:
		state, has := m.device(a.Offer).pages[a.GPADL]
		if !m.revoked[a.Offer] && (!has || state == pagesDropping) {
			return broken("I-GPADL-TEARDOWN-ONCE", "the device of offer %d is to let go of GPADL %#x, which it does not hold", a.Offer, uint32(a.GPADL))
		}
	}
	t, ok := m.left().(*vmbus.GPADLTorndown)
	if !ok {
		return nil
	}
	for _, asked := range m.teardowns {
		if asked.gpadl == t.GPADL {
			return nil
		}
	}
	return broken("I-GPADL-TEARDOWN-ONCE", "GPADLTorndown for GPADL %#x, which nobody waits for", uint32(t.GPADL))
}

func teardownsAnswered(_ *Host, m *hostModel) error {
	if m.waiting() || len(m.teardowns) == 0 {
		return nil
	}
	return broken("I-GPADL-TEARDOWN-ONCE", "the teardown of GPADL %#x was not answered", uint32(m.teardowns[0].gpadl))
}

// gpadlMemory: a device opens over pages it was given, and a guest hears of a
// teardown when the device has let go.
func gpadlMemory(_ *Host, m *hostModel) error {
	if a, ok := m.action().(endpoint.OpenDevice); ok && !m.revoked[a.Offer] {
		if state, has := m.device(a.Offer).pages[a.Request.Ring]; !has || state != pagesHeld {
			return broken("I-GPADL-MEM", "the device of offer %d is to open over GPADL %#x, which it does not hold", a.Offer, uint32(a.Request.Ring))
		}
	}
	t, ok := m.left().(*vmbus.GPADLTorndown)
	if !ok {
		return nil
	}
	for _, asked := range m.teardowns {
		if asked.gpadl != t.GPADL || m.revoked[asked.offer] {
			continue
		}
		if _, has := m.device(asked.offer).pages[t.GPADL]; has {
			return broken("I-GPADL-MEM", "the device of offer %d still holds GPADL %#x, which is torn down", asked.offer, uint32(t.GPADL))
		}
		return nil
	}
	return nil
}

// gpadlIncomplete: a body continues what is in progress, and nothing else.
func gpadlIncomplete(_ *Host, m *hostModel) error {
	_, taken, ok := m.received()
	b, body := m.message.(*vmbus.GPADLBody)
	if !ok || !taken || !body {
		return nil
	}
	if _, known := m.progress[b.GPADL]; !known {
		return broken("I-GPADL-INCOMPLETE", "a GPADLBody for GPADL %#x was taken, of which nothing is in progress", uint32(b.GPADL))
	}
	return nil
}

// gpadlPages: the ranges a device gets fit their pages exactly.
func gpadlPages(_ *Host, m *hostModel) error {
	a, ok := m.action().(endpoint.AddGPADL)
	if !ok {
		return nil
	}
	for i, r := range a.Ranges {
		const page = 4096
		needed := (uint64(r.ByteOffset) + uint64(r.ByteCount) + page - 1) / page
		if r.ByteCount == 0 || r.ByteOffset >= page || uint64(len(r.PFNs)) != needed {
			return broken("I-GPADL-PFN", "range %d of GPADL %#x has %d bytes at %d in %d pages", i, uint32(a.GPADL), r.ByteCount, r.ByteOffset, len(r.PFNs))
		}
	}
	return nil
}

// subChannelOrder: the sub-channels of a device are rescinded before its primary.
func subChannelOrder(_ *Host, m *hostModel) error {
	r, ok := m.left().(*vmbus.RescindChannelOffer)
	if !ok || m.wire[r.Channel] == nil || m.wire[r.Channel].key.SubChannel != 0 {
		return nil
	}
	primary := m.wire[r.Channel].key
	for id, w := range m.wire {
		if w.key.Interface == primary.Interface && w.key.Instance == primary.Instance && w.key.SubChannel != 0 && !w.rescinded {
			return broken("I-SUBCHANNEL-ORDER", "channel id %d is rescinded before its sub-channel %d, id %d", r.Channel, w.key.SubChannel, id)
		}
	}
	return nil
}

// stateLegal: the connection moves along the edges of its table; a call may move
// it twice, since the end of one thing can be the beginning of the next.
func stateLegal(_ *Host, m *hostModel) error {
	from, to := m.state, m.event.Host
	if from == to {
		return nil
	}
	for e, mid := range endpoint.HostTransitions.Edges {
		if e.From != from {
			continue
		}
		if mid == to {
			return nil
		}
		for e, end := range endpoint.HostTransitions.Edges {
			if e.From == mid && end == to {
				return nil
			}
		}
	}
	return broken("I-STATE-LEGAL", "the connection went from %v to %v", from, to)
}

// versionAllows: only what the version and the features allow is sent and
// accepted, and no more is granted than was asked for and configured.
func versionAllows(h *Host, m *hostModel) error {
	spoken := m.spoken
	if n := m.event.Negotiated; n.Version != 0 {
		spoken = n
	}
	if msg := m.left(); msg != nil {
		if why := allowed(msg.Type(), spoken); why != "" && !h.opts.Dialect.AnswerEveryUnload {
			return broken("I-VERSION", "%v was sent: %s", msg.Type(), why)
		}
		granted, response := granted(msg)
		if response && m.answers(granted) < 0 {
			return broken("I-VERSION", "%v granted the features %v, which no contact without an answer has asked for", msg.Type(), granted)
		}
		if more := granted &^ h.opts.Features; more != 0 && h.opts.Features != 0 {
			return broken("I-VERSION", "the features %v were granted, and not configured", more)
		}
	}
	if r, taken, _ := m.received(); taken && !h.opts.Dialect.AnswerEveryUnload {
		if m.message == nil {
			return broken("I-VERSION", "a message that makes no sense here was accepted: %x", r.Payload)
		}
		if why := allowed(m.message.Type(), m.negotiated); why != "" {
			return broken("I-VERSION", "%v was accepted: %s", m.message.Type(), why)
		}
	}
	return nil
}

// trust: a trusted connection takes nothing from elsewhere, and flags show only
// where their feature was agreed on.
func trust(_ *Host, m *hostModel) error {
	r, taken, _ := m.received()
	if taken && m.trusted && connected(m.state) && !r.From.Trusted {
		return broken("I-TRUST", "%v was accepted on a path that is not trusted", m.message.Type())
	}
	o, ok := m.left().(*vmbus.OfferChannel)
	if !ok {
		return nil
	}
	n := m.spoken.Features
	if o.Flags&(vmbus.OfferConfidentialRing|vmbus.OfferConfidentialExternal) != 0 && n&vmbus.ConfidentialChannels == 0 {
		return broken("I-TRUST", "channel id %d shows confidential flags that were not agreed on", o.Channel)
	}
	if o.Flags&vmbus.OfferPinned != 0 && n&vmbus.GPAPinning == 0 {
		return broken("I-TRUST", "channel id %d shows a flag for pinned memory that was not agreed on", o.Channel)
	}
	return nil
}

// unloadOnce: one UnloadComplete for an Unload, after the last device has closed;
// none for a guest that simply makes contact again. A device that was stopped when
// its guest went is not waited for: an unload ends also then (faults.md, L-RESET),
// and the device touches no page before it is told.
func unloadOnce(h *Host, m *hostModel) error {
	if _, ok := m.left().(*vmbus.UnloadComplete); !ok || h.opts.Dialect.AnswerEveryUnload {
		return nil
	}
	if m.unloads == 0 {
		return broken("I-UNLOAD", "UnloadComplete without Unload")
	}
	for id, d := range m.devices {
		if d.open && !d.left && !m.reserved(id) {
			return broken("I-UNLOAD", "UnloadComplete while the device of offer %d is open", id)
		}
	}
	return nil
}

// reserved reports whether the offer's channel outlives the connection.
func (m *hostModel) reserved(id endpoint.OfferID) bool {
	for _, c := range m.ids {
		if c.offer == id && c.reserved {
			return true
		}
	}
	return false
}

func unloadAnswered(_ *Host, m *hostModel) error {
	if m.unloads > 0 && m.state == endpoint.HostDisconnected && m.spoken.Version >= vmbus.Win7 {
		return broken("I-UNLOAD", "Unload was not answered")
	}
	return nil
}

// pauseSilent: nothing is sent between PauseResponse and the end of the pause.
func pauseSilent(_ *Host, m *hostModel) error {
	if msg := m.left(); msg != nil && m.paused {
		return broken("I-PAUSE", "%v was sent during a pause", msg.Type())
	}
	return nil
}
