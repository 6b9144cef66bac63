package live

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/internal/snapshot"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
	"github.com/stretchr/testify/require"
)

// saved is a pair that was saved, with its memory.
type saved struct {
	host, guest []byte
	blocks      []guestmem.SavedBlock
	registers   synic.Registers
}

// machine returns a copy of the memory and of the hypervisor.
func (s saved) machine(t testing.TB) (*guestmem.Heap, *synic.Partition) {
	mem := guestmem.NewHeap(guestmem.HeapOptions{})
	require.NoError(t, mem.Restore(s.blocks))
	hypervisor := synic.NewPartition(mem, 1)
	require.NoError(t, hypervisor.Restore(s.registers))
	return mem, hypervisor
}

// take saves everything at one moment.
func (s *saved) take(t testing.TB, g *Guest, h *Host, mem *guestmem.Heap, hypervisor *synic.Partition) {
	t.Helper()
	var err error
	s.guest, err = g.SaveWith(func() (err error) {
		s.host, err = h.SaveWith(func() error {
			s.blocks, s.registers = mem.Save(), hypervisor.Save()
			return nil
		})
		return err
	})
	require.NoError(t, err)
}

// save takes both ends and the memory at one moment.
func (p *pair) save(t *testing.T) (s saved) {
	t.Helper()
	require.NoError(t, p.guest.Freeze())
	var err error
	s.take(t, p.guest, p.host, p.mem, p.host.opts.Port.(*synic.Partition))
	again, err := p.host.Save()
	require.NoError(t, err)
	require.Equal(t, s.host, again, "saving changes nothing (P39)")
	return s
}

// restore starts both ends over a copy of the memory, under another hypervisor.
func (s saved) restore(t *testing.T, device func(*Offered, offers.Offer) Device, driver func(vmbus.OfferChannel) Driver) *pair {
	t.Helper()
	mem, hypervisor := s.machine(t)
	p := &pair{mem: mem, offer: make(chan vmbus.OfferChannel, 64)}
	var err error
	p.host, err = RestoreHost(HostOptions{Memory: p.mem, Port: hypervisor}, s.host, device)
	require.NoError(t, err)
	p.guest, err = RestoreGuest(GuestOptions{
		Memory: p.mem, Port: hypervisor,
		Core:    endpoint.GuestOptions{Features: vmbus.AllFeatures},
		Offered: func(o vmbus.OfferChannel) { p.offer <- o },
	}, s.guest, driver)
	require.NoError(t, err)
	p.guest.Thaw()
	t.Cleanup(func() {
		p.host.Close()
		require.Zero(t, p.mem.InUsePages(), "every page is back")
	})
	return p
}

// exchange sends bytes to an echo device and waits for them to come back, after
// before, which is on its way already.
func exchange(t *testing.T, ch *GuestChannel, driver *testDriver, before, now []byte) {
	t.Helper()
	out, in := channel.NewPipeWriter(ch.Out, channel.PipeOptions{}), channel.NewPipeReader(ch.In)
	if _, signal, err := out.Write(now); err != nil {
		t.Fatal(err)
	} else if signal {
		ch.Signal()
	}
	want := append(bytes.Clone(before), now...)
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
}

// openEcho opens a channel to an echo device and sends bytes both ways.
func openEcho(t *testing.T, p *pair) (*GuestChannel, *testDriver, *echoDevice) {
	t.Helper()
	device, driver := newEchoDevice(), newTestDriver()
	p.host.Prepare(device).Publish(testOffer)
	p.guest.Open((<-p.offer).Channel, RingOptions{ToHostPages: 2, ToGuestPages: 3}, driver)
	ch := <-driver.opened
	exchange(t, ch, driver, nil, []byte("before"))
	return ch, driver, device
}

// TestRestoreBoth saves a connection with an open channel that has unread bytes in
// its ring, and goes on with it over a copy of the memory, at every version: the
// interrupt page, the legacy event connection, event flags and monitor pages are
// found again (P14, P16, SS-09).
func TestRestoreBoth(t *testing.T) {
	for _, v := range vmbus.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			old := newPair(t, endpoint.GuestOptions{Versions: []vmbus.Version{v}, Features: vmbus.AllFeatures})
			require.NoError(t, old.guest.Connect(context.Background()))
			ch, oldDriver, _ := openEcho(t, old)
			_, _, err := channel.NewPipeWriter(ch.Out, channel.PipeOptions{}).Write([]byte("unread"))
			require.NoError(t, err) // and nobody is signalled
			s := old.save(t)

			device, driver := newEchoDevice(), newTestDriver()
			p := s.restore(t, func(_ *Offered, o offers.Offer) Device {
				require.Equal(t, testOffer, o)
				return device
			}, func(o vmbus.OfferChannel) Driver { return driver })
			require.Equal(t, v, p.guest.Negotiated().Version)
			require.Equal(t, p.guest.Negotiated(), p.host.Negotiated())
			ch = <-driver.opened
			require.True(t, ch.Restored)
			exchange(t, ch, driver, []byte("unread"), []byte("after"))
			require.NoError(t, p.guest.Close())
			<-device.closed
			<-driver.rescinded

			old.guest.Thaw() // the original has noticed nothing
			ch = ch2(t, old, oldDriver, ch)
			ch.Signal() // which the write above left out
			exchange(t, ch, oldDriver, []byte("unread"), []byte("still"))
			require.NoError(t, old.guest.Close())
		})
	}
}

// ch2 is the old guest's channel again: its rings are those of before.
func ch2(t *testing.T, p *pair, d *testDriver, like *GuestChannel) *GuestChannel {
	t.Helper()
	var ch *GuestChannel
	p.guest.loop.call(func() {
		o := p.guest.openings[like.Offer.Channel]
		ch = p.guest.channelOf(o, like.connection)
	})
	require.Equal(t, Driver(d), p.guest.openings[like.Offer.Channel].driver)
	return ch
}

// TestRestoreHostInPlace replaces the host's end under a guest that runs on, as
// when the host's service is updated.
func TestRestoreHostInPlace(t *testing.T) {
	p := newPair(t, endpoint.GuestOptions{})
	require.NoError(t, p.guest.Connect(context.Background()))
	ch, driver, old := openEcho(t, p)
	require.NoError(t, p.guest.Freeze())
	b, err := p.host.Save()
	require.NoError(t, err)
	p.host.Close()
	<-old.closed
	require.NoError(t, <-old.gone)
	device := newEchoDevice()
	p.host, err = RestoreHost(HostOptions{Memory: p.mem, Port: p.host.opts.Port}, b, func(*Offered, offers.Offer) Device { return device })
	require.NoError(t, err)
	p.guest.Thaw()
	exchange(t, ch, driver, nil, []byte("after"))
	require.NoError(t, p.guest.Close())
	<-device.closed
}

// TestRestoreWithoutDeviceOrDriver: what nobody takes over ends at the other side,
// and leaves nothing (SS-10).
func TestRestoreWithoutDeviceOrDriver(t *testing.T) {
	for _, c := range []struct {
		name           string
		device, driver bool
	}{{"no device", false, true}, {"no driver", true, false}, {"neither", false, false}} {
		t.Run(c.name, func(t *testing.T) {
			old := newPair(t, endpoint.GuestOptions{})
			require.NoError(t, old.guest.Connect(context.Background()))
			openEcho(t, old)
			s := old.save(t)
			device, driver := newEchoDevice(), newTestDriver()
			p := s.restore(t, func(*Offered, offers.Offer) Device {
				if !c.device {
					return nil
				}
				return device
			}, func(vmbus.OfferChannel) Driver {
				if !c.driver {
					return nil
				}
				return driver
			})
			if c.driver {
				<-driver.opened
				<-driver.rescinded
			}
			if c.device {
				<-device.closed
			}
			require.NoError(t, p.guest.Close())
			require.Zero(t, p.host.Usage().Channels)
			require.NoError(t, old.guest.Close())
		})
	}
}

// TestRestoreQueues: offers published to a frozen guest wait through a save and
// arrive once and in order (HC-03, HC-05, P15, P18), with one that is withdrawn
// again (HC-11 is not disturbed), and a socket request is asked again (P16).
func TestRestoreQueues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := newPair(t, endpoint.GuestOptions{})
		asked := make(chan endpoint.SocketRequested, 4)
		require.NoError(t, old.guest.Connect(context.Background()))
		old.host.opts.SocketRequested = func(r endpoint.SocketRequested) { asked <- r }
		old.guest.RequestSocket(vmbus.GUID{7}, vmbus.GUID{8}, func(err error) { t.Error(err) })
		require.Equal(t, vmbus.GUID{7}, (<-asked).Service)
		require.NoError(t, old.guest.Freeze())
		for i := range 20 {
			old.host.Prepare(newEchoDevice()).Publish(offers.Offer{Key: offers.Key{Instance: vmbus.GUID{byte(i + 1)}}})
		}
		gone := old.host.Prepare(newEchoDevice())
		gone.Publish(offers.Offer{Key: offers.Key{Instance: vmbus.GUID{99}}})
		gone.Revoke()
		synctest.Wait()
		s := old.save(t)

		mem, hypervisor := s.machine(t)
		h, err := RestoreHost(HostOptions{
			Memory: mem, Port: hypervisor, SocketRequested: func(r endpoint.SocketRequested) { asked <- r },
		}, s.host, func(*Offered, offers.Offer) Device { return newEchoDevice() })
		require.NoError(t, err)
		require.Equal(t, vmbus.GUID{7}, (<-asked).Service)
		var got []vmbus.GUID
		g, err := RestoreGuest(GuestOptions{Memory: mem, Port: hypervisor, Offered: func(o vmbus.OfferChannel) { got = append(got, o.Instance) }},
			s.guest, func(vmbus.OfferChannel) Driver { return nil })
		require.NoError(t, err)
		g.Thaw()
		synctest.Wait()
		require.Empty(t, asked, "asked once")
		var want []vmbus.GUID
		for i := range 20 {
			want = append(want, vmbus.GUID{byte(i + 1)})
		}
		require.Equal(t, append(want, vmbus.GUID{99}), got)
		require.NoError(t, g.Close())
		h.Close()
		require.Zero(t, mem.InUsePages())
		require.NoError(t, old.guest.Close())
		old.host.Close()
	})
}

// TestRestoreBeforeContact: a host that was never connected (P14).
func TestRestoreBeforeContact(t *testing.T) {
	mem := guestmem.NewHeap(guestmem.HeapOptions{})
	hypervisor := synic.NewPartition(mem, 1)
	h, err := NewHost(HostOptions{Memory: mem, Port: hypervisor})
	require.NoError(t, err)
	device := newEchoDevice()
	h.Prepare(device).Publish(testOffer)
	b, err := h.Save()
	require.NoError(t, err)
	h.Close()
	require.NoError(t, <-device.gone)
	h, err = RestoreHost(HostOptions{Memory: mem, Port: hypervisor}, b, func(*Offered, offers.Offer) Device { return newEchoDevice() })
	require.NoError(t, err)
	defer h.Close()
	offered := make(chan vmbus.OfferChannel, 2)
	g, err := NewGuest(GuestOptions{Memory: mem, Port: hypervisor, Offered: func(o vmbus.OfferChannel) { offered <- o }})
	require.NoError(t, err)
	require.NoError(t, g.Connect(context.Background()))
	require.Equal(t, testOffer.Instance, (<-offered).Instance)
	require.Empty(t, offered, "exactly once (HC-03)")
	require.NoError(t, g.Close())
}

// TestRestoreMonitored: a monitored channel goes on signalling through its page.
func TestRestoreMonitored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := guestmem.NewHeap(guestmem.HeapOptions{})
		hypervisor := synic.NewPartition(mem, 1)
		h, err := NewHost(HostOptions{Memory: mem, Port: hypervisor})
		require.NoError(t, err)
		offered := make(chan vmbus.OfferChannel, 1)
		g, err := NewGuest(GuestOptions{Memory: mem, Port: hypervisor, Monitors: true, Offered: func(o vmbus.OfferChannel) { offered <- o }})
		require.NoError(t, err)
		require.NoError(t, g.Connect(context.Background()))
		h.Prepare(&bellDevice{make(chan time.Time, 1)}).Publish(offers.Offer{Key: testOffer.Key, Monitor: &offers.Monitor{Latency: 20000}})
		driver := newTestDriver()
		g.Open((<-offered).Channel, RingOptions{ToHostPages: 2, ToGuestPages: 2}, driver)
		<-driver.opened
		require.NoError(t, g.Freeze())
		p := &pair{mem: mem, host: h, guest: g}
		s := p.save(t)
		g.Thaw()
		require.NoError(t, g.Close())
		h.Close()

		bell, driver := &bellDevice{make(chan time.Time, 4)}, newTestDriver()
		p = s.restore(t, func(*Offered, offers.Offer) Device { return bell }, func(vmbus.OfferChannel) Driver { return driver })
		ch := <-driver.opened
		require.NotNil(t, ch.monitor)
		<-bell.rung // by the restore
		time.Sleep(5 * time.Millisecond)
		for len(bell.rung) > 0 { // and the guest's end's
			<-bell.rung
		}
		start := time.Now()
		ch.Signal()
		require.LessOrEqual(t, (<-bell.rung).Sub(start), 2*time.Millisecond)
		require.NoError(t, p.guest.Close())
	})
}

// TestFreeze: nothing runs in a frozen guest, and it goes on where it was (SS-09).
func TestFreeze(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, endpoint.GuestOptions{})
		require.NoError(t, p.guest.Connect(context.Background()))
		ch, driver, device := openEcho(t, p)
		require.NoError(t, p.guest.Freeze())
		require.NoError(t, p.guest.Freeze(), "again")
		for len(driver.doorbell) > 0 { // of before
			<-driver.doorbell
		}
		dropped := p.host.Dropped()
		out := channel.NewPipeWriter(ch.Out, channel.PipeOptions{})
		_, signal, err := out.Write([]byte("x")) // the ring is memory: this the hypervisor cannot stop
		require.NoError(t, err)
		require.True(t, signal)
		ch.Signal() // the echo answers at once
		p.host.Prepare(newEchoDevice()).Publish(offers.Offer{Key: offers.Key{Instance: vmbus.GUID{5}}})
		done := make(chan error, 1)
		p.guest.ModifyChannel(ch.Offer.Channel, 0, func(err error) { done <- err })
		time.Sleep(time.Hour)
		require.Empty(t, driver.doorbell, "no interrupt")
		require.Empty(t, p.offer, "no message")
		require.Empty(t, done, "no call")
		require.Equal(t, 1, p.guest.Usage().Channels, "but it can be looked at")

		p.guest.Thaw()
		require.NoError(t, <-done)
		<-driver.doorbell
		require.Equal(t, vmbus.GUID{5}, (<-p.offer).Instance)
		require.Equal(t, dropped, p.host.Dropped())
		require.NoError(t, p.guest.Freeze())
		require.NoError(t, p.guest.Close(), "a frozen guest goes on to unload")
		<-device.closed
		require.ErrorIs(t, p.guest.Freeze(), ErrStopped)
		_, err = p.guest.Save()
		require.ErrorIs(t, err, ErrStopped)
	})
}

// reseal makes the digest of changed contents fit again.
func reseal(b []byte) []byte {
	b = bytes.Clone(b[:len(b)-sha256.Size])
	binary.LittleEndian.PutUint32(b[12:], uint32(len(b)-snapshot.HeadBytes))
	digest := sha256.Sum256(b)
	return append(b, digest[:]...)
}

// tamperings is a saved connection with an open channel, and how to try changed
// states: the result must be an error, after which nothing is left, or an end that
// can be closed.
func tamperings(t testing.TB) (s saved, try func(t testing.TB, host, guest []byte) (hostErr, guestErr error)) {
	mem := guestmem.NewHeap(guestmem.HeapOptions{})
	hypervisor := synic.NewPartition(mem, 1)
	h, err := NewHost(HostOptions{Memory: mem, Port: hypervisor})
	require.NoError(t, err)
	offered := make(chan vmbus.OfferChannel, 4)
	g, err := NewGuest(GuestOptions{Memory: mem, Port: hypervisor, Offered: func(o vmbus.OfferChannel) { offered <- o }})
	require.NoError(t, err)
	require.NoError(t, g.Connect(context.Background()))
	h.Prepare(newEchoDevice()).Publish(testOffer)
	driver := newTestDriver()
	g.Open((<-offered).Channel, RingOptions{ToHostPages: 2, ToGuestPages: 2}, driver)
	<-driver.opened
	s.take(t, g, h, mem, hypervisor)
	require.NoError(t, g.Close())
	h.Close()

	return s, func(t testing.TB, host, guest []byte) (hostErr, guestErr error) {
		mem, hypervisor := s.machine(t)
		h, hostErr := RestoreHost(HostOptions{Memory: mem, Port: hypervisor}, host, func(*Offered, offers.Offer) Device { return newEchoDevice() })
		if hostErr != nil {
			h, err = NewHost(HostOptions{Memory: mem, Port: hypervisor})
			require.NoError(t, err, "the ports were given back")
		}
		g, guestErr := RestoreGuest(GuestOptions{Memory: mem, Port: hypervisor}, guest, func(vmbus.OfferChannel) Driver { return newTestDriver() })
		h.Close()
		if guestErr == nil {
			g.Abandon()
		}
		return hostErr, guestErr
	}
}

// Every byte and every cut is noticed (I-SAVE-ID, S26).
func TestTamperedState(t *testing.T) {
	s, try := tamperings(t)
	hostErr, guestErr := try(t, s.host, s.guest)
	require.NoError(t, hostErr)
	require.NoError(t, guestErr)
	for i := range max(len(s.host), len(s.guest)) {
		host, guest := bytes.Clone(s.host), bytes.Clone(s.guest)
		host[i%len(host)] ^= 0x41
		guest[i%len(guest)] ^= 0x41
		hostErr, guestErr = try(t, host, guest)
		require.ErrorIs(t, hostErr, vmbus.ErrProtocol, "byte %d", i)
		require.ErrorIs(t, guestErr, vmbus.ErrProtocol, "byte %d", i)
		hostErr, guestErr = try(t, s.host[:i%len(host)], s.guest[:i%len(guest)])
		require.ErrorIs(t, hostErr, vmbus.ErrProtocol, "cut at %d", i)
		require.ErrorIs(t, guestErr, vmbus.ErrProtocol, "cut at %d", i)
	}
	for i := snapshot.HeadBytes; i < max(len(s.host), len(s.guest))-sha256.Size; i += 3 { // whoever can make a digest
		host, guest := bytes.Clone(s.host), bytes.Clone(s.guest)
		host[min(i, len(host)-1)] ^= 0x41
		guest[min(i, len(guest)-1)] ^= 0x41
		hostErr, guestErr = try(t, reseal(resealCore(host)), reseal(resealCore(guest)))
		for _, err := range []error{hostErr, guestErr} {
			if err != nil {
				require.ErrorIs(t, err, vmbus.ErrProtocol, "byte %d", i)
			}
		}
	}
	hostErr, guestErr = try(t, s.guest, s.host)
	require.ErrorIs(t, hostErr, vmbus.ErrProtocol, "it is a guest's")
	require.ErrorIs(t, guestErr, vmbus.ErrProtocol, "it is a host's")
	hostErr, guestErr = try(t, make([]byte, MaxSavedBytes+1), make([]byte, MaxSavedBytes+1))
	require.ErrorIs(t, hostErr, vmbus.ErrProtocol)
	require.ErrorIs(t, guestErr, vmbus.ErrProtocol)
}

// TestRestoreElsewhere: a state that is whole but does not fit is refused.
func TestRestoreElsewhere(t *testing.T) {
	s, _ := tamperings(t)
	mem, hypervisor := s.machine(t)
	device := func(*Offered, offers.Offer) Device { t.Error("asked for a device"); return nil }
	old := endpoint.HostOptions{MaxVersion: vmbus.Iron}
	require.ErrorIs(t, CheckSavedHost(old, s.host), vmbus.ErrProtocol, "P17: a version above the maximum")
	require.NoError(t, CheckSavedHost(endpoint.HostOptions{}, s.host))
	_, err := RestoreHost(HostOptions{Core: old, Memory: mem, Port: hypervisor}, s.host, device)
	require.ErrorIs(t, err, vmbus.ErrProtocol)
	empty := guestmem.NewHeap(guestmem.HeapOptions{})
	_, err = RestoreGuest(GuestOptions{Memory: empty, Port: hypervisor}, s.guest, nil)
	require.ErrorIs(t, err, vmbus.ErrProtocol, "another memory")
	_, err = RestoreGuest(GuestOptions{Memory: mem, Port: hypervisor, Core: endpoint.GuestOptions{TargetVP: 1}}, s.guest, nil)
	require.ErrorIs(t, err, vmbus.ErrProtocol, "more processors than it was saved with (N10)")
	_, err = RestoreGuest(GuestOptions{Memory: mem, Port: synic.NewPartition(mem, 1)}, s.guest, nil)
	require.ErrorIs(t, err, vmbus.ErrProtocol, "a hypervisor that knows nothing of it")
	h, err := NewHost(HostOptions{Memory: mem, Port: hypervisor})
	require.NoError(t, err, "the ports are free")
	_, err = RestoreHost(HostOptions{Memory: mem, Port: hypervisor}, s.host, device)
	require.Error(t, err, "the ports are taken")
	h.Close()
}

// FuzzRestore gives both restores any contents behind digests that fit, the cores'
// inside included, over the memory they were saved with.
func FuzzRestore(f *testing.F) {
	s, try := tamperings(f)
	f.Add(s.host, s.guest)
	f.Add(s.guest, s.host)
	f.Fuzz(func(t *testing.T, host, guest []byte) {
		for _, b := range []*[]byte{&host, &guest} {
			if len(*b) < snapshot.HeadBytes+sha256.Size {
				return
			}
			*b = reseal(resealCore(bytes.Clone(*b)))
		}
		hostErr, guestErr := try(t, host, guest)
		for _, err := range []error{hostErr, guestErr} {
			if err != nil {
				require.ErrorIs(t, err, vmbus.ErrProtocol)
			}
		}
	})
}

// resealCore mends the digest of the core inside, which is the first thing in the
// body, behind its length.
func resealCore(b []byte) []byte {
	body := b[snapshot.HeadBytes : len(b)-sha256.Size]
	if len(body) < 4 {
		return b
	}
	n := int(binary.LittleEndian.Uint32(body))
	if core := body[4:]; n >= snapshot.HeadBytes+sha256.Size && n <= len(core) {
		copy(core, reseal(core[:n]))
	}
	return b
}

// TestAwaitConnect: whoever waits for a guest that was saved while it connected
// hears how that ended, after the guest was restored; of one that never began, or
// has ended, it hears at once.
func TestAwaitConnect(t *testing.T) {
	host := newScriptedHost(t, func(*scriptedHost, vmbus.Type) {}) // asked for offers, it is silent
	opts := GuestOptions{Memory: host.mem, Port: host.bus, Manual: true}
	opts.Core.Versions = []vmbus.Version{vmbus.Iron}
	run := func(g *Guest) {
		for s := g.Steps(); s != 0; s = g.Steps() {
			g.Do(s & -s)
		}
	}
	var told []error
	await := func(g *Guest) []error {
		told = nil
		g.AwaitConnect(func(err error) { told = append(told, err) })
		run(g)
		return told
	}
	g, err := NewGuest(opts)
	require.NoError(t, err)
	require.ErrorIs(t, await(g)[0], ErrStopped, "it does not connect")
	g.BeginConnect(func(error) {})
	run(g)
	require.NoError(t, g.Freeze())
	saved, err := g.Save()
	require.NoError(t, err)

	restored, err := RestoreGuest(opts, saved, nil)
	require.NoError(t, err)
	restored.Thaw()
	require.Empty(t, await(restored), "the offers are not delivered yet")
	host.send(&vmbus.AllOffersDelivered{})
	run(restored)
	require.Equal(t, []error{nil}, told)
	require.Equal(t, []error{nil}, await(restored), "it had ended well")
}
