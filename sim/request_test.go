package sim

import (
	"context"
	"io"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/stretchr/testify/require"
)

// A dial that no listener serves goes to the handler, which may take its time.
func TestRequestAccepted(t *testing.T) {
	host, guest := newPair(t, HostOptions{}, GuestOptions{})
	asked := make(chan *hvsock.Request, 1)
	stop, err := host.HandleRequests(guest.ID(), func(r *hvsock.Request) { asked <- r })
	require.NoError(t, err)
	defer stop()

	answered := make(chan *hvsock.Conn, 1)
	go func() {
		r := <-asked
		c, err := r.Accept(t.Context())
		if err != nil {
			t.Error(err)
		}
		r.Refuse() // too late: it must not disturb the connection
		_, err = r.Accept(t.Context())
		if err == nil {
			t.Error("a request was accepted twice")
		}
		answered <- c
	}()
	near, err := guest.Dial(t.Context(), port(hvsock.Parent, 5000))
	require.NoError(t, err)
	far := <-answered
	require.Equal(t, port(hvsock.Parent, 5000), far.LocalAddr(), "the handler learns which service was dialled")
	require.Equal(t, hvsock.Addr{VMID: guest.ID(), ServiceID: near.LocalAddr().(hvsock.Addr).ServiceID}, far.RemoteAddr())
	_, err = near.Write([]byte("hello"))
	require.NoError(t, err)
	require.NoError(t, near.Close())
	got, err := io.ReadAll(far)
	require.NoError(t, err)
	require.Equal(t, "hello", string(got))
	require.NoError(t, far.Close())
}

// A listener comes before the handler, and after stop nobody serves.
func TestRequestOnlyWhereNobodyListens(t *testing.T) {
	host, guest := newPair(t, HostOptions{}, GuestOptions{})
	calls := make(chan hvsock.Addr, 3)
	stop, err := host.HandleRequests(hvsock.Wildcard, func(r *hvsock.Request) {
		calls <- r.RemoteAddr()
		r.Refuse()
	})
	require.NoError(t, err)
	_, err = host.HandleRequests(hvsock.Wildcard, func(*hvsock.Request) {})
	require.ErrorIs(t, err, syscall.EADDRINUSE)

	l, err := host.Listen(port(hvsock.Wildcard, 5000))
	require.NoError(t, err)
	defer l.Close()
	c, err := guest.Dial(t.Context(), port(hvsock.Parent, 5000))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.Empty(t, calls, "a listener serves this one")

	_, err = guest.Dial(t.Context(), port(hvsock.Parent, 5001))
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.Equal(t, guest.ID(), (<-calls).VMID)

	own, err := host.HandleRequests(guest.ID(), func(r *hvsock.Request) { calls <- hvsock.Addr{}; r.Refuse() })
	require.NoError(t, err)
	_, err = guest.Dial(t.Context(), port(hvsock.Parent, 5001))
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.Equal(t, uuid.Nil, (<-calls).VMID, "the guest's own handler wins over the wildcard's")
	own()
	stop()
	_, err = guest.Dial(t.Context(), port(hvsock.Parent, 5001))
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.Empty(t, calls, "nobody handles requests any more")
}

// A handler that is late, cancelled or left by the guest gets an error and
// leaves nothing behind.
func TestRequestThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, guest := newPair(t, HostOptions{}, GuestOptions{})
		asked := make(chan *hvsock.Request, 1)
		stop, err := host.HandleRequests(guest.ID(), func(r *hvsock.Request) { asked <- r })
		require.NoError(t, err)
		defer stop()

		_, err = guest.Dial(t.Context(), port(hvsock.Parent, 5000))
		require.ErrorIs(t, err, syscall.ETIMEDOUT, "nobody answers for 2 s")
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err = (<-asked).Accept(ctx)
		require.Error(t, err, "the guest does not open the late offer, or gives it back at once")

		dialled := make(chan error)
		go func() {
			_, err := guest.Dial(t.Context(), port(hvsock.Parent, 5000))
			dialled <- err
		}()
		done, cancel := context.WithDeadline(t.Context(), time.Now())
		defer cancel()
		_, err = (<-asked).Accept(done)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.ErrorIs(t, <-dialled, syscall.ECONNREFUSED, "the guest hears at once that nothing comes of it")

		go func() { _, _ = guest.Dial(t.Context(), port(hvsock.Parent, 5000)) }()
		r := <-asked
		require.NoError(t, guest.Close())
		_, err = r.Accept(t.Context())
		require.Error(t, err, "the guest is gone")
		synctest.Wait()
		require.Zero(t, host.Usage().Connections)
	})
}
