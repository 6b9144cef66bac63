package trace

import "time"

// A Sink takes one event. It is called on the goroutine that emits, from many
// goroutines at once. It may keep the event: nothing changes it later.
type Sink func(Event)

// A Tracer hands events of one side to a Sink. A nil *Tracer and the zero value
// are off. A Tracer does not change after New, so it may be copied and shared.
type Tracer struct {
	sink Sink
	who  string
}

// New returns a tracer for the guest labelled who; it is off if sink is nil.
func New(sink Sink, who string) *Tracer { return &Tracer{sink: sink, who: who} }

// On reports whether anybody listens. Ask before building an event.
func (t *Tracer) On() bool { return t != nil && t.sink != nil }

// Emit passes e to the sink, or does nothing when the tracer is off. An empty
// e.Who becomes the tracer's own label, a zero e.At the present time; whoever
// runs on virtual time sets At. Emit keeps no copy: Fields and Raw must not be
// changed afterwards.
func (t *Tracer) Emit(e Event) {
	if !t.On() {
		return
	}
	if e.Who == "" {
		e.Who = t.who
	}
	if e.At.IsZero() {
		e.At = time.Now()
	}
	t.sink(e)
}

// Tee returns a sink that passes every event to all of sinks, in their order;
// nil ones are left out. With none left it returns nil, which is off.
func Tee(sinks ...Sink) Sink {
	var live []Sink
	for _, s := range sinks {
		if s != nil {
			live = append(live, s)
		}
	}
	if len(live) == 0 {
		return nil
	}
	return func(e Event) {
		for _, s := range live {
			s(e)
		}
	}
}
