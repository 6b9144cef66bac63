package invariant_test

import (
	"errors"
	"testing"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/endpoint/invariant"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
)

// guestRun is a connected guest to which channel 1 was offered.
func guestRun(n vmbus.Negotiated, what ...endpoint.Happening) run {
	var r run
	for _, w := range append([]endpoint.Happening{did(endpoint.OfferArrived{Offer: vmbus.OfferChannel{Channel: 1}})}, what...) {
		r = append(r, endpoint.Event{What: w, Guest: endpoint.GuestConnected, Negotiated: n})
	}
	return r
}

// unloading is what a guest does that has ended its connection.
func unloading(what ...endpoint.Happening) run {
	var r run
	for _, w := range what {
		r = append(r, endpoint.Event{What: w, Guest: endpoint.GuestUnloading, Negotiated: iron})
	}
	return r
}

// Every rule of the guest finds the run that breaks it.
func TestGuestRulesFindViolations(t *testing.T) {
	ask, header, release := endpoint.OpenAsked{Channel: 1}, sent(header), sent(&vmbus.RelIDReleased{Channel: 1})
	for _, c := range []struct {
		rule string
		run  run
	}{
		{"I-RELID-RANGE", guestRun(iron, did(endpoint.OfferArrived{Offer: vmbus.OfferChannel{Channel: 2048}}))},
		{"I-RELID-UNIQ", guestRun(iron, did(endpoint.OfferArrived{Offer: vmbus.OfferChannel{Channel: 1}}))},
		{"I-RESCIND-ONCE", guestRun(iron, did(endpoint.OfferRescinded{Channel: 1}), did(endpoint.OfferRescinded{Channel: 1}))},
		{"I-NO-OP-AFTER-RELEASE", guestRun(iron, did(endpoint.ChannelReleased{Channel: 1}), did(endpoint.RingFree{Channel: 1}))},
		{"I-NO-OP-AFTER-RELEASE", guestRun(iron, did(endpoint.ChannelModified{Channel: 2}))},
		{"I-OPEN-RESP", guestRun(iron, did(endpoint.ChannelOpened{Channel: 1}))},
		{"I-OPEN-RESP", guestRun(iron, ask, did(endpoint.ChannelOpened{Channel: 1}), did(endpoint.OpenFailed{Channel: 1}))},
		{"I-GPADL-MEM", guestRun(iron, ask, header, got(&vmbus.GPADLCreated{Channel: 1, GPADL: 9}), did(endpoint.RingFree{Channel: 1}))},
		// An offer that the guest refuses, since the id is in use, says nothing about the pages (GC-21).
		{"I-GPADL-MEM", append(guestRun(iron, ask, header), unloading(refused(&vmbus.OfferChannel{Channel: 1}), did(endpoint.RingFree{Channel: 1}))...)},
		{"I-GPADL-MEM", guestRun(iron, ask, header, got(&vmbus.RescindChannelOffer{Channel: 1}), did(endpoint.RingFree{Channel: 1}))}, // this guest tears down
		// In the connection that reserved it a channel that was closed stays offered, and its pages are asked for.
		{"I-GPADL-MEM", guestRun(iron, ask, header, got(&vmbus.GPADLCreated{Channel: 1, GPADL: 9}), got(&vmbus.CloseReservedChannelResponse{Channel: 1}), sent(&vmbus.GPADLTeardown{Channel: 1, GPADL: 9}), did(endpoint.RingFree{Channel: 1}))},
		// The same device under another id says nothing of a channel of this connection.
		{"I-GPADL-MEM", guestRun(iron, ask, header, got(&vmbus.OfferChannel{Channel: 2}), did(endpoint.RingFree{Channel: 1}))},
		{"I-RELEASE-AFTER-INFLIGHT", guestRun(iron, ask, header, release)},
		{"I-RELEASE-AFTER-INFLIGHT", guestRun(iron, ask, header, got(&vmbus.GPADLCreated{Channel: 1, GPADL: 9}), sent(&vmbus.GPADLTeardown{Channel: 1, GPADL: 9}), release)},
		{"I-RELEASE-AFTER-INFLIGHT", guestRun(iron, sent(&vmbus.ModifyChannel{Channel: 1}), release)},
		{"I-VERSION", guestRun(iron, sent(&vmbus.Pause{}))},
		{"I-PAUSE", guestRun(copper, sent(&vmbus.Pause{}), release)},
	} {
		rules := invariant.NewGuest(endpoint.GuestOptions{})
		for _, e := range c.run {
			rules.Observe(e)
		}
		var v *invariant.Violation
		require.ErrorAs(t, rules.Err(), &v, c.rule)
		require.Equal(t, c.rule, v.Rule, v.Reason)
	}
}

// Runs that keep every promise.
func TestGuestRulesHold(t *testing.T) {
	ask, header := endpoint.OpenAsked{Channel: 1}, sent(header)
	torndown := []endpoint.Happening{
		ask, header, got(&vmbus.GPADLCreated{Channel: 1, GPADL: 9}), did(endpoint.ChannelOpened{Channel: 1}),
		sent(&vmbus.ModifyChannel{Channel: 1}), got(&vmbus.ModifyChannelResponse{Channel: 1}), sent(&vmbus.GPADLTeardown{Channel: 1, GPADL: 9}),
		got(&vmbus.GPADLTorndown{GPADL: 9}), did(endpoint.RingFree{Channel: 1}), sent(&vmbus.RelIDReleased{Channel: 1}), did(endpoint.ChannelReleased{Channel: 1}),
	}
	for _, c := range []struct {
		opts endpoint.GuestOptions
		run  run
	}{
		{endpoint.GuestOptions{}, guestRun(iron, torndown...)},
		{endpoint.GuestOptions{}, guestRun(iron, ask, header, got(&vmbus.GPADLCreated{Channel: 1, GPADL: 9, Status: 1}), did(endpoint.RingFree{Channel: 1}))},
		{endpoint.GuestOptions{SkipTeardown: true}, guestRun(iron, ask, header, did(endpoint.OfferRescinded{Channel: 1}), did(endpoint.OpenFailed{Channel: 1}), did(endpoint.RingFree{Channel: 1}))},
		// The same during an unload, which has told the driver already.
		{endpoint.GuestOptions{SkipTeardown: true}, guestRun(iron, ask, header, did(endpoint.OpenFailed{Channel: 1}), got(&vmbus.RescindChannelOffer{Channel: 1}), did(endpoint.RingFree{Channel: 1}))},
		{endpoint.GuestOptions{}, guestRun(iron, ask, header, did(endpoint.OpenFailed{Channel: 1}), got(&vmbus.CloseReservedChannelResponse{Channel: 1}), did(endpoint.RingFree{Channel: 1}))},
		{endpoint.GuestOptions{}, guestRun(iron, ask, header, got(&vmbus.OfferChannel{Channel: 1}), did(endpoint.RingFree{Channel: 1}))},
		{endpoint.GuestOptions{}, guestRun(copper, sent(&vmbus.Pause{}), sent(&vmbus.Resume{}), sent(&vmbus.RelIDReleased{Channel: 1}), did(endpoint.Disconnected{}))},
	} {
		rules := invariant.NewGuest(c.opts)
		for _, e := range c.run {
			rules.Observe(e)
		}
		require.NoError(t, rules.Err())
	}
}

// What is about two runs.
func TestRuns(t *testing.T) {
	same := func(b []byte) ([]byte, error) { return b, nil }
	require.NoError(t, invariant.SaveIdentity([]byte{1}, same))
	require.ErrorContains(t, invariant.SaveIdentity([]byte{1}, func([]byte) ([]byte, error) { return nil, nil }), "I-SAVE-ID")
	require.ErrorContains(t, invariant.SaveIdentity([]byte{1}, func([]byte) ([]byte, error) { return nil, errors.New("no") }), "I-SAVE-ID")
	require.NoError(t, invariant.NoStaleAction([]byte{1}, []byte{1}))
	require.ErrorContains(t, invariant.NoStaleAction([]byte{1}, nil), "I-NO-STALE-ACTION")
	require.NoError(t, invariant.SameRun("a", "a"))
	require.ErrorContains(t, invariant.SameRun("a", "b"), "I-DETERMINISTIC-IDS")
}
