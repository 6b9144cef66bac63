// Package trace carries what happened on a bus to whoever wants to watch: typed
// events, from the code where they happen to a function that takes them.
//
// The code holds a *Tracer and asks it On before it builds an Event. A tracer
// that is off, nil or the zero value, costs that one branch and nothing else.
//
//	if t.On() {
//		t.Emit(trace.Event{Dir: "guest>host", Name: "OpenChannel", Fields: fields})
//	}
//
// An Event is a message with its direction or a step of one side ("host",
// "guest"). Its text is one line, and so is its JSON:
//
//	guest>host OpenChannel channel_id=2 open_id=2
//
// A Sink is any function. Three are here: TextSink and JSONSink write one line
// per event to an io.Writer, a Recorder keeps the last 65,536 events. Sinks run
// on the goroutine that emits, and many goroutines emit, so a sink must be safe
// for concurrent use; it should be quick, and must not call back into the bus.
//
// This package knows no protocol and imports the standard library only.
package trace
