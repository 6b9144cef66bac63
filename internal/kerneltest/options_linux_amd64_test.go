package kerneltest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/hvlab/hvlab/internal/kerneltest"
	"github.com/hvlab/hvlab/sim"
	"github.com/stretchr/testify/require"
)

// TestKernelOptions: what socket options do to the rings and to connect.
func TestKernelOptions(t *testing.T) {
	w := boot(t, sim.HostOptions{})
	ctx := t.Context()
	// toHost is the size of the newest guest-to-host ring in pages, its control
	// page included; both is the size of both rings.
	toHost := func() any { return last(w.fields("OpenChannel", "downstream_page_offset")) }
	t.Run("rings of a connect", func(t *testing.T) {
		l := w.listen(5000)
		defer l.Close()
		for _, options := range []map[string]uint64{
			nil,
			{"SO_SNDBUF": 100 << 10, "SO_RCVBUF": 100 << 10},
			{"SO_VM_SOCKETS_BUFFER_MAX_SIZE": 1 << 20, "SO_VM_SOCKETS_BUFFER_SIZE": 1 << 20},
		} {
			r, err := w.agent.Do(ctx, kerneltest.Request{Op: kerneltest.OpDial, Port: 5000, Options: options})
			require.NoError(t, err)
			host := w.accept(l)
			require.Equal(t, "7", fmt.Sprint(toHost()),
				"24 KiB and a control page: the transport resets the sizes at connect, so options have no effect (hvsock.md 6)")
			require.Equal(t, 14, w.newestGPADLPages())
			_, err = w.agent.Do(ctx, kerneltest.Request{Op: kerneltest.OpClose, Handle: r.Handle})
			require.NoError(t, err)
			require.NoError(t, host.Close())
		}
	})
	t.Run("rings of an accept", func(t *testing.T) {
		require.NoError(t, w.agent.Serve(ctx, 6000, kerneltest.Echo, kerneltest.Job{}))
		_, err := kerneltest.Exchange(w.dial(ctx, 6000), kerneltest.Echo, kerneltest.Job{Bytes: 100_000, Seed: 1})
		require.NoError(t, err)
		t.Logf("to host %v pages, both %d", toHost(), w.newestGPADLPages())
		require.Equal(t, 2*52, w.newestGPADLPages(), "the listener's default of 208 KiB is inherited")
		for _, kib := range []int{8, 64, 1024} {
			for _, name := range []string{"wmem", "rmem"} {
				file := fmt.Sprintf("echo %d > /proc/sys/net/core/%s_default", kib<<10, name)
				_, status, err := w.agent.Exec(ctx, "/bin/sh", "-c", file)
				require.NoError(t, err)
				require.Zero(t, status)
			}
			port := uint32(6001 + kib)
			require.NoError(t, w.agent.Serve(ctx, port, kerneltest.Echo, kerneltest.Job{}))
			_, err := kerneltest.Exchange(w.dial(ctx, port), kerneltest.Echo, kerneltest.Job{Bytes: 100_000, Seed: 2})
			require.NoError(t, err)
			t.Logf("a listener with buffers of %d KiB: to host %v pages, both %d", kib, toHost(), w.newestGPADLPages())
		}
	})
	t.Run("connect timeout", func(t *testing.T) {
		for _, millis := range []uint64{0, 100, 700, 3000} {
			r, err := w.agent.Do(ctx, kerneltest.Request{
				Op: kerneltest.OpDial, Port: 4444,
				Options: map[string]uint64{"SO_VM_SOCKETS_CONNECT_TIMEOUT_MILLIS": millis},
			})
			require.Equal(t, "ETIMEDOUT", errno(t, err), "our refusal is ignored")
			want := float64(millis)
			if millis == 0 {
				want = 2000 // 0 restores the default (hvsock.md 8)
			}
			require.InDelta(t, want, r.Millis, 0.5*want+100, "milliseconds, on an emulated processor")
			t.Logf("a time limit of %d ms took %.0f ms", millis, r.Millis)
		}
	})
	w.contented()
	w.shutdown(ctx)
}

// newestGPADLPages is the number of pages of the newest page list.
func (w *world) newestGPADLPages() int {
	w.t.Helper()
	buf := last(w.fields("GPADLHeader", "range_buflen"))
	var bytes int
	_, err := fmt.Sscan(fmt.Sprint(buf), &bytes)
	require.NoError(w.t, err)
	return bytes/8 - 1 // the first word is the range's size and offset
}

// TestKernelTwoProcessorsSockets: with two processors, a channel is moved to the
// other one while data flows.
func TestKernelTwoProcessorsSockets(t *testing.T) {
	w := bootTo(t, setup{cpus: 2})
	ctx := t.Context()
	job := kerneltest.Job{Bytes: 2 << 20, Seed: 9}
	defer w.serve(5000, kerneltest.Echo, kerneltest.Job{})()
	_, err := w.agent.Run(ctx, 5000, kerneltest.Echo, kerneltest.Job{Bytes: 20_000, Seed: 9}, 20, 10)
	require.NoError(t, err)
	t.Logf("target VPs of the opens: %v", w.fields("OpenChannel", "target_vp"))

	// The agent's own channel moves while an exchange runs.
	moved := make(chan error, 1)
	go func() {
		_, err := w.agent.Run(ctx, 5000, kerneltest.Echo, job, 4, 2)
		moved <- err
	}()
	for _, vp := range []int{1, 0, 1} {
		before := w.count("ModifyChannelResponse")
		out, status, err := w.agent.Exec(ctx, "/bin/sh", "-c", fmt.Sprintf("echo %d > $(ls %s*/channels/1/cpu)", vp, busDevices))
		require.NoError(t, err)
		require.Zero(t, status, out)
		w.eventually("the answer", func() bool { return w.count("ModifyChannelResponse") > before })
	}
	require.Equal(t, []any{uint32(0), uint32(0), uint32(0)}, w.fields("ModifyChannelResponse", "status"))
	require.NoError(t, await(t, "the exchanges", moved))
	began := time.Now()
	_, err = w.agent.Run(ctx, 5000, kerneltest.Echo, job, 1, 1)
	require.NoError(t, err)
	t.Logf("after the moves an echo of %d bytes took %v", job.Bytes, time.Since(began).Round(time.Millisecond))
	w.contented()
	w.shutdown(ctx)
}
