//go:build hvlab_mutate

package ringbuffer

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// A mutator is the peer of 13.1: before every load it gives the loaded bytes a
// value, and all others another one. What it gave is kept; memory of which each
// byte has the value that was loaded is the constant value the result must be
// explained by. A byte that is loaded twice in one decision has no such value.
type mutator struct {
	rng   *rand.Rand
	pages []*guestmem.Page
	data  []byte         // the data area
	given map[int]byte   // by data offset
	words map[int]uint32 // by control offset
	loads int
}

// A picture is the shared memory at one moment.
type picture struct {
	data  []byte
	words map[int]uint32
}

var controlWords = []int{offWriteIndex, offReadIndex, offMask, offPendingSize, offFeatures}

func (m *mutator) picture() picture {
	p := picture{data: slices.Clone(m.data), words: map[int]uint32{}}
	for _, off := range controlWords {
		p.words[off] = m.pages[0].Load32(off)
	}
	return p
}

func (m *mutator) restore(p picture) {
	copy(m.data, p.data)
	for off, v := range p.words {
		m.pages[0].Store32(off, v)
	}
}

// load is onLoad. The flat area ends where its capacity does, which tells the
// offset.
func (m *mutator) load(b []byte) {
	m.loads++
	at := len(m.data) - cap(b)
	kept := slices.Clone(b)
	for range 64 { // the rest of the ring, wherever
		m.data[m.rng.IntN(len(m.data))] = byte(m.rng.Uint32())
	}
	copy(b, kept)
	if m.rng.IntN(4) == 0 {
		switch word := b[:min(8, len(b))]; m.rng.IntN(3) {
		case 0:
			word[m.rng.IntN(len(word))] ^= 1 << m.rng.IntN(8)
		case 1:
			word[m.rng.IntN(len(word))] = byte(m.rng.Uint32())
		default:
			copy(word, le.AppendUint64(nil, uint64(m.rng.IntN(16))|uint64(m.rng.IntN(12))<<16|uint64(m.rng.IntN(80))<<32|uint64(m.rng.IntN(3))<<48))
		}
	}
	for i, v := range b {
		m.given[at+i] = v
	}
}

// loadWord is onLoadWord.
func (m *mutator) loadWord(control *guestmem.Page, off int) {
	m.loads++
	own := control.Load32(off)
	for _, other := range controlWords {
		if m.rng.IntN(2) == 0 {
			control.Store32(other, hostileWord(m.rng))
		}
	}
	if m.rng.IntN(8) == 0 {
		own = hostileWord(m.rng)
	}
	control.Store32(off, own)
	m.words[off] = own
}

// outcome is everything an operation tells its caller.
type outcome struct {
	values []any
	err    error
}

// same runs op on an end under the mutator, and again on a copy of that end, as
// it was before, over constant memory: the outcomes must not differ.
func (m *mutator) same(t *testing.T, name string, op, again func() outcome) outcome {
	t.Helper()
	before := m.picture()
	m.given, m.words = map[int]byte{}, map[int]uint32{}
	onLoad, onLoadWord = m.load, m.loadWord
	got := op()
	onLoad, onLoadWord = nil, nil
	for at, v := range m.given {
		before.data[at] = v
	}
	for off, v := range m.words {
		before.words[off] = v
	}
	m.restore(before)
	want := again() // its stores are those of op, and stay
	require.Equal(t, want, got, "%s: no constant memory gives this outcome", name)
	if got.err != nil {
		require.True(t, errors.Is(got.err, ErrEmpty) || errors.Is(got.err, ErrFull) || errors.Is(got.err, vmbus.ErrProtocol), "%v", got.err)
	}
	return got
}

// TestMutate: no decision is made from two loads of the same word (13.1, 13.8),
// however the peer changes memory between any two loads.
func TestMutate(t *testing.T) {
	ext, err := AppendGPADirect(nil, []GPARange{{ByteCount: 8192, ByteOffset: 8, PFNs: []uint64{1, 2, 3}}})
	require.NoError(t, err)
	loads, delivered, corrupt := 0, 0, 0
	for seed := range uint64(4000) {
		w, r, pages := newRing(t, 0, 1, uint32(seed*40%4096))
		flat, ok := guestmem.Contiguous(pages[1:])
		require.True(t, ok, "the offset of a load is told from its capacity")
		m := &mutator{rng: rand.New(rand.NewPCG(seed, 3)), pages: pages, data: flat}
		for i := range 8 {
			h := []Header{{Type: InBand}, {Type: GPADirect, Flags: FlagCompletion, ExtBytes: len(ext)}}[i%2]
			require.NoError(t, w.Append(h, ext[:h.ExtBytes], []byte("0123456789abcdef")))
		}
		w.Commit()
		for range 12 {
			copyR := *r
			copyR.ext = slices.Clone(r.ext)
			got := m.same(t, "read", func() outcome { return readOne(r) }, func() outcome { return readOne(&copyR) })
			copyR = *r
			m.same(t, "small", func() outcome { return readSmall(r) }, func() outcome { return readSmall(&copyR) })
			copyR = *r
			m.same(t, "release", func() outcome { return release(r) }, func() outcome { return release(&copyR) })
			copyW := *w
			m.same(t, "write", func() outcome { return writeOne(w) }, func() outcome { return writeOne(&copyW) })
			copyW = *w
			m.same(t, "wait", func() outcome { return waitFor(w) }, func() outcome { return waitFor(&copyW) })
			if got.err == nil {
				delivered++
			} else if errors.Is(got.err, vmbus.ErrProtocol) {
				corrupt++
			}
		}
		loads += m.loads
	}
	require.Greater(t, delivered, 1000)
	require.Greater(t, corrupt, 1000)
	t.Logf("%d loads, %d packets delivered, %d refusals", loads, delivered, corrupt)
}

// readOne takes a packet.
func readOne(r *Reader) outcome {
	h, err := r.Peek()
	if err != nil {
		return outcome{err: err}
	}
	buf := make([]byte, 32)
	n := r.CopyPayload(buf, 0)
	ext := slices.Clone(r.Extension())
	if h.Type == GPADirect {
		ranges, err := ParseGPADirect(ext)
		if err != nil {
			return outcome{err: errors.New("what Peek accepted is not what is parsed")}
		}
		ext = append(ext, byte(len(ranges)))
	}
	r.Advance()
	return outcome{values: []any{h, n, string(buf), string(ext), r.next}}
}

// readSmall does what a pipe does with a run of packets.
func readSmall(r *Reader) outcome {
	run := r.Run()
	packetBytes, first, ok := SmallPacket(run)
	if ok {
		r.Skip(1, packetBytes)
	}
	return outcome{values: []any{packetBytes, first, ok, r.next}}
}

func release(r *Reader) outcome {
	signal := r.Commit()
	return outcome{values: []any{signal, r.committed}, err: r.Err()}
}

func writeOne(w *Writer) outcome {
	err := w.Append(Header{Type: InBand}, nil, []byte("written under fire"))
	if err != nil {
		return outcome{err: err}
	}
	return outcome{values: []any{w.Commit(), w.committed}, err: w.Err()}
}

func waitFor(w *Writer) outcome {
	ready, err := w.SetPending(2048)
	return outcome{values: []any{ready}, err: err}
}
