package live

import (
	"context"
	"testing"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
	"github.com/stretchr/testify/require"
)

// newWidePair is a pair with as many processors as both sides are told of.
func newWidePair(t *testing.T, vps uint32, host endpoint.HostOptions, guest endpoint.GuestOptions) *pair {
	t.Helper()
	p := &pair{mem: guestmem.NewHeap(guestmem.HeapOptions{}), offer: make(chan vmbus.OfferChannel, 16)}
	hypervisor := synic.NewPartition(p.mem, int(vps))
	var err error
	p.host, err = NewHost(HostOptions{Core: host, Memory: p.mem, Port: hypervisor, VPs: vps})
	require.NoError(t, err)
	p.guest, err = NewGuest(GuestOptions{
		Core: guest, Memory: p.mem, Port: hypervisor, VPs: vps,
		Offered: func(o vmbus.OfferChannel) { p.offer <- o },
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		p.host.Close()
		require.Zero(t, p.mem.InUsePages(), "every page is back")
	})
	return p
}

// signalDevice keeps the open channel, to signal at will.
type signalDevice struct {
	opened chan *HostChannel
}

func (d *signalDevice) Open(c *HostChannel) error { d.opened <- c; return nil }
func (d *signalDevice) Doorbell()                 {}
func (d *signalDevice) Close()                    {}
func (d *signalDevice) Gone(error)                {}

// TestModifyChannel moves a channel's interrupt between two processors and
// hears the host on both.
func TestModifyChannel(t *testing.T) {
	for _, v := range []vmbus.Version{vmbus.Win10RS5, vmbus.Iron} { // without and with an answer
		t.Run(v.String(), func(t *testing.T) {
			p := newWidePair(t, 2, endpoint.HostOptions{}, endpoint.GuestOptions{Versions: []vmbus.Version{v}})
			require.NoError(t, p.guest.Connect(context.Background()))
			device, driver := &signalDevice{opened: make(chan *HostChannel, 1)}, newTestDriver()
			p.host.Prepare(device).Publish(testOffer)
			offer := <-p.offer
			p.guest.Open(offer.Channel, RingOptions{ToHostPages: 2, ToGuestPages: 2}, driver)
			host := <-device.opened
			<-driver.opened
			<-driver.doorbell // both sides look once after the open
			modify := func(vp uint32) error {
				done := make(chan error, 1)
				p.guest.ModifyChannel(offer.Channel, vp, func(err error) { done <- err })
				return <-done
			}
			for _, vp := range []uint32{1, 0, 1} {
				require.NoError(t, modify(vp))
				host.Signal()
				<-driver.doorbell
			}
			require.ErrorIs(t, modify(2), vmbus.ErrState, "the guest has two VPs")
			require.NoError(t, p.guest.Close())
			require.ErrorIs(t, modify(0), ErrStopped)
		})
	}
}

// TestUnknownVP shows that an open fails for a VP the host does not know.
func TestUnknownVP(t *testing.T) {
	p := newWidePair(t, 1, endpoint.HostOptions{}, endpoint.GuestOptions{})
	require.NoError(t, p.guest.Connect(context.Background()))
	driver := newTestDriver()
	p.host.Prepare(newEchoDevice()).Publish(testOffer)
	p.guest.Open((<-p.offer).Channel, RingOptions{ToHostPages: 2, ToGuestPages: 2, TargetVP: 1}, driver)
	var refused *endpoint.OpenError
	require.ErrorAs(t, <-driver.failed, &refused)
	require.Equal(t, vmbus.StatusFailure, refused.Status)
	require.NoError(t, p.guest.Close())
}
