package kerneltest_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/internal/kerneltest"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/sim"
	"github.com/hvlab/hvlab/sim/kvmguest"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/synic"
	"github.com/stretchr/testify/require"
)

// dialOffer is a connection from the host to a port of the guest, for a test
// that plays the host's socket itself.
func dialOffer(port uint32) offers.Offer {
	return endpoint.SocketOffer(vmbus.GUIDFromUUID(hvsock.ServiceIDFromPort(port)), vmbus.GUIDFromUUID(uuid.New()), true, vmbus.Iron)
}

// errno is the errno of an operation that failed in the guest.
func errno(t *testing.T, err error) string {
	t.Helper()
	var remote *kerneltest.RemoteError
	require.ErrorAs(t, err, &remote)
	return remote.Errno
}

// TestKernelRescinds: the host withdraws a connection at every stage, and the
// kernel closes and releases the channel (hvsock.md 7.5).
func TestKernelRescinds(t *testing.T) {
	between := &detour{}
	w := bootTo(t, setup{port: func(p synic.Port) synic.Port {
		between.Port = p
		return between
	}})
	ctx := t.Context()
	require.NoError(t, w.agent.Listen(ctx, 6000))
	for _, test := range []struct {
		name string
		run  func(*testing.T, *world, *detour)
	}{
		{"while the guest writes", rescindWriter},
		{"while the guest reads", rescindReader},
		{"before accept", rescindBeforeAccept},
		{"with unread data", rescindUnread},
		{"the device refuses the open", refusedOpen},
		{"during open", rescindDuringOpen},
		{"during the connect of the guest", rescindConnect},
		{"during the page list", rescindGPADL},
		{"out of order", rescindOutOfOrder},
	} {
		t.Run(test.name, func(t *testing.T) {
			closes, rescinds, released := w.count("CloseChannel"), w.count("RescindChannelOffer"), w.count("RelIDReleased")
			test.run(t, w, between)
			w.eventually("the channel id comes back", func() bool { return w.count("RelIDReleased") > released })
			t.Logf("%d rescinded, %d closed", w.count("RescindChannelOffer")-rescinds, w.count("CloseChannel")-closes)
		})
	}
	require.Equal(t, 2, w.count("GPADLTeardown"), "of the two opens that failed before the kernel knew of a rescind: Linux tears no page list down on a rescinded channel (vmbus-control.md 6.2)")
	require.Equal(t, w.count("RescindChannelOffer"), w.count("RelIDReleased"), "each exactly once")
	w.contented()
	w.shutdown(ctx)
}

// rescindWriter: the application closes while the guest sends; more data makes
// our host give up and rescind.
func rescindWriter(t *testing.T, w *world, _ *detour) {
	l := w.listen(5000)
	guest, err := w.agent.Dial(t.Context(), 5000)
	require.NoError(t, err)
	host := w.accept(l)
	require.NoError(t, l.Close())
	type result struct {
		n   int64
		err error
	}
	wrote := make(chan result, 1)
	go func() {
		n, err := guest.Write(context.WithoutCancel(t.Context()), kerneltest.Job{Bytes: 64 << 20})
		wrote <- result{n, err}
	}()
	_, err = host.Read(make([]byte, 1<<20))
	require.NoError(t, err)
	require.NoError(t, host.Close())
	r := await(t, "the end of the write", wrote)
	require.Equal(t, "EPIPE", errno(t, r.err), "writes after a rescind fail, and no ECONNRESET exists (hvsock.md 7.5)")
	t.Logf("EPIPE after %d bytes", r.n)
	n, eof, err := guest.Read(t.Context(), kerneltest.Job{Bytes: 1}, 10*time.Second)
	require.NoError(t, err)
	require.True(t, eof && n == 0, "a rescind looks like an orderly end of the stream")
	require.NoError(t, guest.Close(t.Context()))
}

// rescindReader: no FIN, only a rescind, while the guest waits for data.
func rescindReader(t *testing.T, w *world, _ *detour) {
	d := w.offer(dialOffer(6000), false)
	c := await(t, "the open", d.opened)
	guest, err := w.agent.Accept(t.Context(), 6000, 10*time.Second)
	require.NoError(t, err)
	data := make([]byte, 3000)
	_, _ = kerneltest.NewPattern(5).Read(data)
	write(t, c, data)
	n, _, err := guest.Read(t.Context(), kerneltest.Job{Bytes: 3000, Seed: 5}, 10*time.Second)
	require.NoError(t, err)
	require.Equal(t, int64(3000), n)
	read := make(chan error, 1)
	go func() {
		_, eof, err := guest.Read(context.WithoutCancel(t.Context()), kerneltest.Job{Bytes: 1}, time.Minute)
		if err == nil && !eof {
			err = errRefused
		}
		read <- err
	}()
	d.offered.Revoke()
	require.NoError(t, await(t, "the end of the read", read), "the read ends with 0")
	_, err = guest.Write(t.Context(), kerneltest.Job{Bytes: 1})
	require.Equal(t, "EPIPE", errno(t, err))
	require.NoError(t, guest.Close(t.Context()))
	require.NoError(t, await(t, "the release", d.gone))
}

// rescindBeforeAccept: the connection is over before the program accepts it;
// accept returns it all the same (hvsock.md 7.5).
func rescindBeforeAccept(t *testing.T, w *world, _ *detour) {
	o := dialOffer(6000)
	d := w.offer(o, false)
	await(t, "the open", d.opened)
	// A rescind that overtakes the kernel's look at our OpenResult fails the open.
	w.eventually("the kernel has opened", func() bool {
		state, _ := w.cat(busDevices + o.Instance.String() + "/state")
		return state == "3"
	})
	d.offered.Revoke()
	guest, err := w.agent.Accept(t.Context(), 6000, 10*time.Second)
	require.NoError(t, err)
	n, eof, err := guest.Read(t.Context(), kerneltest.Job{Bytes: 1}, 10*time.Second)
	require.NoError(t, err)
	require.True(t, eof && n == 0, "nothing was sent")
	require.NoError(t, guest.Close(t.Context()))
	require.NoError(t, await(t, "the release", d.gone))
}

// rescindUnread: what was in the ring when the rescind came can still be read.
func rescindUnread(t *testing.T, w *world, _ *detour) {
	d := w.offer(dialOffer(6000), false)
	c := await(t, "the open", d.opened)
	data := make([]byte, 2000)
	_, _ = kerneltest.NewPattern(6).Read(data)
	write(t, c, data)
	guest, err := w.agent.Accept(t.Context(), 6000, 10*time.Second)
	require.NoError(t, err)
	before := w.count("RescindChannelOffer")
	d.offered.Revoke()
	w.eventually("the rescind is out", func() bool { return w.count("RescindChannelOffer") > before })
	n, eof, err := guest.Read(t.Context(), kerneltest.Job{Bytes: 3000, Seed: 6}, 10*time.Second)
	require.NoError(t, err)
	require.Equal(t, int64(2000), n, "reads deliver the rest, then 0")
	require.True(t, eof)
	require.NoError(t, guest.Close(t.Context()))
	require.NoError(t, await(t, "the release", d.gone))
}

// refusedOpen: OpenResult carries a failure; the program in the guest never
// hears of the connection.
func refusedOpen(t *testing.T, w *world, _ *detour) {
	d := w.offer(dialOffer(6000), true)
	w.eventually("the refusal", func() bool {
		status := w.fields("OpenResult", "status")
		return last(status) == uint32(vmbus.StatusFailure)
	})
	_, err := w.agent.Accept(t.Context(), 6000, 500*time.Millisecond)
	require.Equal(t, "ETIMEDOUT", errno(t, err), "there is nothing to accept")
	d.offered.Revoke()
	require.NoError(t, await(t, "the release", d.gone))
}

// rescindDuringOpen: the rescind overtakes the guest's OpenChannel, which the
// host must then ignore (vmbus-control.md 6.4).
func rescindDuringOpen(t *testing.T, w *world, between *detour) {
	results := w.count("OpenResult")
	between.keep(vmbus.TypeOpenChannel)
	d := w.offer(dialOffer(6000), false)
	w.eventually("the guest asks to open", func() bool { return between.waiting() > 0 })
	d.offered.Revoke()
	// Linux releases the id when the rescind has woken the opener; the old
	// OpenChannel may arrive before or after that.
	between.deliver()
	require.NoError(t, await(t, "the release", d.gone))
	_, err := w.agent.Accept(t.Context(), 6000, 500*time.Millisecond)
	require.Equal(t, "ETIMEDOUT", errno(t, err), "there is nothing to accept")
	require.Equal(t, results, w.count("OpenResult"), "an open of a rescinded channel gets no answer")
}

// TestKernelRescindAnswered: a host that answers the overtaken open does the kernel
// no harm; one that does not may leave a Linux 6.1 asleep (endpoint.Dialect).
func TestKernelRescindAnswered(t *testing.T) {
	between := &detour{}
	w := bootTo(t, setup{
		host: sim.HostOptions{Dialect: kvmguest.Dialect(endpoint.Dialect{})},
		port: func(p synic.Port) synic.Port {
			between.Port = p
			return between
		},
	})
	ctx := t.Context()
	require.NoError(t, w.agent.Listen(ctx, 6000))
	for range 3 {
		results := w.count("OpenResult")
		between.keep(vmbus.TypeOpenChannel)
		d := w.offer(dialOffer(6000), false)
		w.eventually("the guest asks to open", func() bool { return between.waiting() > 0 })
		d.offered.Revoke()
		between.deliver()
		require.NoError(t, await(t, "the release", d.gone))
		if w.count("OpenResult") > results { // else the release was quicker: the id was nobody's
			require.Equal(t, uint32(vmbus.StatusFailure), last(w.fields("OpenResult", "status")))
		}
	}
	w.contented()
	w.shutdown(ctx)
}

// rescindConnect: our host hears no OpenChannel after a connect of the guest
// and gives up, which is what ends the connect.
func rescindConnect(t *testing.T, w *world, between *detour) {
	l := w.listen(5000)
	before := w.count("RescindChannelOffer")
	between.keep(vmbus.TypeOpenChannel)
	began := time.Now()
	_, err := w.agent.Dial(t.Context(), 5000)
	require.Equal(t, "ETIMEDOUT", errno(t, err), "the rescind ends the open, and by then the 2 s of connect are over")
	// connect() cannot return at its own time limit: the thread that opens the
	// channel holds the socket's lock while it waits for the host.
	require.Greater(t, time.Since(began), 4*time.Second, "our host waits 5 s for the guest to open (hvsock.md 8)")
	t.Logf("connect returned after %v", time.Since(began).Round(10*time.Millisecond))
	w.eventually("the rescind is in the trace", func() bool { return w.count("RescindChannelOffer") > before })
	between.deliver()
	require.NoError(t, l.Close())
}

// rescindGPADL: the rescind comes while the kernel waits for GPADLCreated.
func rescindGPADL(t *testing.T, w *world, between *detour) {
	between.keep(vmbus.TypeGPADLHeader)
	d := w.offer(dialOffer(6000), false)
	w.eventually("the guest shares its pages", func() bool { return between.waiting() > 0 })
	d.offered.Revoke()
	between.deliver()
	require.NoError(t, await(t, "the release", d.gone))
}

// rescindOutOfOrder: two offers come, the kernel opens the first, and the host
// withdraws both, the second one first. The kernel probes offers one after
// another and handles rescinds one after another; the rescind of the second
// waits for its probe, that waits for the open of the first, and that for the
// rescind of the first, which is behind the second's. A host that never answers
// the OpenChannel, as a rescinded channel allows, blocks the bus for good; a
// late answer frees it.
func rescindOutOfOrder(t *testing.T, w *world, between *detour) {
	offered, rescinded := w.count("OfferChannel"), w.count("RescindChannelOffer")
	between.keep(vmbus.TypeOpenChannel)
	first := w.offer(dialOffer(6000), false)
	w.eventually("the guest asks to open the first", func() bool { return between.waiting() > 0 })
	id := last(w.fields("OfferChannel", "channel_id")).(vmbus.ChannelID)
	second := w.offer(dialOffer(6000), false)
	w.eventually("the second is offered", func() bool { return w.count("OfferChannel") == offered+2 })
	second.offered.Revoke()
	w.eventually("the second is rescinded", func() bool { return w.count("RescindChannelOffer") == rescinded+1 })
	first.offered.Revoke()
	w.eventually("both are rescinded", func() bool { return w.count("RescindChannelOffer") == rescinded+2 })
	w.eventually("the kernel waits for itself", func() bool {
		stacks, _, err := w.agent.Exec(t.Context(), "/bin/sh", "-c", "cat /proc/[0-9]*/stack")
		require.NoError(t, err)
		return strings.Contains(stacks, "vmbus_onoffer_rescind") && strings.Contains(stacks, "__vmbus_open")
	})
	between.deliver()
	answer := vmbus.Append(nil, &vmbus.OpenResult{Channel: id, OpenID: uint32(id), Status: vmbus.StatusFailure})
	w.eventually("the late answer is delivered", func() bool {
		return between.Post(synic.Target{SINT: synic.MessageSINT}, answer) == nil
	})
	require.NoError(t, await(t, "the release of the first", first.gone))
	require.NoError(t, await(t, "the release of the second", second.gone))
}
