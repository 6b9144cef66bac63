package synic_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// The data path: one event flag to the guest, which takes notice of it.
func BenchmarkSignal(b *testing.B) {
	b.Run("edge", func(b *testing.B) {
		g := newGuest(b, 1)
		g.p.SetInterrupt(func(uint32, uint8) {})
		b.ReportAllocs()
		for b.Loop() {
			_ = g.p.Signal(vmbusTarget, 3)
			g.events[0].And32(synic.MessageSINT*synic.SlotBytes, 0)
		}
	})
	b.Run("already-set", func(b *testing.B) {
		g := newGuest(b, 1)
		b.ReportAllocs()
		for b.Loop() {
			_ = g.p.Signal(vmbusTarget, 3)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		g := newGuest(b, 1)
		g.p.SetInterrupt(func(uint32, uint8) {})
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_ = g.p.Signal(vmbusTarget, 3)
			}
		})
	})
}

// The data path the other way: one doorbell, with 2047 channels bound.
func BenchmarkSignalEvent(b *testing.B) {
	p := synic.NewPartition(guestmem.NewHeap(guestmem.HeapOptions{}), 1)
	const firstID = 2<<12 | 1 // the connection ids of a host with every channel open
	for id := range synic.ConnectionID(2047) {
		require.NoError(b, p.BindEvents(firstID+id, func(uint16) {}))
	}
	b.Run("one-channel", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = p.SignalEvent(firstID)
		}
	})
	b.Run("all-channels", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			_ = p.SignalEvent(firstID + uint64(i)%2047)
		}
	})
	b.Run("all-channels-parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				_ = p.SignalEvent(firstID + uint64(i)%2047)
			}
		})
	})
}

// One control message there, with the guest's half of the slot protocol.
func BenchmarkPost(b *testing.B) {
	g := newGuest(b, 1)
	payload := make([]byte, 48)
	b.ReportAllocs()
	for b.Loop() {
		_ = g.p.Post(vmbusTarget, payload)
		m, _ := synic.ReadSlot(g.messages[0], synic.MessageSINT)
		if len(m.Payload()) != len(payload) {
			b.Fatal("a message got lost")
		}
		synic.FreeSlot(g.messages[0], synic.MessageSINT)
	}
}

// A channel is bound when it opens and unbound when it closes.
func BenchmarkBindUnbind(b *testing.B) {
	p := synic.NewPartition(guestmem.NewHeap(guestmem.HeapOptions{}), 1)
	b.ReportAllocs()
	for b.Loop() {
		_ = p.BindEvents(0x2003, func(uint16) {})
		p.Unbind(0x2003)
	}
}

// The guest's half of the same: looking through all flags of a SINT for one.
func BenchmarkScanFlags(b *testing.B) {
	g := newGuest(b, 1)
	b.ReportAllocs()
	for b.Loop() {
		g.events[0].Or32(synic.MessageSINT*synic.SlotBytes, 8)
		synic.ScanFlags(g.events[0], synic.MessageSINT, func(uint16) {})
	}
}
