package hvsock

import (
	"strings"
	"testing"
	"time"

	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
)

// A bench is a socket of the host in one state of hvsock.md 13, and what its guest
// needs to act upon it.
type bench struct {
	*stepped
	request   *Request
	unhandle  func()
	listener  *Listener
	dial      *outcome // of the host
	guestDial *outcome
	cancel    func()
	accepting *Listener // of the guest
	held      []vmbus.OfferChannel
	conn      *Conn // of the host
	far       *Conn // of the guest
	reset     bool
}

// hold keeps offers from the guest's sockets.
func (b *bench) hold() { b.offered = func(o vmbus.OfferChannel) { b.held = append(b.held, o) } }

// hostStates are the rows of hvsock.md 13 (OPENING is no state of its own here:
// the answer to OpenChannel is given at once).
var hostStates = []struct {
	name string
	sit  func(*bench)
}{
	{"REQUESTED", func(b *bench) {
		var err error
		b.unhandle, err = b.inHost.HandleRequests(Children, func(r *Request) { b.request = r })
		require.NoError(b.t, err)
		b.guestDial, _ = b.guestDials(time.Hour)
		b.run()
	}},
	{"OFFERED (guest connect)", func(b *bench) {
		b.hold()
		b.listener = b.hostListens()
		b.guestDial, _ = b.guestDials(time.Hour)
		b.run()
	}},
	{"OFFERED (host connect)", func(b *bench) {
		b.hold()
		b.accepting = b.guestListens()
		b.dial, b.cancel = b.hostDials(defaultDialTimeout)
		b.run()
	}},
	{"OPEN", func(b *bench) { b.far, b.conn = b.established() }},
	{"FIN_SENT", func(b *bench) {
		b.far, b.conn = b.established()
		require.NoError(b.t, b.conn.CloseWrite())
	}},
	{"PEER_FIN", func(b *bench) {
		b.far, b.conn = b.established()
		require.NoError(b.t, b.far.CloseWrite())
		requireEnd(b.t, b.conn)
	}},
	{"REVOKED", func(b *bench) {
		b.far, b.conn = b.established()
		for k := range b.stepped.peer.sockets {
			k.end(hostLateData, nil)
		}
		b.hostRuns() // and the guest has not heard of it
	}},
}

// hostEvents are the columns of hvsock.md 13.
var hostEvents = []struct {
	name string
	do   func(*bench)
}{
	{"nothing", func(*bench) {}},
	{"guest opens", func(b *bench) {
		b.offered = b.inside.Offered
		for _, o := range b.held {
			b.offered(o)
		}
	}},
	{"guest FIN", func(b *bench) {
		if b.far != nil {
			_ = b.far.CloseWrite()
		}
	}},
	{"guest CLOSE_CHANNEL", func(b *bench) {
		for k := range b.inside.sockets {
			if k.conn.Load() != nil {
				k.end(guestAppCloses)
			}
		}
	}},
	{"host app closes", func(b *bench) {
		switch {
		case b.request != nil:
			b.request.Refuse()
		case b.listener != nil:
			_ = b.listener.Close()
		case b.dial != nil:
			b.cancel()
		default:
			_ = b.conn.Close()
		}
	}},
	{"10 s", func(b *bench) { b.passes(10 * time.Second) }},
	{"VM reset", func(b *bench) {
		b.host.Reset()
		b.reset = true
	}},
}

// TestHostSocketTable is hvsock.md 13 as hvlab has it: what the host sends, what
// its application then finds, and what the host sends because the application has
// looked. The golden file is the table. It differs from the specification's in one
// cell: a listener that closes does not withdraw the offer of a connection that is
// on its way, since a host had better not revoke early (11); the guest may open
// it, and finds its end.
func TestHostSocketTable(t *testing.T) {
	checkTable(t, "table/hvsock-host-events.txt", "state", len(hostStates), len(hostEvents),
		func(row int) string { return hostStates[row].name },
		func(column int) string { return hostEvents[column].name },
		func(row, column int) string {
			b := &bench{stepped: newStepped(t)}
			hostStates[row].sit(b)
			b.fromHost = nil
			hostEvents[column].do(b)
			b.run()
			return b.cell()
		})
}

// hostNames keeps the columns of a table narrow.
var hostNames = strings.NewReplacer(
	"GPADLCreated OpenResult", "opens",
	"TLConnectResult", "refuses",
	"RescindChannelOffer", "rescinds",
	"GPADLTorndown", "lets go",
)

// cell says what the host has sent and what the application finds; then it takes
// the world down.
func (b *bench) cell() string {
	var says []string
	sent := func(when string) {
		b.run()
		if names := strings.Join(b.fromHost, " "); names != "" {
			says = append(says, when+hostNames.Replace(names))
		}
		b.fromHost = nil
	}
	sent("")
	switch {
	case b.dial != nil && b.dial.times == 0:
		says = append(says, "waits")
	case b.dial != nil:
		says = append(says, "dial "+word(b.dial.err))
		b.conn = b.dial.conn
	case b.listener != nil:
		c, err := b.listener.TryAccept()
		says = append(says, "accept "+word(err))
		b.conn = c
	case b.conn != nil:
		says = append(says, tried(b.conn)...)
		sent("then ")
	}
	b.leave()
	if len(says) == 0 {
		return "-"
	}
	return strings.Join(says, "; ")
}

// leave closes everything, and sees that nothing is left. A guest that was reset
// under its own feet gets no answer to anything, so there only time helps.
func (b *bench) leave() {
	closeAll(b.conn, b.far)
	for _, l := range []*Listener{b.listener, b.accepting} {
		if l != nil {
			_ = l.Close()
		}
	}
	if b.cancel != nil {
		b.cancel()
	}
	if b.unhandle != nil {
		b.request.Refuse()
		b.unhandle()
	}
	b.run()
	b.passes(time.Hour) // the guest's dial, and whatever lingers
	if b.guestDial != nil && b.guestDial.conn != nil {
		_ = b.guestDial.conn.Close()
	}
	b.run()
	b.passes(closeTimeout)
	b.run()
	if !b.reset {
		b.end()
		return
	}
	hostSockets, _ := b.inHost.Usage()
	require.Zero(b.t, hostSockets)
	b.inside.Close()
	b.guest.BeginClose()
	for range 30 { // of its 100 s, 5 at a time
		b.run()
		b.passes(5 * time.Second)
	}
	require.Error(b.t, b.guest.Close(), "its host has forgotten it")
	b.host.Close()
	b.inHost.Close()
}
