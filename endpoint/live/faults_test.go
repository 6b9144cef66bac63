package live

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
	"github.com/stretchr/testify/require"
)

// busyPort answers "busy" to every fourth post in either direction, as the most
// thorough tests of other implementations do (faults.md, P31 to P34). The host is
// told a little later that the slot is free.
type busyPort struct {
	*synic.Partition
	mu        sync.Mutex
	toGuest   int
	toHost    int
	slotFreed func(synic.Target)
}

func (p *busyPort) SlotFree(fn func(synic.Target)) {
	p.mu.Lock()
	p.slotFreed = fn
	p.mu.Unlock()
	p.Partition.SlotFree(fn)
}

func (p *busyPort) Post(to synic.Target, payload []byte) error {
	p.mu.Lock()
	p.toGuest++
	busy, freed := p.toGuest%4 == 0, p.slotFreed
	p.mu.Unlock()
	if busy {
		time.AfterFunc(time.Millisecond, func() { freed(to) })
		return &synic.BusyError{Target: to, Why: synic.SlotOccupied}
	}
	return p.Partition.Post(to, payload)
}

func (p *busyPort) PostMessage(input []byte) synic.Status {
	p.mu.Lock()
	p.toHost++
	busy := p.toHost%4 == 0
	p.mu.Unlock()
	if busy {
		return synic.StatusInsufficientBuffers
	}
	return p.Partition.PostMessage(input)
}

// HC-07: neither side waits for the other to listen before it listens itself, so
// a life of twenty channels over a port that is busy all the time ends, and
// nothing is left.
func TestBusyPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := guestmem.NewHeap(guestmem.HeapOptions{})
		port := &busyPort{Partition: synic.NewPartition(mem, 1)}
		host, err := NewHost(HostOptions{Memory: mem, Port: port})
		require.NoError(t, err)
		offered := make(chan vmbus.OfferChannel, 1)
		guest, err := NewGuest(GuestOptions{Memory: mem, Port: port, Offered: func(o vmbus.OfferChannel) { offered <- o }})
		require.NoError(t, err)
		require.NoError(t, guest.Connect(context.Background()))
		for range 20 {
			device, driver := newEchoDevice(), newTestDriver()
			offer := host.Prepare(device)
			offer.Publish(testOffer)
			guest.Open((<-offered).Channel, RingOptions{ToHostPages: 30, ToGuestPages: 30}, driver)
			<-driver.opened
			offer.Revoke()
			require.NoError(t, <-device.gone)
		}
		require.NoError(t, guest.Close())
		require.Zero(t, host.Usage())
		host.Close()
		require.Zero(t, mem.InUsePages())
	})
}

// GC-08: UnloadComplete may come to another VP than every other message; the
// unload ends at once, not by timer.
func TestUnloadCompleteOnAnotherVP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := guestmem.NewHeap(guestmem.HeapOptions{})
		hypervisor := synic.NewPartition(mem, 2)
		reply := func(vp uint32, m vmbus.Message) {
			require.NoError(t, hypervisor.Post(synic.Target{VP: vp, SINT: endpoint.VMBusSINT}, vmbus.Append(nil, m)))
		}
		listen := func(payload []byte) synic.Status {
			switch vmbus.Type(payload[0]) {
			case vmbus.TypeInitiateContact:
				reply(0, &vmbus.VersionResponse{Supported: 1, VersionOrConnectionID: endpoint.MessagePort})
			case vmbus.TypeRequestOffers:
				reply(0, &vmbus.AllOffersDelivered{})
			case vmbus.TypeUnload:
				reply(1, &vmbus.UnloadComplete{})
			}
			return synic.StatusSuccess
		}
		for _, id := range []synic.ConnectionID{endpoint.MessagePort, endpoint.MultiClientPort} {
			require.NoError(t, hypervisor.BindMessages(id, listen))
		}
		guest, err := NewGuest(GuestOptions{Core: endpoint.GuestOptions{Versions: []vmbus.Version{vmbus.Iron}}, Memory: mem, Port: hypervisor, VPs: 2})
		require.NoError(t, err)
		require.NoError(t, guest.Connect(context.Background()))
		start := time.Now()
		require.NoError(t, guest.Close())
		require.Zero(t, time.Since(start))
		require.Zero(t, mem.InUsePages())
	})
}

// GC-02: event flags of channels nobody has open are ignored.
func TestStrayEventFlags(t *testing.T) {
	p := newWidePair(t, 1, endpoint.HostOptions{}, endpoint.GuestOptions{})
	require.NoError(t, p.guest.Connect(context.Background()))
	device, driver := newEchoDevice(), newTestDriver()
	p.host.Prepare(device).Publish(testOffer)
	offer := <-p.offer
	p.guest.Open(offer.Channel, RingOptions{ToHostPages: 2, ToGuestPages: 2}, driver)
	<-driver.opened
	p.guest.CloseChannel(offer.Channel, driver)
	<-device.closed
	<-driver.doorbell // both sides look once after the open
	for _, flag := range []uint16{0, uint16(offer.Channel), 2047} {
		require.NoError(t, p.host.opts.Port.Signal(synic.Target{SINT: endpoint.VMBusSINT}, flag))
	}
	require.Empty(t, driver.doorbell)
	require.NoError(t, p.guest.Close())
}
