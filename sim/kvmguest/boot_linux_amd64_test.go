package kvmguest

import (
	"context"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/internal/kerneltest"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// kernelOptions are the images that internal/kerneltest/run provides; without
// them, or without a usable KVM, the test is skipped.
func kernelOptions(t *testing.T) Options {
	t.Helper()
	kernel, initrd := kerneltest.Kernel(t, Probe)
	return Options{
		Kernel: kernel, Initrd: initrd, MemoryBytes: 128 << 20,
		Append: DefaultAppend + " nokaslr mitigations=off",
		Log:    func(s string) { t.Log("monitor: " + s) },
	}
}

// A smallHost is the least that lets a kernel finish loading VMBus: it accepts
// every version and has nothing to offer. It answers from the post itself,
// which a slot that is still occupied would refuse.
type smallHost struct {
	t    *testing.T
	port synic.Port

	mu       sync.Mutex
	version  vmbus.Version // that the guest asked for last
	messages []string
}

func newSmallHost(t *testing.T, port synic.Port) *smallHost {
	t.Helper()
	h := &smallHost{t: t, port: port}
	for _, id := range []synic.ConnectionID{1, 4} { // up to 4.1, and from 5.0 on
		require.NoError(t, port.BindMessages(id, h.message))
	}
	return h
}

// message handles one message of the guest.
func (h *smallHost) message(payload []byte) synic.Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	m, _, err := vmbus.Parse(payload, vmbus.Negotiated{Version: h.version})
	if err != nil {
		h.t.Errorf("message of the guest: %v", err)
		return synic.StatusSuccess
	}
	name := m.Type().String()
	var reply vmbus.Message
	switch m := m.(type) {
	case *vmbus.InitiateContact:
		name += " " + m.Version.String()
		h.version = m.Version
		reply = &vmbus.VersionResponse{Supported: 1, VersionOrConnectionID: 1}
		if m.Version < vmbus.Win10V5 {
			reply = &vmbus.VersionResponse{Supported: 1, VersionOrConnectionID: uint32(m.Version)}
		}
	case *vmbus.RequestOffers:
		reply = &vmbus.AllOffersDelivered{}
	case *vmbus.Unload:
		reply = &vmbus.UnloadComplete{}
	}
	h.messages = append(h.messages, name)
	if reply != nil {
		if err := h.port.Post(synic.Target{SINT: synic.MessageSINT}, vmbus.Append(nil, reply)); err != nil {
			h.t.Errorf("answer to %s: %v", name, err)
		}
	}
	return synic.StatusSuccess
}

// seen returns what the guest sent.
func (h *smallHost) seen() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.messages)
}

// A boot is one kernel that runs to its end against the smallest host.
type boot struct {
	vm   *VM
	out  *kerneltest.Console
	host *smallHost
}

// newBoot prepares a boot; todo is a shell command for /init with commas for
// blanks, "" for its own default: to print what the kernel said about Hyper-V.
func newBoot(t *testing.T, o Options, todo string) *boot {
	t.Helper()
	b := &boot{out: &kerneltest.Console{}}
	o.Console = b.out
	if todo != "" {
		o.Append += " hvlab.do=" + todo
	}
	var err error
	b.vm, err = New(o)
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console:\n%s", b.out)
		}
		require.NoError(t, b.vm.Close())
	})
	b.host = newSmallHost(t, b.vm.Port())
	return b
}

// run runs the guest until it ends by itself.
func (b *boot) run(t *testing.T) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	start := time.Now()
	err := b.vm.Run(ctx)
	t.Logf("run: %v after %v", err, time.Since(start).Round(time.Millisecond))
	return err
}

func TestKernelNegotiatesNewestVersion(t *testing.T) {
	b := newBoot(t, kernelOptions(t), "")
	require.NoError(t, b.run(t), "/init ends with poweroff")
	log := b.out.String()
	require.Contains(t, log, "Hypervisor detected: Microsoft Hyper-V")
	require.Contains(t, log, "Hyper-V: privilege flags low 0x8a66, high 0x30, hints 0x200", "the kernel read our CPUID leaves")
	require.Contains(t, log, "Vmbus version:5.3")
	t.Logf("the kernel's log:\n%s", log)
	require.Equal(t, []string{"InitiateContact 5.3", "RequestOffers"}, b.host.seen())
}

// TestKernelVersions caps the guest: at each version it speaks, it connects.
func TestKernelVersions(t *testing.T) {
	for _, v := range []string{"5.0", "4.1", "3.0"} {
		t.Run(v, func(t *testing.T) {
			o := kernelOptions(t)
			o.Append += " hvlab.max=" + v
			b := newBoot(t, o, "true")
			require.NoError(t, b.run(t))
			require.Equal(t, []string{"InitiateContact " + v, "RequestOffers"}, b.host.seen())
		})
	}
}

func TestKernelFromELF(t *testing.T) {
	o := kernelOptions(t)
	o.Kernel = os.Getenv("KERNELTEST_VMLINUX")
	b := newBoot(t, o, "uptime")
	require.NoError(t, b.run(t))
	require.Contains(t, b.out.String(), "load average", "the shell ran")
}

func TestKernelTwoProcessors(t *testing.T) {
	o := kernelOptions(t)
	o.CPUs = 2
	b := newBoot(t, o, "nproc;grep,-c,.,/proc/softirqs;dmesg|grep,-i,-e,smp,-e,vmbus")
	require.NoError(t, b.run(t))
	require.Contains(t, b.out.String(), "Brought up 1 node, 2 CPUs")
	require.Contains(t, b.out.String(), "Vmbus version:5.3")
}

// TestKernelReboots: a reset ends Run, and the next Run is a new contact on the
// same port, as a machine that resets is to a host.
func TestKernelReboots(t *testing.T) {
	b := newBoot(t, kernelOptions(t), "reboot,-f")
	require.ErrorIs(t, b.run(t), ErrReset)
	require.ErrorIs(t, b.run(t), ErrReset)
	once := []string{"InitiateContact 5.3", "RequestOffers"}
	require.Equal(t, append(once, once...), b.host.seen(), "reboot -f sends no Unload")
}

// TestKernelPanics: a kernel that panics says goodbye to VMBus and resets.
func TestKernelPanics(t *testing.T) {
	b := newBoot(t, kernelOptions(t), "echo,c>/proc/sysrq-trigger")
	require.ErrorIs(t, b.run(t), ErrReset, "panic=-1 resets at once")
	require.Contains(t, b.out.String(), "Kernel panic - not syncing")
	require.Equal(t, "Unload", b.host.seen()[len(b.host.seen())-1])
}
