package kerneltest_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/internal/kerneltest"
	"github.com/hvlab/hvlab/sim"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
)

// An observation is the first line of a file in testdata/observed; every other
// line is one message of the conversation as the host saw it.
type observation struct {
	System  string   `json:"system"`
	Kernel  string   `json:"kernel"`
	Date    string   `json:"date"`
	Monitor string   `json:"monitor"`
	Host    string   `json:"host"`
	Steps   []string `json:"steps"`
}

// observe writes the conversation to $KERNELTEST_OUT, from where it may be
// copied to testdata/observed.
func (w *world) observe(v vmbus.Version, steps []string) {
	w.t.Helper()
	dir := os.Getenv("KERNELTEST_OUT")
	if dir == "" {
		dir = w.t.TempDir()
	}
	kernel := os.Getenv("KERNELTEST_VERSION")
	head, err := json.Marshal(observation{
		System: "Linux", Kernel: kernel, Date: time.Now().UTC().Format(time.DateOnly),
		Monitor: "sim/kvmguest, nested in QEMU's emulation: " + os.Getenv("KERNELTEST_NESTED"),
		Host:    "sim.Host with VMBus " + v.String() + " as its newest version", Steps: steps,
	})
	require.NoError(w.t, err)
	var b bytes.Buffer
	b.Write(append(head, '\n'))
	for _, e := range w.trace.Events() {
		if len(e.Raw) == 0 {
			continue
		}
		e.Who = "" // there is one guest
		line, err := e.MarshalJSON()
		require.NoError(w.t, err)
		b.Write(append(line, '\n'))
	}
	series := strings.Join(strings.SplitN(kernel, ".", 3)[:2], ".")
	name := filepath.Join(dir, "linux-"+series+"-vmbus-"+v.String()+".jsonl")
	require.NoError(w.t, os.WriteFile(name, b.Bytes(), 0o666))
	w.t.Logf("%d messages in %s", bytes.Count(b.Bytes(), []byte{'\n'})-1, filepath.Base(name))
}

// TestKernelObservation records two fixed conversations, which a test of
// endpoint replays where there is no KVM.
func TestKernelObservation(t *testing.T) {
	const agent = "/bin/agent,control-dial:9000;"
	t.Run("everything", func(t *testing.T) {
		w := attachTo(t, setup{todo: agent +
			"$b,rmmod,hv_utils;$b,rmmod,hv_sock;$b,rmmod,hv_vmbus;" +
			"$b,insmod,/modules/hv_vmbus.ko;$b,insmod,/modules/hv_sock.ko;" + agent})
		steps := []string{"hv_vmbus and hv_sock are loaded; a program connects to the host's port 9000 and stays connected"}
		l := w.listen(controlPort)
		defer l.Close()
		w.start()
		w.agent = kerneltest.NewClient(w.accept(l))
		for _, s := range observedSteps {
			s.run(t, w)
			steps = append(steps, s.what)
			w.eventually("the step is over", func() bool { return w.guest.Bus().Usage().Channels == 1 })
		}
		for range 2 {
			require.NoError(t, w.agent.Quit(t.Context()))
			_ = w.agent.Close()
			if w.count("Unload") == 0 {
				w.agent = kerneltest.NewClient(w.accept(l))
			}
		}
		require.NoError(t, w.wait())
		steps = append(steps, "the program ends; hv_sock and hv_vmbus are unloaded and loaded again",
			"a program connects to the host's port 9000 and ends; the guest powers off")
		w.observe(vmbus.Iron, steps)
	})
	t.Run("walk down to 4.1", func(t *testing.T) {
		w := boot(t, sim.HostOptions{MaxVersion: vmbus.Win10RS3})
		steps := []string{"hv_vmbus and hv_sock are loaded; a program connects to the host's port 9000 and stays connected"}
		for _, s := range observedSteps[:2] {
			s.run(t, w)
			steps = append(steps, s.what)
			w.eventually("the step is over", func() bool { return w.guest.Bus().Usage().Channels == 1 })
		}
		w.shutdown(t.Context())
		w.observe(vmbus.Win10RS3, append(steps, "the program ends; the guest powers off"))
	})
}

// observedSteps leave the guest with the agent's connection only.
var observedSteps = []struct {
	what string
	run  func(*testing.T, *world)
}{
	{"the guest connects to the host's port 5000, 1000 bytes each way, the guest closes first", func(t *testing.T, w *world) {
		stop := w.serve(5000, kerneltest.Echo, kerneltest.Job{})
		_, err := w.agent.Run(t.Context(), 5000, kerneltest.Echo, kerneltest.Job{Bytes: 1000, Seed: 1}, 1, 1)
		require.NoError(t, err)
		stop()
	}},
	{"the host connects to the guest's port 6000, 1000 bytes each way, the host closes first", func(t *testing.T, w *world) {
		require.NoError(t, w.agent.Serve(t.Context(), 6000, kerneltest.Echo, kerneltest.Job{}))
		_, err := kerneltest.Exchange(w.dial(t.Context(), 6000), kerneltest.Echo, kerneltest.Job{Bytes: 1000, Seed: 2})
		require.NoError(t, err)
		require.NoError(t, w.agent.Unlisten(t.Context(), 6000))
	}},
	{"the guest connects to the host's port 4444, where nobody listens", func(t *testing.T, w *world) {
		_, err := w.agent.Dial(t.Context(), 4444)
		require.Equal(t, "ETIMEDOUT", errno(t, err))
	}},
	{"the host connects to the guest's port 4444, where nobody listens, and gives up", func(t *testing.T, w *world) {
		d := w.offer(dialOffer(4444), false)
		w.eventually("the kernel shows the socket", func() bool {
			out, _, err := w.agent.Exec(t.Context(), "/bin/busybox", "ls", busDevices)
			require.NoError(t, err)
			return len(strings.Fields(out)) == 2
		})
		d.offered.Revoke()
		require.NoError(t, await(t, "the release", d.gone))
	}},
	{"the host connects to the guest's port 6001 and refuses the open", func(t *testing.T, w *world) {
		require.NoError(t, w.agent.Listen(t.Context(), 6001))
		d := w.offer(dialOffer(6001), true)
		w.eventually("the page list is torn down", func() bool { return w.count("GPADLTorndown") == 1 })
		d.offered.Revoke()
		require.NoError(t, await(t, "the release", d.gone))
		require.NoError(t, w.agent.Unlisten(t.Context(), 6001))
	}},
	{"the host connects to the guest's port 6002 and withdraws the open connection without a FIN", func(t *testing.T, w *world) {
		require.NoError(t, w.agent.Listen(t.Context(), 6002))
		d := w.offer(dialOffer(6002), false)
		await(t, "the open", d.opened)
		d.offered.Revoke()
		require.NoError(t, w.agent.Unlisten(t.Context(), 6002))
		require.NoError(t, await(t, "the release", d.gone))
	}},
	{"a device of an unknown kind is offered and withdrawn", func(t *testing.T, w *world) {
		instance := uuid.New()
		d := w.offer(deviceOffer(instance), false)
		w.eventually("the kernel makes a device", func() bool { return w.exists(busDevices + instance.String()) })
		d.offered.Revoke()
		require.NoError(t, await(t, "the release", d.gone))
	}},
}
