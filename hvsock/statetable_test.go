package hvsock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/internal/golden"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
)

// A seat is a socket of the guest in one state of hvsock.md 12, and what its other
// end needs to act upon it.
type seat struct {
	*stepped
	port     uuid.UUID // the service id or endpoint id that is the socket's own
	peer     uuid.UUID // the other id of its channel
	listener *Listener
	dial     *outcome
	cancel   func()
	conn     *Conn // of the guest
	far      *Conn // of the host
	asked    endpoint.SocketRequested
	dialed   *outcome // of the host, when that was the event
	forged   bool     // an offer that the host never made
}

// guestStates are the columns of hvsock.md 12.
var guestStates = []struct {
	name string
	sit  func(*seat)
}{
	{"C closed", func(*seat) {}},
	{"L listening", func(s *seat) { s.listener = s.guestListens() }},
	{"S connecting", sitConnecting},
	{"E established", sitEstablished},
	{"G rescinded", func(s *seat) {
		sitEstablished(s)
		s.revoke()
		s.run()
	}},
	{"Z released", func(s *seat) {
		sitEstablished(s)
		require.NoError(s.t, s.conn.Close())
		s.run()
	}},
}

func sitConnecting(s *seat) {
	s.requested = func(r endpoint.SocketRequested) { s.asked = r } // and answer it later, or never
	s.dial, s.cancel = s.guestDials(defaultDialTimeout)
	s.run()
	s.port, s.peer = s.dial.local.ServiceID, ServiceIDFromPort(steppedPort)
}

func sitEstablished(s *seat) {
	s.conn, s.far = s.established()
	s.port, s.peer = s.conn.local.ServiceID, ServiceIDFromPort(steppedPort)
}

// revoke has the host end what it has, without a word.
func (s *seat) revoke() {
	for k := range s.stepped.peer.sockets {
		k.end(hostLateData, nil)
	}
}

// offers makes an offer appear in the guest.
func (s *seat) offers(forAccept bool) {
	o := endpoint.SocketOffer(wire(s.peer), wire(s.port), false, vmbus.Copper)
	if forAccept {
		o = endpoint.SocketOffer(wire(s.port), wire(uuid.UUID{9}), true, vmbus.Copper)
	}
	s.forged = true
	s.posts(&vmbus.OfferChannel{
		Interface: o.Interface, Instance: o.Instance, Flags: o.Flags, UserDefined: o.UserDefined,
		Channel: 99, MonitorID: vmbus.NoMonitor, IsDedicated: 1, ConnectionID: 0x1063,
	})
}

// guestEvents are the rows of hvsock.md 12 that come from outside or from the
// clock; what the application itself may do is in the cells.
var guestEvents = []struct {
	name string
	do   func(*seat)
}{
	{"nothing", func(*seat) {}},
	{"offer, byte 64 = 0, instance = mine", func(s *seat) {
		if s.dial == nil {
			s.offers(false)
			return
		}
		l := s.hostListens()
		s.stepped.peer.Requested(s.asked)
		s.run()
		_ = l.Close() // and whom it has not accepted
	}},
	{"offer, byte 64 = 1, interface = mine", func(s *seat) {
		if s.listener == nil {
			s.offers(true)
			return
		}
		s.dialed, _ = s.hostDials(time.Second)
	}},
	{"message 23", func(s *seat) {
		s.posts(&vmbus.TLConnectResult{Endpoint: wire(s.port), Service: wire(s.peer), Status: vmbus.StatusConnectionRefused})
	}},
	{"2 s", func(s *seat) { s.passes(defaultDialTimeout) }},
	{"data", func(s *seat) { s.farDoes(func(c *Conn) { _, _ = c.TryWrite([]byte("data")) }) }},
	{"FIN", func(s *seat) { s.farDoes(func(c *Conn) { _ = c.CloseWrite() }) }},
	{"data, FIN", func(s *seat) {
		s.farDoes(func(c *Conn) { _, _ = c.TryWrite([]byte("data")); _ = c.CloseWrite() })
	}},
	{"rescind", func(s *seat) {
		if s.far == nil {
			s.posts(&vmbus.RescindChannelOffer{Channel: 99})
			return
		}
		s.revoke()
	}},
	{"data, rescind", func(s *seat) {
		s.farDoes(func(c *Conn) { _, _ = c.TryWrite([]byte("data")) })
		s.revoke()
	}},
	{"8 s", func(s *seat) { s.passes(closeTimeout) }},
	{"the bus is unloaded", func(s *seat) { s.guest.BeginClose() }},
}

func (s *seat) farDoes(f func(*Conn)) {
	if s.far != nil {
		f(s.far)
	}
}

// TestGuestSocketTable is hvsock.md 12 as hvlab's default profile has it: what the
// guest sends, and what its application then finds. The golden file is the table;
// where it differs from the specification's, section 16 or 10 says why: message 23
// is ECONNREFUSED, and a rescind without FIN is ECONNRESET.
func TestGuestSocketTable(t *testing.T) {
	checkTable(t, "table/hvsock-guest-events.txt", "event", len(guestEvents), len(guestStates),
		func(row int) string { return guestEvents[row].name },
		func(column int) string { return guestStates[column].name },
		func(row, column int) string {
			s := &seat{stepped: newStepped(t), port: ServiceIDFromPort(steppedPort), peer: ServiceIDFromPort(1)}
			guestStates[column].sit(s)
			s.fromGuest = nil
			guestEvents[row].do(s)
			s.run()
			return s.cell()
		})
}

// checkTable holds a table against its golden file. corner is above the names of the
// rows.
func checkTable(t *testing.T, file, corner string, rows, columns int, row, column func(int) string, cell func(row, column int) string) {
	t.Helper()
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, corner)
	for c := range columns {
		fmt.Fprint(table, "\t", column(c))
	}
	fmt.Fprintln(table)
	for r := range rows {
		fmt.Fprint(table, row(r))
		for c := range columns {
			fmt.Fprint(table, "\t", cell(r, c))
		}
		fmt.Fprintln(table)
	}
	require.NoError(t, table.Flush())
	golden.Check(t, file, b.String())
}

// cell says what the guest has sent, what the application finds, and whether the
// socket is still there; then it takes the world down.
func (s *seat) cell() string {
	var says []string
	if sent := strings.Join(s.fromGuest, " "); sent != "" {
		says = append(says, shortNames.Replace(sent))
	}
	switch {
	case s.listener != nil:
		_, err := s.listener.TryAccept()
		says = append(says, "accept "+word(err))
	case s.dial != nil && s.dial.times == 0:
		says = append(says, "waits")
	case s.dial != nil:
		says = append(says, "dial "+word(s.dial.err))
		s.conn = s.dial.conn
	}
	if s.conn != nil && s.dial == nil {
		says = append(says, tried(s.conn)...)
	}
	if sockets, _ := s.inside.Usage(); sockets > 0 {
		says = append(says, "kept")
	}
	s.leave()
	if len(says) == 0 {
		return "-"
	}
	return strings.Join(says, "; ")
}

// tried says what an application finds.
func tried(c *Conn) []string {
	b := make([]byte, 8)
	n, err := c.TryRead(b)
	read := word(err)
	if n > 0 {
		_, err = c.TryRead(b[n:])
		read = string(b[:n]) + ", " + word(err)
	}
	_, err = c.TryWrite([]byte("x"))
	return []string{"read " + read, "write " + word(err)}
}

// closeAll closes the connections there are.
func closeAll(conns ...*Conn) {
	for _, c := range conns {
		if c != nil {
			_ = c.Close()
		}
	}
}

// leave closes everything, and sees that nothing is left.
func (s *seat) leave() {
	closeAll(s.conn, s.far)
	if s.dialed != nil && s.dialed.conn != nil {
		_ = s.dialed.conn.Close()
	}
	if s.cancel != nil {
		s.cancel()
	}
	if s.asked != (endpoint.SocketRequested{}) && s.count("OfferChannel") == 0 {
		s.host.RefuseSocket(s.asked)
	}
	if s.listener != nil {
		_ = s.listener.Close()
	}
	if s.forged {
		s.posts(&vmbus.RescindChannelOffer{Channel: 99})
	}
	s.run()
	s.passes(closeTimeout)
	s.run()
	s.end()
}

// shortNames keeps the columns of a table narrow.
var shortNames = strings.NewReplacer(
	"GPADLHeader OpenChannel", "opens",
	"CloseChannel GPADLTeardown RelIDReleased", "closes, releases",
	"CloseChannel GPADLTeardown", "closes",
	"RelIDReleased", "releases",
)

// word is err as a table has it.
func word(err error) string {
	var errno syscall.Errno
	switch {
	case err == nil:
		return "ok"
	case err == io.EOF:
		return "EOF"
	case errors.Is(err, net.ErrClosed):
		return "closed"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case !errors.As(err, &errno):
		return err.Error()
	}
	for name, e := range map[string]syscall.Errno{
		"waits": syscall.EAGAIN, "EPIPE": syscall.EPIPE, "ECONNRESET": syscall.ECONNRESET, "ECONNREFUSED": syscall.ECONNREFUSED,
		"ETIMEDOUT": syscall.ETIMEDOUT, "ENODEV": syscall.ENODEV, "ENOBUFS": syscall.ENOBUFS,
	} {
		if e == errno {
			return name
		}
	}
	return errno.Error()
}
