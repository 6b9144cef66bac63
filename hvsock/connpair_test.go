package hvsock

import (
	"bytes"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pairOptions shapes a pair; the zero value is what real connections have.
type pairOptions struct {
	ringPages  int // control page included; 0 means 5
	layout     guestmem.Layout
	resetIsEOF bool
}

// A pair is two Conns over two real rings. Each one's doorbell is rung by the
// other's own goroutine, as between a host and a simulated guest.
type pair struct {
	a, b   *Conn
	toB    []*guestmem.Page // a's outgoing ring
	toA    []*guestmem.Page
	mu     sync.Mutex
	events [2][]connEvent // of a, of b
}

func newPair(t testing.TB, o pairOptions) *pair {
	t.Helper()
	if o.ringPages == 0 {
		o.ringPages = channel.DefaultRingPages
	}
	heap := guestmem.NewHeap(guestmem.HeapOptions{Layout: o.layout, Seed: 1})
	block, err := heap.Alloc(2 * o.ringPages)
	require.NoError(t, err)
	p := &pair{toB: block.Pages[:o.ringPages], toA: block.Pages[o.ringPages:]}
	ringbuffer.Init(p.toA)
	ringbuffer.Init(p.toB)
	a := Addr{Parent, ServiceIDFromPort(1)}
	b := Addr{uuid.MustParse(someVM), ServiceIDFromPort(2)}
	p.a = p.conn(t, 0, a, b, p.toA, p.toB, o)
	p.b = p.conn(t, 1, b, a, p.toB, p.toA, o)
	return p
}

func (p *pair) conn(t testing.TB, i int, local, remote Addr, in, out []*guestmem.Page, o pairOptions) *Conn {
	r, err := ringbuffer.NewReader(in)
	require.NoError(t, err)
	w, err := ringbuffer.NewWriter(out)
	require.NoError(t, err)
	return newConn(local, remote, link{
		in: channel.NewPipeReader(r), out: newPipeWriter(w, 0),
		inPages: len(in), outPages: len(out),
		signal:  func() { p.other(i).doorbell() },
		events:  func(e connEvent) { p.note(i, e) },
		options: connOptions{cutOff: map[bool]CutOff{true: CutOffEOF}[o.resetIsEOF]},
	})
}

func (p *pair) other(i int) *Conn {
	if i == 0 {
		return p.b
	}
	return p.a
}

func (p *pair) note(i int, e connEvent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events[i] = append(p.events[i], e)
}

// seen returns the events of the pair's end i so far.
func (p *pair) seen(i int) []connEvent {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.events[i])
}

func (p *pair) close() {
	_, _ = p.a.Close(), p.b.Close()
}

// poison overwrites pages plainly: under the race detector any later use of them
// by a Conn is a report, and without it garbage is found there.
func poison(pages ...[]*guestmem.Page) {
	for _, ring := range pages {
		for _, page := range ring {
			for i := range page.Bytes() {
				page.Bytes()[i] = 0xEE
			}
		}
	}
}

// requirePoisoned checks that nobody has written to the pages since.
func requirePoisoned(t testing.TB, pages ...[]*guestmem.Page) {
	t.Helper()
	want := bytes.Repeat([]byte{0xEE}, guestmem.PageSize)
	for _, ring := range pages {
		for i, page := range ring {
			require.True(t, bytes.Equal(want, page.Bytes()), "page %d was written to after detach", i)
		}
	}
}

// mustWrite writes text whole.
func mustWrite(t testing.TB, w io.Writer, text string) {
	t.Helper()
	n, err := io.WriteString(w, text)
	require.NoError(t, err)
	require.Equal(t, len(text), n)
}

// mustRead reads exactly text.
func mustRead(t testing.TB, r io.Reader, text string) {
	t.Helper()
	b := make([]byte, len(text))
	_, err := io.ReadFull(r, b)
	require.NoError(t, err)
	require.Equal(t, text, string(b))
}

// pattern is n bytes in which no stretch looks like another.
func pattern(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}
