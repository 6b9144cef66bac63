package demo

import (
	"encoding/json"
	"io"
	"sync"

	"github.com/hvlab/hvlab/vmbus/trace"
)

// A Line is one line of the JSON form of a run. Kind says which of the other
// members it has. The messages come as they happen, then the account; the result
// is the last line.
type Line struct {
	Kind       string       `json:"kind"` // "message", "guest", "connection", "check" or "result"
	Message    *trace.Event `json:"message,omitempty"`
	Guest      *Guest       `json:"guest,omitempty"`
	Connection *Connection  `json:"connection,omitempty"`
	Check      *Check       `json:"check,omitempty"`
	Result     *Result      `json:"result,omitempty"`
}

// A Result is what came of a run as a whole.
type Result struct {
	OK      bool    `json:"ok"`
	Input   string  `json:"input"`
	Bytes   int64   `json:"bytes"`
	SHA256  string  `json:"sha256"` // of what guest1 sent
	Seconds float64 `json:"seconds"`
	MBps    float64 `json:"mb_per_s"`
}

// A JSONWriter writes a run as JSON lines.
type JSONWriter struct {
	mu  sync.Mutex
	enc *json.Encoder
	err error // the first one; later lines are dropped
}

// NewJSONWriter returns a writer to w.
func NewJSONWriter(w io.Writer) *JSONWriter {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false) // "guest>host" stays readable
	return &JSONWriter{enc: enc}
}

func (w *JSONWriter) write(l Line) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = w.enc.Encode(l)
	}
}

// Event writes a message; it is a trace.Sink.
func (w *JSONWriter) Event(e trace.Event) { w.write(Line{Kind: "message", Message: &e}) }

// Report writes everything else, and returns the first error of all lines.
func (w *JSONWriter) Report(r *Report) error {
	for i := range r.Guests {
		w.write(Line{Kind: "guest", Guest: &r.Guests[i]})
	}
	for i := range r.Connections {
		w.write(Line{Kind: "connection", Connection: &r.Connections[i]})
	}
	for i := range r.Checks {
		w.write(Line{Kind: "check", Check: &r.Checks[i]})
	}
	w.write(Line{Kind: "result", Result: &Result{
		OK: r.OK(), Input: r.Input, Bytes: r.Bytes, SHA256: r.SHA256,
		Seconds: r.Duration.Seconds(), MBps: r.MBps(),
	}})
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}
