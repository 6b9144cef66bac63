package script_test

import (
	"os"
	"testing"

	"github.com/hvlab/hvlab/endpoint/invariant"
	"github.com/hvlab/hvlab/endpoint/script"
	"github.com/stretchr/testify/require"
)

// TestInject: whatever happens before whichever step of a scenario, every promise
// is kept and nothing is left. This is one step in seven; hvlab sim -inject
// -scenarios goes through all of them.
func TestInject(t *testing.T) {
	const every = 7
	done := map[script.Fault]int{}
	for n, file := range scenarios(t) {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		f, err := script.Parse(string(text))
		require.NoError(t, err)
		plain, err := f.Inject()
		require.NoError(t, err)
		require.NoError(t, plain.Err, file)
		for _, fault := range script.Faults() {
			for at := n % every; at < plain.Points; at += every {
				r, err := f.Inject(script.Put{Fault: fault, Before: at})
				require.NoError(t, err)
				require.NoError(t, r.Err, "%s: %v before step %d\n%s", file, fault, at, r.Trace)
				if r.Done {
					done[fault]++
				}
			}
		}
	}
	for _, fault := range script.Faults() {
		require.Greater(t, done[fault], 100, "%v: a sample of 6000 steps, at most of which a fault is possible; a message is posted at one in six", fault)
	}
}

// TestInjectJudges: an injection can fail. Restored cores that do not do what the
// file expects break I-SAVE-ID; a mistake of the file is no violation.
func TestInjectJudges(t *testing.T) {
	f, err := script.Parse("connect\n----\nnothing at all\n")
	require.NoError(t, err)
	r, err := f.Inject(script.Put{Fault: script.Save})
	require.NoError(t, err)
	require.True(t, r.Done)
	require.Equal(t, "I-SAVE-ID", r.Err.(*invariant.Violation).Rule)
	r, err = f.Inject(script.Put{Fault: script.Reset})
	require.NoError(t, err)
	require.NoError(t, r.Err, "a reset changes what happens: no trace is expected of it")

	f, err = script.Parse("conect\n----\n")
	require.NoError(t, err)
	_, err = f.Inject(script.Put{Fault: script.Reset, Before: 9})
	require.IsType(t, &script.Mistake{}, err)
}
