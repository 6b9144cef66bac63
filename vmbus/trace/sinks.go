package trace

import (
	"io"
	"slices"
	"sync"
)

// TextSink returns a sink that writes the text of every event to w, one line
// and one Write per event, whatever the number of goroutines. A write error is
// dropped: tracing must not break what it watches.
func TextSink(w io.Writer) Sink {
	return lineSink(w, func(e Event) []byte { return []byte(e.String()) })
}

// JSONSink is TextSink with one JSON object per line.
func JSONSink(w io.Writer) Sink {
	return lineSink(w, func(e Event) []byte {
		line, _ := e.MarshalJSON() // never fails; through json.Marshal ">" would be escaped
		return line
	})
}

func lineSink(w io.Writer, line func(Event) []byte) Sink {
	var mu sync.Mutex
	return func(e Event) {
		b := append(line(e), '\n') // rendered before the lock: writers wait for the write only
		mu.Lock()
		defer mu.Unlock()
		_, _ = w.Write(b) // documented: dropped
	}
}

// MaxRecordedEvents bounds a Recorder: with the 240 raw bytes of a message and
// its fields an event is below 2 KiB, so a full recorder stays below 128 MiB.
const MaxRecordedEvents = 65536

// A Recorder keeps the newest MaxRecordedEvents events. The zero value is ready;
// its Record method is a Sink. All methods are safe for concurrent use.
type Recorder struct {
	mu      sync.Mutex
	ring    []Event
	oldest  int // index in ring, once it is full
	dropped uint64
}

// Record keeps e and, at the bound, drops and counts the oldest event.
func (r *Recorder) Record(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ring) < MaxRecordedEvents {
		r.ring = append(r.ring, e)
		return
	}
	r.ring[r.oldest] = e
	r.oldest = (r.oldest + 1) % len(r.ring)
	r.dropped++
}

// Events returns a copy of what is kept, oldest first.
func (r *Recorder) Events() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Concat(r.ring[r.oldest:], r.ring[:r.oldest])
}

// Dropped returns how many events were dropped since the start or the last Reset.
func (r *Recorder) Dropped() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dropped
}

// Reset forgets all events and the count of dropped ones.
func (r *Recorder) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ring, r.oldest, r.dropped = nil, 0, 0
}
