package ringbuffer

import (
	"errors"
	"fmt"
	"runtime"
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
	yields     bool // both ends give way between their last look and sleeping, to widen that gap
	masked     bool // the reader masks while it drains (8.3)
	readBatch  int  // packets per release
	writeBatch int  // packets per commit
	fixed      int  // non-zero: the writer stores this pending size once and for ever, as Linux does
	packets    int
	layout     int
	payload    string // empty, half or mixed
}

// payloadBytes is the size of packet i, known to both ends.
func (p plan) payloadBytes(i int) int {
	switch p.payload {
	case "empty": // the highest rate of sleeping and waking
		return 0
	case "half": // one packet fills the ring, so each wake-up is needed
		return maxPayload
	}
	return i * 101 % maxPayload / 8 * 8
}

// maxPayload is just too much for two packets in a ring of one page.
const maxPayload = 2032

// yield lets the other end run between two steps that must not need to be one.
func (p plan) yield() {
	if p.yields {
		runtime.Gosched()
	}
}

func (p plan) write(t *testing.T, w *Writer, pages []*guestmem.Page, data, space doorbell) {
	body := make([]byte, maxPayload)
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
		p.yield()
		if p.fixed != 0 {
			// The constant covers every packet, so it needs no withdrawal; the
			// look behind it is the same.
			pages[0].Store32(offPendingSize, uint32(p.fixed))
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
			p.yield()
			<-space
			w.ClearPending()
		}
	}
	data.ring(w.Commit())
}

func (p plan) read(t *testing.T, r *Reader, data, space doorbell) {
	buf := make([]byte, maxPayload)
	if p.masked {
		r.Mask()
	}
	for i, held := 0, 0; i < p.packets; {
		h, n, err := r.Next(buf)
		if errors.Is(err, ErrEmpty) {
			space.ring(r.Commit())
			held = 0
			p.yield()
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
	packets := 20_000 // two million in all
	switch {
	case testing.Short():
		packets = 500
	case raceDetector:
		packets = 2500
	}
	var plans []plan
	for i := range 108 {
		plans = append(plans, plan{
			masked:     i%2 == 1,
			yields:     i/2%2 == 1,
			payload:    []string{"empty", "half", "mixed"}[i/4%3],
			readBatch:  []int{1, 3, 1 << 30}[i/12%3],
			fixed:      []int{0, PacketBytes(maxPayload), 4088}[i/36],
			writeBatch: 1 + i%5,
			layout:     i % len(pageLayouts),
			packets:    packets,
		})
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
