package kerneltest_test

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/internal/kerneltest"
	"github.com/hvlab/hvlab/sim/kvmguest"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
)

// reset fails unless a connection ended because its guest went away.
func reset(t *testing.T, c *hvsock.Conn) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(bootTimeout)))
	_, err := c.Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.ECONNRESET, "the guest went without a FIN")
}

// echoWorks checks a new boot's sockets in both directions.
func (w *world) echoWorks() {
	w.t.Helper()
	ctx := w.t.Context()
	stop := w.serve(5005, kerneltest.Echo, kerneltest.Job{})
	_, err := w.agent.Run(ctx, 5005, kerneltest.Echo, kerneltest.Job{Bytes: 100_000, Seed: 4}, 3, 3)
	require.NoError(w.t, err)
	stop()
	require.NoError(w.t, w.agent.Serve(ctx, 6005, kerneltest.Echo, kerneltest.Job{}))
	_, err = kerneltest.Exchange(w.dial(ctx, 6005), kerneltest.Echo, kerneltest.Job{Bytes: 100_000, Seed: 5})
	require.NoError(w.t, err)
	require.NoError(w.t, w.agent.Unlisten(ctx, 6005))
}

// TestKernelReset: the machine resets without a word (reboot -f), then with an
// Unload (a panic). Each time the same host serves the next boot, and offers
// its devices anew. Whoever runs the machine tells the host of a reset before
// the next boot: the rings lie in RAM that the new kernel will use.
func TestKernelReset(t *testing.T) {
	w := attachTo(t, setup{})
	w.offer(deviceOffer(w.id), false)
	l := w.listen(controlPort)
	defer l.Close()
	for i, way := range []struct {
		name, command string
		unloads       int // so far, after this
	}{
		{"reboot -f", "reboot -f", 0},
		{"panic", "echo c > /proc/sysrq-trigger", 1},
		{"power off", "", 1},
	} {
		w.start()
		control := w.accept(l)
		w.agent = kerneltest.NewClient(control)
		require.Equal(t, i+1, w.count("InitiateContact"), "one contact a boot")
		w.eventually("the device is there again", func() bool { return w.exists(busDevices + w.id.String()) })
		w.echoWorks()
		w.eventually("only the agent and the device are left", func() bool { return w.guest.Bus().Usage().Channels == 2 })
		if way.command == "" {
			break
		}
		open := w.openConnection()
		gone, cancel := context.WithCancel(t.Context())
		answered := make(chan error, 1)
		go func() {
			_, _, err := w.agent.Exec(gone, "/bin/sh", "-c", way.command)
			answered <- err
		}()
		require.ErrorIs(t, w.wait(), kvmguest.ErrReset, way.name)
		cancel()
		require.Error(t, <-answered, "the guest is gone before it can answer")
		if way.unloads == 0 {
			w.guest.Bus().Reset()
		}
		reset(t, open)
		reset(t, control)
		require.Equal(t, way.unloads, w.count("Unload"), way.name)
		require.Equal(t, way.unloads, w.count("UnloadComplete"))
	}
	require.Zero(t, w.guest.Bus().Dropped(), "%s", w.conversation())
	w.shutdown(t.Context())
}

// openConnection is a connection that nobody closes.
func (w *world) openConnection() *hvsock.Conn {
	w.t.Helper()
	l := w.listen(5006)
	defer l.Close()
	_, err := w.agent.Dial(w.t.Context(), 5006)
	require.NoError(w.t, err)
	return w.accept(l)
}

// TestKernelUnload: the driver is removed and loaded again in one boot: Unload,
// then a new contact, and the ids start over.
func TestKernelUnload(t *testing.T) {
	const agent = "/bin/agent,control-dial:9000;"
	w := attachTo(t, setup{todo: agent +
		"$b,rmmod,hv_utils;$b,rmmod,hv_sock;$b,rmmod,hv_vmbus;" +
		"$b,insmod,/modules/hv_vmbus.ko;$b,insmod,/modules/hv_sock.ko;" + agent + "$b,dmesg|$b,grep,-i,vmbus"})
	l := w.listen(controlPort)
	defer l.Close()
	w.start()
	for range 2 {
		w.agent = kerneltest.NewClient(w.accept(l))
		w.echoWorks()
		require.NoError(t, w.agent.Quit(t.Context()))
		_ = w.agent.Close()
	}
	require.NoError(t, w.wait())
	require.Equal(t, 2, strings.Count(w.console.String(), "Vmbus version:5.3"), "the kernel connected twice:\n%s", w.console)
	require.Equal(t, 2, w.count("InitiateContact"))
	require.Equal(t, 1, w.count("Unload"))
	require.Equal(t, 1, w.count("UnloadComplete"))
	ids := w.fields("OfferChannel", "channel_id")
	require.Equal(t, vmbus.ChannelID(1), ids[0])
	require.Zero(t, w.guest.Bus().Dropped(), "%s", w.conversation())
}
