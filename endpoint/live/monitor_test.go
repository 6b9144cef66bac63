package live

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
	"github.com/stretchr/testify/require"
)

// bellDevice counts the guest's signals in virtual time.
type bellDevice struct{ rung chan time.Time }

func (d *bellDevice) Open(*HostChannel) error { return nil }
func (d *bellDevice) Doorbell() {
	select {
	case d.rung <- time.Now():
	default:
	}
}
func (d *bellDevice) Close()     {}
func (d *bellDevice) Gone(error) {}

// TestMonitoredNotification: the guest sets a bit, the hypervisor notices within
// the latency the device asked for (vmbus-control.md 8), once per setting.
func TestMonitoredNotification(t *testing.T) {
	for _, c := range []struct {
		name       string
		lowLatency bool
		serverOwn  bool
		within     time.Duration
	}{
		{name: "guest pages", within: 2 * time.Millisecond},
		{name: "server pages", serverOwn: true, within: 2 * time.Millisecond},
		{name: "low latency", lowLatency: true, within: 0}, // a hypercall
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := guestmem.NewHeap(guestmem.HeapOptions{})
				hypervisor := synic.NewPartition(mem, 1)
				pages, err := mem.Alloc(2)
				require.NoError(t, err)
				host, guest := endpoint.HostOptions{}, endpoint.GuestOptions{}
				if c.serverOwn {
					host.ParentToChild, host.ChildToParent = pages.PFNs[0]*guestmem.PageSize, pages.PFNs[1]*guestmem.PageSize
					guest.Features = vmbus.ServerMonitorPages
				}
				h, err := NewHost(HostOptions{Core: host, Memory: mem, Port: hypervisor})
				require.NoError(t, err)
				offered := make(chan vmbus.OfferChannel, 1)
				g, err := NewGuest(GuestOptions{
					Core: guest, Memory: mem, Port: hypervisor, Monitors: true,
					Offered: func(o vmbus.OfferChannel) { offered <- o },
				})
				require.NoError(t, err)
				require.NoError(t, g.Connect(context.Background()))

				device, driver := &bellDevice{rung: make(chan time.Time, 1)}, newTestDriver()
				o := testOffer
				o.Monitor = &offers.Monitor{Latency: 20_000} // 2 ms
				h.Prepare(device).Publish(o)
				offer := <-offered
				require.EqualValues(t, 1, offer.MonitorAllocated)
				g.Open(offer.Channel, RingOptions{ToHostPages: 2, ToGuestPages: 2, LowLatency: c.lowLatency}, driver)
				channel := <-driver.opened

				for range 3 {
					start := time.Now()
					channel.Signal()
					require.LessOrEqual(t, (<-device.rung).Sub(start), c.within)
				}
				<-time.After(10 * time.Millisecond) // virtual: five looks
				require.Empty(t, device.rung, "one signal, one doorbell")

				require.NoError(t, g.Close())
				h.Close()
				mem.Free(pages)
				require.Zero(t, mem.InUsePages())
			})
		})
	}
}
