package ringbuffer

import (
	"bytes"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	_ "github.com/hvlab/hvlab/internal/fixedseed" // the same draws in every run
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// model is what a ring is: a queue of packets with three marks on the writer's
// side and three on the reader's, and OpenVMM's formulas for space and signals,
// which count one granule less than the code under test does.
type model struct {
	size    int
	packets []modelPacket // everything appended and not yet released
	visible int           // packets published by the writer
	taken   int           // packets the reader stepped past
	masked  bool
	pending int
}

type modelPacket struct {
	h       Header
	payload []byte // padded
	total   int
}

func (m *model) bytes(packets []modelPacket) (n int) {
	for _, p := range packets {
		n += p.total
	}
	return n
}

// free is the usable space behind the first n packets, in OpenVMM's terms.
func (m *model) free(n int) int { return m.size - m.bytes(m.packets[:n]) - granuleBytes }

// drawPacket makes a packet of any type, sized to make wraps and full rings likely.
func drawPacket(t *rapid.T) (h Header, head, body []byte) {
	h = Header{
		Type:  rapid.SampledFrom([]PacketType{InBand, InBand, InBand, Completion, TransferPages, GPADirect}).Draw(t, "type"),
		Flags: uint16(rapid.IntRange(0, 1).Draw(t, "flags")),
		ID:    rapid.Uint64().Draw(t, "id"),
	}
	switch h.Type {
	case TransferPages:
		ranges := make([]TransferRange, rapid.IntRange(0, 5).Draw(t, "transfer ranges"))
		head = AppendTransferPages(nil, TransferPageSet{Set: 1, TransferRanges: ranges})
	case GPADirect:
		g := GPARange{
			ByteCount:  uint32(rapid.IntRange(0, 40*guestmem.PageSize).Draw(t, "byte count")),
			ByteOffset: uint32(rapid.IntRange(0, guestmem.PageSize-1).Draw(t, "byte offset")),
		}
		g.PFNs = pfnsFor(g.ByteOffset, g.ByteCount, 7)
		var err error
		if head, err = AppendGPADirect(nil, []GPARange{g}); err != nil {
			t.Fatal(err)
		}
	}
	h.ExtBytes = len(head)
	if h.Type == InBand && rapid.Bool().Draw(t, "pipe") { // what AppendGranule can make
		h, head = Header{Type: InBand}, le.AppendUint64(nil, rapid.Uint64().Draw(t, "granule"))
	}
	n := rapid.OneOf(rapid.IntRange(0, 40), rapid.IntRange(0, 5000)).Draw(t, "payload")
	payload := make([]byte, n)
	seed := rapid.Byte().Draw(t, "seed")
	for i := range payload {
		payload[i] = seed + byte(i*7)
	}
	cut := rapid.IntRange(0, min(n, 16)).Draw(t, "head bytes")
	return h, append(head, payload[:cut]...), payload[cut:]
}

// appendPacket writes a packet, by AppendGranule if that is made for it.
func appendPacket(w *Writer, h Header, head, body []byte) error {
	if h == (Header{Type: InBand}) && len(head) == granuleBytes {
		return w.AppendGranule(le.Uint64(head), body)
	}
	return w.Append(h, head, body)
}

// machine drives one ring and the model together.
type machine struct {
	m     model
	w     *Writer
	r     *Reader
	pages []*guestmem.Page
}

func (x *machine) append(t *rapid.T) {
	h, head, body := drawPacket(t)
	total := PacketBytes(len(head) + len(body))
	err := appendPacket(x.w, h, head, body)
	var size *SizeError
	switch {
	case total > x.m.size-granuleBytes:
		require.ErrorAs(t, err, &size, "can never fit")
		return
	case total > x.m.free(len(x.m.packets)):
		require.ErrorIs(t, err, ErrFull)
		return
	}
	require.NoError(t, err)
	payload := make([]byte, roundUp8(len(head)+len(body)-h.ExtBytes))
	copy(payload, append(head[h.ExtBytes:len(head):len(head)], body...))
	h.PayloadBytes = len(payload)
	x.m.packets = append(x.m.packets, modelPacket{h, payload, total})
}

func (x *machine) publish(t *rapid.T) {
	wasEmpty := x.m.visible == 0 // nothing published is unreleased
	fresh := len(x.m.packets) > x.m.visible
	x.m.visible = len(x.m.packets)
	require.Equal(t, fresh && wasEmpty && !x.m.masked, x.w.Commit(), "signal to the reader (8.1)")
}

func (x *machine) unpublish(*rapid.T) {
	x.w.Revert()
	x.m.packets = x.m.packets[:x.m.visible]
}

func (x *machine) take(t *rapid.T) {
	h, err := x.r.Peek()
	if x.m.taken == x.m.visible {
		require.ErrorIs(t, err, ErrEmpty)
		return
	}
	require.NoError(t, err)
	want := x.m.packets[x.m.taken]
	require.Equal(t, want.h, h)
	buf := make([]byte, h.PayloadBytes)
	require.Equal(t, len(buf), x.r.CopyPayload(buf, 0))
	require.True(t, bytes.Equal(want.payload, buf), "payload with zero padding")
	if rapid.Bool().Draw(t, "step past") {
		x.r.Advance()
		x.m.taken++
	}
}

func (x *machine) release(t *rapid.T) {
	// Staged packets are invisible to the reader's idea of the space.
	before := x.m.free(x.m.visible)
	taken := x.m.taken
	x.m.packets, x.m.visible, x.m.taken = x.m.packets[taken:], x.m.visible-taken, 0
	after := x.m.free(x.m.visible)
	pending := x.m.pending &^ 7
	want := x.m.pending != 0 && before < pending && after >= pending
	require.Equal(t, want, x.r.Commit(), "signal to the writer (8.2)")
}

func (x *machine) unread(*rapid.T) {
	x.r.Revert()
	x.m.taken = 0
}

func (x *machine) mask(*rapid.T) {
	x.r.Mask()
	x.m.masked = true
}

func (x *machine) unmask(t *rapid.T) {
	x.r.Revert() // a peeked packet would count as more to read
	x.m.taken = 0
	require.Equal(t, x.m.visible > 0, x.r.Unmask())
	x.m.masked = false
}

func (x *machine) wait(t *rapid.T) {
	x.publish(t) // a writer that sleeps on staged packets waits for itself
	bytes := rapid.IntRange(1, x.m.size-granuleBytes).Draw(t, "pending")
	ready, err := x.w.SetPending(bytes)
	require.NoError(t, err)
	require.Equal(t, x.m.free(x.m.visible) >= bytes&^7, ready, "ready exactly if no signal is owed")
	x.m.pending = bytes
	if ready {
		x.m.pending = 0
	}
}

func (x *machine) resume(*rapid.T) {
	x.w.ClearPending()
	x.m.pending = 0
}

// check compares the control page with the model after every step (I-INDEX, I-FREE).
func (x *machine) check(t *rapid.T) {
	write, read := x.pages[0].Load32(offWriteIndex), x.pages[0].Load32(offReadIndex)
	used := x.m.bytes(x.m.packets[:x.m.visible])
	require.Equal(t, used, (int(write)-int(read)+x.m.size)%x.m.size)
	require.Equal(t, boolWord(x.m.masked), x.pages[0].Load32(offMask))
	require.EqualValues(t, x.m.pending, x.pages[0].Load32(offPendingSize))
	free, err := x.w.FreeBytes()
	require.NoError(t, err)
	require.Equal(t, x.m.size, free+x.m.bytes(x.m.packets), "free + used = S, staged packets included")
	require.Equal(t, x.m.bytes(x.m.packets[:x.m.taken]), x.r.Uncommitted())
}

func boolWord(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// TestModel runs random commands against the model on every layout.
func TestModel(t *testing.T) {
	for layout := range pageLayouts {
		t.Run(pageLayouts[layout].name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				dataPages := rapid.IntRange(1, 3).Draw(rt, "data pages")
				start := uint32(rapid.IntRange(0, dataPages*guestmem.PageSize/8-1).Draw(rt, "start") * 8)
				w, r, pages := newRing(t, layout, dataPages, start)
				x := &machine{m: model{size: dataPages * guestmem.PageSize}, w: w, r: r, pages: pages}
				rt.Repeat(map[string]func(*rapid.T){
					"append": x.append, "append more": x.append, "publish": x.publish, "unpublish": x.unpublish,
					"take": x.take, "take more": x.take, "release": x.release, "unread": x.unread,
					"mask": x.mask, "unmask": x.unmask, "wait": x.wait, "resume": x.resume, "": x.check,
				})
			})
		})
	}
}

// TestStream writes and reads a stream byte for byte through rings of every
// layout with packets of random sizes: the queue model of I-PREFIX.
func TestStream(t *testing.T) {
	for layout := range pageLayouts {
		w, r, _ := newRing(t, layout, 1, 4088)
		var sent, got, next byte
		buf := make([]byte, 4096)
		for n := 0; n < 3000; n++ {
			body := make([]byte, n*37%1500/8*8)
			for i := range body {
				body[i] = next + byte(i)
			}
			err := w.Append(Header{Type: InBand}, nil, body)
			if errors.Is(err, ErrFull) {
				w.Commit()
				for {
					_, n, err := r.Next(buf)
					if errors.Is(err, ErrEmpty) {
						break
					}
					require.NoError(t, err)
					for _, b := range buf[:n] {
						require.Equal(t, got, b)
						got++
					}
				}
				r.Commit()
				require.Equal(t, sent, got)
				continue
			}
			require.NoError(t, err)
			next += byte(len(body))
			sent = next
		}
	}
}
