package live

import (
	"context"
	"testing"
	"time"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
)

// TestLegacyDoorbell: at 0.13 every channel signals on connection 2, and the bit
// in the interrupt page says which; a channel that is not dedicated sets it later
// too (vmbus-control.md 1.4).
func TestLegacyDoorbell(t *testing.T) {
	for _, c := range []struct {
		version      vmbus.Version
		notDedicated bool
		connection   uint32
		bit          bool
	}{
		{vmbus.V1, false, vmbus.LegacyEventConnection, true},
		{vmbus.Win7, false, endpoint.EventConnection(2), false},
		{vmbus.Win7, true, endpoint.EventConnection(2), true},
		{vmbus.Iron, true, endpoint.EventConnection(2), true},
	} {
		p := newPair(t, endpoint.GuestOptions{Versions: []vmbus.Version{c.version}})
		require.NoError(t, p.guest.Connect(context.Background()))
		devices := [2]*bellDevice{}
		drivers := [2]*testDriver{newTestDriver(), newTestDriver()}
		var channels [2]*GuestChannel
		for i := range devices {
			devices[i] = &bellDevice{rung: make(chan time.Time, 1)}
			p.host.Prepare(devices[i]).Publish(offers.Offer{Key: offers.Key{Instance: vmbus.GUID{byte(i + 1)}}, NotDedicated: c.notDedicated})
			p.guest.Open((<-p.offer).Channel, RingOptions{ToHostPages: 2, ToGuestPages: 2}, drivers[i])
			channels[i] = <-drivers[i].opened
		}
		require.Equal(t, c.connection, channels[1].connection, "%v", c.version)
		channels[1].Signal()
		<-devices[1].rung
		require.Empty(t, devices[0].rung, "the signal was for the other channel")
		if c.version >= vmbus.Win7 {
			bits := p.guest.interrupts.Load32(guestToHost)
			require.Equal(t, c.bit, bits == 1<<2, "version %v not dedicated %v: %#x", c.version, c.notDedicated, bits)
		}
		require.NoError(t, p.guest.Close())
	}
}
