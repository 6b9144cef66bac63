package kerneltest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hvlab/hvlab/internal/kerneltest"
	"github.com/hvlab/hvlab/sim"
	"github.com/hvlab/hvlab/sim/services"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
)

// TestKernelSockets is a real kernel's hv_sock against our host, in one boot.
func TestKernelSockets(t *testing.T) {
	w := boot(t, sim.HostOptions{})
	ctx := t.Context()
	t.Run("version", func(t *testing.T) {
		log, err := w.agent.Log(ctx, "Vmbus version")
		require.NoError(t, err)
		require.Contains(t, log, "Vmbus version:5.3", "6.1 and 6.12 know no newer one")
		require.Equal(t, vmbus.Iron, w.guest.Bus().Negotiated().Version)
	})
	t.Run("guest dials host", func(t *testing.T) {
		for _, service := range []kerneltest.Service{kerneltest.Echo, kerneltest.Sum, kerneltest.Source, kerneltest.Discard} {
			job := kerneltest.Job{Bytes: 300_000, Seed: 7}
			stop := w.serve(5000, service, job)
			took, err := w.agent.Run(ctx, 5000, service, job, 1, 1)
			require.NoError(t, err, service)
			t.Logf("%s of %d bytes took %v in the guest", service, job.Bytes, took)
			stop()
		}
	})
	t.Run("host dials guest", func(t *testing.T) {
		for _, service := range []kerneltest.Service{kerneltest.Echo, kerneltest.Sum, kerneltest.Source, kerneltest.Discard} {
			job := kerneltest.Job{Bytes: 300_000, Seed: 8}
			require.NoError(t, w.agent.Serve(ctx, 6000, service, job))
			r, err := kerneltest.Exchange(w.dial(ctx, 6000), service, job)
			require.NoError(t, err, service)
			t.Logf("%s: %d bytes out, %d in, %v", service, r.Sent, r.Received, r.Took)
			require.NoError(t, w.agent.Unlisten(ctx, 6000))
		}
	})
	t.Run("nobody listens on the host", func(t *testing.T) {
		before := time.Now()
		_, err := w.agent.Dial(ctx, 4444)
		var remote *kerneltest.RemoteError
		require.True(t, errors.As(err, &remote), "%v", err)
		require.Equal(t, "ETIMEDOUT", remote.Errno, "Linux has no handler for TLConnectResult (vmbus-control.md 3.14)")
		require.Equal(t, 1, w.count("TLConnectResult"), "we did say that nobody listens")
		t.Logf("the kernel waited %v", time.Since(before).Round(10*time.Millisecond))
	})
	t.Run("nobody listens in the guest", func(t *testing.T) {
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := w.host.Dial(short, addrOf(w, 4444))
		require.Error(t, err, "a guest has no way to refuse")
	})
	t.Run("ring sizes", func(t *testing.T) {
		t.Logf("downstream_page_offset of each open: %v", w.fields("OpenChannel", "downstream_page_offset"))
	})
	t.Run("sequence", func(t *testing.T) {
		defer w.serve(5001, kerneltest.Echo, kerneltest.Job{})()
		took, err := w.agent.Run(ctx, 5001, kerneltest.Echo, kerneltest.Job{Bytes: 100, Seed: 1}, 100, 1)
		require.NoError(t, err)
		t.Logf("100 connections one after another took %v", took)
	})
	t.Run("parallel", func(t *testing.T) {
		defer w.serve(5002, kerneltest.Echo, kerneltest.Job{})()
		took, err := w.agent.Run(ctx, 5002, kerneltest.Echo, kerneltest.Job{Bytes: 5000, Seed: 2}, 50, 50)
		require.NoError(t, err)
		t.Logf("50 connections at once took %v", took)
	})
	t.Run("nothing left", func(t *testing.T) { w.contentAndEmpty(ctx, t) })
	w.shutdown(ctx)
}

// contentAndEmpty: every channel but the agent's was released, the kernel has
// no complaint, and none of its messages was dropped.
func (w *world) contentAndEmpty(ctx context.Context, t *testing.T) {
	w.eventually("the kernel releases every channel but the agent's", func() bool {
		return w.guest.Bus().Usage().Channels == 1
	})
	log, err := w.agent.Log(ctx, "")
	require.NoError(t, err)
	// Before the bus is found an emulated processor may earn a warning of its own.
	_, log, found := strings.Cut(log, "Vmbus version")
	require.True(t, found)
	for _, word := range []string{"WARNING", "BUG:", "Oops", "hung task"} {
		require.NotContains(t, log, word, "the kernel is content")
	}
	require.Zero(t, w.guest.Bus().Dropped(), "no message of a real kernel is dropped:\n%s", w.conversation())
}

// TestKernelHalfClose: each direction ends by itself, both ways round.
func TestKernelHalfClose(t *testing.T) {
	w := boot(t, sim.HostOptions{})
	ctx := t.Context()
	job := kerneltest.Job{Bytes: 100_000, Seed: 3}

	l := w.listen(5000)
	guest, err := w.agent.Dial(ctx, 5000)
	require.NoError(t, err)
	host := w.accept(l)
	require.NoError(t, l.Close())

	// The host ends first: the guest reads to EOF and goes on writing.
	var writing sync.WaitGroup
	writing.Go(func() {
		_, err := kerneltest.Send(host, job)
		require.NoError(t, errors.Join(err, host.CloseWrite()))
	})
	n, eof, err := guest.Read(ctx, kerneltest.Job{Bytes: job.Bytes + 1, Seed: 3}, 30*time.Second)
	require.NoError(t, err)
	require.True(t, eof)
	require.Equal(t, job.Bytes, n)
	writing.Wait()
	go func() {
		_, err := guest.Write(ctx, kerneltest.Job{Bytes: 50_000, Seed: 4})
		if err = errors.Join(err, guest.Shutdown(ctx, "write")); err != nil {
			t.Error(err)
		}
	}()
	got, err := readAll(host)
	require.NoError(t, err)
	require.Len(t, got, 50_000, "a half-closed connection still carries the other direction")
	require.NoError(t, kerneltest.NewPattern(4).Check(got))
	require.NoError(t, host.Close())
	require.NoError(t, guest.Close(ctx))

	// The guest closes with data of ours unread: nothing hangs, the id returns.
	l = w.listen(5000)
	guest, err = w.agent.Dial(ctx, 5000)
	require.NoError(t, err)
	host = w.accept(l)
	require.NoError(t, l.Close())
	_, err = kerneltest.Send(host, kerneltest.Job{Bytes: 1000})
	require.NoError(t, err)
	require.NoError(t, guest.Close(ctx))
	got, err = readAll(host)
	require.NoError(t, err, "Linux always sends a FIN (hvsock.md 7.4)")
	require.Empty(t, got)
	require.NoError(t, host.Close())
	w.eventually("every channel but the agent's is released", func() bool { return w.guest.Bus().Usage().Channels == 1 })
	w.shutdown(ctx)
}

// TestKernelVersions caps the host: the kernel walks down to each version, and
// hv_sock works wherever it exists.
func TestKernelVersionsOfTheHost(t *testing.T) {
	for _, v := range []vmbus.Version{vmbus.Win10RS5, vmbus.Win10RS4, vmbus.Win10V5, vmbus.Win10RS3, vmbus.Win10} {
		t.Run(v.String(), func(t *testing.T) {
			w := boot(t, sim.HostOptions{MaxVersion: v})
			log, err := w.agent.Log(t.Context(), "Vmbus version")
			require.NoError(t, err)
			require.Contains(t, log, fmt.Sprintf("Vmbus version:%v", v))
			w.shutdown(t.Context())
		})
	}
	for _, v := range []vmbus.Version{vmbus.Win81, vmbus.Win8} {
		t.Run(v.String(), func(t *testing.T) {
			w := attach(t, sim.HostOptions{MaxVersion: v})
			w.start()
			require.NoError(t, w.wait(), "without sockets the agent fails and /init powers off")
			require.Contains(t, w.conversation(), "RequestOffers")
			require.Equal(t, []any{uint32(v)}, w.fields("VersionResponse", "selected_version_or_connection_id")[w.count("VersionResponse")-1:])
		})
	}
}

// TestKernelServices: hv_utils of the real kernel talks to our integration
// services, and powers the guest off when asked to.
func TestKernelServices(t *testing.T) {
	w := attach(t, sim.HostOptions{})
	heartbeat, shutdown, timesync := services.NewHeartbeat(), services.NewShutdown(), services.NewTimeSync()
	ready := []<-chan struct{}{heartbeat.Ready(), shutdown.Ready(), timesync.Ready()}
	for _, s := range []*services.Service{heartbeat.Service, shutdown.Service, timesync.Service} {
		s.Attach(w.guest.Bus())
	}
	l := w.listen(controlPort)
	w.start()
	w.agent = kerneltest.NewClient(w.accept(l))
	ctx, cancel := context.WithTimeout(t.Context(), bootTimeout)
	defer cancel()
	for _, r := range ready {
		select {
		case <-r:
		case <-ctx.Done():
			t.Fatal("hv_utils did not negotiate with every service")
		}
	}
	t.Logf("versions: heartbeat %v, shutdown %v, timesync %v", heartbeat.Version(), shutdown.Version(), timesync.Version())
	for range 3 {
		n, err := heartbeat.Beat(ctx)
		require.NoError(t, err)
		t.Logf("heartbeat %d", n)
	}
	require.NoError(t, timesync.Set(ctx, time.Now().Add(time.Hour), 0), "the guest takes the time")
	require.NoError(t, shutdown.PowerOff(ctx))
	_ = w.agent.Close()
	t.Logf("the guest ended: %v", w.wait())
}
