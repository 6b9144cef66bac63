package hvsock

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
	"github.com/hvlab/hvlab/vmbus/trace"
	"github.com/stretchr/testify/require"
)

// A stepped world is a host and a guest on the test's own goroutine and clock:
// nothing happens until the test says whose turn it is, so a race is a scenario.
type stepped struct {
	t      *testing.T
	clock  *stoppedClock
	host   *live.Host
	guest  *live.Guest
	inHost *HostStack
	peer   *HostGuest
	inside *GuestStack
	memory *guestmem.Heap
	port   *synic.Partition
	pages  int // of the guest's own, without any connection

	sent      []string // names of all messages, in their order
	fromGuest []string // of those that the guest sent
	fromHost  []string // of those that the host sent
	// Each may be set, to come between the bus and the sockets.
	offered   func(vmbus.OfferChannel)
	requested func(endpoint.SocketRequested)
}

func newStepped(t *testing.T) *stepped { return newSteppedBacklog(t, 0) }

// newSteppedBacklog returns a world whose listeners queue so many; 0 means 128.
func newSteppedBacklog(t *testing.T, backlog int) *stepped {
	w := &stepped{t: t, clock: &stoppedClock{now: time.Unix(0, 0)}, memory: guestmem.NewHeap(guestmem.HeapOptions{Seed: 1})}
	w.port = synic.NewPartition(w.memory, 1)
	id := uuid.UUID{1}
	var err error
	w.inHost = NewHostStack(HostOptions{Seed: 1, Clock: w.clock, Backlog: backlog})
	w.peer, err = w.inHost.AddGuest(id)
	require.NoError(t, err)
	w.requested = w.peer.Requested
	w.host, err = live.NewHost(live.HostOptions{
		Memory: w.memory, Port: w.port, Manual: true, Clock: w.clock,
		Trace:     trace.New(w.record, ""),
		Connected: w.peer.Connected, Gone: w.peer.Gone,
		SocketRequested: func(r endpoint.SocketRequested) { w.requested(r) },
	})
	require.NoError(t, err)
	w.peer.Attach(w.host)
	w.inside = NewGuestStack(GuestOptions{VMID: id, Seed: 1, Clock: w.clock, Backlog: backlog})
	w.offered = w.inside.Offered
	w.guest, err = live.NewGuest(live.GuestOptions{
		Memory: w.memory, Port: w.port, Manual: true, Clock: w.clock,
		Offered:       func(o vmbus.OfferChannel) { w.offered(o) },
		SocketRefused: w.inside.Refused, Gone: w.inside.Gone,
	})
	require.NoError(t, err)
	w.inside.Attach(w.guest)
	w.pages = w.memory.InUsePages()
	w.guest.BeginConnect(func(err error) { require.NoError(t, err) })
	w.run()
	w.sent = nil
	return w
}

func (w *stepped) record(e trace.Event) {
	w.sent = append(w.sent, e.Name)
	switch e.Dir {
	case trace.GuestToHost:
		w.fromGuest = append(w.fromGuest, e.Name)
	case trace.HostToGuest:
		w.fromHost = append(w.fromHost, e.Name)
	}
}

var stepOrder = []live.Steps{live.StepAction, live.StepPost, live.StepCall, live.StepReceive}

// hostRuns has the host do all it can, and the guest nothing.
func (w *stepped) hostRuns() {
	for w.host.Steps() != 0 {
		for _, s := range stepOrder {
			w.host.Do(s)
		}
	}
}

// guestRuns has the guest do all it can, and the host nothing.
func (w *stepped) guestRuns() {
	for w.guest.Steps() != 0 {
		for _, s := range stepOrder {
			w.guest.Do(s)
		}
	}
}

// run has both do all they can.
func (w *stepped) run() {
	for w.host.Steps() != 0 || w.guest.Steps() != 0 {
		w.hostRuns()
		w.guestRuns()
	}
}

// until runs both, in turns of one step, until the last of the messages has the
// name.
func (w *stepped) until(name string) {
	w.t.Helper()
	for w.host.Steps() != 0 || w.guest.Steps() != 0 {
		for _, do := range []func(live.Steps){w.host.Do, w.guest.Do} {
			for _, s := range stepOrder {
				do(s)
				if len(w.sent) > 0 && w.sent[len(w.sent)-1] == name {
					return
				}
			}
		}
	}
	w.t.Fatalf("%s was not sent; only %v", name, w.sent)
}

// posts has a message of the host's appear in the guest that the host's own half
// never sent.
func (w *stepped) posts(m vmbus.Message) {
	w.t.Helper()
	require.NoError(w.t, w.port.Post(synic.Target{SINT: endpoint.VMBusSINT}, vmbus.Append(nil, m)))
}

// count is how often a message was sent.
func (w *stepped) count(name string) (n int) {
	for _, s := range w.sent {
		if s == name {
			n++
		}
	}
	return n
}

// passes lets time pass; timers fire, and nothing else happens.
func (w *stepped) passes(d time.Duration) { w.clock.advance(d) }

// empty checks that nothing is left of any connection but what is listened on.
func (w *stepped) empty() {
	w.t.Helper()
	w.run()
	hostSockets, _ := w.inHost.Usage()
	guestSockets, _ := w.inside.Usage()
	require.Zero(w.t, hostSockets, "sockets of the host")
	require.Zero(w.t, guestSockets, "sockets of the guest")
	require.Zero(w.t, w.host.Usage(), "offers and channels of the host")
	require.Zero(w.t, w.guest.Usage(), "offers and channels of the guest")
	require.LessOrEqual(w.t, w.memory.InUsePages(), w.pages, "guest pages")
	require.Empty(w.t, w.inside.ports, "ports in use")
}

// end takes the world down, and finds nothing left.
func (w *stepped) end() {
	w.t.Helper()
	w.empty()
	w.inHost.Close()
	w.inside.Close()
	w.guest.BeginClose() // false if the test has done so
	w.run()
	require.NoError(w.t, w.guest.Close())
	w.host.Close()
	require.Zero(w.t, w.memory.InUsePages())
	require.Zero(w.t, w.clock.running(), "timers")
}

// An outcome is what a dial was told.
type outcome struct {
	local Addr
	conn  *Conn
	err   error
	times int
}

func (o *outcome) tell(c *Conn, err error) { o.conn, o.err, o.times = c, err, o.times+1 }

const steppedPort = 5000

// guestDials begins a dial of the host's port 5000.
func (w *stepped) guestDials(timeout time.Duration) (o *outcome, cancel func()) {
	o = &outcome{}
	o.local, cancel = w.inside.BeginDial(Addr{Parent, ServiceIDFromPort(steppedPort)}, timeout, o.tell)
	return o, cancel
}

// hostDials begins a dial of the guest's port 5000.
func (w *stepped) hostDials(timeout time.Duration) (o *outcome, cancel func()) {
	o = &outcome{}
	o.local, cancel = w.peer.BeginDial(ServiceIDFromPort(steppedPort), timeout, o.tell)
	return o, cancel
}

func (w *stepped) hostListens() *Listener {
	w.t.Helper()
	l, err := w.inHost.Listen(Addr{Children, ServiceIDFromPort(steppedPort)})
	require.NoError(w.t, err)
	return l
}

func (w *stepped) guestListens() *Listener {
	w.t.Helper()
	l, err := w.inside.Listen(Addr{Wildcard, ServiceIDFromPort(steppedPort)})
	require.NoError(w.t, err)
	return l
}

// A stoppedClock moves only when it is told to.
type stoppedClock struct {
	now    time.Time
	timers []*stoppedTimer
}

type stoppedTimer struct {
	clock *stoppedClock
	at    time.Time
	f     func() // nil when it is not running
	again func()
}

func (c *stoppedClock) Now() time.Time { return c.now }

func (c *stoppedClock) AfterFunc(d time.Duration, f func()) live.Timer {
	timer := &stoppedTimer{clock: c, at: c.now.Add(d), f: f, again: f}
	c.timers = append(c.timers, timer)
	return timer
}

func (t *stoppedTimer) Stop() bool {
	was := t.f != nil
	t.f = nil
	return was
}

func (t *stoppedTimer) Reset(d time.Duration) bool {
	was := t.Stop()
	t.at, t.f = t.clock.now.Add(d), t.again
	return was
}

// advance fires what is due within d, in its order.
func (c *stoppedClock) advance(d time.Duration) {
	end := c.now.Add(d)
	for {
		var next *stoppedTimer
		for _, t := range c.timers {
			if t.f != nil && !t.at.After(end) && (next == nil || t.at.Before(next.at)) {
				next = t
			}
		}
		if next == nil {
			break
		}
		f := next.f
		c.now, next.f = next.at, nil
		f()
	}
	c.now = end
	c.timers = slices.DeleteFunc(c.timers, func(t *stoppedTimer) bool { return t.f == nil && t.at.Before(c.now) })
}

// running is how many timers are going to fire.
func (c *stoppedClock) running() (n int) {
	for _, t := range c.timers {
		if t.f != nil {
			n++
		}
	}
	return n
}
