package synic

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// A Partition is the SynIC of one guest, with its ports. It implements Port for
// the host and GuestPort for the guest, and is safe for concurrent use.
type Partition struct {
	mem   guestmem.Memory
	vps   []processor
	ports portTable

	interrupt atomic.Pointer[func(vp uint32, vector uint8)]
	slotFree  atomic.Pointer[func(Target)]

	referenceTime func() uint64 // 100-ns units
	tscHz, apicHz uint64        // 0: the guest may not ask

	mu        sync.Mutex // guards the MSRs all VPs share
	guestOSID uint64
	hypercall uint64
}

// A processor is the SynIC state of one virtual processor.
//
// Deliveries of flags hold mu for reading, everything else for writing. Because
// of that, once the guest's write to SIMP or SIEFP has returned, the host is
// done with the old page.
type processor struct {
	mu       sync.RWMutex
	scontrol uint64
	siefp    uint64
	simp     uint64
	assist   uint64
	sint     [SINTs]uint64
	events   *guestmem.Page // nil if SIEFP is disabled or names no page
	messages *guestmem.Page // nil if SIMP is disabled or names no page
	wanted   uint16         // bit per SINT: a Post was refused since the last SlotFree
}

// An Option is a choice of a Partition.
type Option func(*Partition)

// WithReferenceTime sets the clock behind TIME_REF_COUNT, in 100-ns units since
// the partition was made. The default is the time that has passed.
func WithReferenceTime(now func() uint64) Option {
	return func(p *Partition) { p.referenceTime = now }
}

// WithFrequencies sets what the frequency MSRs say, in Hz. Without it, or for a
// zero, the guest may not read them.
func WithFrequencies(tscHz, apicHz uint64) Option {
	return func(p *Partition) { p.tscHz, p.apicHz = tscHz, apicHz }
}

// NewPartition returns the SynIC of a guest with the given memory and number of
// virtual processors, with all registers at their reset values. Less than one
// processor is a bug of the caller and panics.
func NewPartition(mem guestmem.Memory, vps int, opts ...Option) *Partition {
	if vps < 1 {
		panic(fmt.Sprintf("synic: a partition of %d virtual processors", vps))
	}
	start := time.Now()
	p := &Partition{
		mem:           mem,
		vps:           make([]processor, vps),
		referenceTime: func() uint64 { return uint64(time.Since(start) / 100) },
	}
	for _, opt := range opts {
		opt(p)
	}
	p.Reset()
	return p
}

// Reset puts all registers back to their reset values, as a reset of the virtual
// machine does. Ports stay bound and refused messages stay wanted: they are the
// host's.
func (p *Partition) Reset() {
	p.mu.Lock()
	p.guestOSID, p.hypercall = 0, 0
	p.mu.Unlock()
	for i := range p.vps {
		vp := &p.vps[i]
		vp.mu.Lock()
		vp.scontrol, vp.siefp, vp.simp, vp.assist = 0, 0, 0, 0
		vp.events, vp.messages = nil, nil
		for s := range vp.sint {
			vp.sint[s] = sintMasked
		}
		vp.mu.Unlock()
	}
}

// SetInterrupt implements GuestPort.
func (p *Partition) SetInterrupt(fn func(vp uint32, vector uint8)) {
	if fn == nil {
		p.interrupt.Store(nil)
		return
	}
	p.interrupt.Store(&fn)
}

// SlotFree implements Port.
func (p *Partition) SlotFree(fn func(Target)) {
	if fn == nil {
		p.slotFree.Store(nil)
		return
	}
	p.slotFree.Store(&fn)
}

// VPs implements Port.
func (p *Partition) VPs() uint32 { return uint32(len(p.vps)) }

// Signal implements Port.
func (p *Partition) Signal(to Target, flag uint16) error {
	vp, err := p.target(to)
	if err != nil {
		return err
	}
	if flag >= FlagsPerSINT {
		return &RangeError{"flag", int64(flag), FlagsPerSINT}
	}
	vp.mu.RLock()
	sint := vp.sint[to.SINT]
	if why := vp.obstacle(sint, vp.siefp, vp.events); why != NoObstacle {
		vp.mu.RUnlock()
		return &LostError{to, flag, why}
	}
	bit := uint32(1) << (flag % 32)
	old := vp.events.Or32(flagWord(to.SINT, flag), bit)
	vp.mu.RUnlock()
	if old&bit == 0 { // the guest has taken notice of the flag's last setting
		p.raise(to.VP, sint)
	}
	return nil
}

// Post implements Port.
func (p *Partition) Post(to Target, payload []byte) error {
	vp, err := p.target(to)
	if err != nil {
		return err
	}
	if len(payload) > MaxPayloadBytes {
		return &RangeError{"payload bytes", int64(len(payload)), MaxPayloadBytes + 1}
	}
	vp.mu.Lock()
	sint := vp.sint[to.SINT]
	why := vp.claim(to.SINT)
	if why == NoObstacle {
		writeSlot(vp.messages, to.SINT, payload)
	}
	vp.mu.Unlock()
	if why != NoObstacle {
		return &BusyError{to, why}
	}
	p.raise(to.VP, sint)
	return nil
}

// target finds the processor of a target.
func (p *Partition) target(to Target) (*processor, error) {
	if to.SINT >= SINTs {
		return nil, &RangeError{"SINT", int64(to.SINT), SINTs}
	}
	return p.processor(to.VP)
}

func (p *Partition) processor(vp uint32) (*processor, error) {
	if uint64(vp) >= uint64(len(p.vps)) {
		return nil, &RangeError{"VP", int64(vp), int64(len(p.vps))}
	}
	return &p.vps[vp], nil
}

// raise interrupts the guest, unless the SINT is one it polls. No lock may be
// held.
func (p *Partition) raise(vp uint32, sint uint64) {
	if fn := p.interrupt.Load(); fn != nil && sint&sintPolling == 0 {
		(*fn)(vp, uint8(sint&sintVector))
	}
}

// obstacle says what, apart from an occupied slot, keeps a SINT from being
// served over the page that register names. The caller holds mu.
func (vp *processor) obstacle(sint, register uint64, page *guestmem.Page) Obstacle {
	switch {
	case vp.scontrol&msrEnable == 0:
		return SynICDisabled
	case sint&(sintMasked|sintProxy) != 0:
		return SINTMasked
	case register&msrEnable == 0:
		return PageDisabled
	case page == nil:
		return PageAbsent
	}
	return NoObstacle
}

// claim makes sure that the slot of a SINT can be written. If it cannot, the
// guest has been asked to send an EOM and the wish is noted. The caller holds mu
// for writing.
//
// The order is that of vmbus-control.md 9.5: note the wish, set the flag, look
// again. The guest frees the slot first and looks for the flag afterwards, so it
// cannot miss the flag if we miss the free slot.
func (vp *processor) claim(sint uint8) Obstacle {
	vp.wanted |= 1 << sint
	why := vp.obstacle(vp.sint[sint], vp.simp, vp.messages)
	if why == NoObstacle && SlotFull(vp.messages, sint) {
		vp.messages.Or32(slotOffset(sint)+slotSizeFlags, slotPending)
		if SlotFull(vp.messages, sint) {
			why = SlotOccupied
		}
	}
	if why == NoObstacle {
		vp.wanted &^= 1 << sint
	}
	return why
}

// rescan looks for slots that a Post wanted and that have become free, and says
// so. It runs after every EOM and after every register write that may have
// removed an obstacle. No lock may be held.
func (p *Partition) rescan(vp uint32) {
	proc := &p.vps[vp]
	var free uint16
	proc.mu.Lock()
	if proc.wanted != 0 {
		for sint := range uint8(SINTs) {
			if proc.wanted&(1<<sint) != 0 && proc.claim(sint) == NoObstacle {
				free |= 1 << sint
			}
		}
	}
	proc.mu.Unlock()
	fn := p.slotFree.Load()
	if free == 0 || fn == nil {
		return
	}
	for sint := range uint8(SINTs) {
		if free&(1<<sint) != 0 {
			(*fn)(Target{vp, sint})
		}
	}
}
