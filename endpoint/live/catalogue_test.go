package live

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
	"github.com/hvlab/hvlab/vmbus/trace"
	"github.com/stretchr/testify/require"
)

// TestCatalogue holds the rows of faults.md, section 1, about the running ends of
// a bus. internal/putback/check puts each fault back and runs its row. Waits are
// in virtual time: a call that hangs blocks its bubble for good, which is a
// failure at once.
func TestCatalogue(t *testing.T) {
	for _, row := range []struct {
		id   string
		test func(*testing.T)
	}{
		{"GC-02", TestStrayEventFlags},
		{"GC-06", testSlotRewritten},
		{"GC-08", TestUnloadCompleteOnAnotherVP},
		{"GC-09", testSlowUnload},
		{"GC-10", testFlagsOfTheOldVP},
		{"GC-14", testSignalAfterOpenResult},
		{"GC-16", testPagesOfALostLink},
		{"GC-19", testDropsAreBounded},
		{"HC-05", testQueueWhilePaused},
		{"HC-07", testNobodyWaitsForASend},
		{"HC-16", testContactToNobody},
		{"HV-09", testCloseFromTheLoop},
		{"SS-09", TestPostRetryLimit},
	} {
		t.Run(row.id, row.test)
	}
}

// A scriptedHost is the host's side of a bus, written out: a function that is
// called with each message of the guest, and a queue of messages for the slot.
type scriptedHost struct {
	t       *testing.T
	mem     *guestmem.Heap
	bus     *synic.Partition
	mu      sync.Mutex
	waiting []vmbus.Message // for VP 0
	accepts uint8           // 1: the version that is asked for
}

// newScriptedHost answers a contact at 5.3 and the request for offers; heard gets
// every other message.
func newScriptedHost(t *testing.T, heard func(*scriptedHost, vmbus.Type)) *scriptedHost {
	h := &scriptedHost{t: t, accepts: 1, mem: guestmem.NewHeap(guestmem.HeapOptions{})}
	h.bus = synic.NewPartition(h.mem, 1)
	listen := func(payload []byte) synic.Status {
		switch kind := vmbus.Type(payload[0]); kind {
		case vmbus.TypeInitiateContact:
			h.send(&vmbus.VersionResponse{Supported: h.accepts, VersionOrConnectionID: endpoint.MessagePort})
		default:
			heard(h, kind)
		}
		return synic.StatusSuccess
	}
	for _, id := range []synic.ConnectionID{endpoint.MessagePort, endpoint.MultiClientPort} {
		require.NoError(t, h.bus.BindMessages(id, listen))
	}
	h.bus.SlotFree(func(synic.Target) { h.flush() })
	return h
}

// send queues messages for the guest.
func (h *scriptedHost) send(messages ...vmbus.Message) {
	h.mu.Lock()
	h.waiting = append(h.waiting, messages...)
	h.mu.Unlock()
	h.flush()
}

// flush posts what waits until the slot is busy; its owner is asked for an EOM.
func (h *scriptedHost) flush() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.waiting) > 0 {
		if h.bus.Post(synic.Target{SINT: endpoint.VMBusSINT}, vmbus.Append(nil, h.waiting[0])) != nil {
			return
		}
		h.waiting = h.waiting[1:]
	}
}

// guest is a guest of this host at 5.3, connected.
func (h *scriptedHost) guest(o GuestOptions) *Guest {
	o.Core.Versions, o.Memory = []vmbus.Version{vmbus.Iron}, h.mem
	if o.Port == nil {
		o.Port = h.bus
	}
	g, err := NewGuest(o)
	require.NoError(h.t, err)
	require.NoError(h.t, g.Connect(context.Background()))
	return g
}

// serve answers as a host without devices, and completes an unload.
func serve(h *scriptedHost, kind vmbus.Type) {
	switch kind {
	case vmbus.TypeRequestOffers:
		h.send(&vmbus.AllOffersDelivered{})
	case vmbus.TypeUnload:
		h.send(&vmbus.UnloadComplete{})
	}
}

// GC-06: the host writes the next message into the slot the moment it is free,
// while the guest still works on the one before. What it works on is a copy.
func testSlotRewritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newScriptedHost(t, func(h *scriptedHost, kind vmbus.Type) {
			if kind == vmbus.TypeRequestOffers { // the second is in the slot when the guest has freed it
				h.send(&vmbus.OfferChannel{Channel: 1}, &vmbus.OfferChannel{Channel: 2})
			}
			serve(h, kind)
		})
		var got []vmbus.ChannelID
		g := host.guest(GuestOptions{Offered: func(o vmbus.OfferChannel) { got = append(got, o.Channel) }})
		synctest.Wait()
		require.NoError(t, g.Close())
		require.Equal(t, []vmbus.ChannelID{1, 2}, got, "each message is handled once")
		require.Zero(t, g.Dropped())
	})
}

// GC-09: the host needs its time to let go of guest memory. The unload waits up to
// 100 s, says so every 5 s, and gives no page back before the answer.
func testSlowUnload(t *testing.T) {
	for _, needs := range []time.Duration{11 * time.Second, 60 * time.Second, 99 * time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			host := newScriptedHost(t, func(h *scriptedHost, kind vmbus.Type) {
				if kind == vmbus.TypeUnload {
					time.AfterFunc(needs, func() { h.send(&vmbus.UnloadComplete{}) })
					return
				}
				serve(h, kind)
			})
			reports := 0
			g := host.guest(GuestOptions{Trace: trace.New(func(e trace.Event) {
				if e.Name == "unload waits" {
					reports++
				}
			}, "")})
			held := host.mem.InUsePages()
			var late atomic.Int64
			late.Store(int64(held))
			watch := time.AfterFunc(needs-time.Second, func() { late.Store(int64(host.mem.InUsePages())) })
			defer watch.Stop()
			began := time.Now()
			err := g.Close()
			require.EqualValues(t, held, late.Load(), "the host may still write to any of them")
			if needs > unloadTimeout {
				require.ErrorContains(t, err, "did not complete")
				require.Equal(t, unloadTimeout, time.Since(began))
				require.Equal(t, held, host.mem.InUsePages(), "nobody has let go of these pages")
				return
			}
			require.NoError(t, err)
			require.Equal(t, needs, time.Since(began))
			// At 60 s the last report and the answer are due at the same instant, in either order.
			require.GreaterOrEqual(t, reports, int((needs-1)/unloadReport))
			require.LessOrEqual(t, reports, int(needs/unloadReport))
			require.Zero(t, host.mem.InUsePages())
		})
	}
}

// A deafPort loses the interrupts of one VP, as if it went offline with the event
// flags raised.
type deafPort struct {
	*synic.Partition
	deaf atomic.Bool
}

func (p *deafPort) SetInterrupt(fn func(uint32, uint8)) {
	p.Partition.SetInterrupt(func(vp uint32, vector uint8) {
		if vp != 0 || !p.deaf.Load() {
			fn(vp, vector)
		}
	})
}

// GC-10: the host raises a flag on VP 0 just before the channel's interrupt moves
// to VP 1, and VP 0 goes away. After the answer its flags are looked at once more.
func testFlagsOfTheOldVP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := guestmem.NewHeap(guestmem.HeapOptions{})
		port := &deafPort{Partition: synic.NewPartition(mem, 2)}
		host, err := NewHost(HostOptions{Memory: mem, Port: port.Partition, VPs: 2})
		require.NoError(t, err)
		defer host.Close()
		offered := make(chan vmbus.OfferChannel, 1)
		guest, err := NewGuest(GuestOptions{
			Core:   endpoint.GuestOptions{TargetVP: 1}, // messages do not depend on VP 0
			Memory: mem, Port: port, VPs: 2, Offered: func(o vmbus.OfferChannel) { offered <- o },
		})
		require.NoError(t, err)
		require.NoError(t, guest.Connect(context.Background()))
		device, driver := &signalDevice{opened: make(chan *HostChannel, 1)}, newTestDriver()
		host.Prepare(device).Publish(testOffer)
		id := (<-offered).Channel
		guest.Open(id, RingOptions{ToHostPages: 2, ToGuestPages: 2}, driver)
		<-driver.opened
		synctest.Wait()
		<-driver.doorbell // both sides look once after the open

		port.deaf.Store(true)
		(<-device.opened).Signal()
		synctest.Wait()
		require.Empty(t, driver.doorbell, "VP 0 hears nothing any more")
		moved := make(chan error, 1)
		guest.ModifyChannel(id, 1, func(err error) { moved <- err })
		require.NoError(t, <-moved)
		<-driver.doorbell // or it is lost, and this waits for ever
		require.NoError(t, guest.Close())
	})
}

// An orderPort notes the order in which a host posts and signals.
type orderPort struct {
	*synic.Partition
	mu    sync.Mutex
	order []string
}

func (p *orderPort) note(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.order = append(p.order, what)
}

func (p *orderPort) Post(to synic.Target, payload []byte) error {
	err := p.Partition.Post(to, payload)
	if err == nil && vmbus.Type(payload[0]) == vmbus.TypeOpenResult {
		p.note("OpenResult")
	}
	return err
}

func (p *orderPort) Signal(to synic.Target, flag uint16) error {
	p.note("signal")
	return p.Partition.Signal(to, flag)
}

// An earlyDevice writes its first packet while the guest's open is not answered.
type earlyDevice struct{ signalDevice }

func (d *earlyDevice) Open(c *HostChannel) error {
	if err := c.Out.Append(ringbuffer.Header{Type: ringbuffer.InBand}, nil, []byte("first")); err != nil {
		return err
	}
	if c.Out.Commit() {
		c.Signal()
	}
	return nil
}

// GC-14: the host writes its first packet and signals, and only then answers the
// open. Guests ignore signals of a channel that is not open, so it signals again.
func testSignalAfterOpenResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := guestmem.NewHeap(guestmem.HeapOptions{})
		port := &orderPort{Partition: synic.NewPartition(mem, 1)}
		host, err := NewHost(HostOptions{Memory: mem, Port: port})
		require.NoError(t, err)
		defer host.Close()
		offered := make(chan vmbus.OfferChannel, 1)
		guest, err := NewGuest(GuestOptions{Memory: mem, Port: port.Partition, Offered: func(o vmbus.OfferChannel) { offered <- o }})
		require.NoError(t, err)
		require.NoError(t, guest.Connect(context.Background()))
		driver := newTestDriver()
		host.Prepare(&earlyDevice{}).Publish(testOffer)
		guest.Open((<-offered).Channel, RingOptions{ToHostPages: 2, ToGuestPages: 2}, driver)
		<-driver.opened
		synctest.Wait()
		require.Equal(t, []string{"signal", "OpenResult", "signal"}, port.order)
		require.NoError(t, guest.Close())
	})
}

// GC-16: the link is lost while the host has pages of the guest. Whether it still
// uses them nobody knows, so nobody gets them: leaking them is right.
func testPagesOfALostLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := guestmem.NewHeap(guestmem.HeapOptions{})
		port := &refusingPort{Partition: synic.NewPartition(mem, 1), status: synic.StatusInvalidParameter}
		host, err := NewHost(HostOptions{Memory: mem, Port: port.Partition})
		require.NoError(t, err)
		defer host.Close()
		offered, gone := make(chan vmbus.OfferChannel, 1), make(chan error, 1)
		guest, err := NewGuest(GuestOptions{
			Memory: mem, Port: port, Gone: func(err error) { gone <- err }, Offered: func(o vmbus.OfferChannel) { offered <- o },
		})
		require.NoError(t, err)
		require.NoError(t, guest.Connect(context.Background()))
		driver := newTestDriver()
		host.Prepare(newEchoDevice()).Publish(testOffer)
		id := (<-offered).Channel
		guest.Open(id, RingOptions{ToHostPages: 5, ToGuestPages: 5}, driver)
		<-driver.opened
		held := mem.InUsePages()

		guest.loop.call(func() { port.refuse = 1000 }) // from now on, and for good
		guest.CloseChannel(id, driver)
		require.ErrorIs(t, <-gone, synic.StatusInvalidParameter)
		require.NoError(t, guest.Close())
		require.Equal(t, held, mem.InUsePages(), "the rings, and the pages that the contact named")
	})
}

// GC-19: a host whose every message is nonsense costs ten lines a second, and one
// with the number of those left out.
func testDropsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := newScriptedHost(t, serve)
		var mu sync.Mutex
		var lines []string
		g := host.guest(GuestOptions{Trace: trace.New(func(e trace.Event) {
			mu.Lock()
			defer mu.Unlock()
			if strings.HasPrefix(e.Name, "drop") {
				lines = append(lines, e.Name)
			}
		}, "")})
		nonsense := make([]vmbus.Message, 1000)
		for i := range nonsense {
			nonsense[i] = &vmbus.GPADLTorndown{GPADL: vmbus.GPADLID(i)}
		}
		host.send(nonsense...)
		synctest.Wait()
		require.EqualValues(t, len(nonsense), g.Dropped(), "all are counted")
		require.Len(t, lines, maxDropLines, "not all are told")
		<-time.After(2 * time.Second)
		host.send(nonsense[:1]...)
		synctest.Wait()
		require.Equal(t, []string{"drops left out", "drop"}, lines[maxDropLines:])
		require.NoError(t, g.Close())
	})
}

// A pausedPort is a SynIC that takes no message while the machine is paused, saved
// or reset.
type pausedPort struct {
	*synic.Partition
	paused atomic.Bool
	freed  func(synic.Target)
}

func (p *pausedPort) SlotFree(fn func(synic.Target)) {
	p.freed = fn
	p.Partition.SlotFree(fn)
}

func (p *pausedPort) Post(to synic.Target, payload []byte) error {
	if p.paused.Load() {
		return &synic.BusyError{Target: to, Why: synic.SlotOccupied}
	}
	return p.Partition.Post(to, payload)
}

// HC-05: the host has messages for a guest whose SynIC is paused. They wait, and
// all arrive in order when it goes on.
func testQueueWhilePaused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := guestmem.NewHeap(guestmem.HeapOptions{})
		port := &pausedPort{Partition: synic.NewPartition(mem, 1)}
		host, err := NewHost(HostOptions{Memory: mem, Port: port})
		require.NoError(t, err)
		defer host.Close()
		var got []string
		guest, err := NewGuest(GuestOptions{Memory: mem, Port: port.Partition, Offered: func(o vmbus.OfferChannel) {
			got = append(got, fmt.Sprint(o.Channel, " ", o.Instance[0]))
		}})
		require.NoError(t, err)
		require.NoError(t, guest.Connect(context.Background()))
		port.paused.Store(true)
		var want []string
		for i := range 20 {
			host.Prepare(newEchoDevice()).Publish(offers.Offer{Key: offers.Key{Interface: vmbus.GUID{1}, Instance: vmbus.GUID{byte(i + 1)}}})
			want = append(want, fmt.Sprint(i+1, " ", i+1))
		}
		synctest.Wait()
		require.Empty(t, got)
		port.paused.Store(false)
		port.freed(synic.Target{SINT: endpoint.VMBusSINT})
		synctest.Wait()
		require.Equal(t, want, got, "none torn, none lost, in order")
		require.NoError(t, guest.Close())
	})
}

// A stubbornPort takes no post while a message lies in the guest's slot: the host
// is busy with sending and takes nothing in.
type stubbornPort struct {
	*synic.Partition
	mem   *guestmem.Heap
	slots *guestmem.Page
}

func (p *stubbornPort) WriteMSR(vp, msr uint32, value uint64) error {
	if msr == synic.MSRSIMP && value != 0 {
		p.slots, _ = p.mem.Page(value / guestmem.PageSize) // checked by the partition
	}
	return p.Partition.WriteMSR(vp, msr, value)
}

func (p *stubbornPort) PostMessage(input []byte) synic.Status {
	if synic.SlotFull(p.slots, endpoint.VMBusSINT) {
		return synic.StatusInsufficientBuffers
	}
	return p.Partition.PostMessage(input)
}

// HC-07: the host does not take the guest's posts before the guest has read its
// message, and the guest is in the middle of posting. The guest must read.
func testNobodyWaitsForASend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		host := newScriptedHost(t, func(h *scriptedHost, kind vmbus.Type) {
			switch kind {
			case vmbus.TypeRequestOffers:
				h.send(&vmbus.OfferChannel{Channel: 1})
			case vmbus.TypeGPADLHeader: // a message of the host's own, while the guest posts on
				h.send(&vmbus.OfferChannel{Channel: 2})
			case vmbus.TypeGPADLBody:
				asked.Add(1)
			}
			serve(h, kind)
		})
		driver := newTestDriver()
		g := host.guest(GuestOptions{Port: &stubbornPort{Partition: host.bus, mem: host.mem}})
		g.Open(1, RingOptions{ToHostPages: 40, ToGuestPages: 40}, driver) // a header and two bodies
		<-time.After(10 * time.Minute)                                    // virtual: longer than 100 attempts take
		require.EqualValues(t, 2, asked.Load(), "every post has come through")
		require.Empty(t, driver.failed)
		require.NoError(t, g.Close())
	})
}

// HC-16: nobody listens on the connection ids of VMBus. The contact fails; it is
// not waited for.
func testContactToNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := guestmem.NewHeap(guestmem.HeapOptions{})
		guest, err := NewGuest(GuestOptions{Memory: mem, Port: synic.NewPartition(mem, 1)})
		require.NoError(t, err)
		var refused *endpoint.VersionError
		require.ErrorAs(t, guest.Connect(context.Background()), &refused)
		require.NoError(t, guest.Close())
		require.Zero(t, mem.InUsePages())
	})
}

// A hastyDriver closes its channel from the very call that says it is open, which
// runs on the control loop.
type hastyDriver struct {
	*testDriver
	guest *Guest
}

func (d *hastyDriver) Opened(c *GuestChannel) {
	d.guest.CloseChannel(c.Offer.Channel, d)
	d.testDriver.Opened(c)
}

// HV-09: a channel is closed by whoever has its last reference, the control loop
// included. Closing posts to the loop and never waits for it.
func testCloseFromTheLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, endpoint.GuestOptions{})
		defer p.host.Close()
		require.NoError(t, p.guest.Connect(context.Background()))
		device := newEchoDevice()
		driver := &hastyDriver{newTestDriver(), p.guest}
		p.host.Prepare(device).Publish(testOffer)
		p.guest.Open((<-p.offer).Channel, RingOptions{ToHostPages: 2, ToGuestPages: 2}, driver)
		<-driver.opened
		<-device.closed
		require.NoError(t, p.guest.Close())
	})
}
