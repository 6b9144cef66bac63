package ringbuffer

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// doorbell carries signals: an edge without data, which may coalesce.
type doorbell chan struct{}

func (d doorbell) ring(signal bool) {
	if !signal {
		return
	}
	select {
	case d <- struct{}{}:
	default:
	}
}

// plan says how the two ends of a concurrent run behave.
type plan struct {
	masked      bool   // the reader masks while it drains (8.3)
	readBatch   int    // packets per release
	writeBatch  int    // packets per commit
	fixed       uint32 // non-zero: the writer stores this pending size once and for ever, as Linux does
	packets     int
	layout      int
	payloadStep int
}

// payloadBytes is the size of packet i, known to both ends.
func (p plan) payloadBytes(i int) int { return i * p.payloadStep % 1400 / 8 * 8 }

func (p plan) write(t *testing.T, w *Writer, pages []*guestmem.Page, data, space doorbell) {
	body := make([]byte, 1400)
	staged := 0
	for i := 0; i < p.packets; {
		n := p.payloadBytes(i)
		for j := range body[:n] {
			body[j] = byte(i + j)
		}
		err := w.Append(Header{Type: InBand, ID: uint64(i)}, nil, body[:n])
		if err == nil {
			i++
			if staged++; staged == p.writeBatch {
				data.ring(w.Commit())
				staged = 0
			}
			continue
		}
		if !errors.Is(err, ErrFull) {
			t.Errorf("append: %v", err)
			return
		}
		data.ring(w.Commit())
		staged = 0
		if p.fixed != 0 {
			// The constant covers every packet, so it needs no withdrawal; the
			// look behind it is the same.
			pages[0].Store32(offPendingSize, p.fixed)
			if free, _ := w.FreeBytes(); free > PacketBytes(n) {
				continue
			}
			<-space
			continue
		}
		ready, err := w.SetPending(PacketBytes(n))
		if err != nil {
			t.Errorf("pending: %v", err)
			return
		}
		if !ready {
			<-space
			w.ClearPending()
		}
	}
	data.ring(w.Commit())
}

func (p plan) read(t *testing.T, r *Reader, data, space doorbell) {
	buf := make([]byte, 1400)
	if p.masked {
		r.Mask()
	}
	for i, held := 0, 0; i < p.packets; {
		h, n, err := r.Next(buf)
		if errors.Is(err, ErrEmpty) {
			space.ring(r.Commit())
			held = 0
			if p.masked {
				if r.Unmask() {
					r.Mask()
					continue
				}
				<-data
				r.Mask()
			} else if more, _ := r.Readable(); !more {
				<-data
			}
			continue
		}
		if err != nil || h.ID != uint64(i) || n != p.payloadBytes(i) {
			t.Errorf("packet %d: %+v, %d bytes, %v", i, h, n, err)
			return
		}
		for j, b := range buf[:n] {
			if b != byte(i+j) {
				t.Errorf("packet %d, byte %d: %#x", i, j, b)
				return
			}
		}
		i++
		if held++; held == p.readBatch {
			space.ring(r.Commit())
			held = 0
		}
	}
	space.ring(r.Commit())
}

// TestNoLostWakeup runs both ends on their own goroutines. A lost wake-up leaves
// both asleep, which the synctest bubble recognises and reports as a deadlock:
// no time passes and no machine is too slow for it.
func TestNoLostWakeup(t *testing.T) {
	packets := 4000
	if testing.Short() {
		packets = 500
	}
	var plans []plan
	for _, masked := range []bool{false, true} {
		for _, readBatch := range []int{1, 3, 1 << 30} {
			for _, fixed := range []uint32{0, 1424, 4088} {
				plans = append(plans, plan{
					masked: masked, readBatch: readBatch, fixed: fixed, writeBatch: 1 + len(plans)%3,
					packets: packets, layout: len(plans) % len(pageLayouts), payloadStep: 37 + 64*(len(plans)%2),
				})
			}
		}
	}
	for _, p := range plans {
		t.Run(fmt.Sprintf("%+v", p), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, r, pages := newRing(t, p.layout, 1, 2048)
				data, space := make(doorbell, 1), make(doorbell, 1)
				go p.write(t, w, pages, data, space)
				p.read(t, r, data, space)
				synctest.Wait()
				ws, rs := w.Stats(), r.Stats()
				require.Equal(t, ws.Packets, rs.Packets)
				require.Equal(t, ws.Bytes, rs.Bytes)
				require.LessOrEqual(t, ws.Signals+rs.Signals, ws.Packets+rs.Packets+1, "I-SIGNAL-MIN")
				require.LessOrEqual(t, rs.PeakBytes, uint64(4088))
			})
		})
	}
}
