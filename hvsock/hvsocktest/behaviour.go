package hvsocktest

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"
)

// patience is how long one behaviour may take unless its transport says
// otherwise. None needs more than moments; whatever takes this long hangs.
const patience = 30 * time.Second

// A Behaviour is one promise of a Hyper-V socket.
type Behaviour struct {
	Name    string // short, for test names and tables
	Section string // of the specification hvsock.md, or an invariant of faults.md
	Promise string // one sentence

	check func(*session)
}

// Behaviours is every promise, in the order a reader would want them.
func Behaviours() []Behaviour {
	return slices.Concat(streamBehaviours, closeBehaviours, deadlineBehaviours, dialBehaviours, listenBehaviours,
		waitingBehaviours, queueBehaviours)
}

// A FailureError says which promise a transport broke, and how.
type FailureError struct {
	Transport string
	Behaviour Behaviour
	Reason    string
}

func (e *FailureError) Error() string {
	return fmt.Sprintf("%s: %s (%s): %s; promised: %s",
		e.Transport, e.Behaviour.Name, e.Behaviour.Section, e.Reason, e.Behaviour.Promise)
}

// Check tries the behaviour on tr, on connections and listeners of its own,
// which are closed when it returns. The error is a *FailureError.
func (b Behaviour) Check(tr Transport) error {
	if reason := attempt(tr, b.check); reason != "" {
		return &FailureError{Transport: tr.Name, Behaviour: b, Reason: reason}
	}
	return nil
}

// attempt runs f in a session with tr, closes what that has opened, and says why
// it failed, or "".
func attempt(tr Transport, f func(*session)) (reason string) {
	s := &session{tr: tr}
	s.spawn(func() { f(s) })
	over := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(over)
	}()
	limit := cmp.Or(tr.Patience, patience)
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-over:
	case <-timer.C:
		s.note("still not done after %v", limit)
		s.closeAll() // which may end it; if not, its goroutines are lost
	}
	s.closeAll()
	return s.reason()
}

// Run checks every behaviour as a subtest of t.
func Run(t *testing.T, tr Transport) {
	t.Helper()
	for _, b := range Behaviours() {
		t.Run(b.Name, func(t *testing.T) {
			if why, ok := tr.Deviations[b.Name]; ok {
				t.Skipf("%s does not promise this: %s", tr.Name, why)
			}
			if err := b.Check(tr); err != nil {
				t.Error(err)
			}
		})
	}
}
