//go:build hvlab_mutate

package channel

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// A pipeMutator is the peer of ringbuffer.md 13.1 for a PipeReader; see
// ringbuffer's own for how it works: before each load the loaded bytes get a
// value, which is kept, and others change.
type pipeMutator struct {
	rng   *rand.Rand
	data  []byte
	given map[int]byte
	words map[int]uint32
}

// load gives the bytes about to be loaded a value. Headers are changed where it
// hurts: type, lengths, pipe type, size.
func (m *pipeMutator) load(b []byte) {
	at := len(m.data) - cap(b)
	kept := slices.Clone(b)
	for range 64 {
		m.data[m.rng.IntN(len(m.data))] = byte(m.rng.Uint32())
	}
	copy(b, kept)
	if m.rng.IntN(6) == 0 {
		b[m.rng.IntN(min(8, len(b)))] = byte(m.rng.IntN(40))
	}
	for i, v := range b {
		m.given[at+i] = v // of two loads the second decides: a run that stops is judged anew
	}
}

func (m *pipeMutator) word(control *guestmem.Page, off int) { m.words[off] = control.Load32(off) }

// TestPipeMutate: whatever a peer changes between any two loads, Read delivers
// what it would have delivered from memory that did not change; the run of small
// packets, which the pipe walks by itself, included (13.1, 13.8, 13.10).
func TestPipeMutate(t *testing.T) {
	delivered, refused := 0, 0
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 4))
		block, err := guestmem.NewHeap(guestmem.HeapOptions{}).Alloc(2)
		require.NoError(t, err)
		require.NoError(t, ringbuffer.Init(block.Pages))
		start := uint32(rng.IntN(guestmem.PageSize/8) * 8)
		block.Pages[0].Store32(0, start)
		block.Pages[0].Store32(4, start)
		flat, ok := guestmem.Contiguous(block.Pages[1:])
		require.True(t, ok, "the offset of a load is told from its capacity")
		ringW, err := ringbuffer.NewWriter(block.Pages)
		require.NoError(t, err)
		w := NewPipeWriter(ringW, PipeOptions{ReserveFIN: true})
		for range 12 {
			_, _, err := w.Write(make([]byte, 1+rng.IntN(200)))
			require.NoError(t, err)
		}
		ringR, err := ringbuffer.NewReader(block.Pages)
		require.NoError(t, err)
		r := NewPipeReader(ringR)
		for range 4 {
			ring := *r.ring
			again := *r
			again.ring = &ring
			size := 1 + rng.IntN(900)

			before := slices.Clone(flat)
			control := slices.Clone(block.Pages[0].Bytes())
			m := &pipeMutator{rng: rng, data: flat, given: map[int]byte{}, words: map[int]uint32{}}
			got := make([]byte, size)
			ringbuffer.SetMutator(m.load, m.word)
			n, signal, err := r.Read(got)
			ringbuffer.SetMutator(nil, nil)

			copy(flat, before)
			for at, v := range m.given {
				flat[at] = v
			}
			copy(block.Pages[0].Bytes(), control)
			for off, v := range m.words {
				block.Pages[0].Store32(off, v)
			}
			want := make([]byte, size)
			wantN, wantSignal, wantErr := again.Read(want)
			require.Equal(t, wantErr, err, "seed %d", seed)
			require.Equal(t, []any{wantN, wantSignal, want}, []any{n, signal, got}, "seed %d: no constant memory gives this", seed)
			if delivered += n; err != nil {
				refused++
			}
		}
	}
	require.Greater(t, delivered, 100_000, "the mutator must leave something to deliver")
	require.Greater(t, refused, 1000, "and must be noticed")
}
