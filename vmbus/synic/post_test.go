package synic_test

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hvlab/hvlab/vmbus/synic"
)

func TestPostInterruptsTheTarget(t *testing.T) {
	g := newGuest(t, 3)
	irqs := g.interrupts()
	to := synic.Target{VP: 2, SINT: synic.MessageSINT}
	require.NoError(t, g.p.Post(to, []byte("hello")))
	require.Equal(t, []interrupt{{2, vector}}, irqs.drain())
	require.False(t, synic.SlotFull(g.messages[0], 2), "another VP's slot")
	m, ok := g.take(2)
	require.True(t, ok)
	require.Equal(t, "hello", string(m.Payload()))
	require.Equal(t, uint32(synic.MessageTypeVMBus), m.Type)
}

func TestPostRefusesOutOfRange(t *testing.T) {
	g := newGuest(t, 1)
	var bad *synic.RangeError
	require.ErrorAs(t, g.p.Post(synic.Target{SINT: 16}, nil), &bad)
	require.Equal(t, "SINT", bad.What)
	require.ErrorAs(t, g.p.Post(vmbusTarget, make([]byte, synic.MaxPayloadBytes+1)), &bad)
	require.Equal(t, "payload bytes", bad.What)
	require.False(t, synic.SlotFull(g.messages[0], 2))
	require.NoError(t, g.p.Post(vmbusTarget, make([]byte, synic.MaxPayloadBytes)), "0 to 240 bytes are legal (9.3)")
}

// 9.5: an occupied slot is never overwritten; the guest is asked for an EOM, and
// the EOM says that the slot is free.
func TestOccupiedSlot(t *testing.T) {
	g := newGuest(t, 1)
	irqs, free := g.interrupts(), g.freeSlots()
	require.NoError(t, g.p.Post(vmbusTarget, []byte("first")))
	require.Len(t, irqs.drain(), 1)
	require.Zero(t, g.messages[0].Load32(2*256+4)&pendingFlag, "nothing else waits yet")

	err := g.p.Post(vmbusTarget, []byte("second"))
	require.ErrorIs(t, err, synic.ErrSlotBusy)
	var busy *synic.BusyError
	require.ErrorAs(t, err, &busy)
	require.Equal(t, synic.BusyError{Target: vmbusTarget, Why: synic.SlotOccupied}, *busy)
	require.NotZero(t, g.messages[0].Load32(2*256+4)&pendingFlag)
	require.Empty(t, irqs.drain(), "SINT interrupts are for delivered messages")

	m, ok := synic.ReadSlot(g.messages[0], 2)
	require.True(t, ok)
	require.Equal(t, "first", string(m.Payload()))
	require.Empty(t, free.drain())
	require.True(t, synic.FreeSlot(g.messages[0], 2), "the guest is told to send an EOM")
	require.Empty(t, free.drain(), "nobody can see a freed slot without an EOM")
	g.write(t, 0, synic.MSREOM, 0)
	require.Equal(t, []synic.Target{vmbusTarget}, free.drain())
	g.write(t, 0, synic.MSREOM, 0)
	require.Empty(t, free.drain(), "once per refusal")

	require.NoError(t, g.p.Post(vmbusTarget, []byte("second")))
	require.Zero(t, g.messages[0].Load32(2*256+4)&pendingFlag, "a new message comes without the old flag")
	require.Len(t, irqs.drain(), 1)
}

// An EOM that comes although the slot is still full asks for another one: the
// guest may have cleared the flag.
func TestEOMOfAFullSlot(t *testing.T) {
	g := newGuest(t, 1)
	free := g.freeSlots()
	require.NoError(t, g.p.Post(vmbusTarget, nil))
	require.ErrorIs(t, g.p.Post(vmbusTarget, nil), synic.ErrSlotBusy)
	g.messages[0].And32(2*256+4, ^uint32(pendingFlag))
	g.write(t, 0, synic.MSREOM, 0)
	require.Empty(t, free.drain())
	require.True(t, synic.FreeSlot(g.messages[0], 2), "the flag is back")
	g.write(t, 0, synic.MSREOM, 0)
	require.Len(t, free.drain(), 1)
}

// A slot that was freed without an EOM is found by the next Post.
func TestPostNeedsNoEOM(t *testing.T) {
	g := newGuest(t, 1)
	require.NoError(t, g.p.Post(vmbusTarget, []byte("one")))
	require.ErrorIs(t, g.p.Post(vmbusTarget, []byte("two")), synic.ErrSlotBusy)
	synic.FreeSlot(g.messages[0], 2)
	require.NoError(t, g.p.Post(vmbusTarget, []byte("two")))
}

// An EOM counts for all SINTs of its processor, and for no other processor.
func TestEOMRescansItsProcessor(t *testing.T) {
	g := newGuest(t, 2)
	free := g.freeSlots()
	g.write(t, 0, synic.MSRSINT0+5, vector)
	targets := []synic.Target{{VP: 0, SINT: 2}, {VP: 0, SINT: 5}, {VP: 1, SINT: 2}}
	for _, to := range targets {
		require.NoError(t, g.p.Post(to, nil))
		require.ErrorIs(t, g.p.Post(to, nil), synic.ErrSlotBusy)
		synic.FreeSlot(g.messages[to.VP], to.SINT)
	}
	g.write(t, 0, synic.MSREOM, 0)
	require.Equal(t, targets[:2], free.drain())
	g.write(t, 1, synic.MSREOM, 0)
	require.Equal(t, targets[2:], free.drain())
}

// Whatever keeps a message back, it waits (9.2: "messages for a VP whose SIMP
// is disabled stay queued"), and the register write that removes the last
// obstacle says so.
func TestObstaclesToMessages(t *testing.T) {
	for _, tc := range []struct {
		why synic.Obstacle
		msr uint32
		bad func(g *guest) uint64
	}{
		{synic.SynICDisabled, synic.MSRSCONTROL, func(*guest) uint64 { return 0 }},
		{synic.SINTMasked, synic.MSRSINT0 + 2, func(*guest) uint64 { return masked | vector }},
		{synic.SINTMasked, synic.MSRSINT0 + 2, func(*guest) uint64 { return 1<<20 | vector }}, // a proxy
		{synic.PageDisabled, synic.MSRSIMP, func(g *guest) uint64 { return g.simp[0] &^ enable }},
		{synic.PageAbsent, synic.MSRSIMP, func(*guest) uint64 { return 5<<12 | enable }},
	} {
		t.Run(tc.why.String(), func(t *testing.T) {
			g := newGuest(t, 1)
			irqs, free := g.interrupts(), g.freeSlots()
			good, err := g.p.ReadMSR(0, tc.msr)
			require.NoError(t, err)
			g.write(t, 0, tc.msr, tc.bad(g))

			var busy *synic.BusyError
			err = g.p.Post(vmbusTarget, []byte("later"))
			require.ErrorAs(t, err, &busy)
			require.ErrorIs(t, err, synic.ErrSlotBusy)
			require.Equal(t, tc.why, busy.Why)
			require.False(t, synic.SlotFull(g.messages[0], 2))
			g.write(t, 0, synic.MSREOM, 0)
			require.Empty(t, free.drain(), "an EOM does not remove the obstacle")

			g.write(t, 0, tc.msr, good)
			require.Equal(t, []synic.Target{vmbusTarget}, free.drain())
			require.NoError(t, g.p.Post(vmbusTarget, []byte("later")))
			require.Len(t, irqs.drain(), 1)
		})
	}
}

// 9.2, SINT bit 18: a polled SINT gets its message and no interrupt.
func TestPolledSINT(t *testing.T) {
	g := newGuest(t, 1)
	irqs := g.interrupts()
	g.write(t, 0, synic.MSRSINT0+2, 1<<18|vector)
	require.NoError(t, g.p.Post(vmbusTarget, nil))
	require.NoError(t, g.p.Signal(vmbusTarget, 3))
	require.Empty(t, irqs.drain())
	require.True(t, synic.SlotFull(g.messages[0], 2))
	require.NotZero(t, g.events[0].Load32(2*256))
}

// Callbacks run without a lock, so each of them may use the partition as it
// likes. That is how a single-threaded world runs a whole exchange: here the
// first post delivers all four messages before it returns.
func TestCallbacksMayReenter(t *testing.T) {
	g := newGuest(t, 1)
	queue := []string{"a", "b", "c", "d"}
	var delivered []string
	pump := func(to synic.Target) { // the host's half
		if len(queue) == 0 {
			return
		}
		next := queue[0]
		queue = queue[1:]
		if err := g.p.Post(to, []byte(next)); err != nil {
			require.ErrorIs(t, err, synic.ErrSlotBusy)
			queue = append([]string{next}, queue...)
		}
	}
	g.p.SlotFree(pump)
	g.p.SetInterrupt(func(vp uint32, _ uint8) { // the guest's half
		pump(vmbusTarget) // the host is busy meanwhile, and finds the slot occupied
		m, ok := g.take(vp)
		require.True(t, ok)
		delivered = append(delivered, string(m.Payload()))
		// take has sent an EOM; that may have delivered the rest, nested in it
	})
	pump(vmbusTarget)
	require.Empty(t, queue)
	require.ElementsMatch(t, []string{"a", "b", "c", "d"}, delivered)
}

// slotModel is what the slot protocol of 9.5 promises, without a slot.
type slotModel struct {
	g    *guest
	irqs *recorder[interrupt]
	free *recorder[synic.Target]

	slot                     []byte // nil: empty
	posted                   uint32
	wanted                   bool
	scontrol, unmasked, simp bool
}

func (m *slotModel) open() bool { return m.scontrol && m.unmasked && m.simp }

// rescan checks what an EOM or a register write must lead to.
func (m *slotModel) rescan(t *rapid.T) {
	var want []synic.Target
	if m.wanted && m.open() && m.slot == nil {
		want, m.wanted = []synic.Target{vmbusTarget}, false
	}
	require.Equal(t, want, m.free.drain())
}

func (m *slotModel) post(t *rapid.T) {
	m.posted++
	msg := binary.LittleEndian.AppendUint32(nil, m.posted)
	err := m.g.p.Post(vmbusTarget, msg)
	if m.open() && m.slot == nil {
		require.NoError(t, err)
		require.Equal(t, []interrupt{{0, vector}}, m.irqs.drain())
		m.slot, m.wanted = msg, false
		return
	}
	require.ErrorIs(t, err, synic.ErrSlotBusy)
	m.wanted = true
}

func (m *slotModel) take(t *rapid.T) {
	if !m.simp {
		t.Skip("the guest has no message page")
	}
	got, ok := synic.ReadSlot(m.g.messages[0], 2)
	require.Equal(t, m.slot != nil, ok)
	if !ok {
		return
	}
	require.Equal(t, m.slot, got.Payload())
	pending := synic.FreeSlot(m.g.messages[0], 2)
	m.slot = nil
	if m.wanted && m.open() {
		require.True(t, pending, "nothing else would bring the next message")
	}
	if pending {
		m.eom(t)
	}
}

func (m *slotModel) eom(t *rapid.T) {
	require.NoError(t, m.g.p.WriteMSR(0, synic.MSREOM, 0))
	m.rescan(t)
}

// toggle turns one of the guest's settings on or off.
func (m *slotModel) toggle(setting *bool, msr uint32, on, off uint64) func(*rapid.T) {
	return func(t *rapid.T) {
		*setting = !*setting
		v := off
		if *setting {
			v = on
		}
		require.NoError(t, m.g.p.WriteMSR(0, msr, v))
		if msr == synic.MSRSIMP && *setting {
			m.slot = nil // a fresh overlay
		}
		m.rescan(t)
	}
}

// The slot protocol against the model, one step at a time.
func TestSlotAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := newGuestRapid(t)
		m := &slotModel{g: g, irqs: g.interrupts(), free: g.freeSlots(), scontrol: true, unmasked: true, simp: true}
		t.Repeat(map[string]func(*rapid.T){
			"post":     m.post,
			"take":     m.take,
			"eom":      m.eom,
			"scontrol": m.toggle(&m.scontrol, synic.MSRSCONTROL, enable, 0),
			"mask":     m.toggle(&m.unmasked, synic.MSRSINT0+2, vector, masked),
			"simp":     m.toggle(&m.simp, synic.MSRSIMP, g.simp[0], g.simp[0]&^enable),
			"":         func(t *rapid.T) { require.Empty(t, m.irqs.drain()); require.Empty(t, m.free.drain()) },
		})
	})
}
