package kerneltest_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/offers"
	"github.com/hvlab/hvlab/sim"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/synic"
	"github.com/stretchr/testify/require"
)

// errRefused is what a device that refuses an open says.
var errRefused = errors.New("this device refuses every open")

// A device is the host's half of one offer that a test plays by hand.
type device struct {
	offered *live.Offered
	refuse  bool
	opened  chan *live.HostChannel // room for one
	closed  chan struct{}
	gone    chan error // room for one
}

// offer publishes an offer that a test plays by hand.
func (w *world) offer(o offers.Offer, refuse bool) *device {
	d := &device{refuse: refuse, opened: make(chan *live.HostChannel, 1), closed: make(chan struct{}), gone: make(chan error, 1)}
	d.offered = w.guest.Bus().Prepare(d)
	d.offered.Publish(o)
	return d
}

// Open is part of live.Device.
func (d *device) Open(c *live.HostChannel) error {
	if d.refuse {
		return errRefused
	}
	d.opened <- c
	return nil
}

// Doorbell is part of live.Device; a test looks at the rings when it likes.
func (d *device) Doorbell() {}

// Close is part of live.Device.
func (d *device) Close() { close(d.closed) }

// Gone is part of live.Device.
func (d *device) Gone(err error) { d.gone <- err }

// await waits for what the guest does on its own.
func await[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(bootTimeout):
		t.Fatal("the guest never came to this: " + what)
	}
	return v
}

// write puts b into the ring of an open channel as one pipe packet and signals.
func write(t *testing.T, c *live.HostChannel, b []byte) {
	t.Helper()
	n, signal, err := channel.NewPipeWriter(c.Out, channel.PipeOptions{}).Write(b)
	require.NoError(t, err)
	require.Equal(t, len(b), n, "the ring is empty and larger")
	if signal {
		c.Signal()
	}
}

// A detour stands between host and guest and keeps back what the guest posts.
type detour struct {
	synic.Port

	mu   sync.Mutex
	hold vmbus.Type // a message of this type and all behind it are kept; none if zero
	kept []func()
}

// BindMessages is part of synic.Port.
func (d *detour) BindMessages(id synic.ConnectionID, fn func(payload []byte) synic.Status) error {
	return d.Port.BindMessages(id, func(payload []byte) synic.Status {
		d.mu.Lock()
		defer d.mu.Unlock()
		if len(d.kept) > 0 || d.hold != 0 && payload[0] == byte(d.hold) {
			late := bytes.Clone(payload)
			d.kept = append(d.kept, func() { fn(late) })
			return synic.StatusSuccess
		}
		return fn(payload)
	})
}

// keep starts to keep messages back from the first one of type t on.
func (d *detour) keep(t vmbus.Type) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hold = t
}

// deliver hands the host what was kept back, and from now on everything.
func (d *detour) deliver() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, late := range d.kept {
		late()
	}
	d.hold, d.kept = 0, nil
}

// waiting reports how many messages are kept back.
func (d *detour) waiting() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.kept)
}

// busDevices is where the kernel shows its VMBus devices.
const busDevices = "/sys/bus/vmbus/devices/"

// cat returns a file of the guest, trimmed; ok says whether it exists.
func (w *world) cat(file string) (text string, ok bool) {
	w.t.Helper()
	out, status, err := w.agent.Exec(w.t.Context(), "/bin/busybox", "cat", file)
	require.NoError(w.t, err)
	return strings.TrimSpace(out), status == 0
}

// exists reports whether the guest has a file.
func (w *world) exists(file string) bool {
	w.t.Helper()
	_, status, err := w.agent.Exec(w.t.Context(), "/bin/busybox", "test", "-e", file)
	require.NoError(w.t, err)
	return status == 0
}

// contented checks at the end of a test that neither side complained.
func (w *world) contented() {
	w.t.Helper()
	w.eventually("the kernel releases every channel but the agent's", func() bool {
		u := w.guest.Bus().Usage()
		return u.Channels == 1 && u.GPADLs == 1 && u.Operations == 0 && u.Requests == 0
	})
	log, err := w.agent.Log(w.t.Context(), "")
	require.NoError(w.t, err)
	// Before the bus is found an emulated processor may earn a warning of its own.
	_, log, found := strings.Cut(log, "Vmbus version")
	require.True(w.t, found)
	for _, word := range []string{"WARNING", "BUG:", "Oops", "hung task", "Call Trace"} {
		require.NotContains(w.t, log, word, "the kernel is content")
	}
	require.Zero(w.t, w.guest.Bus().Dropped(), "no message of a real kernel is dropped:\n%s", w.conversation())
}

// deviceOffer is a device that no kernel has a driver for.
func deviceOffer(instance uuid.UUID) offers.Offer {
	return offers.Offer{
		Key: offers.Key{
			Interface: vmbus.GUIDFromUUID(uuid.MustParse("01234567-89ab-cdef-0123-456789abcdef")),
			Instance:  vmbus.GUIDFromUUID(instance),
		},
		Flags: vmbus.OfferEnumerate,
	}
}

// TestKernelDevices: a device is plugged in while the kernel runs, seen in
// sysfs under the ids we meant, and unplugged.
func TestKernelDevices(t *testing.T) {
	w := boot(t, sim.HostOptions{})
	instance := uuid.MustParse("fedcba98-7654-3210-fedc-ba9876543210")
	path := busDevices + instance.String()
	var ids []vmbus.ChannelID
	t.Run("plug and unplug twice", func(t *testing.T) {
		for range 2 { // the second time shows that the first left nothing behind
			d := w.offer(deviceOffer(instance), false)
			w.eventually("the kernel makes a device", func() bool { return w.exists(path) })
			class, _ := w.cat(path + "/class_id")
			require.Equal(t, "{01234567-89ab-cdef-0123-456789abcdef}", class, "the interface GUID in printed order")
			name, _ := w.cat(path + "/device_id")
			require.Equal(t, "{"+instance.String()+"}", name, "the instance GUID in printed order")
			state, _ := w.cat(path + "/state")
			require.Equal(t, "2", state, "CHANNEL_OPEN_STATE: ready to be opened, which nobody does (vmbus-control.md 6.2)")
			id, _ := w.cat(path + "/id")
			offered := w.fields("OfferChannel", "channel_id")
			require.Equal(t, fmt.Sprint(offered[len(offered)-1]), id)
			ids = append(ids, offered[len(offered)-1].(vmbus.ChannelID))

			d.offered.Revoke()
			require.NoError(t, await(t, "the release of a rescinded device", d.gone))
			w.eventually("the kernel removes the device", func() bool { return !w.exists(path) })
			require.Equal(t, ids[len(ids)-1], last(w.fields("RelIDReleased", "channel_id")))
		}
		log, err := w.agent.Log(t.Context(), "Unknown GUID")
		require.NoError(t, err)
		require.Equal(t, 2, strings.Count(log, "Unknown GUID: 01234567-89ab-cdef-0123-456789abcdef"), "what the kernel says of each:\n%s", log)
		require.Equal(t, ids[0], ids[1], "the id was free again")
		require.Zero(t, w.count("OpenChannel")-1, "nobody opens it; the one is the agent's")
	})
	t.Run("withdrawn at once", func(t *testing.T) {
		const devices = 30
		all := make([]*device, devices)
		for i := range all {
			all[i] = w.offer(deviceOffer(uuid.New()), false)
			all[i].offered.Revoke() // the rescind races with the kernel's probe of the offer
		}
		for _, d := range all {
			require.NoError(t, await(t, "the release of a device that came and went", d.gone))
		}
	})
	w.eventually("no device is left but the agent's socket", func() bool {
		out, _, err := w.agent.Exec(t.Context(), "/bin/busybox", "ls", busDevices)
		require.NoError(t, err)
		return len(strings.Fields(out)) == 1
	})
	require.Equal(t, w.count("RescindChannelOffer"), w.count("RelIDReleased"), "each rescind is answered once (vmbus-control.md 6.2)")
	w.contented()
	w.shutdown(t.Context())
}

func last[T any](list []T) T { return list[len(list)-1] }
