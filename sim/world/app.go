package world

import (
	"errors"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock"
)

// What an application can do.
const (
	opNone uint8 = iota
	opAccept
	opDial     // a guest dials its host: connection Arg
	opHostDial // the host dials a guest: likewise
	opCancel   // the dialer gives up
	opRead     // up to Arg bytes
	opWrite    // up to Arg bytes
	opCloseWrite
	opCloseRead
	opClose
	opReadDeadline  // Arg microseconds from now, 0 takes it back
	opWriteDeadline // likewise

	// Of a device, Arg.
	opPublish // its host offers it
	opOpen
	opCloseChannel
	opModify // its interrupt moves to another processor
	opHostSend
	opSend
	opHostReceive
	opReceive

	// Of a guest.
	opPause
	opResume
	opUnload
	opBoot // again, after an unload, a reset or a crash
	opSave // both ends are saved, and what is restored runs on
	opWake // a suspended machine runs again
)

var appNames = [...]string{
	"", "accept", "dial", "dial", "cancel", "read", "write", "closewrite", "closeread", "close", "readdeadline", "writedeadline",
	"publish", "open", "closechannel", "modify", "hostsend", "send", "hostreceive", "receive",
	"pause", "resume", "unload", "boot", "save", "wake",
}

// opsWithArg have a number in their text; of those in drawnOps the chooser draws it.
var (
	drawnOps = [len(appNames)]bool{
		opDial: true, opHostDial: true, opRead: true, opWrite: true, opReadDeadline: true, opWriteDeadline: true,
	}
	opsWithArg = [len(appNames)]bool{
		opDial: true, opHostDial: true, opRead: true, opWrite: true, opReadDeadline: true, opWriteDeadline: true,
		opPublish: true, opOpen: true, opCloseChannel: true, opModify: true,
		opHostSend: true, opSend: true, opHostReceive: true, opReceive: true,
	}
)

// dialTimeout is what every dial is given, the default of the real ones.
const dialTimeout = 2 * time.Second

// maxPairs is how many connections a world has at once.
const maxPairs = 6

// maxPairID is the largest number of a connection.
const maxPairID = 1 << 30

// A pair is a connection, from the dial on.
type pair struct {
	id      uint32
	m       *machine
	life    int // of the machine
	byGuest bool
	ep      uuid.UUID // the dialer's: the key of the connection
	cancel  func()
	pending bool // the dial has not ended
	ends    [2]*end
	excused string // why it may be cut off: a fault
	dialed  time.Duration
	begun   int // step of the dial
	told    int // outcomes of the dial
}

// The ends of a pair.
const (
	client = 0
	server = 1
)

// apps is every application of a World.
type apps struct {
	w      *World
	serial uint32
	pairs  []*pair // whose dial is pending, or an end of which is in use
	byEP   map[uuid.UUID]*pair
	live   []*end // in use
	buf    []byte
}

func (a *apps) init(w *World) {
	a.w = w
	a.byEP = map[uuid.UUID]*pair{}
	a.buf = *chunks.Get().(*[]byte)
}

// chunks are buffers of worlds that are over: what one reads or writes into.
var chunks = sync.Pool{New: func() any { b := make([]byte, maxChunk); return &b }}

// enable lists what applications could do.
func (a *apps) enable() {
	w := a.w
	if queued, _ := w.service.Waiting(); queued > 0 {
		w.add(Step{Kind: App, Op: opAccept}, normalWeight)
	}
	for _, m := range w.machines {
		m.enableDevices()
		m.enableLife()
		if queued, _ := m.listener.Waiting(); queued > 0 && !m.gone && !m.down && !m.frozen {
			w.add(Step{Kind: App, Op: opAccept, Guest: m.number}, normalWeight)
		}
		if !w.resting && m.socketsWork() && len(a.pairs) < maxPairs {
			if !m.frozen {
				w.add(Step{Kind: App, Op: opDial, Guest: m.number}, rareWeight)
			}
			w.add(Step{Kind: App, Op: opHostDial, Guest: m.number}, rareWeight)
		}
	}
	for _, p := range a.pairs {
		if p.pending && !w.resting && !(p.byGuest && p.m.frozen) {
			w.add(Step{Kind: App, Op: opCancel, Actor: 2 * p.id}, rareWeight)
		}
	}
	for _, e := range a.live {
		e.enable()
	}
}

// do does a step of an application; one that makes no sense any more, in a
// shortened script, does nothing.
func (a *apps) do(s Step) {
	w := a.w
	switch s.Op {
	case opAccept:
		m := w.machine(s.Guest)
		if m == nil {
			w.actor = hostSide
			a.accept(w.service, hostSide, nil)
		} else if !m.down {
			w.actor = guestSide
			a.accept(m.listener, guestSide, m)
		}
	case opDial, opHostDial:
		if m := w.machine(s.Guest); m != nil && m.socketsWork() {
			a.dial(m, s.Op == opDial, uint32(s.Arg))
		}
	case opCancel:
		if p := a.find(s.Actor / 2); p != nil && p.pending {
			w.actor = p.dialer()
			p.cancel()
			if p.pending {
				w.fail(LiveCalls, "c%d: the dialer gave up and was not told", p.id)
			}
		}
	case opPause, opResume, opUnload, opBoot, opSave, opWake:
		if m := w.machine(s.Guest); m != nil {
			w.actor = guestSide
			m.live(s.Op)
		}
	case opPublish, opOpen, opCloseChannel, opModify, opHostSend, opSend, opHostReceive, opReceive:
		if m := w.machine(s.Guest); m != nil {
			m.doDevice(s)
		}
	default:
		if p := a.find(s.Actor / 2); p != nil {
			if e := p.ends[s.Actor%2]; e != nil {
				w.actor = e.side
				e.do(s)
			}
		}
	}
}

func (a *apps) find(id uint32) *pair {
	for _, p := range a.pairs {
		if p.id == id {
			return p
		}
	}
	return nil
}

func (p *pair) dialer() side {
	if p.byGuest {
		return guestSide
	}
	return hostSide
}

// dial begins connection id.
func (a *apps) dial(m *machine, byGuest bool, id uint32) {
	w := a.w
	if id <= a.serial || id > maxPairID { // not a new name
		return
	}
	a.serial = id
	p := &pair{id: id, m: m, life: m.life, byGuest: byGuest, pending: true, dialed: w.clock.now, begun: w.result.Steps}
	a.pairs = append(a.pairs, p)
	done := func(c *hvsock.Conn, err error) { a.dialed(p, c, err) }
	var local hvsock.Addr
	if byGuest {
		w.actor = guestSide
		local, p.cancel = m.sockets.BeginDial(hvsock.Addr{VMID: hvsock.Parent, ServiceID: hvsock.ServiceIDFromPort(hostPort)}, dialTimeout, done)
	} else {
		w.actor = hostSide
		local, p.cancel = m.peer.BeginDial(hvsock.ServiceIDFromPort(guestPort), dialTimeout, done)
	}
	p.ep = local.ServiceID
	if w.o.Trace != nil { // boxing the arguments costs more than the step
		w.note("c%d: from %v", p.id, local)
	}
	if p.pending {
		a.byEP[p.ep] = p
	}
}

// dialed is told how a dial ended.
func (a *apps) dialed(p *pair, c *hvsock.Conn, err error) {
	w := a.w
	p.pending = false
	if p.told++; p.told > 1 || (c == nil) == (err == nil) {
		w.fail(EstablishedWins, "c%d: the dial ended %d times, with %v and %v", p.id, p.told, c, err)
		return
	}
	w.hit(EstablishedWins)
	w.hit(LiveCalls)
	if err != nil {
		a.refused(p, err)
		p.excuse("the dial failed")
		a.tidy(p)
		return
	}
	if w.o.Trace != nil { // boxing the arguments costs more than the step
		w.note("c%d: connected", p.id)
	}
	a.established(p, client, p.dialer(), c)
}

// refused checks the reason for a failed dial.
func (a *apps) refused(p *pair, err error) {
	w := a.w
	if w.o.Trace != nil { // boxing the arguments costs more than the step
		w.note("c%d: %v", p.id, err)
	}
	patience := w.clock.now-p.dialed >= dialTimeout
	switch {
	case w.current.Op == opCancel && w.current.Kind == App, p.excused != "", p.m.life != p.life, p.m.closing, p.m.gone, p.m.short, p.m.attacked():
	case errors.Is(err, syscall.ETIMEDOUT) && patience: // nobody served it in time; a guest cannot refuse
	case errors.Is(err, syscall.ECONNREFUSED) && p.byGuest && w.service.full >= p.begun:
	default:
		w.fail(LiveCalls, "c%d: dialing failed for no reason: %v", p.id, err)
	}
}

// accept takes a connection from a listener.
func (a *apps) accept(l listener, at side, m *machine) {
	w := a.w
	c, err := l.TryAccept()
	if err != nil {
		if w.o.Trace != nil { // boxing the arguments costs more than the step
			w.note("accept: %v", err)
		}
		return
	}
	remote := c.RemoteAddr().(hvsock.Addr)
	for _, m := range w.machines {
		if m.id == remote.VMID { // now it is known whose step this is
			w.clock.guest = m.number
		}
	}
	p := a.byEP[remote.ServiceID]
	if p == nil || p.ends[server] != nil || p.byGuest != (at == hostSide) || m != nil && p.m != m ||
		at == hostSide && remote.VMID != p.m.id {
		if p == nil && !w.machineAttacked(remote, m) || p != nil && !p.m.attacked() {
			w.fail(ConnectMatch, "accepted a connection of %v, which nobody made, or twice", remote)
		}
		_ = c.Close()
		return
	}
	w.hit(ConnectMatch)
	if w.o.Trace != nil { // boxing the arguments costs more than the step
		w.note("c%d: accepted", p.id)
	}
	a.established(p, server, at, c)
}

// established begins the use of one end.
func (a *apps) established(p *pair, which int, at side, c *hvsock.Conn) {
	w := a.w
	e := &end{w: w, pair: p, which: which, side: at, conn: c, name: endName(2*p.id + uint32(which))}
	e.key = mixKey(w.o.Seed, uint64(p.id)*2+uint64(which))
	e.plan = [...]uint64{0, 1, 100, 3000, 20000, 50000}[mixKey(e.key, 1)%6] // of the seed: a script has no draws
	c.Notify(func() { e.readWait = false }, func() { e.writeWait = false })
	p.ends[which] = e
	if a.find(p.id) == nil { // the dialer has given up
		a.pairs = append(a.pairs, p)
	}
	a.live = append(a.live, e)
}

// tidy forgets a pair that nobody uses any more.
func (a *apps) tidy(p *pair) {
	if p.pending {
		return
	}
	for _, e := range p.ends {
		if e != nil && !e.finished {
			return
		}
	}
	if p.told == 1 && p.ends[client] != nil && p.ends[server] == nil && p.excused == "" && p.m.life == p.life {
		return // the server is still in the listener's queue
	}
	a.pairs = slices.DeleteFunc(a.pairs, func(q *pair) bool { return q == p })
	if p.ends[server] != nil {
		delete(a.byEP, p.ep)
	}
}

// closeListeners makes the applications stop listening.
func (a *apps) closeListeners() {
	_ = a.w.service.Close() // open until now
	for _, m := range a.w.machines {
		_ = m.listener.Close() // likewise
	}
}

// excuse says why a connection may be cut off from now on.
func (p *pair) excuse(why string) {
	if p.excused == "" {
		p.excused = why
	}
}

// machineAttacked reports whether a connection of remote, accepted by m or, without
// m, by the host, may be the attacker's own.
func (w *World) machineAttacked(remote hvsock.Addr, m *machine) bool {
	if m == nil {
		return w.o.Hostile && remote.VMID == w.machines[0].id
	}
	return m.attacked()
}
