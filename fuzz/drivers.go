package fuzz

import (
	"bytes"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// A drivenHost is a host under one of its drivers, goroutine or stepped by hand,
// and all that it said to its guest.
type drivenHost struct {
	host     *live.Host
	part     *synic.Partition
	messages *guestmem.Page
	stepped  bool
	said     []string // its messages

	mu   sync.Mutex
	seen []string // by its devices: beside the messages, since nobody promises when those are read
}

// quietCalls is how often a host's loop must have turned without a message
// before it counts as idle: more often than one guest message makes it turn.
const quietCalls = 16

// newDrivenHost publishes two devices.
func newDrivenHost(stepped bool) (*drivenHost, error) {
	heap := guestmem.NewHeap(guestmem.HeapOptions{Seed: 1, Layout: guestmem.ContiguousPages})
	d := &drivenHost{part: synic.NewPartition(heap, 1), stepped: stepped}
	var err error
	if d.messages, _, err = setUpSynIC(heap, d.part, uint8(vmbus.SINT)); err != nil {
		return nil, err
	}
	if _, err = heap.Alloc(300); err != nil { // pages for GPADLs to name
		return nil, err
	}
	d.host, err = live.NewHost(live.HostOptions{Memory: heap, Port: d.part, Manual: stepped, Clock: newClock(), VPs: 2})
	if err != nil {
		return nil, err
	}
	for i := range byte(2) {
		d.host.Prepare(&drivenDevice{d, i}).Publish(offers.Offer{Key: offers.Key{Instance: vmbus.GUID{7 + i}}})
	}
	d.settle()
	return d, nil
}

// A drivenDevice notes what happens to it. It refuses nothing.
type drivenDevice struct {
	host *drivenHost
	n    byte
}

func (d *drivenDevice) note(format string, args ...any) {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	d.host.seen = append(d.host.seen, fmt.Sprintf("device %d: ", d.n)+fmt.Sprintf(format, args...))
}

// Open implements live.Device.
func (d *drivenDevice) Open(c *live.HostChannel) error {
	d.note("open %d+%d pages", c.InPages, c.OutPages)
	return nil
}

// Doorbell implements live.Device.
func (d *drivenDevice) Doorbell() {}

// Close implements live.Device.
func (d *drivenDevice) Close() { d.note("close") }

// Gone implements live.Device.
func (d *drivenDevice) Gone(err error) { d.note("gone %v", err) }

// settle lets the host do all it can, and reads what it says.
func (d *drivenHost) settle() {
	for quiet := 0; quiet < quietCalls; quiet++ {
		if d.stepped {
			for steps(d.host) {
			}
		}
		d.host.Usage() // returns when the loop has come round
		if m, ok := synic.ReadSlot(d.messages, uint8(vmbus.SINT)); ok {
			d.host.Usage()
			d.said = append(d.said, said(vmbus.HostToGuest, m.Payload(), vmbus.Negotiated{Version: vmbus.Copper}))
			if synic.FreeSlot(d.messages, uint8(vmbus.SINT)) {
				_ = d.part.WriteMSR(0, synic.MSREOM, 0) // a guest may always write it
			}
			quiet = 0
		}
	}
}

func (d *drivenHost) post(port synic.ConnectionID, b []byte) {
	d.part.PostMessage(synic.AppendPostMessage(nil, port, b[:min(len(b), vmbus.MaxPayloadBytes)]))
	d.settle()
}

// Drivers gives the same guest messages to a host with a goroutine and to one
// that is stepped by hand; steps are as in HostMessages, a message as bytes or by
// kind.
func Drivers(data []byte) error {
	in := &input{data}
	live, err := newDrivenHost(false)
	if err != nil {
		return violated("I-STATE-LEGAL", "%v", err)
	}
	defer live.host.Close()
	stepped, err := newDrivenHost(true)
	if err != nil {
		return violated("I-STATE-LEGAL", "%v", err)
	}
	defer stepped.host.Close()
	both := func(port synic.ConnectionID, b []byte) {
		live.post(port, b)
		stepped.post(port, b)
	}
	versions := vmbus.Versions()
	v := versions[int(in.u8())%len(versions)]
	port, contact := synic.ConnectionID(endpoint.MessagePort), vmbus.InitiateContact{Version: v}
	if v >= vmbus.Win10V5 {
		port, contact.TargetInfo = endpoint.MultiClientPort, uint64(vmbus.SINT)
	}
	both(port, vmbus.Append(nil, &contact))
	both(endpoint.MessagePort, vmbus.Append(nil, &vmbus.RequestOffers{}))
	for in.more() {
		var messages [][]byte
		kind := in.u8()
		if kind&1 == 0 {
			messages = guestTyped(in)
		} else {
			messages = [][]byte{bytes.Clone(in.block())}
		}
		port := synic.ConnectionID(endpoint.MessagePort)
		if kind&2 != 0 {
			port = endpoint.MultiClientPort
		}
		for _, b := range messages {
			both(port, b)
		}
	}
	return sameDriven(live, stepped)
}

func sameDriven(a, b *drivenHost) error {
	a.mu.Lock()
	b.mu.Lock()
	x, y := strings.Join(slices.Concat(a.said, a.seen), "\n"), strings.Join(slices.Concat(b.said, b.seen), "\n")
	b.mu.Unlock()
	a.mu.Unlock()
	if x != y {
		return violated("live as deterministic", "with a goroutine:\n%s\nstepped:\n%s", x, y)
	}
	if a.host.Usage() != b.host.Usage() || a.host.Dropped() != b.host.Dropped() || a.host.Negotiated() != b.host.Negotiated() {
		return violated("live as deterministic", "%+v, %d dropped, and %+v, %d dropped", a.host.Usage(), a.host.Dropped(), b.host.Usage(), b.host.Dropped())
	}
	return nil
}

func driverSeeds(vectors fs.FS) ([][]byte, error) {
	var seeds [][]byte
	for _, line := range FaultLines("host") {
		for _, v := range []byte{0, 5, 9} {
			s := seed{v}
			for _, b := range line.Parts {
				s = s.u8(1).block(b)
			}
			seeds = append(seeds, s)
		}
	}
	seeds = append(seeds, seed{9}.u8(0, 1, 1, 0, 10, 0, 3, 1, 0, 5, 0, 9, 1, 1, 0, 5, 1, 0, 0, 6, 1, 0, 0, 7, 1, 0),
		seed{9}.u8(0, 1, 1, 0, 10, 0, 3, 1, 0, 5, 0, 13, 0, 0, 2, 14, 0, 9).u64(2).u8(0, 0, 0, 0, 0, 8, 1, 1))
	all, err := conversations(vectors)
	for i, c := range all { // recorded at 4.1 and 5.3, in this order
		s := seed{[]byte{5, 9}[i%2]}
		for _, m := range c {
			if m.dir == vmbus.GuestToHost {
				s = s.u8(1).block(m.bytes)
			}
		}
		seeds = append(seeds, s)
	}
	return seeds, err
}
