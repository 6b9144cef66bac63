package live

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
	"github.com/stretchr/testify/require"
)

// await returns what comes from c; a test that waits for ever would say less.
func await[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came")
	}
	return v
}

// Hyper-V sockets of the bus: a request is refused, accepted, refused for want of
// anybody who serves it, and too early (vmbus-control.md 3.14, 5.6).
func TestSocketRequests(t *testing.T) {
	mem := guestmem.NewHeap(guestmem.HeapOptions{})
	hypervisor := synic.NewPartition(mem, 1)
	asked := make(chan endpoint.SocketRequested, 1)
	host, err := NewHost(HostOptions{Memory: mem, Port: hypervisor, SocketRequested: func(r endpoint.SocketRequested) { asked <- r }})
	require.NoError(t, err)
	defer host.Close()
	offered, refused := make(chan vmbus.OfferChannel, 4), make(chan endpoint.SocketRefused, 4)
	guest, err := NewGuest(GuestOptions{
		Memory: mem, Port: hypervisor, Offered: func(o vmbus.OfferChannel) { offered <- o },
		SocketRefused: func(r endpoint.SocketRefused) { refused <- r },
	})
	require.NoError(t, err)
	failed := make(chan error, 1)
	fail := func(err error) { failed <- err }
	guest.RequestSocket(vmbus.GUID{1}, vmbus.GUID{2}, fail)
	require.ErrorIs(t, await(t, failed), vmbus.ErrState, "the guest is not connected")
	require.NoError(t, guest.Connect(context.Background()))

	guest.RequestSocket(vmbus.GUID{1}, vmbus.GUID{2}, fail)
	host.RefuseSocket(await(t, asked))
	require.Equal(t, vmbus.GUID{2}, await(t, refused).Endpoint)

	guest.RequestSocket(vmbus.GUID{1}, vmbus.GUID{3}, fail)
	device := newEchoDevice()
	host.Prepare(device).AcceptSocket(await(t, asked))
	o := await(t, offered)
	require.Equal(t, vmbus.GUID{3}, o.Instance, "success is an offer")
	host.Rescind(77) // nobody's
	host.Rescind(o.Channel)
	require.NoError(t, await(t, device.gone))

	late := newEchoDevice()
	host.Prepare(late).AcceptSocket(endpoint.SocketRequested{Service: vmbus.GUID{1}, Endpoint: vmbus.GUID{9}})
	require.ErrorIs(t, await(t, late.gone), vmbus.ErrState, "nobody asked, or has given up")

	require.NoError(t, guest.Close())
	guest.RequestSocket(vmbus.GUID{1}, vmbus.GUID{2}, fail)
	require.ErrorIs(t, await(t, failed), ErrStopped)
	guest.BeginConnect(fail)
	require.ErrorIs(t, await(t, failed), ErrStopped)
	require.ErrorIs(t, guest.Close(), ErrStopped)
	host.Close()
	stopped := newEchoDevice()
	host.Prepare(stopped).Publish(testOffer)
	require.ErrorIs(t, await(t, stopped.gone), ErrStopped)
}

// A request that the host's program does not serve is refused.
func TestNoSocketServer(t *testing.T) {
	p := newPair(t, endpoint.GuestOptions{})
	require.NoError(t, p.guest.Connect(context.Background()))
	p.guest.RequestSocket(vmbus.GUID{1}, vmbus.GUID{2}, func(err error) { t.Error(err) })
	require.Eventually(t, func() bool { return p.host.Usage().Requests == 0 && p.guest.Usage().Channels == 0 }, 5*time.Second, time.Millisecond)
	require.NoError(t, p.guest.Close())
}

// Pause and Resume of a running pair (vmbus-control.md 3.17).
func TestPauseLive(t *testing.T) {
	p := newPair(t, endpoint.GuestOptions{Features: vmbus.PauseResume})
	paused := make(chan error, 1)
	pause := func() error {
		p.guest.Pause(func(err error) { paused <- err })
		return await(t, paused)
	}
	require.ErrorIs(t, pause(), vmbus.ErrState, "not connected")
	require.NoError(t, p.guest.Connect(context.Background()))
	require.NoError(t, pause())
	device := newEchoDevice()
	p.host.Prepare(device).Publish(testOffer) // held back
	require.Empty(t, p.offer)
	p.guest.Resume()
	await(t, p.offer)
	require.NoError(t, p.guest.Close())
	require.ErrorIs(t, pause(), ErrStopped)
}

// A reset of the machine closes what is open, and says when it is done.
func TestResetLive(t *testing.T) {
	p := newPair(t, endpoint.GuestOptions{})
	require.NoError(t, p.guest.Connect(context.Background()))
	device, driver := newEchoDevice(), newTestDriver()
	p.host.Prepare(device).Publish(testOffer)
	p.guest.Open(await(t, p.offer).Channel, RingOptions{ToHostPages: 2, ToGuestPages: 2}, driver)
	await(t, driver.opened)
	done := make(chan bool, 1)
	p.host.BeginReset(func() { done <- true })
	await(t, done)
	await(t, device.closed)
	require.Zero(t, p.host.Usage().Channels)
	require.Equal(t, 1, p.host.Usage().Offers, "the device is still there")
	// The guest of this test outlives its machine; it unloads when told to give up.
	require.NoError(t, post(p, &vmbus.InitiateContact{Version: vmbus.Copper}))
	require.Eventually(t, func() bool { return p.host.Negotiated().Version == vmbus.Copper }, 5*time.Second, time.Millisecond)
	require.NoError(t, p.guest.Close())
	p.host.Reset()
	p.host.Usage() // after the reset was begun
}

// post is a message the guest's kernel posts past its core.
func post(p *pair, m vmbus.Message, words ...uint64) error {
	input := synic.AppendPostMessage(nil, endpoint.MessagePort, vmbus.AppendWords(vmbus.Append(nil, m), words))
	if s := p.guest.opts.Port.PostMessage(input); s != synic.StatusSuccess {
		return errors.New("the post was refused")
	}
	return nil
}

// refusingDevice does not want to be opened.
type refusingDevice struct{ *echoDevice }

func (refusingDevice) Open(*HostChannel) error { return errors.New("not now") }

// Opens that fail: the device refuses, the rings are too small, the memory is full.
func TestOpenFailsLive(t *testing.T) {
	p := newPair(t, endpoint.GuestOptions{})
	require.NoError(t, p.guest.Connect(context.Background()))
	idle := p.mem.InUsePages()
	p.host.Prepare(refusingDevice{newEchoDevice()}).Publish(testOffer)
	id, driver := await(t, p.offer).Channel, newTestDriver()
	var refused *endpoint.OpenError
	p.guest.Open(id, RingOptions{ToHostPages: 2, ToGuestPages: 2}, driver)
	require.ErrorAs(t, await(t, driver.failed), &refused)
	require.Eventually(t, func() bool { return p.mem.InUsePages() == idle }, 5*time.Second, time.Millisecond)
	for _, rings := range []RingOptions{{ToHostPages: 1, ToGuestPages: 2}, {}, {ToHostPages: 1 << 30, ToGuestPages: 2}} {
		p.guest.Open(id, rings, driver)
		require.Error(t, await(t, driver.failed), "%+v", rings)
	}
	require.Equal(t, idle, p.mem.InUsePages())
	moved := make(chan error, 1)
	p.guest.ModifyChannel(id, 0, func(err error) { moved <- err })
	require.ErrorIs(t, await(t, moved), vmbus.ErrState, "it is not open")
	p.guest.ModifyChannel(id, 0, nil) // nobody listens
	require.NoError(t, p.guest.Close())
	p.guest.ModifyChannel(id, 0, func(err error) { moved <- err })
	require.ErrorIs(t, await(t, moved), ErrStopped)
}

// What a guest can ask for by messages alone: new monitor pages, a reserved
// channel, a redirected interrupt, a processor it does not have
// (vmbus-control.md 3.13, 3.16, 7.2).
func TestRawRequests(t *testing.T) {
	p := newWidePair(t, 2, endpoint.HostOptions{RedirectSINT: 7}, endpoint.GuestOptions{Features: vmbus.ConnectionModify | vmbus.RedirectInterrupt})
	require.NoError(t, p.guest.Connect(context.Background()))
	device := &signalDevice{opened: make(chan *HostChannel, 1)}
	p.host.Prepare(device).Publish(testOffer)
	id := await(t, p.offer).Channel
	block, err := p.mem.Alloc(6)
	require.NoError(t, err)
	defer p.mem.Free(block)
	gpa := func(i int) uint64 { return block.PFNs[i] * guestmem.PageSize }
	for _, m := range []vmbus.Message{
		&vmbus.ModifyConnection{ParentToChild: gpa(4), ChildToParent: gpa(5)},
		&vmbus.ModifyConnection{ParentToChild: gpa(4) + 1, ChildToParent: gpa(5)}, // not aligned: a failure
		&vmbus.ModifyConnection{},
		&vmbus.OpenChannel2{OpenChannel: vmbus.OpenChannel{Channel: id, Ring: 5, HostOffset: 2, TargetVP: 2}}, // no such processor
	} {
		if m.Type() == vmbus.TypeOpenChannel {
			require.NoError(t, post(p, &vmbus.GPADLHeader{Channel: id, GPADL: 5, RangeBufLen: 40, RangeCount: 1}, append([]uint64{4 * 4096}, block.PFNs[:4]...)...))
		}
		require.NoError(t, post(p, m))
	}
	open := vmbus.OpenChannel2{OpenChannel: vmbus.OpenChannel{Channel: id, Ring: 5, HostOffset: 2}, OpenFlags: vmbus.OpenRedirectInterrupt}
	require.NoError(t, post(p, &open))
	c := await(t, device.opened)
	require.True(t, c.Request.Redirected)
	c.Signal() // to a SINT the guest has not unmasked: lost, and no harm
	require.NoError(t, post(p, &vmbus.ModifyChannel{Channel: id, TargetVP: 2}))
	require.NoError(t, post(p, &vmbus.CloseChannel{Channel: id}))

	require.NoError(t, post(p, &vmbus.OpenReservedChannel{Channel: id, TargetVP: 9, TargetSINT: 2, Ring: 5, HostOffset: 2}))
	c = await(t, device.opened)
	require.True(t, c.Request.NoInterrupt)
	c.Signal() // the guest polls
	require.NoError(t, post(p, &vmbus.CloseReservedChannel{Channel: id, TargetVP: 9, TargetSINT: 2}))
	require.NoError(t, post(p, &vmbus.GPADLTeardown{Channel: id, GPADL: 5}))
	require.NoError(t, p.guest.Close())
}

// Contacts that cannot be set up: pages that do not exist, a processor the guest
// does not have, a message connection of the host's own (vmbus-control.md 2.5, 2.6).
func TestContactsThatFail(t *testing.T) {
	p := newWidePair(t, 1, endpoint.HostOptions{Dialect: endpoint.Dialect{MessageConnection: 0x74, RejectUnknown: true}}, endpoint.GuestOptions{Versions: []vmbus.Version{vmbus.Win10V5}})
	const nowhere = 1 << 40
	for n, m := range []vmbus.InitiateContact{
		{Version: vmbus.Win10, ParentToChild: nowhere, ChildToParent: nowhere},
		{Version: vmbus.Win10, ParentToChild: 12, ChildToParent: 4096},
		{Version: vmbus.Win7, TargetInfo: nowhere},
		{Version: vmbus.Win81, TargetVP: 7},
	} {
		require.NoError(t, post(p, &m))
		require.Eventually(t, func() bool { return p.guest.Dropped() > uint64(n) }, 5*time.Second, time.Millisecond, "the answer has come to a guest that did not ask")
		require.Zero(t, p.host.Negotiated().Version)
	}
	require.Error(t, post(p, &vmbus.TLConnectRequest{}), "RejectUnknown")
	require.NoError(t, p.guest.Connect(context.Background()))
	require.Equal(t, vmbus.Win10V5, p.guest.Version())
	require.NoError(t, p.guest.Close())
}

// A host whose ports are taken, and a guest without memory, do not start.
func TestStartFails(t *testing.T) {
	mem := guestmem.NewHeap(guestmem.HeapOptions{})
	hypervisor := synic.NewPartition(mem, 1)
	first, err := NewHost(HostOptions{Memory: mem, Port: hypervisor})
	require.NoError(t, err)
	_, err = NewHost(HostOptions{Memory: mem, Port: hypervisor})
	require.ErrorIs(t, err, synic.ErrState)
	_, err = NewGuest(GuestOptions{Memory: mem, Port: hypervisor, VPs: 1 << 30})
	require.Error(t, err)
	_, err = NewGuest(GuestOptions{Memory: mem, Port: hypervisor, VPs: 2})
	require.Error(t, err, "the machine has one processor")
	first.Close()
}

// A connect that its caller gives up, and one that is asked for twice. The host,
// which is silent, may have the guest's pages: they stay out of use (GC-09).
func TestConnectGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := guestmem.NewHeap(guestmem.HeapOptions{})
		hypervisor := synic.NewPartition(mem, 1)
		require.NoError(t, hypervisor.BindMessages(endpoint.MultiClientPort, func([]byte) synic.Status { return synic.StatusSuccess }))
		guest, err := NewGuest(GuestOptions{Memory: mem, Port: hypervisor})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		require.ErrorIs(t, guest.Connect(ctx), context.Canceled)
		require.ErrorIs(t, guest.Connect(context.Background()), vmbus.ErrState, "it is connecting already")
		require.ErrorContains(t, guest.Close(), "did not complete the unload")
		require.Equal(t, guest.OwnPages(), mem.InUsePages())
	})
}

// A guest that is closed while its contact is on its way unloads once the host has
// accepted, and is done once it has refused: only then are its pages its own.
func TestClosedWhileConnecting(t *testing.T) {
	for _, accepts := range []uint8{1, 0} {
		var heard []vmbus.Type
		host := newScriptedHost(t, func(h *scriptedHost, kind vmbus.Type) { serve(h, kind); heard = append(heard, kind) })
		host.accepts = accepts
		opts := GuestOptions{Memory: host.mem, Port: host.bus, Manual: true}
		opts.Core.Versions = []vmbus.Version{vmbus.Iron}
		var gone []error
		opts.Gone = func(err error) { gone = append(gone, err) }
		g, err := NewGuest(opts)
		require.NoError(t, err)
		var connected []error
		g.BeginConnect(func(err error) { connected = append(connected, err) })
		g.Do(StepCall)
		g.Do(StepPost) // the host's answer is in the slot
		g.BeginClose()
		for s := g.Steps(); s != 0 && len(gone) == 0; s = g.Steps() {
			require.Positive(t, host.mem.InUsePages())
			g.Do(s & -s)
		}
		require.Equal(t, []error{ErrStopped}, connected)
		require.Equal(t, []error{nil}, gone)
		require.NoError(t, g.Close())
		require.Zero(t, host.mem.InUsePages())
		if accepts == 1 {
			require.Equal(t, []vmbus.Type{vmbus.TypeRequestOffers, vmbus.TypeUnload}, heard)
		} else {
			require.Empty(t, heard)
		}
	}
}

// The offer of a device that exists already fails with a word to the device.
func TestPublishTwice(t *testing.T) {
	p := newPair(t, endpoint.GuestOptions{})
	first, second := newEchoDevice(), newEchoDevice()
	offered := p.host.Prepare(first)
	offered.Publish(testOffer)
	p.host.Prepare(second).Publish(testOffer)
	require.ErrorIs(t, await(t, second.gone), vmbus.ErrState)
	offered.Revoke()
	require.NoError(t, await(t, first.gone))
	never := p.host.Prepare(newEchoDevice())
	never.Revoke() // it was never published
	require.NoError(t, p.guest.Close())
}
