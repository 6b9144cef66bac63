package kvmguest

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// kernelOptions are the images that internal/kerneltest/run provides; without
// them, or without a usable KVM, the test is skipped.
func kernelOptions(t *testing.T) Options {
	t.Helper()
	kernel := os.Getenv("KERNELTEST_KERNEL")
	if kernel == "" {
		t.Skip("no kernel image: run internal/kerneltest/run")
	}
	if reason, ok := Probe(); !ok {
		t.Skip("no usable KVM: " + reason)
	}
	return Options{
		Kernel: kernel, Initrd: os.Getenv("KERNELTEST_INITRD"), MemoryBytes: 128 << 20,
		Append: DefaultAppend + " nokaslr mitigations=off",
		Log:    func(s string) { t.Log("monitor: " + s) },
	}
}

// A console collects output and shows each line in the test's log.
type console struct {
	t  *testing.T
	mu sync.Mutex
	b  bytes.Buffer
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t.Logf("%s", bytes.TrimRight(p, "\r\n"))
	return c.b.Write(p)
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.String()
}

// answer plays the smallest host that lets a kernel finish loading VMBus:
// the version is accepted and there is nothing to offer.
func answer(t *testing.T, port synic.Port, payload []byte) {
	typ := vmbus.Type(binary.LittleEndian.Uint32(payload))
	t.Logf("guest>host %v % x", typ, payload[:min(len(payload), 32)])
	to := synic.Target{VP: 0, SINT: 2}
	reply := make([]byte, 8)
	switch typ {
	case vmbus.TypeInitiateContact:
		binary.LittleEndian.PutUint32(reply, uint32(vmbus.TypeVersionResponse))
		reply = append(reply, 1, 0, 0, 0, 1, 0, 0, 0) // supported, connected; message connection id 1
	case vmbus.TypeRequestOffers:
		binary.LittleEndian.PutUint32(reply, uint32(vmbus.TypeAllOffersDelivered))
	case vmbus.TypeUnload:
		binary.LittleEndian.PutUint32(reply, uint32(vmbus.TypeUnloadComplete))
	default:
		return
	}
	if err := port.Post(to, reply); err != nil {
		t.Errorf("answer to %v: %v", typ, err)
	}
}

func TestKernelNegotiatesNewestVersion(t *testing.T) {
	o := kernelOptions(t)
	out := &console{t: t}
	o.Console = out
	vm, err := New(o)
	require.NoError(t, err)
	defer vm.Close()
	for _, id := range []synic.ConnectionID{1, 4} {
		require.NoError(t, vm.Port().BindMessages(id, func(p []byte) synic.Status {
			answer(t, vm.Port(), p)
			return synic.StatusSuccess
		}))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	start := time.Now()
	err = vm.Run(ctx)
	t.Logf("run: %v after %v", err, time.Since(start).Round(time.Millisecond))
	require.NoError(t, err, "the guest's /init ends with poweroff")
	require.True(t, strings.Contains(out.String(), "Vmbus version:5.3"), "the kernel reports the version that was negotiated")
}
