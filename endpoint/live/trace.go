package live

import (
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/trace"
)

// traceMessage records a message this side sent.
func traceMessage(t *trace.Tracer, dir vmbus.Direction, m vmbus.Message, payload []byte) {
	e := trace.Event{Dir: dir.String(), Name: m.Type().String(), Raw: payload}
	for _, f := range vmbus.Fields(m) {
		e.Fields = append(e.Fields, trace.Field{Name: f.Name, Value: f.Value})
	}
	t.Emit(e)
}

// traceReceived records a message of the peer, or that it makes no sense.
func traceReceived(t *trace.Tracer, dir vmbus.Direction, payload []byte, n vmbus.Negotiated) {
	m, _, err := vmbus.ParseFrom(dir, payload, n)
	if err != nil {
		t.Emit(trace.Event{Dir: dir.String(), Name: "malformed", Raw: payload})
		return
	}
	traceMessage(t, dir, m, payload)
}

// traceDrop records why side dropped what the peer sent.
func traceDrop(t *trace.Tracer, side string, err error) {
	if t.On() {
		t.Emit(trace.Event{Dir: side, Name: "drop", Fields: []trace.Field{{Name: "error", Value: err.Error()}}})
	}
}
