package invariant_test

import (
	"errors"
	"testing"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/endpoint/invariant"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
)

// A run is a list of events with the connection they happen on.
type run []endpoint.Event

var errDropped = errors.New("dropped")

func at(state endpoint.HostState, n vmbus.Negotiated, what ...endpoint.Happening) run {
	var r run
	for _, w := range what {
		r = append(r, endpoint.Event{What: w, Host: state, Negotiated: n})
	}
	return r
}

func sent(m vmbus.Message) endpoint.Happening { return endpoint.MessageLeft{Message: m} }

func got(m vmbus.Message, words ...uint64) endpoint.Happening {
	return endpoint.MessageReceived{Payload: vmbus.AppendWords(vmbus.Append(nil, m), words)}
}

func refused(m vmbus.Message) endpoint.Happening {
	return endpoint.MessageReceived{Payload: vmbus.Append(nil, m), Err: errDropped}
}

func did(a endpoint.Action) endpoint.Happening { return endpoint.ActionTaken{Action: a} }

var (
	iron   = vmbus.Negotiated{Version: vmbus.Iron}
	copper = vmbus.Negotiated{Version: vmbus.Copper, Features: vmbus.PauseResume}

	accepted = &vmbus.VersionResponse{Supported: 1}
	device   = offers.Offer{Key: offers.Key{Instance: vmbus.GUID{1}}}
	ranges   = []channel.Range{{ByteCount: 4096, PFNs: []uint64{1}}}
	header   = &vmbus.GPADLHeader{Channel: 1, GPADL: 9, RangeBufLen: 16, RangeCount: 1}
)

// connected is a run up to the offer of device as channel id 1.
func connectedAt(n vmbus.Negotiated, what ...endpoint.Happening) run {
	r := at(endpoint.HostDisconnected, vmbus.Negotiated{}, endpoint.OfferPublished{ID: 1, Offer: device})
	r = append(r, at(endpoint.Connecting, vmbus.Negotiated{},
		got(&vmbus.InitiateContact{Version: n.Version, TargetInfo: vmbus.TargetInfo{Features: n.Features}.Pack(n.Version)}), did(endpoint.SetupConnection{}))...)
	r = append(r, at(endpoint.Negotiated, n, sent(accepted))...)
	r = append(r, at(endpoint.OffersSent, n, got(&vmbus.RequestOffers{}), endpoint.OfferAnnounced{ID: 1, Channel: 1})...)
	return append(r, at(endpoint.OffersSent, n, what...)...)
}

// offered is connectedAt 5.3 with the offer sent.
func offered(what ...endpoint.Happening) run {
	return connectedAt(iron, append([]endpoint.Happening{sent(&vmbus.OfferChannel{Instance: vmbus.GUID{1}, Channel: 1}), sent(&vmbus.AllOffersDelivered{})}, what...)...)
}

// shared is offered with a GPADL that the device holds.
func shared(what ...endpoint.Happening) run {
	return offered(append([]endpoint.Happening{
		got(header, 4096, 1), did(endpoint.AddGPADL{Offer: 1, Token: 1, GPADL: 9, Ranges: ranges}),
		endpoint.Answered{Token: 1}, sent(&vmbus.GPADLCreated{Channel: 1, GPADL: 9}),
	}, what...)...)
}

// opened is shared with the channel open.
func opened(what ...endpoint.Happening) run {
	return shared(append([]endpoint.Happening{
		got(&vmbus.OpenChannel{Channel: 1, OpenID: 7, Ring: 9}), did(endpoint.OpenDevice{Offer: 1, Token: 2, Request: endpoint.OpenRequest{Channel: 1, Ring: 9}}),
		endpoint.Answered{Token: 2}, sent(&vmbus.OpenResult{Channel: 1, OpenID: 7}),
	}, what...)...)
}

// Every rule of the host finds the run that breaks it, and names itself.
func TestHostRulesFindViolations(t *testing.T) {
	rescind, sub := &vmbus.RescindChannelOffer{Channel: 1}, &vmbus.OfferChannel{Instance: vmbus.GUID{1}, SubChannel: 1, Channel: 2}
	for _, c := range []struct {
		rule string
		run  run
	}{
		{"I-RELID-UNIQ", offered(endpoint.OfferAnnounced{ID: 2, Channel: 1})},
		{"I-RELID-UNIQ", offered(sent(&vmbus.OfferChannel{Instance: vmbus.GUID{2}, Channel: 1}))},
		{"I-RELID-RANGE", offered(sent(&vmbus.OfferChannel{Instance: vmbus.GUID{2}, Channel: 2048}))},
		{"I-RELID-RANGE", offered(sent(&vmbus.OfferChannel{Instance: vmbus.GUID{2}}))},
		{"I-OFFER-ONCE", at(endpoint.Negotiated, iron, sent(&vmbus.OfferChannel{Channel: 1}))},
		{"I-OFFER-ONCE", connectedAt(iron, sent(&vmbus.OfferChannel{Instance: vmbus.GUID{1}, Channel: 1}), sent(&vmbus.OfferChannel{Instance: vmbus.GUID{1}, Channel: 2}))},
		{"I-OFFER-ONCE", append(at(endpoint.HostDisconnected, vmbus.Negotiated{}, endpoint.OfferPublished{ID: 2, Offer: offers.Offer{}}), offered()...)},
		{"I-RESCIND-ONCE", offered(sent(rescind), sent(rescind))},
		{"I-RESCIND-ONCE", offered(sent(&vmbus.RescindChannelOffer{Channel: 2}))},
		{"I-NO-OP-AFTER-RELEASE", offered(sent(rescind), got(&vmbus.RelIDReleased{Channel: 1}), got(&vmbus.CloseChannel{Channel: 1}))},
		{"I-NO-OP-AFTER-RELEASE", offered(got(&vmbus.OpenChannel{Channel: 3}))},
		{"I-OPEN-RESP", offered(sent(&vmbus.OpenResult{Channel: 1}))},
		{"I-OPEN-RESP", offered(sent(&vmbus.OpenResult{Channel: 5}))},
		{"I-OPEN-RESP", offered(got(&vmbus.OpenChannel{Channel: 1, OpenID: 7}), sent(&vmbus.OpenResult{Channel: 1, OpenID: 8}))},
		{"I-OPEN-RESP", offered(got(&vmbus.OpenChannel{Channel: 1, OpenID: 7}), sent(rescind), sent(&vmbus.OpenResult{Channel: 1, OpenID: 7}))},
		{"I-OPEN-RESP", offered(got(&vmbus.OpenChannel{Channel: 1, OpenID: 7}))},
		{"I-OPEN-RESP", offered(did(endpoint.SendDirect{Outgoing: endpoint.Outgoing{Message: &vmbus.OpenResult{Channel: 1}}}))},
		{"I-GPADL-RESP", offered(sent(&vmbus.GPADLCreated{Channel: 1, GPADL: 9}))},
		{"I-GPADL-RESP", offered(got(header, 4096, 1))},
		{"I-GPADL-RESP", offered(refused(header))},
		{"I-GPADL-RESP", offered(got(header, 4096), sent(&vmbus.GPADLCreated{Channel: 1, GPADL: 9}))},
		{"I-GPADL-TEARDOWN-ONCE", shared(did(endpoint.AddGPADL{Offer: 1, Token: 3, GPADL: 9, Ranges: ranges}))},
		{"I-GPADL-TEARDOWN-ONCE", shared(did(endpoint.DropGPADL{Offer: 1, Token: 3, GPADL: 9}), did(endpoint.DropGPADL{Offer: 1, Token: 4, GPADL: 9}))},
		{"I-GPADL-TEARDOWN-ONCE", shared(sent(&vmbus.GPADLTorndown{GPADL: 9}))},
		{"I-GPADL-TEARDOWN-ONCE", shared(got(&vmbus.GPADLTeardown{Channel: 1, GPADL: 9}))},
		{"I-GPADL-MEM", shared(got(&vmbus.GPADLTeardown{Channel: 1, GPADL: 9}), sent(&vmbus.GPADLTorndown{GPADL: 9}))},
		{"I-GPADL-MEM", offered(did(endpoint.OpenDevice{Offer: 1, Token: 2, Request: endpoint.OpenRequest{Ring: 9}}))},
		{"I-GPADL-INCOMPLETE", offered(got(&vmbus.GPADLBody{GPADL: 9}, 1))},
		{"I-GPADL-INCOMPLETE", offered(got(header, 4096), sent(rescind), got(&vmbus.RelIDReleased{Channel: 1}), got(&vmbus.GPADLBody{GPADL: 9}, 1))},
		{"I-GPADL-PFN", offered(did(endpoint.AddGPADL{Offer: 1, Token: 1, GPADL: 9, Ranges: []channel.Range{{ByteCount: 8192, PFNs: []uint64{1}}}}))},
		{"I-GPADL-PFN", offered(did(endpoint.AddGPADL{Offer: 1, Token: 1, GPADL: 9, Ranges: []channel.Range{{ByteCount: 4096, ByteOffset: 4096, PFNs: []uint64{1, 2}}}}))},
		{"I-SUBCHANNEL-ORDER", offered(endpoint.OfferAnnounced{ID: 2, Channel: 2}, sent(sub), sent(rescind))},
		{"I-STATE-LEGAL", append(offered(), at(endpoint.Connecting, vmbus.Negotiated{}, endpoint.MachineReset{})...)},
		{"I-VERSION", connectedAt(vmbus.Negotiated{Version: vmbus.Win10}, sent(&vmbus.TLConnectResult{}))},
		{"I-VERSION", connectedAt(vmbus.Negotiated{Version: vmbus.Copper}, sent(&vmbus.PauseResponse{}))},
		{"I-VERSION", connectedAt(vmbus.Negotiated{Version: vmbus.Win8}, endpoint.MessageReceived{Payload: []byte("garbage")})},
		{"I-VERSION", connectedAt(copper, sent(&vmbus.VersionResponse2{VersionResponse: *accepted, Features: vmbus.ConnectionModify}))},
		// One contact has one answer: a second one was not asked for.
		{"I-VERSION", connectedAt(iron, sent(accepted))},
		{"I-TRUST", offered(sent(&vmbus.OfferChannel{Instance: vmbus.GUID{3}, Channel: 3, Flags: vmbus.OfferConfidentialRing}))},
		{"I-TRUST", offered(sent(&vmbus.OfferChannel{Instance: vmbus.GUID{3}, Channel: 3, Flags: vmbus.OfferPinned}))},
		{"I-UNLOAD", offered(sent(&vmbus.UnloadComplete{}))},
		{"I-UNLOAD", append(opened(), at(endpoint.Disconnecting, iron, got(&vmbus.Unload{}), sent(&vmbus.UnloadComplete{}))...)},
		{"I-UNLOAD", append(append(offered(), at(endpoint.Disconnecting, iron, got(&vmbus.Unload{}))...), at(endpoint.HostDisconnected, vmbus.Negotiated{}, did(endpoint.GuestGone{}))...)},
		// The device was asked while it ran; that it stops later does not answer for it.
		{"I-UNLOAD", append(opened(), at(endpoint.Disconnecting, iron, got(&vmbus.Unload{}), endpoint.DeviceStopped{ID: 1}, sent(&vmbus.UnloadComplete{}))...)},
		{"I-PAUSE", connectedAt(copper, got(&vmbus.Pause{}), sent(&vmbus.PauseResponse{}), sent(&vmbus.OfferChannel{Instance: vmbus.GUID{1}, Channel: 1}))},
	} {
		rules := invariant.NewHost(endpoint.HostOptions{})
		for _, e := range c.run {
			rules.Observe(e)
		}
		var v *invariant.Violation
		require.ErrorAs(t, rules.AtRest(), &v, c.rule)
		require.Equal(t, c.rule, v.Rule, v.Reason)
		require.Contains(t, v.Error(), c.rule)
	}
}

// A trusted connection that takes a message from elsewhere breaks I-TRUST.
func TestTrustRule(t *testing.T) {
	rules := invariant.NewHost(endpoint.HostOptions{})
	for _, e := range offered(got(&vmbus.TLConnectRequest{})) {
		if r, ok := e.What.(endpoint.MessageReceived); ok {
			r.From.Trusted = rules.Err() == nil && vmbus.Type(r.Payload[0]) != vmbus.TypeTLConnectRequest
			e.What = r
		}
		rules.Observe(e)
	}
	require.ErrorContains(t, rules.Err(), "I-TRUST")
}

// Runs that keep every promise.
func TestHostRulesHold(t *testing.T) {
	for _, r := range []run{
		offered(),
		opened(got(&vmbus.CloseChannel{Channel: 1}), did(endpoint.CloseDevice{Offer: 1, Token: 3}), endpoint.Answered{Token: 3},
			got(&vmbus.GPADLTeardown{Channel: 1, GPADL: 9}), did(endpoint.DropGPADL{Offer: 1, Token: 4, GPADL: 9}), endpoint.Answered{Token: 4}, sent(&vmbus.GPADLTorndown{GPADL: 9})),
		offered(endpoint.OfferRevoked{ID: 1}, sent(&vmbus.RescindChannelOffer{Channel: 1}), got(&vmbus.RelIDReleased{Channel: 1}), did(endpoint.OfferGone{Offer: 1})),
		offered(got(&vmbus.OpenChannel{Channel: 1, OpenID: 7}), endpoint.DeviceStopped{ID: 1}), // its answer may wait
		opened(endpoint.DeviceStopped{ID: 1}, endpoint.DeviceStarted{ID: 1}, endpoint.DevicesReplaced{}),
		// L-RESET: the device was stopped when its guest went, and is told before it goes on.
		append(opened(endpoint.DeviceStopped{ID: 1}), at(endpoint.Disconnecting, iron, got(&vmbus.Unload{}), endpoint.DeviceStarted{ID: 1}, sent(&vmbus.UnloadComplete{}))...),
		// The next contact is being served before the answer to the one before has left.
		append(at(endpoint.Connecting, vmbus.Negotiated{}, got(&vmbus.InitiateContact{Version: vmbus.Copper, TargetInfo: vmbus.TargetInfo{Features: vmbus.PauseResume}.Pack(vmbus.Copper)}),
			got(&vmbus.InitiateContact{Version: vmbus.Iron}), did(endpoint.SetupConnection{})),
			at(endpoint.Negotiated, iron, sent(&vmbus.VersionResponse2{VersionResponse: *accepted, Features: vmbus.PauseResume}), sent(accepted))...),
	} {
		rules := invariant.NewHost(endpoint.HostOptions{})
		for _, e := range r {
			rules.Observe(e)
		}
		require.NoError(t, rules.AtRest())
		require.NoError(t, rules.Err())
	}
}
