package live

import (
	"slices"
	"time"

	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/trace"
)

// traceMessage records a message this side sent.
func traceMessage(t *trace.Tracer, dir vmbus.Direction, m vmbus.Message, payload []byte) {
	e := trace.Event{Dir: dir.String(), Name: m.Type().String(), Raw: slices.Clone(payload)}
	for _, f := range vmbus.Fields(m) {
		e.Fields = append(e.Fields, trace.Field{Name: f.Name, Value: f.Value})
	}
	t.Emit(e)
}

// traceReceived records a message of the peer, or that it makes no sense.
func traceReceived(t *trace.Tracer, dir vmbus.Direction, payload []byte, n vmbus.Negotiated) {
	m, _, err := vmbus.ParseFrom(dir, payload, n)
	if err != nil {
		t.Emit(trace.Event{Dir: dir.String(), Name: "malformed", Raw: slices.Clone(payload)})
		return
	}
	traceMessage(t, dir, m, payload)
}

// A dropLog records why one side dropped what its peer sent: at most
// maxDropLines lines in a second, then how many there would have been (faults.md
// GC-19). It belongs to the loop.
type dropLog struct {
	tracer *trace.Tracer
	side   string // trace.Host or trace.Guest
	clock  Clock

	began time.Time // of the second that is counted
	lines int       // in that second
	left  int       // left out since the last line
}

// maxDropLines is how many drops of one peer are told each second (faults.md 5).
const maxDropLines = 10

func (d *dropLog) note(err error) {
	if !d.tracer.On() {
		return
	}
	if now := d.clock.Now(); now.Sub(d.began) >= time.Second || putback.On(putback.GC19) {
		if d.left > 0 {
			d.tracer.Emit(trace.Event{Dir: d.side, Name: "drops left out", Fields: []trace.Field{{Name: "count", Value: d.left}}})
		}
		d.began, d.lines, d.left = now, 0, 0
	}
	if d.lines == maxDropLines {
		d.left++
		return
	}
	d.lines++
	d.tracer.Emit(trace.Event{Dir: d.side, Name: "drop", Fields: []trace.Field{{Name: "error", Value: err.Error()}}})
}
