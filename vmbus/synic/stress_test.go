package synic_test

import (
	"encoding/binary"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus/synic"
)

// Two goroutines, the slot between them, and nothing else: each waits only when
// the protocol of vmbus-control.md 9.5 says that the other will wake it. If a
// wake-up could be lost, all goroutines of the bubble would block, which ends
// the test at once.
func TestSlotStress(t *testing.T) {
	const messages = 20_000
	synctest.Test(t, func(t *testing.T) {
		g := newGuest(t, 1)
		irq, free := make(chan struct{}, 1), make(chan struct{}, 1)
		g.p.SetInterrupt(func(uint32, uint8) { wake(irq) })
		g.p.SlotFree(func(synic.Target) { wake(free) })
		var refused int

		var wg sync.WaitGroup
		wg.Go(func() { // the host
			for i := range uint64(messages) {
				payload := make([]byte, 16+i%200) // a torn message would have a wrong size or a wrong end
				binary.LittleEndian.PutUint64(payload, i)
				binary.LittleEndian.PutUint64(payload[len(payload)-8:], i)
				for {
					err := g.p.Post(vmbusTarget, payload)
					if err == nil {
						break
					}
					if !errors.Is(err, synic.ErrSlotBusy) {
						t.Error(err)
						return
					}
					refused++
					<-free
				}
			}
		})
		wg.Go(func() { // the guest
			for next := uint64(0); next < messages; {
				<-irq
				for m, ok := g.take(0); ok; m, ok = g.take(0) {
					b := m.Payload()
					if len(b) != int(16+next%200) || binary.LittleEndian.Uint64(b) != next ||
						binary.LittleEndian.Uint64(b[len(b)-8:]) != next {
						t.Errorf("message %d is lost, doubled or torn: %x", next, b)
						return
					}
					next++
				}
			}
		})
		wg.Wait()
		require.False(t, synic.SlotFull(g.messages[0], 2), "no message twice")
		t.Logf("%d posts were refused on the way", refused)
	})
}

// The race that the order of 9.5 is about, staged many times over: a post meets
// a guest that is just freeing the slot. Either the post succeeds or the guest
// is told to send an EOM; if neither, the message would wait for ever.
func TestPostMeetsFree(t *testing.T) {
	g := newGuest(t, 1)
	require.NoError(t, g.p.Post(vmbusTarget, nil))
	var start, ready atomic.Uint32
	var pending bool
	var guest sync.WaitGroup
	guest.Go(func() {
		for i := range uint32(raceRounds) {
			awaitAtLeast(&start, i+1)
			spin(&start, i%16*4) // the two delays sweep over the moments at which they can meet
			pending = synic.FreeSlot(g.messages[0], 2)
			ready.Store(i + 1)
		}
	})
	var posted, refused int
	for i := range uint32(raceRounds) {
		start.Store(i + 1)
		spin(&ready, i/16%64*16) // it takes the other side 200 ns to hear of the start
		err := g.p.Post(vmbusTarget, nil)
		awaitAtLeast(&ready, i+1)
		switch {
		case err == nil:
			posted++
			if !synic.SlotFull(g.messages[0], 2) {
				require.NoError(t, g.p.Post(vmbusTarget, nil)) // it was freed as well
			}
		default:
			refused++
			require.True(t, pending, "round %d: refused, and nobody would ever say that the slot is free", i)
			require.NoError(t, g.p.Post(vmbusTarget, nil))
		}
	}
	guest.Wait()
	t.Logf("%d posted, %d refused", posted, refused)
}

// awaitAtLeast spins, so that both sides of a race start together; it gives way
// now and then in case there is only one processor.
func awaitAtLeast(n *atomic.Uint32, want uint32) {
	for spins := 1; n.Load() < want; spins++ {
		if spins%1024 == 0 {
			runtime.Gosched()
		}
	}
}

func spin(n *atomic.Uint32, times uint32) {
	for range times {
		n.Load()
	}
}

// Several posters share a slot: each message arrives once, each poster's in
// order.
func TestSlotStressManyPosters(t *testing.T) {
	const posters, messages = 3, 3000
	synctest.Test(t, func(t *testing.T) {
		g := newGuest(t, 1)
		irq := make(chan struct{}, 1)
		var free [posters]chan struct{}
		for i := range free {
			free[i] = make(chan struct{}, 1)
		}
		g.p.SetInterrupt(func(uint32, uint8) { wake(irq) })
		g.p.SlotFree(func(synic.Target) {
			for _, c := range free {
				wake(c)
			}
		})
		var wg sync.WaitGroup
		for poster := range uint64(posters) {
			wg.Go(func() {
				for i := range uint64(messages) {
					payload := binary.LittleEndian.AppendUint64(nil, poster<<32|i)
					for g.p.Post(vmbusTarget, payload) != nil {
						<-free[poster]
					}
				}
			})
		}
		wg.Go(func() {
			var next [posters]uint64
			for total := 0; total < posters*messages; {
				<-irq
				for m, ok := g.take(0); ok; m, ok = g.take(0) {
					v := binary.LittleEndian.Uint64(m.Payload())
					if v&0xFFFFFFFF != next[v>>32] {
						t.Errorf("poster %d: message %d came instead of %d", v>>32, v&0xFFFFFFFF, next[v>>32])
						return
					}
					next[v>>32]++
					total++
				}
			}
		})
		wg.Wait()
	})
}

// Flags from two goroutines, cleared by a third: each edge is one interrupt, and
// each flag that was cleared was one edge. So at the end both counts agree, and
// no signal is without a later look at its flag.
func TestFlagStress(t *testing.T) {
	const signals = 20_000
	g := newGuest(t, 1)
	var interrupts, cleared atomic.Int64
	g.p.SetInterrupt(func(uint32, uint8) { interrupts.Add(1) })
	var sent, seen [64]atomic.Uint64 // per flag: how many signals there were before a look
	look := func() {
		synic.ScanFlags(g.events[0], 2, func(flag uint16) {
			cleared.Add(1)
			seen[flag].Store(sent[flag].Load())
		})
	}
	var senders, guest sync.WaitGroup
	var done atomic.Bool
	for s := range uint16(2) {
		senders.Go(func() {
			for i := range uint16(signals) {
				flag := (i*7 + s*13) % 64
				sent[flag].Add(1) // the news, then its signal
				if err := g.p.Signal(vmbusTarget, flag); err != nil {
					t.Error(err)
				}
			}
		})
	}
	guest.Go(func() {
		for !done.Load() {
			look()
		}
	})
	senders.Wait()
	done.Store(true)
	guest.Wait()
	look()
	require.Equal(t, interrupts.Load(), cleared.Load())
	for flag := range sent {
		require.Equal(t, sent[flag].Load(), seen[flag].Load(), "flag %d: news without a look", flag)
	}
}

// wake is how a waiter that needs to know only "something happened" is told.
func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
