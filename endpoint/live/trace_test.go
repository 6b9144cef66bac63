package live

import (
	"errors"
	"testing"
	"time"

	_ "github.com/hvlab/hvlab/internal/fixedseed"
	"github.com/hvlab/hvlab/vmbus/trace"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A setClock is a Clock that shows what it was set to.
type setClock struct{ now time.Time }

func (c *setClock) Now() time.Time                        { return c.now }
func (c *setClock) AfterFunc(time.Duration, func()) Timer { panic("a log needs no timer") }

// TestDropLines: no second has more than maxDropLines lines, wherever it begins;
// nothing is left out while fewer drops come than that, and every drop is either
// told or counted.
func TestDropLines(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clock := &setClock{time.Unix(1e9, 0)}
		var at []time.Time
		told, counted := 0, 0
		log := &dropLog{side: trace.Host, clock: clock, tracer: trace.New(func(e trace.Event) {
			at = append(at, e.At)
			if e.Name == "drop" {
				told++
			} else {
				counted += e.Fields[0].Value.(int)
			}
		}, "")}
		gaps := rapid.SliceOf(rapid.SampledFrom([]time.Duration{0, 1, 50 * time.Millisecond, 100 * time.Millisecond, 999 * time.Millisecond, time.Second})).Draw(t, "gaps")
		slow := true
		for _, gap := range gaps {
			slow = slow && gap >= 100*time.Millisecond
			clock.now = clock.now.Add(gap)
			log.note(errors.New("why"))
		}
		for i := maxDropLines; i < len(at); i++ {
			require.GreaterOrEqual(t, at[i].Sub(at[i-maxDropLines]), time.Second, "line %d comes within a second of the tenth before it", i)
		}
		require.Equal(t, len(gaps), told+counted+log.left)
		if slow {
			require.Equal(t, len(gaps), told, "ten a second are not too many")
		}
	})
}
