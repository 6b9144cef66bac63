package world

import (
	"bytes"
	"slices"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
)

// save saves both ends of the bus and goes on with what is restored from the bytes,
// over the same memory. Devices keep their rings and lose no packet; connections of
// sockets end, as they do on Hyper-V (hvsock.md 11).
//
// What is saved is the same when it is saved again, and nothing that was changed on
// the way is accepted.
func (m *machine) save() {
	w := m.w
	w.actor = guestSide
	if err := m.guest.Freeze(); err != nil {
		w.fail(SaveID, "guest%d: freezing: %v", m.number, err)
		return
	}
	guest, host := m.saved()
	for n := 0; !w.failed(); n++ {
		again, hostAgain := m.saved()
		if bytes.Equal(guest, again) && bytes.Equal(host, hostAgain) {
			break
		}
		if n == maxSaves {
			w.fail(SaveID, "guest%d: saved twice, the host is %d and %d bytes that are not the same, or the guest is, %d and %d",
				m.number, len(host), len(hostAgain), len(guest), len(again))
		}
		guest, host = again, hostAgain // calls that waited for the first save were done after it
	}
	if w.failed() {
		return
	}
	if err := live.CheckSavedHost(endpoint.HostOptions{}, host); err != nil {
		w.fail(SaveID, "guest%d: what the host has saved is refused: %v", m.number, err)
		return
	}
	host[int(w.hash%uint64(len(host)))] ^= 1
	if live.CheckSavedHost(endpoint.HostOptions{}, host) == nil {
		w.fail(SaveID, "guest%d: a saved host with a bit turned is accepted", m.number)
		return
	}
	if m.restore(guest) {
		w.hit(SaveID)
	}
}

// turn makes what happens from now on in this step another side's doing.
func (w *World) turn(to side) {
	if w.o.Checks == CheckAll {
		w.checkRings()
	}
	w.actor = to
}

// maxSaves is how often a host may be saved until calls that waited are done.
const maxSaves = 4

// saved saves the guest and, at the same moment, its host.
func (m *machine) saved() (guest, host []byte) {
	w := m.w
	guest, err := m.guest.SaveWith(func() (err error) {
		w.turn(hostSide)
		host, err = m.host.Save()
		w.turn(guestSide)
		return err
	})
	if err != nil {
		w.fail(SaveID, "guest%d: saving: %v", m.number, err)
	}
	return guest, host
}

// restore puts ends made from saved bytes in the place of both.
func (m *machine) restore(guest []byte) bool {
	w := m.w
	for _, p := range w.apps.byEP {
		if p.m == m {
			p.excuse("its guest was restored")
		}
	}
	for _, p := range w.apps.pairs {
		if p.m == m {
			p.excuse("its guest was restored")
		}
	}
	w.turn(hostSide)
	m.moving = true
	host, err := m.host.SaveAndClose()
	m.moving = false
	if err != nil {
		w.fail(SaveID, "guest%d: saving the host: %v", m.number, err)
		return false
	}
	if m.host, err = live.RestoreHost(m.hostOptions(), host, m.restoredDevice); err != nil {
		w.fail(SaveID, "guest%d: what the host has saved cannot be restored: %v", m.number, err)
		return false
	}
	m.peer.Attach(m.host)
	w.turn(guestSide)
	m.life++
	m.owner.die()
	m.endSockets()
	_ = m.listener.Close() // of the last life
	m.newSockets()
	if m.guest, err = live.RestoreGuest(m.guestOptions(), guest, m.restoredDriver); err != nil {
		w.fail(SaveID, "guest%d: what the guest has saved cannot be restored: %v", m.number, err)
		return false
	}
	if m.connects {
		m.guest.AwaitConnect(m.whenConnected())
	}
	m.guest.Thaw()
	m.frozen = false
	if err := m.listen(); err != nil {
		w.fail(SaveID, "guest%d: the restored guest cannot listen: %v", m.number, err)
		return false
	}
	for _, d := range m.devices {
		if g := d.driver; g != nil {
			g.moves = 0                             // a call that waits is not saved
			if d.drop(1, d.ends[1]); g.end != nil { // until Opened
				g.end.dead = true
			}
		}
	}
	return true
}

// restoredDevice finds the device of an offer that was restored; no socket has one.
func (m *machine) restoredDevice(p *live.Offered, o offers.Offer) live.Device {
	at := slices.IndexFunc(m.devices, func(d *device) bool { return d.offered != nil && d.offer.Key == o.Key })
	if at < 0 {
		return nil
	}
	d := m.devices[at]
	d.offered = p
	return &hostDevice{d: d, offered: p}
}

// restoredDriver finds the driver of a channel that is open or opening.
func (m *machine) restoredDriver(o vmbus.OfferChannel) live.Driver {
	for _, d := range m.devices {
		if d.driver != nil && d.driver.offer == o {
			return d.driver
		}
	}
	return nil
}
