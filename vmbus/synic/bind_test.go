package synic_test

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	_ "github.com/hvlab/hvlab/internal/fixedseed" // the same draws in every run
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

func newPartition() *synic.Partition {
	return synic.NewPartition(guestmem.NewHeap(guestmem.HeapOptions{}), 1)
}

func TestBindRefuses(t *testing.T) {
	p := newPartition()
	accept := func([]byte) synic.Status { return synic.StatusSuccess }
	require.NoError(t, p.BindMessages(1, accept))
	require.NoError(t, p.BindEvents(0xFFFFFF, func(uint16) {}), "the highest of 24 bits")
	for name, err := range map[string]error{
		"messages twice":                 p.BindMessages(1, accept),
		"events on a message connection": p.BindEvents(1, func(uint16) {}),
		"messages on an event":           p.BindMessages(0xFFFFFF, accept),
		"no message function":            p.BindMessages(5, nil),
		"no event function":              p.BindEvents(5, nil),
		"25 bits":                        p.BindEvents(1<<24, func(uint16) {}),
	} {
		require.ErrorIs(t, err, synic.ErrState, name)
	}
	require.Equal(t, synic.StatusSuccess, p.PostMessage(synic.AppendPostMessage(nil, 1, nil)), "the first binding stands")
	p.Unbind(1)
	p.Unbind(1) // ignored
	require.NoError(t, p.BindEvents(1, func(uint16) {}), "free again, for either kind")
}

// The port table is a hash table of our own; it must be a map.
func TestPortsAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newPartition()
		var called synic.ConnectionID
		bound := map[synic.ConnectionID]bool{}
		ids := rapid.Map(rapid.Uint32Range(0, 9), func(n uint32) synic.ConnectionID { return synic.ConnectionID(0x2001 + n) })
		t.Repeat(map[string]func(*rapid.T){
			"bind": func(t *rapid.T) {
				id := ids.Draw(t, "id")
				err := p.BindEvents(id, func(uint16) { called = id })
				require.Equal(t, bound[id], err != nil)
				bound[id] = true
			},
			"unbind": func(t *rapid.T) {
				id := ids.Draw(t, "id")
				p.Unbind(id)
				delete(bound, id)
			},
			"signal": func(t *rapid.T) {
				id := ids.Draw(t, "id")
				called = 1 << 31
				status := p.SignalEvent(uint64(id))
				if bound[id] {
					require.Equal(t, synic.StatusSuccess, status)
					require.Equal(t, id, called)
				} else {
					require.Equal(t, synic.StatusInvalidConnectionID, status)
					require.Equal(t, synic.ConnectionID(1<<31), called, "nobody's function may run")
				}
			},
		})
	})
}

// More ids than the table has chains, so that ids share them: removing one must
// leave the rest of its chain.
func TestPortsShareChains(t *testing.T) {
	const ids = 5000
	p := newPartition()
	calls := make([]int, ids)
	for id := range calls {
		require.NoError(t, p.BindEvents(synic.ConnectionID(id), func(uint16) { calls[id]++ }))
	}
	for round := range 3 { // of each three ids, none are gone, then the first, then two
		for id := range calls {
			if round > 0 && id%3 == round-1 {
				p.Unbind(synic.ConnectionID(id))
			}
		}
		for id := range calls {
			want := synic.StatusSuccess
			if id%3 < round {
				want = synic.StatusInvalidConnectionID
			}
			require.Equal(t, want, p.SignalEvent(uint64(id)), "id %d in round %d", id, round)
		}
	}
	for id, n := range calls {
		require.Equal(t, 1+id%3, n, "id %d", id)
	}
}

// After Unbind no call is running: it waits for the one that is, and so does a
// second Unbind.
func TestUnbindWaitsForRunningCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPartition()
		release := make(chan struct{})
		var running atomic.Int32
		require.NoError(t, p.BindEvents(9, func(uint16) {
			running.Add(1)
			<-release
			running.Add(-1)
		}))
		for range 2 {
			go p.SignalEvent(9)
		}
		synctest.Wait()
		require.Equal(t, int32(2), running.Load(), "calls of one port run at once")

		var unbound atomic.Int32
		for range 2 {
			go func() {
				p.Unbind(9)
				require.Zero(t, running.Load())
				unbound.Add(1)
			}()
		}
		synctest.Wait()
		require.Zero(t, unbound.Load(), "both wait")
		require.Equal(t, synic.StatusInvalidConnectionID, p.SignalEvent(9), "no further call starts")

		release <- struct{}{}
		synctest.Wait()
		require.Zero(t, unbound.Load(), "one call is left")
		release <- struct{}{}
		synctest.Wait()
		require.Equal(t, int32(2), unbound.Load())
		require.NoError(t, p.BindEvents(9, func(uint16) {}))
	})
}

// From inside its own function, an Unbind cannot wait for itself.
func TestUnbindFromInside(t *testing.T) {
	p := newPartition()
	calls := 0
	require.NoError(t, p.BindMessages(4, func([]byte) synic.Status {
		calls++
		p.Unbind(4)
		require.NoError(t, p.BindEvents(4, func(uint16) { calls += 10 }), "the id is free at once")
		return synic.StatusSuccess
	}))
	require.Equal(t, synic.StatusSuccess, p.PostMessage(synic.AppendPostMessage(nil, 4, nil)))
	require.Equal(t, synic.StatusInvalidPortID, p.PostMessage(synic.AppendPostMessage(nil, 4, nil)))
	require.Equal(t, synic.StatusSuccess, p.SignalEvent(4))
	require.Equal(t, 11, calls)
}

// A deep stack between the port and the Unbind does not hide the port.
func TestUnbindFromDeepInside(t *testing.T) {
	p := newPartition()
	var descend func(n int)
	descend = func(n int) {
		if n == 0 {
			p.Unbind(4)
			return
		}
		descend(n - 1)
		runtime.KeepAlive(n) // no tail call
	}
	require.NoError(t, p.BindEvents(4, func(uint16) { descend(300) }))
	require.Equal(t, synic.StatusSuccess, p.SignalEvent(4))
	require.Equal(t, synic.StatusInvalidConnectionID, p.SignalEvent(4))
}

// Two functions that unbind each other's port would wait for ever, so neither
// waits. A deadlock would end the bubble.
func TestUnbindEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPartition()
		var both sync.WaitGroup
		both.Add(2)
		meet := func(other synic.ConnectionID) func(uint16) {
			return func(uint16) {
				both.Done()
				both.Wait() // now both run
				p.Unbind(other)
			}
		}
		require.NoError(t, p.BindEvents(1, meet(2)))
		require.NoError(t, p.BindEvents(2, meet(1)))
		var wg sync.WaitGroup
		wg.Go(func() { p.SignalEvent(1) })
		wg.Go(func() { p.SignalEvent(2) })
		wg.Wait()
		require.Equal(t, synic.StatusInvalidConnectionID, p.SignalEvent(1))
		require.Equal(t, synic.StatusInvalidConnectionID, p.SignalEvent(2))
	})
}

// A function that panics, or ends its goroutine as t.FailNow does, is no longer
// running, so Unbind returns.
func TestUnbindAfterAFunctionDied(t *testing.T) {
	p := newPartition()
	require.NoError(t, p.BindEvents(1, func(flag uint16) {
		if flag == 1 {
			runtime.Goexit()
		}
		panic("a bug of the host")
	}))
	require.PanicsWithValue(t, "a bug of the host", func() { p.SignalEvent(1) })
	var wg sync.WaitGroup
	wg.Go(func() { p.SignalEvent(1 | 1<<32) })
	wg.Wait()
	p.Unbind(1)
}

// The promise of Unbind under load: what a function uses may be torn down as
// soon as Unbind has returned. The plain variable is what the race detector sees.
func TestUnbindUnderLoad(t *testing.T) {
	const rounds, signallers = 200, 2
	p := newPartition()
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range signallers {
		wg.Go(func() {
			for !stop.Load() {
				switch status := p.SignalEvent(0x2001); status {
				case synic.StatusSuccess, synic.StatusInvalidConnectionID:
					runtime.Gosched() // let the binder have its turn
				default:
					t.Errorf("status %v", status)
					return
				}
			}
		})
	}
	for i := range rounds {
		var running atomic.Int32
		torn := false
		require.NoError(t, p.BindEvents(0x2001, func(uint16) {
			running.Add(1)
			if torn {
				t.Errorf("round %d: called after Unbind", i)
			}
			running.Add(-1)
		}))
		runtime.Gosched()
		p.Unbind(0x2001)
		torn = true
		require.Zero(t, running.Load())
	}
	stop.Store(true)
	wg.Wait()
}

// The function of a signal may answer the signal: the guest's interrupt handler
// rings the host's doorbell, whose function signals the guest, and so on.
func TestSignalPingPongOnOneGoroutine(t *testing.T) {
	g := newGuest(t, 1)
	const rounds = 50
	var trace []string
	require.NoError(t, g.p.BindEvents(0x2003, func(flag uint16) {
		trace = append(trace, fmt.Sprintf("host %d", flag))
		require.NoError(t, g.p.Signal(vmbusTarget, 3))
	}))
	g.p.SetInterrupt(func(uint32, uint8) {
		synic.ScanFlags(g.events[0], 2, func(flag uint16) {
			trace = append(trace, fmt.Sprintf("guest %d", flag))
			if len(trace) < 2*rounds {
				require.Equal(t, synic.StatusSuccess, g.p.SignalEvent(0x2003))
			}
		})
	})
	require.Equal(t, synic.StatusSuccess, g.p.SignalEvent(0x2003))
	require.Len(t, trace, 2*rounds)
	require.Equal(t, []string{"host 0", "guest 3", "host 0"}, trace[:3])
}
