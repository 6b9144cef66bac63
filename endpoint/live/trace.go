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
// maxDropLines lines in any second, whichever moment it begins at, then how many
// there would have been (faults.md GC-19). It belongs to the loop.
type dropLog struct {
	tracer *trace.Tracer
	side   string // trace.Host or trace.Guest
	clock  Clock

	told [maxDropLines]time.Time // when the last lines were written
	next int                     // the oldest of them
	left int                     // left out since the last line
}

// maxDropLines is how many lines each second the drops of one peer are worth, the
// line that counts those left out included (faults.md 5).
const maxDropLines = 10

// note writes a line if there is room for it, and for the count of those before it
// that had none.
func (d *dropLog) note(err error) {
	if !d.tracer.On() {
		return
	}
	now := d.clock.Now()
	room := func(lines int) bool {
		return now.Sub(d.told[(d.next+lines-1)%maxDropLines]) >= time.Second || putback.On(putback.GC19)
	}
	if !room(1) || d.left > 0 && !room(2) {
		d.left++
		return
	}
	if d.left > 0 {
		d.write(now, "drops left out", trace.Field{Name: "count", Value: d.left})
		d.left = 0
	}
	d.write(now, "drop", trace.Field{Name: "error", Value: err.Error()})
}

func (d *dropLog) write(now time.Time, name string, f trace.Field) {
	d.told[d.next] = now
	d.next = (d.next + 1) % maxDropLines
	d.tracer.Emit(trace.Event{At: now, Dir: d.side, Name: name, Fields: []trace.Field{f}})
}
