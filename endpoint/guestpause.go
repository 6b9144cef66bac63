package endpoint

import (
	"fmt"

	"github.com/hvlab/hvlab/internal/fsm"
	"github.com/hvlab/hvlab/vmbus"
)

// PauseState is where a guest's pause is: it silences the host, for example
// around a save of the guest's memory. Source: vmbus-control.md 3.17.
type PauseState uint8

// The states of a pause.
const (
	Running PauseState = iota
	Pausing            // Pause sent: messages still come
	Halted             // PauseResponse was the last
)

func (s PauseState) String() string { return [...]string{"Running", "Pausing", "Halted"}[s] }

// PauseEvent moves a pause.
type PauseEvent uint8

// The events of a pause.
const (
	GuestPauses PauseEvent = iota
	HostHalts              // PauseResponse
	GuestResumes
)

func (e PauseEvent) String() string {
	return [...]string{"GuestPauses", "HostHalts", "GuestResumes"}[e]
}

// PauseTransitions is the pause in the guest. Resume waits for the answer, so
// that an answer never meets the pause after.
var PauseTransitions = fsm.Table[PauseState, PauseEvent]{
	Name:   "guest pause",
	States: []PauseState{Running, Pausing, Halted},
	Events: []PauseEvent{GuestPauses, HostHalts, GuestResumes},
	Edges: map[fsm.Edge[PauseState, PauseEvent]]PauseState{
		{From: Running, On: GuestPauses}: Pausing,
		{From: Pausing, On: HostHalts}:   Halted,
		{From: Halted, On: GuestResumes}: Running,
	},
}

// needs returns an error matching vmbus.ErrState unless f was granted.
func (g *Guest) needs(f vmbus.Features) error {
	if g.negotiated.Features&f == 0 || g.state == GuestUnloading {
		return fmt.Errorf("endpoint: the feature %v is not in use: %w", f, vmbus.ErrState)
	}
	return nil
}

// movePause is the only writer of g.pause but the end of the connection.
func (g *Guest) movePause(on PauseEvent) error {
	to, err := PauseTransitions.Next(g.pause, on)
	if err == nil {
		g.pause = to
	}
	return err
}

// Pause asks the host to fall silent; Paused follows. What the guest posts from
// now on waits for Resume, since a paused host drops it.
func (g *Guest) Pause() error {
	if err := g.needs(vmbus.PauseResume); err != nil {
		return err
	}
	if g.pause == Running {
		g.post(&vmbus.Pause{}) // before the pause holds it back
	}
	if err := g.movePause(GuestPauses); err != nil {
		return callerError(err)
	}
	return nil
}

func (g *Guest) pauseResponse() error {
	if err := g.movePause(HostHalts); err != nil {
		return &DropError{Message: vmbus.TypePauseResponse, Reason: "nobody asked for it", Cause: err}
	}
	g.emit(Paused{})
	return nil
}

// Resume ends a pause, after Paused. There is no answer.
func (g *Guest) Resume() error {
	if err := g.movePause(GuestResumes); err != nil {
		return callerError(err)
	}
	g.post(&vmbus.Resume{})
	for p, ok := g.held.pop(); ok; p, ok = g.held.pop() {
		g.out.push(p)
	}
	return nil
}

// ModifyConnection replaces the guest's monitor pages, given by their guest
// physical addresses; both 0 removes them. ConnectionModified follows.
func (g *Guest) ModifyConnection(parentToChild, childToParent uint64) error {
	if err := g.needs(vmbus.ConnectionModify); err != nil {
		return err
	}
	if g.modifying {
		return fmt.Errorf("endpoint: the connection is being modified already: %w", vmbus.ErrState)
	}
	g.modifying = true
	g.post(&vmbus.ModifyConnection{ParentToChild: parentToChild, ChildToParent: childToParent})
	return nil
}

func (g *Guest) connectionModified(m vmbus.ModifyConnectionResponse) error {
	if !g.modifying {
		return &DropError{Message: vmbus.TypeModifyConnectionResponse, Reason: "no such request is waiting"}
	}
	g.modifying = false
	g.emit(ConnectionModified{m.ConnectionState})
	return nil
}
