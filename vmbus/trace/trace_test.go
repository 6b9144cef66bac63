package trace_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus/trace"
)

var open = trace.Event{
	At: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.FixedZone("CET", 3600)), Who: "g1", Dir: trace.GuestToHost, Name: "OpenChannel",
	Fields: []trace.Field{{Name: "channel_id", Value: 2}, {Name: "open_id", Value: uint32(3)}}, Raw: []byte{5, 0},
}

func TestOff(t *testing.T) {
	var none *trace.Tracer
	for name, tr := range map[string]*trace.Tracer{"nil": none, "zero": {}, "no sink": trace.New(nil, "g1")} {
		require.False(t, tr.On(), name)
		require.NotPanics(t, func() { tr.Emit(open) }, name)
	}
}

func TestEmit(t *testing.T) {
	var got []trace.Event
	tr := trace.New(func(e trace.Event) { got = append(got, e) }, "g7")
	require.True(t, tr.On())

	tr.Emit(open)
	require.Equal(t, []trace.Event{open}, got, "what the caller set stays")

	before := time.Now()
	tr.Emit(trace.Event{Dir: trace.Host, Name: "Idle"})
	require.Equal(t, "g7", got[1].Who)
	require.False(t, got[1].At.Before(before), "an event without a time gets the present one")
}

func TestTee(t *testing.T) {
	var order []string
	note := func(name string) trace.Sink {
		return func(trace.Event) { order = append(order, name) }
	}
	trace.Tee(note("a"), nil, note("b"))(open)
	require.Equal(t, []string{"a", "b"}, order)
	require.False(t, trace.New(trace.Tee(nil, nil), "").On(), "nobody listens")
	require.False(t, trace.New(trace.Tee(), "").On())
}

func TestText(t *testing.T) {
	for _, tc := range []struct {
		e    trace.Event
		want string
	}{
		{open, "g1: guest>host OpenChannel channel_id=2 open_id=3"},
		{trace.Event{Dir: trace.HostToGuest, Name: "UnloadComplete"}, "host>guest UnloadComplete"},
		{trace.Event{Dir: trace.Host, Name: "drop", Fields: []trace.Field{{Name: "why", Value: errors.New("too short")}}}, `host drop why="too short"`},
	} {
		require.Equal(t, tc.want, tc.e.String())
	}
}

// TestTextCannotBeForged: a value may come from a peer, or from a user's label.
func TestTextCannotBeForged(t *testing.T) {
	for value, want := range map[string]string{
		"plain":                    "plain",
		"0xe1e10":                  "0xe1e10",
		"A|B":                      "A|B",
		"port:5000":                "port:5000",
		"":                         `""`,
		"a b":                      `"a b"`,
		"x y=1":                    `"x y=1"`,
		"a=b":                      `"a=b"`,
		`say "hi"`:                 `"say \"hi\""`,
		"a\nhost>guest Unload":     `"a\nhost>guest Unload"`,
		"\x1b[2J":                  `"\x1b[2J"`,
		"\xff\xfe":                 `"\xff\xfe"`,
		"\u202eright to left":      `"\u202eright to left"`,
		"a\u2028b":                 `"a\u2028b"`,
		"tab\tbed":                 `"tab\tbed"`,
		"ünïcode":                  "ünïcode",
		strings.Repeat("long", 99): strings.Repeat("long", 99),
	} {
		require.Equal(t, "n="+want, trace.Field{Name: "n", Value: value}.String())
		require.NotContains(t, trace.Event{Who: value, Fields: []trace.Field{{Name: "n", Value: value}}}.String(), "\n")
	}
}

func TestJSON(t *testing.T) {
	var buf bytes.Buffer
	trace.JSONSink(&buf)(open)
	require.Equal(t, `{"at":"2026-01-02T02:04:05.000006Z","who":"g1","dir":"guest>host","name":"OpenChannel",`+
		`"fields":{"channel_id":2,"open_id":3},"raw":"0500"}`+"\n", buf.String())

	b, err := json.Marshal(trace.Event{Dir: trace.Host, Name: "Idle"})
	require.NoError(t, err)
	require.JSONEq(t, `{"dir":"host","name":"Idle"}`, string(b), "what is empty is left out")
}

// TestJSONNeverFails: one odd value must not lose the event.
func TestJSONNeverFails(t *testing.T) {
	for _, tc := range []struct {
		value any
		want  string
	}{
		{nil, `null`},
		{uint64(math.MaxUint64), `18446744073709551615`},
		{math.NaN(), `"NaN"`},
		{complex(1, 2), `"(1+2i)"`},
		{"a\n\"b\"", `"a\n\"b\""`},
		{[]int{1, 2}, `[1,2]`},
		{time.Unix(0, 0).UTC(), `"1970-01-01T00:00:00Z"`},
		{broken{}, `"broken"`},
	} {
		b, err := trace.Event{Name: "x", Fields: []trace.Field{{Name: "v", Value: tc.value}}}.MarshalJSON()
		require.NoError(t, err)
		require.True(t, json.Valid(b), "%s", b)
		require.Contains(t, string(b), `"v":`+tc.want+`}`)
	}
	b, err := trace.Event{Who: "a\nb", Dir: "\xff", Name: `"`}.MarshalJSON()
	require.NoError(t, err)
	require.True(t, json.Valid(b), "%s", b)
	require.NotContains(t, string(b), "\n")
}

// broken cannot be encoded as JSON.
type broken struct{}

func (broken) MarshalJSON() ([]byte, error) { return nil, errors.New("no") }
func (broken) String() string               { return "broken" }

// oneWrite records each Write and fails on demand; it is not safe for concurrent
// use, which is what the race detector checks.
type oneWrite struct {
	writes [][]byte
	err    error
}

func (w *oneWrite) Write(p []byte) (int, error) {
	w.writes = append(w.writes, bytes.Clone(p))
	return len(p), w.err
}

func TestSinksFromManyGoroutines(t *testing.T) {
	const goroutines, events = 8, 200
	for name, make := range map[string]func(*oneWrite) trace.Sink{
		"text": func(w *oneWrite) trace.Sink { return trace.TextSink(w) },
		"json": func(w *oneWrite) trace.Sink { return trace.JSONSink(w) },
	} {
		t.Run(name, func(t *testing.T) {
			w := &oneWrite{}
			sink := make(w)
			fromMany(goroutines, events, sink)
			require.Len(t, w.writes, goroutines*events, "one Write per event")
			for _, b := range w.writes {
				require.Equal(t, len(b)-1, bytes.IndexByte(b, '\n'), "one line per Write")
			}
		})
	}
}

// fromMany emits numbered events through one tracer per goroutine.
func fromMany(goroutines, events int, sink trace.Sink) {
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			tr := trace.New(sink, fmt.Sprint("g", g))
			for i := range events {
				tr.Emit(trace.Event{Dir: trace.Guest, Name: "n", Fields: []trace.Field{{Name: "i", Value: i}}})
			}
		})
	}
	wg.Wait()
}

func TestWriteErrorsAreDropped(t *testing.T) {
	w := &oneWrite{err: errors.New("disk full")}
	sink := trace.TextSink(w)
	sink(open)
	sink(open)
	require.Len(t, w.writes, 2, "the next event is tried again")
}

func TestRecorder(t *testing.T) {
	var r trace.Recorder
	require.Empty(t, r.Events())
	tr := trace.New(r.Record, "g1")
	const surplus = 3
	for i := range trace.MaxRecordedEvents + surplus {
		tr.Emit(trace.Event{At: open.At, Fields: []trace.Field{{Name: "i", Value: i}}})
		if i == trace.MaxRecordedEvents-1 {
			require.Zero(t, r.Dropped(), "full is not over-full")
			require.Len(t, r.Events(), trace.MaxRecordedEvents)
		}
	}
	require.Equal(t, uint64(surplus), r.Dropped())
	events := r.Events()
	require.Len(t, events, 65536, "the bound of the design")
	for i, e := range events {
		if e.Fields[0].Value != i+surplus {
			t.Fatalf("event %d is number %v: oldest first, without a gap", i, e.Fields[0].Value)
		}
	}
	events[0].Name = "changed"
	require.NotEqual(t, "changed", r.Events()[0].Name, "Events is a copy")

	r.Reset()
	require.Empty(t, r.Events())
	require.Zero(t, r.Dropped())
	tr.Emit(open)
	require.Equal(t, []trace.Event{open}, r.Events())
}

func TestRecorderFromManyGoroutines(t *testing.T) {
	var r trace.Recorder
	done := make(chan struct{})
	go func() { // a reader beside the writers
		defer close(done)
		for len(r.Events()) < 800 {
			_ = r.Dropped()
		}
	}()
	fromMany(8, 100, r.Record)
	<-done
	next := map[string]int{}
	for _, e := range r.Events() {
		require.Equal(t, next[e.Who], e.Fields[0].Value, "events of one goroutine keep their order")
		next[e.Who]++
	}
}

// A tracer that is off must cost nothing on the data path.
func TestOffAllocatesNothing(t *testing.T) {
	tr := &trace.Tracer{}
	require.Zero(t, testing.AllocsPerRun(100, func() { emit(tr, 2) }))
}

// emit is what a call site looks like.
func emit(tr *trace.Tracer, channel uint32) {
	if tr.On() {
		tr.Emit(trace.Event{Dir: trace.GuestToHost, Name: "OpenChannel", Fields: []trace.Field{{Name: "channel_id", Value: channel}}})
	}
}

func BenchmarkOff(b *testing.B) {
	tr := &trace.Tracer{}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		emit(tr, uint32(i))
	}
}

func BenchmarkRecorder(b *testing.B) {
	var r trace.Recorder
	tr := trace.New(r.Record, "g1")
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		emit(tr, uint32(i))
	}
}

func ExampleTextSink() {
	var out strings.Builder
	t := trace.New(trace.TextSink(&out), "g1")
	if t.On() {
		t.Emit(trace.Event{Dir: trace.GuestToHost, Name: "OpenChannel", Fields: []trace.Field{{Name: "channel_id", Value: 2}}})
	}
	for s := bufio.NewScanner(strings.NewReader(out.String())); s.Scan(); {
		fmt.Println(s.Text())
	}
	// Output: g1: guest>host OpenChannel channel_id=2
}
