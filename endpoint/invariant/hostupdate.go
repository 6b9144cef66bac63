package invariant

import (
	"maps"
	"slices"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
)

// update takes the event into the model.
func (m *hostModel) update(opts endpoint.HostOptions) {
	switch what := m.event.What.(type) {
	case endpoint.OfferPublished:
		m.published[what.ID] = what.Offer
	case endpoint.OfferRevoked:
		m.revoke(what.ID)
	case endpoint.OfferAnnounced:
		m.ids[what.Channel] = &channelID{offer: what.ID, key: m.published[what.ID].Key}
		delete(m.expected, what.ID)
	case endpoint.DeviceStopped:
		m.device(what.ID).stopped = true
	case endpoint.DeviceStarted:
		m.device(what.ID).stopped = false
	case endpoint.DevicesReplaced:
		dropping := m.dropping()
		clear(m.devices)
		clear(m.asked)
		m.hold(what.Held)
		m.hold(dropping) // they are asked for it once more
	case endpoint.MachineReset:
		m.unloads, m.paused, m.resets = 0, false, true
	case endpoint.ActionTaken:
		m.take(what.Action)
	case endpoint.Answered:
		m.answer(what)
	case endpoint.MessageLeft:
		m.leave(what.Message)
	case endpoint.MessageReceived:
		m.receive(what, opts)
	}
	if connected(m.state) && !connected(m.event.Host) {
		m.endConnection()
	}
	if m.resets && (m.event.Host == endpoint.Disconnecting || m.event.Host == endpoint.HostDisconnected) {
		m.resets = false
		clear(m.ids)
		m.contacts = nil // answers that have not left are discarded (vmbus-control.md 5.1)
		m.leaveDevices(false)
		m.forgetWire()
	}
	if n := m.event.Negotiated; n.Version != 0 {
		m.spoken = n
	}
	m.state, m.negotiated = m.event.Host, m.event.Negotiated
}

// endConnection frees every id but the reserved ones.
func (m *hostModel) endConnection() {
	maps.DeleteFunc(m.ids, func(_ vmbus.ChannelID, c *channelID) bool {
		c.stale = true
		return !c.reserved
	})
	clear(m.progress)
	m.paused, m.trusted, m.expected = false, false, nil
}

// leaveDevices is the end of a connection as the devices see it: one that is
// stopped is not waited for, none is if the host ends the connection at once.
func (m *hostModel) leaveDevices(atOnce bool) {
	for id, d := range m.devices {
		if (d.stopped || atOnce) && !m.reserved(id) {
			d.left = true
		}
	}
}

// forgetWire forgets what the guest knew, except of channels that have outlived
// their connection: reserved ones, also if they are withdrawn before the next
// connection hears its first message.
func (m *hostModel) forgetWire() {
	maps.DeleteFunc(m.wire, func(id vmbus.ChannelID, c *channelID) bool { return m.ids[id] == nil || !m.ids[id].stale })
	clear(m.gpadls)
	m.teardowns = nil
}

func (m *hostModel) revoke(id endpoint.OfferID) {
	m.revoked[id] = true
	delete(m.expected, id)
	delete(m.devices, id) // it is being removed
	maps.DeleteFunc(m.asked, func(_ endpoint.Token, a endpoint.Action) bool { return offerOf(a) == id })
	for r, c := range m.ids {
		if c.offer != id {
			continue
		}
		c.revoked, c.reserved = true, false
		if w := m.wire[r]; w != nil {
			w.revoked = true
		}
		if !connected(m.event.Host) { // a reserved channel of nobody's connection; SetupDone is no event of its own
			delete(m.ids, r)
		}
	}
}

// offerOf is the offer whose device an action is for, 0 for none.
func offerOf(a endpoint.Action) endpoint.OfferID {
	_, id := request(a)
	return id
}

// request is the token and the offer of an action that a device answers.
func request(a endpoint.Action) (endpoint.Token, endpoint.OfferID) {
	switch a := a.(type) {
	case endpoint.OpenDevice:
		return a.Token, a.Offer
	case endpoint.CloseDevice:
		return a.Token, a.Offer
	case endpoint.AddGPADL:
		return a.Token, a.Offer
	case endpoint.DropGPADL:
		return a.Token, a.Offer
	case endpoint.RetargetDevice:
		return a.Token, a.Offer
	case endpoint.RemapMonitors:
		return a.Token, 0
	}
	return 0, 0
}

// take is an action on its way to a device.
func (m *hostModel) take(a endpoint.Action) {
	if t, id := request(a); t != 0 && !m.revoked[id] {
		m.asked[t] = a
	}
	switch a := a.(type) {
	case endpoint.AddGPADL:
		m.device(a.Offer).pages[a.GPADL] = pagesAsked
	case endpoint.DropGPADL:
		m.device(a.Offer).pages[a.GPADL] = pagesDropping
	case endpoint.OfferGone:
		delete(m.devices, a.Offer)
		delete(m.published, a.Offer)
		delete(m.revoked, a.Offer)
	case endpoint.SetupConnection:
		m.trusted = m.nextTrust
	case endpoint.SendDirect:
		m.leaveDirect(a.Message)
	}
}

// answer is what a device says, whether anybody waits for it or not.
func (m *hostModel) answer(r endpoint.Answered) {
	a := m.asked[r.Token]
	delete(m.asked, r.Token)
	switch a := a.(type) {
	case endpoint.OpenDevice:
		if r.Status == vmbus.StatusSuccess && !r.Ignored { // else it was told to close meanwhile (faults.md HC-04)
			d := m.device(a.Offer)
			d.open, d.left, d.ring = true, false, a.Request.Ring
		}
		if c := m.ids[a.Request.Channel]; c != nil && c.offer == a.Offer && c.reserved && r.Status != vmbus.StatusSuccess && !r.Ignored {
			m.unreserve(a.Request.Channel, c) // before its answer leaves, the channel may be offered anew
		}
	case endpoint.CloseDevice:
		m.device(a.Offer).open, m.device(a.Offer).left = false, false
		for id, c := range m.ids {
			if c.offer == a.Offer && c.reserved && !r.Ignored {
				m.unreserve(id, c)
			}
		}
	case endpoint.AddGPADL:
		d := m.device(a.Offer)
		if d.pages[a.GPADL] == pagesDropping || r.Ignored { // it was told to let go meanwhile, or will be
			return
		}
		d.pages[a.GPADL] = pagesHeld
		if r.Status != vmbus.StatusSuccess {
			delete(d.pages, a.GPADL)
		}
	case endpoint.DropGPADL:
		delete(m.device(a.Offer).pages, a.GPADL)
	}
}

// dropping lists the pages that devices were asked to let go of, and have not.
func (m *hostModel) dropping() []endpoint.Action {
	var list []endpoint.Action
	for offer, d := range m.devices {
		for gpadl, state := range d.pages {
			if state == pagesDropping {
				list = append(list, endpoint.AddGPADL{Offer: offer, GPADL: gpadl})
			}
		}
	}
	return list
}

// hold makes new devices hold what the old ones did.
func (m *hostModel) hold(held []endpoint.Action) {
	for _, a := range held {
		switch a := a.(type) {
		case endpoint.AddGPADL:
			m.device(a.Offer).pages[a.GPADL] = pagesHeld
		case endpoint.OpenDevice:
			d := m.device(a.Offer)
			d.open, d.ring = true, a.Request.Ring
		}
	}
}

// unreserve ends a reserved channel; its id goes with it if the connection that
// reserved it is over.
func (m *hostModel) unreserve(id vmbus.ChannelID, c *channelID) {
	c.reserved = false
	if c.stale {
		delete(m.ids, id)
		delete(m.wire, id)
	}
}

// leave is a message on its way to the guest.
func (m *hostModel) leave(msg vmbus.Message) {
	switch msg := msg.(type) {
	case *vmbus.OfferChannel:
		w := &channelID{key: offers.Key{Interface: msg.Interface, Instance: msg.Instance, SubChannel: msg.SubChannel}}
		if c := m.ids[msg.Channel]; c != nil {
			w.offer, w.revoked = c.offer, c.revoked
		}
		m.wire[msg.Channel] = w
		if m.burst != nil {
			m.burst[w.key] = true
		}
	case *vmbus.AllOffersDelivered:
		m.burst, m.expected = nil, nil
	case *vmbus.RescindChannelOffer:
		if w := m.wire[msg.Channel]; w != nil {
			w.rescinded = true
		}
	case *vmbus.OpenResult:
		if w := m.wire[msg.Channel]; w != nil {
			if i := slices.Index(w.opens, msg.OpenID); i >= 0 {
				w.opens = slices.Delete(w.opens, i, i+1)
			}
		}
	case *vmbus.GPADLCreated:
		k := gpadlKey{msg.Channel, msg.GPADL}
		if g := m.gpadls[k]; g != nil {
			if g.owed--; g.owed == 0 {
				delete(m.gpadls, k)
			}
		}
	case *vmbus.GPADLTorndown:
		if i := slices.IndexFunc(m.teardowns, func(t teardown) bool { return t.gpadl == msg.GPADL }); i >= 0 {
			m.teardowns = slices.Delete(m.teardowns, i, i+1)
		}
	case *vmbus.ModifyChannelResponse:
		if w := m.wire[msg.Channel]; w != nil && w.modifies > 0 {
			w.modifies--
		}
	case *vmbus.VersionResponse, *vmbus.VersionResponse2, *vmbus.VersionResponse3:
		f, _ := granted(msg)
		m.contacts = m.contacts[m.answers(f)+1:]
		m.forgetWire()
		m.mayOffer, m.burst = false, nil
	case *vmbus.UnloadComplete:
		m.forgetWire()
		m.unloads = 0
	case *vmbus.PauseResponse:
		m.paused = true
	}
}

// leaveDirect is an answer about a reserved channel.
func (m *hostModel) leaveDirect(msg vmbus.Message) {
	if r, ok := msg.(*vmbus.OpenResult); ok {
		if m.reservedOpens[r.Channel] > 0 {
			m.reservedOpens[r.Channel]--
			if c := m.ids[r.Channel]; r.Status != vmbus.StatusSuccess && c != nil && c.reserved && m.reservedOpens[r.Channel] == 0 {
				m.unreserve(r.Channel, c)
			}
		}
	}
}

// receive is a message of the guest.
func (m *hostModel) receive(r endpoint.MessageReceived, opts endpoint.HostOptions) {
	m.receiveGPADL(r.Err == nil, opts)
	if r.Err != nil {
		return
	}
	switch msg := m.message.(type) {
	case *vmbus.InitiateContact:
		m.contact(*msg, r, opts)
	case *vmbus.InitiateContact2:
		m.contact(msg.InitiateContact, r, opts)
	case *vmbus.RequestOffers:
		m.mayOffer, m.burst = true, map[offers.Key]bool{}
		m.expected = m.announceable()
	case *vmbus.RelIDReleased:
		m.release(msg.Channel)
	case *vmbus.OpenChannel:
		m.opened(msg.Channel, msg.OpenID)
	case *vmbus.OpenChannel2:
		m.opened(msg.Channel, msg.OpenID)
	case *vmbus.OpenReservedChannel:
		if c := m.ids[msg.Channel]; c != nil && !c.revoked {
			c.reserved, c.stale = true, m.event.Host != endpoint.OffersSent
			m.reservedOpens[msg.Channel]++
		}
	case *vmbus.CloseReservedChannel:
		if c := m.ids[msg.Channel]; c != nil && c.reserved {
			c.stale = m.event.Host != endpoint.OffersSent
		}
	case *vmbus.GPADLTeardown:
		if c := m.ids[msg.Channel]; c != nil {
			m.teardowns = append(m.teardowns, teardown{gpadlKey{msg.Channel, msg.GPADL}, c.offer})
		}
	case *vmbus.Unload:
		m.unloads, m.paused = m.unloads+1, false
		m.leaveDevices(false)
	case *vmbus.Resume:
		m.paused = false
	}
}

func (m *hostModel) contact(c vmbus.InitiateContact, r endpoint.MessageReceived, opts endpoint.HostOptions) {
	m.leaveDevices(opts.Dialect.ResetOnContact)
	m.unloads, m.paused, m.nextTrust = 0, false, r.From.Trusted
	m.resets = false // the newest wish counts
	asks := vmbus.Features(0)
	if c.Version >= vmbus.Copper {
		asks = vmbus.UnpackTargetInfo(c.Version, c.TargetInfo).Features
	}
	m.contacts = append(m.contacts, asks)
}

// answers is the contact that a response with these features answers, -1 if none
// asked for them. Contacts are answered in their order; one that was replaced by a
// newer one has no answer (vmbus-control.md 5.1).
func (m *hostModel) answers(granted vmbus.Features) int {
	return slices.IndexFunc(m.contacts, func(asked vmbus.Features) bool { return granted&^asked == 0 })
}

// granted are the features of a response to a contact.
func granted(msg vmbus.Message) (f vmbus.Features, response bool) {
	switch msg := msg.(type) {
	case *vmbus.VersionResponse:
		return 0, true
	case *vmbus.VersionResponse2:
		return msg.Features, true
	case *vmbus.VersionResponse3:
		return msg.Features, true
	}
	return 0, false
}

// release is an accepted RelIDReleased: nothing about the id is owed any more.
func (m *hostModel) release(id vmbus.ChannelID) {
	delete(m.ids, id)
	delete(m.wire, id)
	maps.DeleteFunc(m.gpadls, func(k gpadlKey, _ *gpadlRequest) bool { return k.channel == id })
	maps.DeleteFunc(m.progress, func(_ vmbus.GPADLID, k gpadlKey) bool { return k.channel == id })
	m.teardowns = slices.DeleteFunc(m.teardowns, func(t teardown) bool { return t.channel == id })
}

func (m *hostModel) opened(id vmbus.ChannelID, openID uint32) {
	if w, c := m.wire[id], m.ids[id]; w != nil && c != nil && !c.revoked {
		w.opens = append(w.opens, openID)
	}
}

// announceable are the offers that RequestOffers must bring: primaries whose
// device is not busy with the connection before. Sub-channels have rules of their
// own, and with every id in use nothing can be promised.
func (m *hostModel) announceable() map[endpoint.OfferID]struct{} {
	list := map[endpoint.OfferID]struct{}{}
	if len(m.published)+len(m.ids) > offers.MaxOffers {
		return list
	}
	for id, o := range m.published {
		d := m.devices[id]
		if !m.revoked[id] && o.SubChannel == 0 && (d == nil || !d.open) {
			list[id] = struct{}{}
		}
	}
	for _, a := range m.asked {
		delete(list, offerOf(a))
	}
	for _, c := range m.ids { // reserved by an earlier connection; if withdrawn, its key waits for the release (5.3)
		maps.DeleteFunc(list, func(id endpoint.OfferID, _ struct{}) bool { return m.published[id].Key == c.key })
	}
	return list
}

// receiveGPADL counts what is owed for GPADL messages.
func (m *hostModel) receiveGPADL(taken bool, opts endpoint.HostOptions) {
	if !m.dispatched() || opts.Dialect.SilentGPADL {
		return
	}
	switch msg := m.message.(type) {
	case *vmbus.GPADLHeader:
		k := gpadlKey{msg.Channel, msg.GPADL}
		g := m.gpadls[k]
		if g == nil {
			g = &gpadlRequest{}
			m.gpadls[k] = g
		}
		g.owed++
		if taken {
			g.want, g.have = int(msg.RangeBufLen)/8, 0
			g.incomplete = true
			m.progress[msg.GPADL] = k
			m.grow(k, taken)
		}
	case *vmbus.GPADLBody:
		if k, ok := m.progress[msg.GPADL]; ok {
			m.grow(k, taken)
		}
	}
}

// grow adds the words of a message that was taken, or found invalid.
func (m *hostModel) grow(k gpadlKey, taken bool) {
	g := m.gpadls[k]
	if g == nil {
		return
	}
	if g.have += len(vmbus.Words(m.tail)); g.have >= g.want {
		g.incomplete = false
		g.rescinded = taken && m.ids[k.channel] != nil && m.ids[k.channel].revoked
		delete(m.progress, k.gpadl)
	}
}
