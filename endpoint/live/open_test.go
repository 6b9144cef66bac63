package live

import (
	"context"
	"sync"
	"testing"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
	"github.com/stretchr/testify/require"
)

// An eagerDevice writes its first packet before the guest knows that its channel
// is open, as storage hosts do.
type eagerDevice struct{ *echoDevice }

var greeting = []byte("first")

func (d eagerDevice) Open(c *HostChannel) error {
	if err := d.echoDevice.Open(c); err != nil {
		return err
	}
	_, signal, err := d.out.Write(greeting)
	if signal {
		c.Signal()
	}
	return err
}

// An earPort notes what reaches the guest, and can keep every signal from it.
type earPort struct {
	synic.Port
	deaf bool

	mu    sync.Mutex
	heard []string
}

func (p *earPort) note(s string) {
	p.mu.Lock()
	p.heard = append(p.heard, s)
	p.mu.Unlock()
}

func (p *earPort) Post(to synic.Target, payload []byte) error {
	err := p.Port.Post(to, payload)
	if err == nil && payload[0] == byte(vmbus.TypeOpenResult) {
		p.note("OpenResult")
	}
	return err
}

func (p *earPort) Signal(to synic.Target, flag uint16) error {
	p.note("signal")
	if p.deaf {
		return nil
	}
	return p.Port.Signal(to, flag)
}

// GC-14: the host writes and signals before OpenResult, which some guests do not
// hear. It signals once more after it; and our guest looks by itself, even if no
// signal reaches it.
func TestWrittenBeforeOpenResult(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		mem := guestmem.NewHeap(guestmem.HeapOptions{})
		hypervisor := synic.NewPartition(mem, 1)
		ear := &earPort{Port: hypervisor, deaf: deaf}
		host, err := NewHost(HostOptions{Memory: mem, Port: ear})
		require.NoError(t, err)
		offered := make(chan vmbus.OfferChannel, 1)
		guest, err := NewGuest(GuestOptions{Core: endpoint.GuestOptions{}, Memory: mem, Port: hypervisor, Offered: func(o vmbus.OfferChannel) { offered <- o }})
		require.NoError(t, err)
		require.NoError(t, guest.Connect(context.Background()))
		driver := newTestDriver()
		host.Prepare(eagerDevice{newEchoDevice()}).Publish(testOffer)
		guest.Open((<-offered).Channel, RingOptions{ToHostPages: 2, ToGuestPages: 2}, driver)
		ch := <-driver.opened
		<-driver.doorbell // a hang without: nobody would look at the ring
		var buf [64]byte
		n, _, err := channel.NewPipeReader(ch.In).Read(buf[:])
		require.NoError(t, err)
		require.Equal(t, greeting, buf[:n])
		require.NoError(t, guest.Close())
		host.Close()
		require.Equal(t, []string{"signal", "OpenResult", "signal"}, ear.heard, "once for the packet, once after the result")
	}
}
