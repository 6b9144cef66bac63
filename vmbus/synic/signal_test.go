package synic_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hvlab/hvlab/vmbus/synic"
)

// newGuestRapid is newGuest for a property: rapid.T is not a testing.TB.
func newGuestRapid(t *rapid.T) *guest {
	g, err := makeGuest(1)
	require.NoError(t, err)
	return g
}

// 9.4: flag n of SINT s is bit n%8 of byte 256*s + n/8.
func TestSignalSetsTheRightBit(t *testing.T) {
	for _, sint := range []uint8{0, 2, 15} {
		for _, flag := range []uint16{0, 1, 7, 8, 31, 32, 33, 2047} {
			g := newGuest(t, 1)
			irqs := g.interrupts()
			g.write(t, 0, synic.MSRSINT0+uint32(sint), 0x50)
			require.NoError(t, g.p.Signal(synic.Target{VP: 0, SINT: sint}, flag))
			for i, b := range g.events[0].Bytes() {
				var want byte
				if i == 256*int(sint)+int(flag)/8 {
					want = 1 << (flag % 8)
				}
				require.Equal(t, want, b, "SINT %d flag %d byte %d", sint, flag, i)
			}
			require.Equal(t, []interrupt{{0, 0x50}}, irqs.drain())
		}
	}
}

func TestSignalRefusesOutOfRange(t *testing.T) {
	g := newGuest(t, 1)
	for _, flag := range []uint16{2048, 0xFFFF} {
		var bad *synic.RangeError
		require.ErrorAs(t, g.p.Signal(vmbusTarget, flag), &bad)
		require.Equal(t, synic.RangeError{What: "flag", Value: int64(flag), Limit: 2048}, *bad)
	}
	require.ErrorIs(t, g.p.Signal(synic.Target{SINT: 16}, 0), synic.ErrState)
	require.Equal(t, make([]byte, 4096), g.events[0].Bytes(), "nothing was set")
}

// 9.4: nothing happens while SCONTROL is off, SIEFP disabled or the SINT masked.
func TestObstaclesToSignals(t *testing.T) {
	for _, tc := range []struct {
		why synic.Obstacle
		msr uint32
		bad uint64
	}{
		{synic.SynICDisabled, synic.MSRSCONTROL, 0},
		{synic.SINTMasked, synic.MSRSINT0 + 2, masked | vector},
		{synic.SINTMasked, synic.MSRSINT0 + 2, 1<<20 | vector},
		{synic.PageDisabled, synic.MSRSIEFP, 0},
		{synic.PageAbsent, synic.MSRSIEFP, 5<<12 | enable},
	} {
		g := newGuest(t, 1)
		irqs := g.interrupts()
		g.write(t, 0, tc.msr, tc.bad)
		err := g.p.Signal(vmbusTarget, 7)
		require.ErrorIs(t, err, synic.ErrSignalLost)
		var lost *synic.LostError
		require.ErrorAs(t, err, &lost)
		require.Equal(t, synic.LostError{Target: vmbusTarget, Flag: 7, Why: tc.why}, *lost)
		require.Empty(t, irqs.drain())
		require.Equal(t, make([]byte, 4096), g.events[0].Bytes())
	}
}

// The interrupt comes on the edge from 0 to 1 and at no other time: a guest that
// has not looked yet needs none, and one that has needs it.
func TestSignalEdgesAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := newGuestRapid(t)
		irqs := g.interrupts()
		set := map[uint16]bool{}
		on := map[string]bool{"scontrol": true, "mask": true, "siefp": true}
		vec := uint8(vector)
		toggle := func(name string, msr uint32, good func() uint64, bad uint64) func(*rapid.T) {
			return func(t *rapid.T) {
				on[name] = !on[name]
				v := bad
				if on[name] {
					v = good()
				}
				require.NoError(t, g.p.WriteMSR(0, msr, v))
				if name == "siefp" && on[name] {
					clear(set) // a fresh overlay
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"signal": func(t *rapid.T) {
				flag := rapid.SampledFrom([]uint16{0, 1, 31, 32, 63, 2047}).Draw(t, "flag")
				err := g.p.Signal(vmbusTarget, flag)
				if !on["scontrol"] || !on["mask"] || !on["siefp"] {
					require.ErrorIs(t, err, synic.ErrSignalLost)
					return
				}
				require.NoError(t, err)
				var want []interrupt
				if !set[flag] {
					want = []interrupt{{0, vec}}
				}
				require.Equal(t, want, irqs.drain())
				set[flag] = true
			},
			"scan": func(t *rapid.T) {
				got := map[uint16]bool{}
				synic.ScanFlags(g.events[0], 2, func(flag uint16) { got[flag] = true })
				require.Equal(t, set, got)
				clear(set)
			},
			"clear one": func(t *rapid.T) {
				flag := rapid.SampledFrom([]uint16{0, 1, 31, 32, 63, 2047}).Draw(t, "flag")
				old := g.events[0].And32(2*256+int(flag/32)*4, ^(uint32(1) << (flag % 32)))
				require.Equal(t, set[flag], old>>(flag%32)&1 == 1)
				delete(set, flag)
			},
			"vector": func(t *rapid.T) {
				if !on["mask"] {
					t.Skip("it would unmask")
				}
				vec = uint8(rapid.IntRange(16, 255).Draw(t, "vector"))
				require.NoError(t, g.p.WriteMSR(0, synic.MSRSINT0+2, uint64(vec)))
			},
			"scontrol": toggle("scontrol", synic.MSRSCONTROL, func() uint64 { return enable }, 0),
			"mask":     toggle("mask", synic.MSRSINT0+2, func() uint64 { return uint64(vec) }, masked),
			"siefp":    toggle("siefp", synic.MSRSIEFP, func() uint64 { return g.siefp[0] }, 0),
			"":         func(t *rapid.T) { require.Empty(t, irqs.drain(), "unmasking interrupts nobody") },
		})
	})
}

// No allocation on the data path, in either direction.
func TestSignalsDoNotAllocate(t *testing.T) {
	g := newGuest(t, 1)
	g.p.SetInterrupt(func(uint32, uint8) {})
	require.NoError(t, g.p.BindEvents(0x2003, func(uint16) {}))
	require.Zero(t, testing.AllocsPerRun(200, func() {
		if g.p.Signal(vmbusTarget, 3) != nil || g.p.SignalEvent(0x2003) != synic.StatusSuccess {
			t.Error("a signal failed")
		}
		g.events[0].And32(2*256, 0)
	}))
}

func TestWithoutCallbacks(t *testing.T) {
	g := newGuest(t, 1)
	irqs, free := g.interrupts(), g.freeSlots()
	g.p.SetInterrupt(nil)
	g.p.SlotFree(nil)
	require.NoError(t, g.p.Signal(vmbusTarget, 1))
	require.NoError(t, g.p.Post(vmbusTarget, nil))
	require.ErrorIs(t, g.p.Post(vmbusTarget, nil), synic.ErrSlotBusy)
	g.take(0)
	require.Empty(t, irqs.drain(), "removed")
	require.Empty(t, free.drain(), "removed")
}
