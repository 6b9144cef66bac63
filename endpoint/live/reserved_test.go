package live

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
	"github.com/stretchr/testify/require"
)

// A lossyPort finds the slot busy for messages of some types, as often as it says.
type lossyPort struct {
	*synic.Partition
	mu      sync.Mutex
	lose    map[vmbus.Type]int
	signals int
}

func (p *lossyPort) Post(to synic.Target, payload []byte) error {
	p.mu.Lock()
	t := vmbus.Type(payload[0])
	lost := p.lose[t] > 0
	if lost {
		p.lose[t]--
	}
	p.mu.Unlock()
	if lost {
		return synic.ErrSlotBusy
	}
	return p.Partition.Post(to, payload)
}

func (p *lossyPort) Signal(to synic.Target, flag uint16) error {
	p.mu.Lock()
	p.signals++
	p.mu.Unlock()
	return p.Partition.Signal(to, flag)
}

func (p *lossyPort) loses(t vmbus.Type, times int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lose[t] = times
}

// A reservedPair is a connected pair whose host has one echo device, which the guest
// has opened as a reserved channel.
type reservedPair struct {
	*pair
	port    *lossyPort
	device  *echoDevice
	driver  *testDriver
	offered *Offered
	offer   vmbus.OfferChannel
	ch      *GuestChannel
	idle    int   // pages without the channel
	kept    bool  // the host never lets go: pages stay out of use
	gone    error // why the bus ended
}

// toReserved is a channel whose answers come to where all messages come to.
var toReserved = RingOptions{ToHostPages: 2, ToGuestPages: 3, Reserved: &endpoint.ReservedTarget{SINT: endpoint.VMBusSINT}}

// newReservedPair opens the channel but waits for nothing.
func newReservedPair(t *testing.T) *reservedPair {
	p := &reservedPair{
		pair: &pair{mem: guestmem.NewHeap(guestmem.HeapOptions{}), offer: make(chan vmbus.OfferChannel, 64)},
		port: &lossyPort{lose: map[vmbus.Type]int{}}, device: newEchoDevice(), driver: newTestDriver(),
	}
	p.port.Partition = synic.NewPartition(p.mem, 1)
	var err error
	p.host, err = NewHost(HostOptions{Memory: p.mem, Port: p.port})
	require.NoError(t, err)
	p.guest, err = NewGuest(GuestOptions{
		Core:   endpoint.GuestOptions{Features: vmbus.AllFeatures &^ vmbus.ServerMonitorPages},
		Memory: p.mem, Port: p.port, Monitors: true,
		Offered: func(o vmbus.OfferChannel) { p.pair.offer <- o },
		Gone:    func(err error) { p.gone = err },
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		p.host.Close()
		require.Equal(t, p.kept, p.mem.InUsePages() != 0, "I-NO-LEAK, or GC-09: %d pages are in use", p.mem.InUsePages())
	})
	require.NoError(t, p.guest.Connect(context.Background()))
	p.idle = p.mem.InUsePages()
	offer := testOffer
	offer.Monitor = &offers.Monitor{Latency: 1000} // which a channel without interrupts has no use for
	p.offered = p.host.Prepare(p.device)
	p.offered.Publish(offer)
	p.offer = <-p.pair.offer
	return p
}

// inReserved runs f in a bubble with a reserved channel that is open.
func inReserved(t *testing.T, f func(t *testing.T, p *reservedPair)) {
	synctest.Test(t, func(t *testing.T) {
		p := newReservedPair(t)
		p.guest.OpenOffer(p.offer, toReserved, p.driver)
		p.ch = await(t, p.driver.opened)
		<-p.driver.doorbell // the one there is
		f(t, p)
	})
}

// polled sends bytes to the echo device and polls until they are back.
func (p *reservedPair) polled(t *testing.T, ch *GuestChannel, b []byte) {
	t.Helper()
	_, signal, err := channel.NewPipeWriter(ch.Out, channel.PipeOptions{}).Write(b)
	require.NoError(t, err)
	require.True(t, signal, "the host is signalled as ever")
	ch.Signal()
	synctest.Wait()
	var got [64]byte
	n, _, err := channel.NewPipeReader(ch.In).Read(got[:])
	require.NoError(t, err)
	require.Equal(t, b, got[:n])
}

func (p *reservedPair) usage() int {
	synctest.Wait()
	return p.mem.InUsePages()
}

// P20: a reserved channel carries packets both ways without one doorbell of the host
// (vmbus-control.md 3.13), closes with its own message, and may be opened again,
// either way.
func TestReserved(t *testing.T) {
	inReserved(t, func(t *testing.T, p *reservedPair) {
		p.polled(t, p.ch, []byte("firmware"))
		require.Zero(t, p.port.signals, "interrupts are disabled")
		require.Empty(t, p.driver.doorbell)
		p.guest.CloseChannel(p.offer.Channel, p.driver)
		<-p.device.closed
		require.Equal(t, p.idle, p.usage())
		require.Equal(t, Usage{Offers: 1, Channels: 1}, p.host.Usage(), "it stays offered")

		p.device.closed = make(chan struct{})
		ordinary := newTestDriver()
		p.guest.OpenOffer(p.offer, RingOptions{ToHostPages: 2, ToGuestPages: 2}, ordinary)
		exchange(t, await(t, ordinary.opened), ordinary, nil, []byte("and as any other"))
		p.guest.CloseChannel(p.offer.Channel, ordinary)
		<-p.device.closed
		require.NoError(t, p.guest.Close())
		require.Zero(t, p.host.Dropped())
	})
}

// A guest opens no channel whose answers it would not read, or that the version does
// not have.
func TestReservedRefused(t *testing.T) {
	for _, target := range []endpoint.ReservedTarget{{VP: 1, SINT: endpoint.VMBusSINT}, {SINT: 5}} {
		synctest.Test(t, func(t *testing.T) {
			p := newReservedPair(t)
			p.guest.OpenOffer(p.offer, RingOptions{ToHostPages: 2, ToGuestPages: 2, Reserved: &target}, p.driver)
			err := <-p.driver.failed
			require.ErrorIs(t, err, vmbus.ErrState)
			require.Contains(t, err.Error(), "the guest reads SINT 2 of VPs 0 to 0")
			require.NoError(t, p.guest.Close())
		})
	}
	p := newPair(t, endpoint.GuestOptions{Versions: []vmbus.Version{vmbus.Win81}})
	require.NoError(t, p.guest.Connect(context.Background()))
	p.host.Prepare(newEchoDevice()).Publish(testOffer)
	driver := newTestDriver()
	p.guest.OpenOffer(<-p.offer, toReserved, driver)
	require.ErrorContains(t, <-driver.failed, "has no reserved channels")
	require.NoError(t, p.guest.Close())
}

// The answer to the close is lost (5.5): the guest asks again, and the pages are used
// no earlier than the host has let go.
func TestReservedCloseAnswerLost(t *testing.T) {
	inReserved(t, func(t *testing.T, p *reservedPair) {
		p.port.loses(vmbus.TypeCloseReservedChannelResponse, 1)
		p.guest.CloseChannel(p.offer.Channel, p.driver)
		<-p.device.closed
		require.Equal(t, p.idle+5, p.usage(), "nobody has told the guest")
		time.Sleep(closePatience)
		require.Equal(t, p.idle, p.usage())
		require.NoError(t, p.guest.Close())
	})
}

// The answer to the open is lost: the driver hears of it, and the channel is closed
// at the host, which has opened it.
func TestReservedOpenAnswerLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newReservedPair(t)
		p.port.loses(vmbus.TypeOpenResult, 1)
		p.guest.OpenOffer(p.offer, toReserved, p.driver)
		err := <-p.driver.failed
		require.ErrorIs(t, err, ErrNoAnswer)
		<-p.device.closed
		require.Equal(t, p.idle, p.usage())
		require.NoError(t, p.guest.Close())
	})
}

// An open that the host refuses without an answer: it has nothing to close, but it
// tears down.
func TestReservedRefusalLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newReservedPair(t)
		p.host.Prepare(refusingDevice{newEchoDevice()}).Publish(offers.Offer{Key: offers.Key{Interface: vmbus.GUID{7}}})
		p.port.loses(vmbus.TypeOpenResult, 1)
		p.guest.OpenOffer(<-p.pair.offer, toReserved, p.driver)
		require.ErrorIs(t, <-p.driver.failed, ErrNoAnswer)
		time.Sleep(closePatience)
		require.Equal(t, p.idle, p.usage())
		require.NoError(t, p.guest.Close())
	})
}

// A guest that ends its connection closes reserved channels first, since they would
// outlive it: its driver loses the rings at once, and no answer has to come.
func TestReservedUnload(t *testing.T) {
	for lost := range 4 {
		inReserved(t, func(t *testing.T, p *reservedPair) {
			p.port.loses(vmbus.TypeCloseReservedChannelResponse, lost)
			require.NoError(t, p.guest.Close())
			<-p.driver.rescinded
			<-p.device.closed
			require.Equal(t, Usage{Offers: 1}, p.host.Usage())
		})
	}
}

// While the guest waits for that, nobody opens another; and one that is being opened
// ends like the rest.
func TestReservedUnloadWhileOpening(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newReservedPair(t)
		p.port.loses(vmbus.TypeOpenResult, 1)
		p.port.loses(vmbus.TypeCloseReservedChannelResponse, 1)
		p.guest.OpenOffer(p.offer, toReserved, p.driver)
		synctest.Wait() // the host has answered
		require.True(t, p.guest.BeginClose())
		require.ErrorIs(t, <-p.driver.failed, ErrStopped)
		late := newTestDriver()
		p.host.Prepare(newEchoDevice()).Publish(offers.Offer{Key: offers.Key{Interface: vmbus.GUID{7}}})
		p.guest.OpenOffer(<-p.pair.offer, toReserved, late)
		require.ErrorIs(t, <-late.failed, ErrStopped)
		require.NoError(t, p.guest.Close(), "it waits for what BeginClose has begun")
		require.Zero(t, p.host.Usage().Channels)
	})
}

// GC-09: a host that never lets go keeps the pages, the ring's among them.
func TestReservedUnloadUnanswered(t *testing.T) {
	inReserved(t, func(t *testing.T, p *reservedPair) {
		p.kept = true
		p.host.Close()
		start := time.Now()
		require.ErrorContains(t, p.guest.Close(), "did not complete the unload")
		require.LessOrEqual(t, time.Since(start), 2*unloadTimeout)
		require.Equal(t, p.idle+5, p.mem.InUsePages())
	})
}

// A paused host drops everything but Resume, so a guest that ends resumes it.
func TestReservedUnloadWhilePaused(t *testing.T) {
	for _, wait := range []bool{false, true} {
		inReserved(t, func(t *testing.T, p *reservedPair) {
			p.guest.Pause(func(err error) { require.NoError(t, err) })
			if wait {
				synctest.Wait()
			}
			start := time.Now()
			require.NoError(t, p.guest.Close())
			require.Zero(t, time.Since(start))
		})
	}
}

// A pause may last longer than the guest asks for an answer: it asks again when the
// pause ends.
func TestReservedClosedWhilePaused(t *testing.T) {
	inReserved(t, func(t *testing.T, p *reservedPair) {
		p.port.loses(vmbus.TypeCloseReservedChannelResponse, 1)
		p.guest.CloseChannel(p.offer.Channel, p.driver)
		synctest.Wait() // the answer is lost
		p.guest.Pause(func(err error) { require.NoError(t, err) })
		time.Sleep(10 * maxPatience)
		require.Equal(t, p.idle+5, p.usage())
		p.guest.Resume()
		require.Equal(t, p.idle, p.usage())
		require.NoError(t, p.guest.Close())
	})
}

// P21: the connection ends because the host contradicts itself. It has completed the
// unload, and still uses the ring: the guest closes the channel without a connection.
func TestReservedWhenTheConnectionBreaks(t *testing.T) {
	inReserved(t, func(t *testing.T, p *reservedPair) {
		again := p.offer // an id that is in use (faults.md GC-21)
		again.Interface[3]++
		require.NoError(t, p.port.Post(synic.Target{SINT: endpoint.VMBusSINT}, vmbus.Append(nil, &again)))
		<-p.driver.rescinded
		<-p.device.closed
		synctest.Wait()
		require.Error(t, p.gone)
		require.NoError(t, p.guest.Close())
	})
}

// A rescind ends a reserved channel as it ends any other.
func TestReservedRescind(t *testing.T) {
	inReserved(t, func(t *testing.T, p *reservedPair) {
		p.offered.Revoke()
		<-p.driver.rescinded
		require.NoError(t, <-p.device.gone)
		require.Equal(t, p.idle, p.usage())
		require.Zero(t, p.host.Usage())
		require.NoError(t, p.guest.Close())
	})
}

// Both ends are saved with a reserved channel that is open, opening or closing, and
// started again: it is reserved still.
func TestReservedRestored(t *testing.T) {
	for name, prepare := range map[string]func(p *reservedPair){
		"open": func(*reservedPair) {},
		"closing": func(p *reservedPair) {
			p.port.loses(vmbus.TypeCloseReservedChannelResponse, 1)
			p.guest.CloseChannel(p.offer.Channel, p.driver)
			<-p.device.closed
			synctest.Wait()
		},
	} {
		t.Run(name, func(t *testing.T) {
			inReserved(t, func(t *testing.T, p *reservedPair) {
				prepare(p)
				var s saved
				require.NoError(t, p.guest.Freeze())
				s.take(t, p.guest, p.host, p.mem, p.port.Partition)
				p.guest.Thaw()
				require.NoError(t, p.guest.Close())

				device, driver := newEchoDevice(), newTestDriver()
				r := s.restore(t, func(*Offered, offers.Offer) Device { return device }, func(vmbus.OfferChannel) Driver { return driver })
				if name == "open" {
					ch := await(t, driver.opened)
					require.True(t, ch.Restored)
					<-driver.doorbell // once
					p.polled(t, ch, []byte("after"))
					require.Empty(t, driver.doorbell)
					r.guest.CloseChannel(p.offer.Channel, driver)
					<-device.closed
				}
				time.Sleep(openPatience) // if the answer was lost
				synctest.Wait()
				require.Equal(t, p.idle, r.mem.InUsePages())
				require.NoError(t, r.guest.Close())
			})
		})
	}
}

// TestReservedReadEmpty: a driver that polls finds nothing, and that is no error of
// the ring.
func TestReservedReadEmpty(t *testing.T) {
	inReserved(t, func(t *testing.T, p *reservedPair) {
		var b [8]byte
		_, _, err := channel.NewPipeReader(p.ch.In).Read(b[:])
		require.True(t, errors.Is(err, ringbuffer.ErrEmpty))
		require.NoError(t, p.guest.Close())
	})
}
