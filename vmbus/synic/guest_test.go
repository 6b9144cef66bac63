package synic_test

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	enable = 1
	masked = 1 << 16
	vector = 0xF3 // the one Linux gives SINT2 on x86 (9.2)

	pendingFlag = 1 << 8 // bit 0 of the flags byte at 5, in the u32 at 4 (9.3)
)

var vmbusTarget = synic.Target{VP: 0, SINT: synic.MessageSINT}

// A guest is a partition whose processors have been set up as Linux does it.
type guest struct {
	p        *synic.Partition
	messages []*guestmem.Page // per VP
	events   []*guestmem.Page
	simp     []uint64 // register values
	siefp    []uint64
}

func newGuest(t testing.TB, vps int, opts ...synic.Option) *guest {
	g, err := makeGuest(vps, opts...)
	require.NoError(t, err)
	return g
}

func makeGuest(vps int, opts ...synic.Option) (*guest, error) {
	heap := guestmem.NewHeap(guestmem.HeapOptions{Seed: 1})
	g := &guest{p: synic.NewPartition(heap, vps, opts...)}
	for vp := range uint32(vps) {
		block, err := heap.Alloc(2)
		if err != nil {
			return nil, err
		}
		g.messages = append(g.messages, block.Pages[0])
		g.events = append(g.events, block.Pages[1])
		g.simp = append(g.simp, block.PFNs[0]<<12|enable)
		g.siefp = append(g.siefp, block.PFNs[1]<<12|enable)
		for _, w := range [][2]uint64{
			{synic.MSRSIMP, g.simp[vp]},
			{synic.MSRSIEFP, g.siefp[vp]},
			{synic.MSRSINT0 + synic.MessageSINT, vector},
			{synic.MSRSCONTROL, enable},
		} {
			if err := g.p.WriteMSR(vp, uint32(w[0]), w[1]); err != nil {
				return nil, err
			}
		}
	}
	return g, nil
}

func (g *guest) write(t testing.TB, vp, msr uint32, v uint64) {
	t.Helper()
	require.NoError(t, g.p.WriteMSR(vp, msr, v))
}

// take plays the guest's half of the slot protocol once.
func (g *guest) take(vp uint32) (synic.Message, bool) {
	m, ok := synic.ReadSlot(g.messages[vp], synic.MessageSINT)
	if ok && synic.FreeSlot(g.messages[vp], synic.MessageSINT) {
		_ = g.p.WriteMSR(vp, synic.MSREOM, 0)
	}
	return m, ok
}

// A recorder keeps what callbacks were called with.
type recorder[T any] struct {
	mu   sync.Mutex
	seen []T
}

func (r *recorder[T]) add(v T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, v)
}

// drain returns what was recorded since the last drain.
func (r *recorder[T]) drain() []T {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := r.seen
	r.seen = nil
	return seen
}

type interrupt struct {
	VP     uint32
	Vector uint8
}

func (g *guest) interrupts() *recorder[interrupt] {
	r := new(recorder[interrupt])
	g.p.SetInterrupt(func(vp uint32, vector uint8) { r.add(interrupt{vp, vector}) })
	return r
}

func (g *guest) freeSlots() *recorder[synic.Target] {
	r := new(recorder[synic.Target])
	g.p.SlotFree(r.add)
	return r
}
