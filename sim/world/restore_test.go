package world

import (
	"slices"
	"strings"
	"testing"

	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/stretchr/testify/require"
)

// withoutSockets chooses no dial: a restored guest has none of its connections.
type withoutSockets struct{ Random }

// Choose is part of Chooser.
func (c *withoutSockets) Choose(steps []Step, weights []uint16) int {
	weights = slices.Clone(weights)
	for i, s := range steps {
		if isDial(s) {
			weights[i] = 0
		}
	}
	return c.Random.Choose(steps, weights)
}

func isDial(s Step) bool { return s.Kind == App && (s.Op == opDial || s.Op == opHostDial) }

// TestRestoredRunIsTheSame: a run that is saved and restored somewhere, while
// nothing is under way, goes on step for step as one that is not (I-SAVE-ID): every
// step of its script is still possible, what is said is the same, byte for byte, and
// every packet arrives that arrived there. Sockets are left out, they end; so are
// monitored channels, whose host looks at other moments.
func TestRestoredRunIsTheSame(t *testing.T) {
	restored, opened := 0, 0
	for seed := range uint64(120) {
		o := Options{Seed: seed, Steps: 300, Guests: 1, Chooser: &withoutSockets{*NewRandom(seed)}}
		base, err := Run(o)
		require.NoError(t, err)
		o.Script, o.Chooser, o.Legal = base.Script, nil, true
		o.Script = slices.DeleteFunc(o.Script, isDial) // if there was nothing else to do
		plain, _, ok := runRestored(t, o, -1)
		if !ok {
			continue
		}
		for at := int(seed) % 17; at < len(base.Script); at += 17 {
			if got, open, ok := runRestored(t, o, at); ok {
				require.Equal(t, plain, got, "seed %d, restored before step %d", seed, at)
				restored++
				opened += min(open, 1)
			}
		}
	}
	require.Greater(t, restored, 150, "so often nothing was under way")
	require.Greater(t, opened, 50, "so often a device had its rings open")
}

// runRestored replays o.Script with a save before step at, and returns the messages
// of the run and the counters of its devices; false if something was under way, or a
// channel is monitored.
func runRestored(t *testing.T, o Options, at int) (trace string, open int, ok bool) {
	var b strings.Builder
	o.Trace = &b
	w, err := New(o)
	require.NoError(t, err)
	m := w.machines[0]
	if slices.ContainsFunc(m.devices, func(d *device) bool { return d.offer.Monitor != nil }) {
		return "", 0, false
	}
	for i, s := range o.Script {
		if i == at {
			if !m.quiet() || !m.connected || m.guestSteps() != 0 || len(w.clock.armed) > 0 {
				return "", 0, false
			}
			for _, d := range m.devices {
				if d.ends[0] != nil && d.ends[1] != nil {
					open++
				}
			}
			now := w.clock.now
			w.do(Step{Kind: App, Op: opSave, Guest: 1})
			for m.guestSteps() == live.StepCall {
				w.do(Step{Kind: GuestStep, Op: uint8(live.StepCall), Guest: 1})
			}
			w.clock.now = now
		}
		if at < 0 && !w.possible(s) { // of a dial that was left out
			return "", 0, false
		}
		require.True(t, w.possible(s), "seed %d, restored before step %d, step %d: %v", o.Seed, at, i, s)
		w.do(s)
		require.Empty(t, w.result.Findings)
	}
	for line := range strings.Lines(b.String()) {
		if strings.HasPrefix(strings.TrimSpace(line), "guest1>host ") || strings.HasPrefix(strings.TrimSpace(line), "host>guest1 ") {
			trace += line
		}
	}
	for _, d := range m.devices {
		for _, e := range d.ends {
			if e != nil {
				trace += strings.Repeat("s", int(e.sent)) + strings.Repeat("g", int(e.got)) + "\n"
			}
		}
	}
	return trace, open, true
}
