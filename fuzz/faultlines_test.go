package fuzz

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/internal/golden"
	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// TestFaultLines says what becomes of every seed of the fault catalogue, and
// that each holds the property of its layer's target. The golden file is to be
// read beside faults.md 6.
func TestFaultLines(t *testing.T) {
	outcome := map[string]func(*testing.T, FaultLine) string{
		"host": hostOutcome, "guest": guestOutcome, "ring": ringOutcomeOf, "word": wordOutcome, "pipe": pipeOutcome, "answer": answerOutcome,
	}
	var b strings.Builder
	ids := map[string]bool{}
	for _, line := range FaultLines("") {
		ids[line.ID] = true
		fmt.Fprintf(&b, "%s %s: %s\n", line.ID, line.Layer, line.Meaning)
		for text := range strings.Lines(outcome[line.Layer](t, line)) {
			b.WriteString("    " + text)
		}
	}
	for n := 1; n <= 24; n++ { // S25 is sim/bridge's, S26 endpoint's
		require.True(t, ids[fmt.Sprintf("S%02d", n)], "S%02d has no line", n)
	}
	golden.Check(t, "table/faultlines.txt", b.String())
}

// briefly drops what was said before the line's own messages, and user data.
func briefly(trace string, from int) string {
	var b strings.Builder
	for line := range strings.Lines(trace[from:]) {
		line = strings.TrimSuffix(line, "\n")
		if len(line) > 160 {
			line = line[:160] + "..."
		}
		b.WriteString(line + "\n")
	}
	return b.String()
}

func hostOutcome(t *testing.T, line FaultLine) string {
	w := newHostBus(line.Setup == "6.0")
	var trace strings.Builder
	w.trace = &trace
	switch line.Setup {
	case "":
		w.connect(vmbus.Iron)
	case "6.0":
		w.connect(vmbus.Copper)
	}
	from := trace.Len()
	for _, part := range line.Parts {
		w.receive(part)
	}
	said := briefly(trace.String(), from)
	w.finish()
	require.NoError(t, w.fault, line.Meaning)
	return said
}

func guestOutcome(t *testing.T, line FaultLine) string {
	w := newGuestBus(versionByte(vmbus.Iron) - 1)
	if line.Setup == "first" {
		w = newGuestBus(versionByte(vmbus.Copper) - 1)
		w.hold = true
	}
	var trace strings.Builder
	w.trace = &trace
	require.NoError(t, w.core.Connect())
	w.run()
	from := trace.Len()
	for _, part := range line.Parts {
		w.receive(part)
	}
	said := briefly(trace.String(), from) + fmt.Sprintf("guest is %v\n", w.core.State())
	w.finish()
	require.NoError(t, w.fault, line.Meaning)
	return said
}

func ringOutcomeOf(t *testing.T, line FaultLine) string {
	s := ringState{dataPages: 1, write: uint32(len(line.Parts[0])), features: 1, data: line.Parts[0]}
	o, err := readRing(s, s.pages(guestmem.ContiguousPages))
	require.NoError(t, err)
	return fmt.Sprintf("%d packets, then: %s\n", len(o.headers), o.end)
}

// wordOutcome: what either end says of one control word.
func wordOutcome(t *testing.T, line FaultLine) string {
	pages := newPages(guestmem.ContiguousPages, 1)
	require.NoError(t, ringbuffer.Init(pages))
	w, err := ringbuffer.NewWriter(pages)
	require.NoError(t, err)
	r, err := ringbuffer.NewReader(pages)
	require.NoError(t, err)
	le := binary.LittleEndian
	pages[0].Store32(int(le.Uint32(line.Parts[0])), le.Uint32(line.Parts[0][4:]))
	_, err = r.Peek()
	text := fmt.Sprintf("the reader: %v; its release signals: %v\n", err, r.Commit())
	require.NoError(t, w.Append(ringbuffer.Header{Type: ringbuffer.InBand}, nil, nil))
	return text + fmt.Sprintf("the writer's packet signals: %v\n", w.Commit())
}

func pipeOutcome(t *testing.T, line FaultLine) string {
	s := ringState{dataPages: 1, write: uint32(len(line.Parts[0])), features: 1, data: line.Parts[0]}
	end, err := readPipe(s.pages(guestmem.ContiguousPages), 100, 0, false)
	require.NoError(t, err)
	text := fmt.Sprintf("as bytes: %q, then: %v\n", end.bytes, end.err)
	ring, err := ringbuffer.NewReader(s.pages(guestmem.ContiguousPages))
	require.NoError(t, err)
	r := channel.NewMessageReader(ring)
	buf := make([]byte, channel.MaxPipeBytes)
	for {
		n, _, err := r.Read(buf)
		if err != nil {
			return text + fmt.Sprintf("as messages: %v\n", err)
		}
		text += fmt.Sprintf("as messages: %q\n", buf[:n])
	}
}

// answerOutcome: a completion of a transaction that does not exist, and of one
// that does, twice.
func answerOutcome(t *testing.T, line FaultLine) string {
	id := binary.LittleEndian.Uint64(line.Parts[0][8:])
	q := ringbuffer.NewRequestor[string](16)
	_, err := q.Complete(id)
	require.True(t, errors.Is(err, vmbus.ErrProtocol), "%v", err)
	text := fmt.Sprintf("never issued: %v\n", err)
	for q.Waiting() < 8 { // 1 to 8
		_, err := q.Begin("request")
		require.NoError(t, err)
	}
	for range 2 {
		v, err := q.Complete(id)
		text += fmt.Sprintf("with 8 requests outstanding: %q, %v\n", v, err)
	}
	return text
}
