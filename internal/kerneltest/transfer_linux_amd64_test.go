package kerneltest_test

import (
	"context"
	"testing"
	"time"

	"github.com/hvlab/hvlab/internal/kerneltest"
	"github.com/hvlab/hvlab/sim"
	"github.com/stretchr/testify/require"
)

// rate is in MB/s, for the log.
func rate(bytes int64, took time.Duration) float64 { return float64(bytes) / 1e6 / took.Seconds() }

// TestKernelTransfers: much data each way with checksums at both ends, and many
// connections, with no channel id left behind.
func TestKernelTransfers(t *testing.T) {
	w := boot(t, sim.HostOptions{})
	ctx := t.Context()
	big := kerneltest.Job{Bytes: 64 << 20, Seed: 11}
	t.Run("64 MiB to the host", func(t *testing.T) {
		defer w.serve(5000, kerneltest.Sum, kerneltest.Job{})()
		took, err := w.agent.Run(ctx, 5000, kerneltest.Sum, big, 1, 1)
		require.NoError(t, err, "the host's SHA-256 is the guest's")
		t.Logf("%v in the guest, %.1f MB/s", took.Round(time.Millisecond), rate(big.Bytes, took))
	})
	t.Run("64 MiB to the guest", func(t *testing.T) {
		require.NoError(t, w.agent.Serve(ctx, 6000, kerneltest.Sum, kerneltest.Job{}))
		r, err := kerneltest.Exchange(w.dial(ctx, 6000), kerneltest.Sum, big)
		require.NoError(t, err, "the guest's SHA-256 is the host's")
		t.Logf("%v, %.1f MB/s", r.Took.Round(time.Millisecond), rate(big.Bytes, r.Took))
		require.NoError(t, w.agent.Unlisten(ctx, 6000))
	})
	t.Run("500 one after another", func(t *testing.T) {
		defer w.serve(5001, kerneltest.Echo, kerneltest.Job{})()
		const count = 500
		took, err := w.agent.Run(ctx, 5001, kerneltest.Echo, kerneltest.Job{Bytes: 100, Seed: 1}, count, 1)
		require.NoError(t, err)
		t.Logf("%v, %v a connection", took.Round(time.Millisecond), (took / count).Round(10*time.Microsecond))
	})
	t.Run("100 at once", func(t *testing.T) {
		defer w.serve(5002, kerneltest.Echo, kerneltest.Job{})()
		r, err := w.agent.Do(ctx, kerneltest.Request{
			Op: kerneltest.OpRun, Port: 5002, Service: kerneltest.Echo, Bytes: 5000, Seed: 2, Count: 100, Parallel: 100,
			// One emulated processor may take longer than the usual 2 s.
			Options: map[string]uint64{"SO_VM_SOCKETS_CONNECT_TIMEOUT_MILLIS": 60_000},
		})
		require.NoError(t, err)
		t.Logf("%.0f ms", r.Millis)
	})
	t.Run("100 at once from the host", func(t *testing.T) {
		require.NoError(t, w.agent.Serve(ctx, 6001, kerneltest.Echo, kerneltest.Job{}))
		ctx, cancel := context.WithTimeout(ctx, bootTimeout)
		defer cancel()
		began := time.Now()
		results := make(chan error, 100)
		for i := range cap(results) {
			go func() {
				c, err := w.host.Dial(ctx, addrOf(w, 6001))
				if err == nil {
					_, err = kerneltest.Exchange(c, kerneltest.Echo, kerneltest.Job{Bytes: 5000, Seed: uint64(i)})
				}
				results <- err
			}()
		}
		for range cap(results) {
			require.NoError(t, <-results)
		}
		t.Logf("%v", time.Since(began).Round(time.Millisecond))
		require.NoError(t, w.agent.Unlisten(ctx, 6001))
	})
	w.logPhases(t)
	w.contented()
	w.shutdown(ctx)
}

// logPhases shows where the time of a connection goes: the mean delay of each
// message after the one before it on its channel.
func (w *world) logPhases(t *testing.T) {
	type mean struct {
		sum time.Duration
		n   int
	}
	means := map[string]*mean{}
	before := map[any]time.Time{}
	name := map[any]string{}
	for _, e := range w.trace.Events() {
		for _, f := range e.Fields {
			if f.Name != "channel_id" {
				continue
			}
			if at, ok := before[f.Value]; ok {
				key := name[f.Value] + " -> " + e.Name
				if means[key] == nil {
					means[key] = &mean{}
				}
				means[key].sum += e.At.Sub(at)
				means[key].n++
			}
			before[f.Value], name[f.Value] = e.At, e.Name
		}
	}
	for key, m := range means {
		t.Logf("%6d times %8v  %s", m.n, (m.sum / time.Duration(m.n)).Round(10*time.Microsecond), key)
	}
}
