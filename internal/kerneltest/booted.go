package kerneltest

import (
	"bytes"
	"os"
	"sync"
	"testing"
)

// Kernel returns the image and the initramfs that the script run provides.
// Without them, or without a KVM (probe is kvmguest.Probe), the test is skipped
// and says what to do.
func Kernel(t testing.TB, probe func() (reason string, ok bool)) (image, initrd string) {
	t.Helper()
	image = os.Getenv("KERNELTEST_KERNEL")
	if image == "" {
		t.Skip("no kernel image: run internal/kerneltest/run")
	}
	if reason, ok := probe(); !ok {
		t.Skip("no usable KVM: " + reason) // the script takes this for a failure
	}
	return image, os.Getenv("KERNELTEST_INITRD")
}

// A Console collects what a guest prints.
type Console struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write is for the guest's serial port.
func (c *Console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.Write(p)
}

// String is everything so far.
func (c *Console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.String()
}
