package live

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A pair is a host and a guest joined by an emulated SynIC.
type pair struct {
	mem   *guestmem.Heap
	host  *Host
	guest *Guest
	offer chan vmbus.OfferChannel
}

func newPair(t *testing.T, core endpoint.GuestOptions) *pair {
	t.Helper()
	p := &pair{mem: guestmem.NewHeap(guestmem.HeapOptions{}), offer: make(chan vmbus.OfferChannel, 64)}
	hypervisor := synic.NewPartition(p.mem, 1)
	var err error
	p.host, err = NewHost(HostOptions{Memory: p.mem, Port: hypervisor})
	require.NoError(t, err)
	p.guest, err = NewGuest(GuestOptions{
		Core: core, Memory: p.mem, Port: hypervisor,
		Offered: func(o vmbus.OfferChannel) { p.offer <- o },
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		p.host.Close()
		require.Zero(t, p.mem.InUsePages(), "every page is back")
	})
	return p
}

// echoDevice sends back every byte it reads.
type echoDevice struct {
	mu     sync.Mutex
	in     *channel.PipeReader
	out    *channel.PipeWriter
	signal func()
	closed chan struct{}
	gone   chan error
}

func newEchoDevice() *echoDevice {
	return &echoDevice{closed: make(chan struct{}), gone: make(chan error, 1)}
}

func (d *echoDevice) Open(c *HostChannel) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.in, d.out, d.signal = channel.NewPipeReader(c.In), channel.NewPipeWriter(c.Out, channel.PipeOptions{}), c.Signal
	return nil
}

func (d *echoDevice) Doorbell() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.in == nil {
		return
	}
	var buf [4096]byte
	for {
		n, space, err := d.in.Read(buf[:])
		if err != nil {
			return // drained
		}
		_, data, err := d.out.Write(buf[:n])
		if err == nil && (space || data) {
			d.signal()
		}
	}
}

func (d *echoDevice) Close() {
	d.mu.Lock()
	d.in = nil
	d.mu.Unlock()
	close(d.closed)
}

func (d *echoDevice) Gone(err error) { d.gone <- err }

// testDriver is a guest driver that turns callbacks into channel sends.
type testDriver struct {
	opened    chan *GuestChannel
	failed    chan error
	doorbell  chan struct{}
	rescinded chan struct{}
}

func newTestDriver() *testDriver {
	return &testDriver{
		opened: make(chan *GuestChannel, 1), failed: make(chan error, 1),
		doorbell: make(chan struct{}, 1), rescinded: make(chan struct{}, 1),
	}
}

func (d *testDriver) Opened(c *GuestChannel) { d.opened <- c }
func (d *testDriver) OpenFailed(err error)   { d.failed <- err }
func (d *testDriver) Rescinded()             { d.rescinded <- struct{}{} }
func (d *testDriver) Doorbell() {
	select {
	case d.doorbell <- struct{}{}:
	default:
	}
}

var testOffer = offers.Offer{Key: offers.Key{Interface: vmbus.GUID{1}, Instance: vmbus.GUID{2}}, Flags: vmbus.OfferNamedPipe}

// TestEcho sends bytes through a device and back at every version, which covers
// both ways of signalling: the interrupt page and event flags.
func TestEcho(t *testing.T) {
	for _, v := range vmbus.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			p := newPair(t, endpoint.GuestOptions{Versions: []vmbus.Version{v}})
			require.NoError(t, p.guest.Connect(context.Background()))
			require.Equal(t, v, p.guest.Negotiated().Version)
			device, driver := newEchoDevice(), newTestDriver()
			p.host.Prepare(device).Publish(testOffer)
			offer := <-p.offer
			p.guest.Open(offer.Channel, RingOptions{ToHostPages: 2, ToGuestPages: 3}, driver)
			ch := <-driver.opened

			out, in := channel.NewPipeWriter(ch.Out, channel.PipeOptions{}), channel.NewPipeReader(ch.In)
			want := bytes.Repeat([]byte("vmbus"), 100)
			_, signal, err := out.Write(want)
			require.NoError(t, err)
			require.True(t, signal, "the ring was empty and unmasked")
			ch.Signal()
			var got []byte
			for len(got) < len(want) {
				var buf [64]byte
				n, _, err := in.Read(buf[:])
				if errors.Is(err, ringbuffer.ErrEmpty) {
					<-driver.doorbell
					continue
				}
				require.NoError(t, err)
				got = append(got, buf[:n]...)
			}
			require.Equal(t, want, got)

			p.guest.CloseChannel(offer.Channel, driver)
			<-device.closed
			require.NoError(t, p.guest.Close())
		})
	}
}

// TestRevokeOpenChannel follows one channel to its end: the driver loses the
// rings, the pages come back, the id is released, the device is told.
func TestRevokeOpenChannel(t *testing.T) {
	p := newPair(t, endpoint.GuestOptions{})
	require.NoError(t, p.guest.Connect(context.Background()))
	idle := p.mem.InUsePages()
	device, driver := newEchoDevice(), newTestDriver()
	offered := p.host.Prepare(device)
	offered.Publish(testOffer)
	p.guest.Open((<-p.offer).Channel, RingOptions{ToHostPages: 5, ToGuestPages: 5}, driver)
	<-driver.opened
	require.Equal(t, idle+10, p.mem.InUsePages())

	offered.Revoke()
	offered.Revoke() // a second call does nothing
	<-driver.rescinded
	require.NoError(t, <-device.gone, "the guest has let go")
	require.Equal(t, idle, p.mem.InUsePages(), "the ring pages were freed before the id was released")
	require.Zero(t, p.host.Usage())
	require.Zero(t, p.guest.Usage())
	require.NoError(t, p.guest.Close())
}

// TestCloseWithOpenChannels unloads the bus under a live channel.
func TestCloseWithOpenChannels(t *testing.T) {
	p := newPair(t, endpoint.GuestOptions{})
	require.NoError(t, p.guest.Connect(context.Background()))
	device, driver := newEchoDevice(), newTestDriver()
	p.host.Prepare(device).Publish(testOffer)
	p.guest.Open((<-p.offer).Channel, RingOptions{ToHostPages: 5, ToGuestPages: 5}, driver)
	<-driver.opened
	require.NoError(t, p.guest.Close())
	<-driver.rescinded
	<-device.closed
	require.Equal(t, 1, p.host.Usage().Offers, "the device's offer outlives the guest's connection")
	require.Zero(t, p.host.Usage().Channels)
}

// TestNoCommonVersion shows the error of a walk that finds nothing.
func TestNoCommonVersion(t *testing.T) {
	mem := guestmem.NewHeap(guestmem.HeapOptions{})
	hypervisor := synic.NewPartition(mem, 1)
	host, err := NewHost(HostOptions{Core: endpoint.HostOptions{MaxVersion: vmbus.Win8}, Memory: mem, Port: hypervisor})
	require.NoError(t, err)
	defer host.Close()
	guest, err := NewGuest(GuestOptions{Core: endpoint.GuestOptions{Versions: []vmbus.Version{vmbus.Iron, vmbus.Win10}}, Memory: mem, Port: hypervisor})
	require.NoError(t, err)
	var version *endpoint.VersionError
	require.ErrorAs(t, guest.Connect(context.Background()), &version)
	require.Equal(t, []vmbus.Version{vmbus.Iron, vmbus.Win10}, version.Tried)
	require.NoError(t, guest.Close())
	require.Zero(t, mem.InUsePages())
}

// TestOpenUnknownChannel is the caller's own mistake.
func TestOpenUnknownChannel(t *testing.T) {
	p := newPair(t, endpoint.GuestOptions{})
	require.NoError(t, p.guest.Connect(context.Background()))
	driver := newTestDriver()
	p.guest.Open(77, RingOptions{ToHostPages: 5, ToGuestPages: 5}, driver)
	require.ErrorIs(t, <-driver.failed, vmbus.ErrState)
	require.NoError(t, p.guest.Close())
	p.guest.Open(77, RingOptions{ToHostPages: 5, ToGuestPages: 5}, driver)
	require.ErrorIs(t, <-driver.failed, ErrStopped)
}
