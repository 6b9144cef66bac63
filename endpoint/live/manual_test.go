package live

import (
	"testing"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
	"github.com/stretchr/testify/require"
)

// A manualPair is a host and a guest without goroutines: nothing happens but what
// the test does.
type manualPair struct {
	host  *Host
	guest *Guest
	seen  map[Steps]bool
}

// step does the first thing that either end can do, choosing one if there are
// several; false if there is none.
func (p *manualPair) step() bool {
	for _, end := range []interface {
		Steps() Steps
		Do(Steps)
	}{p.guest, p.host} {
		for _, s := range []Steps{StepAction, StepPost, StepCall, StepReceive} {
			if end.Steps()&s != 0 {
				p.seen[s] = true
				end.Do(s)
				return true
			}
		}
	}
	return false
}

func (p *manualPair) settle(t *testing.T) {
	for n := 0; p.step(); n++ {
		require.Less(t, n, 10_000, "L-NO-LIVELOCK")
	}
}

// Two ends that are stepped by hand go through a whole life on one goroutine: all
// they do is among the steps they offer.
func TestManual(t *testing.T) {
	mem := guestmem.NewHeap(guestmem.HeapOptions{})
	hypervisor := synic.NewPartition(mem, 1)
	p := &manualPair{seen: map[Steps]bool{}}
	var err error
	p.host, err = NewHost(HostOptions{Memory: mem, Port: hypervisor, Manual: true})
	require.NoError(t, err)
	var offer vmbus.OfferChannel
	p.guest, err = NewGuest(GuestOptions{Memory: mem, Port: hypervisor, Manual: true, Offered: func(o vmbus.OfferChannel) { offer = o }})
	require.NoError(t, err)
	require.False(t, p.step(), "nobody has called anything")
	p.host.Do(StepPost) // not possible: does nothing

	connected := false
	p.guest.BeginConnect(func(err error) {
		require.NoError(t, err)
		connected = true
	})
	require.False(t, connected, "a call waits for its step")
	require.Equal(t, StepCall, p.guest.Steps())
	p.settle(t)
	require.True(t, connected)
	require.Equal(t, vmbus.Copper, p.guest.Version())

	device, driver := newEchoDevice(), newTestDriver()
	offered := p.host.Prepare(device)
	offered.Publish(testOffer)
	p.settle(t)
	p.guest.OpenOffer(offer, RingOptions{ToHostPages: 2, ToGuestPages: 2}, driver)
	p.settle(t)
	require.Len(t, driver.opened, 1)
	offered.Revoke()
	p.settle(t)
	require.Len(t, driver.rescinded, 1)
	require.NoError(t, <-device.gone)

	require.True(t, p.guest.BeginClose())
	p.settle(t)
	require.NoError(t, p.guest.Close())
	require.Zero(t, p.guest.Steps(), "it has ended")
	p.guest.OpenOffer(offer, RingOptions{ToHostPages: 2, ToGuestPages: 2}, driver)
	require.ErrorIs(t, <-driver.failed, ErrStopped)
	require.Equal(t, map[Steps]bool{StepAction: true, StepPost: true, StepCall: true, StepReceive: true}, p.seen)
	p.host.Close()
	require.Zero(t, mem.InUsePages())
}

// An end that has a goroutine is not for stepping.
func TestManualOnly(t *testing.T) {
	p := newPair(t, endpoint.GuestOptions{})
	require.PanicsWithValue(t, "live: Do on an end that has a goroutine: set the option Manual", func() { p.host.Do(StepAction) })
	require.NoError(t, p.guest.Close())
}
