package fuzz

import (
	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
)

// sent checks one message of the host against what it has said before.
func (w *hostBus) sent(out endpoint.Outgoing) {
	m := out.Message
	if w.trace != nil {
		w.note("host>guest %v %v", m.Type(), fieldsOf(m))
	}
	if w.silent {
		w.fail("I-PAUSE", "%v after PauseResponse", m.Type())
	}
	payload := out.Payload()
	if len(payload) > vmbus.MaxPayloadBytes {
		w.fail("limit of a message", "%v has %d bytes", m.Type(), len(payload))
	}
	if _, _, err := vmbus.ParseFrom(vmbus.HostToGuest, payload, w.core.Negotiated()); err != nil && w.connected() {
		w.fail("I-VERSION", "%v at %v: %v", m.Type(), w.core.Negotiated(), err)
	}
	if q, ok := answerOf(m); ok {
		if w.asked[q] == 0 {
			w.fail("an answer without a question", "%v %v", m.Type(), fieldsOf(m))
		}
		w.asked[q]--
	}
	switch m := m.(type) {
	case *vmbus.OfferChannel:
		w.offered(m.Channel)
	case *vmbus.RescindChannelOffer:
		w.rescinded(m.Channel)
	case *vmbus.VersionResponse:
		if m.Supported != 0 {
			clear(w.live) // whatever the old connection knew is over
		}
	case *vmbus.VersionResponse2, *vmbus.VersionResponse3, *vmbus.UnloadComplete:
		clear(w.live)
	case *vmbus.PauseResponse:
		w.silent = true
	}
}

func (w *hostBus) connected() bool {
	return w.core.State() == endpoint.Negotiated || w.core.State() == endpoint.OffersSent
}

// offered holds I-RELID-UNIQ and I-RELID-RANGE.
func (w *hostBus) offered(id vmbus.ChannelID) {
	if id == 0 || id > vmbus.MaxChannels {
		w.fail("I-RELID-RANGE", "channel %d", id)
	}
	if w.live[id] != idFree && !w.vague[id] {
		w.fail("I-RELID-UNIQ", "channel %d is offered again before its release", id)
	}
	w.live[id] = idOffered
}

// rescinded holds I-RESCIND-ONCE.
func (w *hostBus) rescinded(id vmbus.ChannelID) {
	if w.live[id] != idOffered && !w.vague[id] {
		w.fail("I-RESCIND-ONCE", "channel %d", id)
	}
	w.live[id] = idRescinded
}

func (w *hostBus) checkLimits() {
	_, ids, gpadls, _, requests := w.core.Usage()
	switch {
	case ids > offers.MaxOffers:
		w.fail("I-MEM", "%d channel ids", ids)
	case gpadls > channel.MaxGPADLs:
		w.fail("I-MEM", "%d GPADLs", gpadls)
	case requests > endpoint.MaxSocketRequests:
		w.fail("I-MEM", "%d socket requests", requests)
	}
}

// finish resets the machine: that ends from every state and leaves nothing
// (L-RESET, I-NO-LEAK).
func (w *hostBus) finish() {
	w.busy, w.manual = false, false
	w.core.Reset()
	w.run()
	for len(w.waiting) > 0 {
		w.answer(0, vmbus.StatusSuccess)
		w.run()
	}
	if s := w.core.State(); s != endpoint.HostDisconnected {
		w.fail("L-RESET", "the host is %v", s)
	}
	if _, ids, gpadls, operations, requests := w.core.Usage(); ids+gpadls+operations+requests != 0 {
		w.fail("I-NO-LEAK", "%d ids, %d GPADLs, %d operations, %d requests", ids, gpadls, operations, requests)
	}
}

// fieldsOf are the fields of m that are not zero, as text.
func fieldsOf(m vmbus.Message) (list []string) {
	for _, f := range vmbus.Fields(m) {
		if _, big := f.Value.(vmbus.UserData); big {
			continue
		}
		list = append(list, f.String())
	}
	return list
}
