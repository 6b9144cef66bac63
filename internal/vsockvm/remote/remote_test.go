package remote

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/hvsock/hvsocktest"
	"github.com/hvlab/hvlab/sim"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The suite sees no difference between sockets and sockets on the other side of
// a connection, whichever of the two is lent.
func TestLentSocketsConform(t *testing.T) {
	host, err := sim.NewHost(sim.HostOptions{})
	require.NoError(t, err)
	guest, err := host.NewGuest(sim.GuestOptions{})
	require.NoError(t, err)
	here, there := net.Pipe()
	served := make(chan error)
	go func() {
		served <- Serve(there, Sockets{
			Listen: func(a hvsock.Addr) (net.Listener, error) { return guest.Listen(a) },
			Dial:   func(ctx context.Context, a hvsock.Addr) (net.Conn, error) { return guest.Dial(ctx, a) },
		})
	}()
	client := NewClient(here)
	var port atomic.Uint32
	services := func(bind, dial uuid.UUID) func() (b, d hvsock.Addr) {
		return func() (b, d hvsock.Addr) {
			id := hvsock.ServiceIDFromPort(5000 + port.Add(1))
			return hvsock.Addr{VMID: bind, ServiceID: id}, hvsock.Addr{VMID: dial, ServiceID: id}
		}
	}
	t.Run("dials", func(t *testing.T) {
		hvsocktest.Run(t, hvsocktest.Over("lent guest to host", host.Listen, client.Dial, services(hvsock.Wildcard, hvsock.Parent)))
	})
	t.Run("listens", func(t *testing.T) {
		tr := hvsocktest.Over("host to lent guest", client.Listen, host.Dial, services(hvsock.Wildcard, guest.ID()))
		tr.NeverRefuses = true
		hvsocktest.Run(t, tr)
	})
	require.NoError(t, client.Close())
	require.NoError(t, <-served)
	require.NoError(t, host.Close())
}

func TestErrorsTravel(t *testing.T) {
	source, addr := hvsock.Addr{VMID: hvsock.Wildcard}, hvsock.Addr{VMID: hvsock.Parent}
	wrap := func(err error) error {
		return &net.OpError{Op: "read", Net: "hvsock", Source: source, Addr: addr, Err: err}
	}
	for _, err := range []error{
		nil,
		io.EOF,
		wrap(net.ErrClosed),
		wrap(os.ErrDeadlineExceeded),
		wrap(context.Canceled),
		wrap(os.NewSyscallError("read", syscall.ECONNRESET)),
		wrap(syscall.EPIPE),
		wrap(errors.New("something else")),
		context.Canceled,
	} {
		var b bytes.Buffer
		require.NoError(t, gob.NewEncoder(&b).Encode(newFault(err)))
		var f fault
		require.NoError(t, gob.NewDecoder(&b).Decode(&f))
		require.Equal(t, err, f.err(source, addr))
	}
}

// A server that ends, or was never one, is an error and not a hang.
func TestServerGone(t *testing.T) {
	here, there := net.Pipe()
	client := NewClient(here)
	go func() {
		_, _ = there.Read(make([]byte, 1))
		_ = there.Close()
	}()
	_, err := client.Dial(context.Background(), hvsock.Addr{})
	require.ErrorIs(t, err, ErrGone)
	_, err = client.Listen(hvsock.Addr{})
	require.ErrorIs(t, err, ErrGone)
	_, err = (&Listener{client: client}).Accept()
	require.ErrorIs(t, err, ErrGone)
	require.ErrorIs(t, (&Conn{client: client}).Close(), ErrGone)
	require.ErrorIs(t, (&Listener{client: client}).Close(), ErrGone)
	require.NoError(t, client.Close())
}

// Nonsense from a client does no harm.
func TestBadRequests(t *testing.T) {
	s := &server{open: map[uint64]io.Closer{}}
	listener := s.keep(struct{ net.Listener }{})
	for _, r := range []request{
		{Op: 99},
		{Op: opRead, Handle: 77},
		{Op: opRead, Handle: listener},
		{Op: opAccept, Handle: 77},
		{Op: opClose, Handle: 77},
		{Op: opDeadline, Handle: 77, Read: true, Write: true},
		{Op: opDeadline, Handle: 77, Read: true},
	} {
		_, err := s.obey(r)
		require.ErrorContains(t, err, "remote: ")
	}
	require.Error(t, Serve(bytes.NewBufferString("no gob at all"), Sockets{}))
}

func TestLimits(t *testing.T) {
	require.True(t, newLimit(time.Time{}).time().IsZero(), "no deadline stays none")
	require.WithinDuration(t, time.Now().Add(-time.Hour), newLimit(time.Now().Add(-time.Hour)).time(), time.Minute, "the past stays past")
	ctx, cancel := limit{Cancelled: true}.context()
	defer cancel()
	require.ErrorIs(t, ctx.Err(), context.Canceled)
	ctx, cancel = newLimit(time.Now().Add(-time.Hour)).context()
	defer cancel()
	require.ErrorIs(t, ctx.Err(), context.DeadlineExceeded)
}
