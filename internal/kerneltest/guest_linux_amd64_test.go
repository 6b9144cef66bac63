package kerneltest_test

import (
	"context"
	"testing"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/internal/kerneltest"
	"github.com/hvlab/hvlab/sim"
	"github.com/hvlab/hvlab/sim/kvmguest"
	"github.com/stretchr/testify/require"
)

// TestKernelGuest uses a real kernel as any guest: through Listen and Dial alone.
func TestKernelGuest(t *testing.T) {
	kernel, initrd := kerneltest.Kernel(t, kvmguest.Probe)
	host, err := sim.NewHost(sim.HostOptions{})
	require.NoError(t, err)
	defer host.Close()
	out := &kerneltest.Console{}
	guest, err := kvmguest.Attach(host, "linux", kvmguest.Options{
		Kernel: kernel, Initrd: initrd, MemoryBytes: 192 << 20, Console: out,
		Append: kvmguest.DefaultAppend + " nokaslr mitigations=off hvlab.agent=control-dial:9000",
	})
	require.NoError(t, err)
	defer func() { require.NoError(t, guest.Close()) }()
	l, err := guest.Listen(hvsock.Addr{ServiceID: hvsock.ServiceIDFromPort(controlPort)})
	require.NoError(t, err)
	defer l.Close()
	ended := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), bootTimeout)
	defer cancel()
	go func() { ended <- guest.Run(ctx) }()

	c, err := l.AcceptHVSock()
	require.NoError(t, err, "console:\n%s", out)
	agent := kerneltest.NewClient(c)
	require.NoError(t, agent.Serve(ctx, 6000, kerneltest.Echo, kerneltest.Job{}))
	d, err := guest.Dial(ctx, hvsock.Addr{ServiceID: hvsock.ServiceIDFromPort(6000)})
	require.NoError(t, err)
	_, err = kerneltest.Exchange(d, kerneltest.Echo, kerneltest.Job{Bytes: 10_000, Seed: 1})
	require.NoError(t, err)
	require.NoError(t, agent.Quit(ctx))
	_ = agent.Close() // the agent may have closed first
	require.NoError(t, <-ended, "the guest powers off by itself")
}
