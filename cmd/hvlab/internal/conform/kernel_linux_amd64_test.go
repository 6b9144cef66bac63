package conform

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/hvsock/hvsocktest"
	"github.com/hvlab/hvlab/hvsock/native"
	"github.com/hvlab/hvlab/internal/kerneltest"
	"github.com/hvlab/hvlab/internal/vsockvm/remote"
	"github.com/hvlab/hvlab/sim"
	"github.com/hvlab/hvlab/sim/kvmguest"
	"github.com/stretchr/testify/require"
)

// lendPort is the port of the host at which a guest that lends its sockets
// reports. The same test binary does that, when this variable says so.
const (
	lendPort     = 9001
	lendVariable = "HVLAB_LEND"
)

func init() { lendSockets = lend }

// lend obeys the host until it hangs up.
func lend() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := native.Dial(ctx, hvsock.Addr{VMID: hvsock.Parent, ServiceID: hvsock.ServiceIDFromPort(lendPort)})
	if err != nil {
		return err
	}
	defer c.Close()
	return remote.Serve(c, remote.Sockets{
		Listen: func(a hvsock.Addr) (net.Listener, error) {
			l, err := native.Listen(a)
			if err != nil {
				return nil, err
			}
			return l, nil
		},
		Dial: func(ctx context.Context, a hvsock.Addr) (net.Conn, error) {
			c, err := native.Dial(ctx, a)
			if err != nil {
				return nil, err
			}
			return c, nil
		},
	})
}

// TestKernelConformance asks a real Linux kernel everything: its hv_sock attached
// to our host, in both roles. internal/vsockvm/run -g starts it; the answers are
// left for hvlab conform to judge.
func TestKernelConformance(t *testing.T) {
	kernel, out := os.Getenv("KERNELTEST_KERNEL"), os.Getenv("KERNELTEST_OUT")
	if kernel == "" {
		t.Skip("no kernel image: run internal/vsockvm/run -g")
	}
	if reason, ok := kvmguest.Probe(); !ok {
		t.Fatal("no usable KVM: " + reason)
	}
	host, err := sim.NewHost(sim.HostOptions{})
	require.NoError(t, err)
	id := uuid.New()
	client, stop := bootLender(t, host, id, kernel)

	var ports portCounter
	about := "Linux " + os.Getenv("KERNELTEST_VERSION")
	up := hvsocktest.Over("hv_sock guest to host", host.Listen, client.Dial, ports.services(hvsock.Wildcard, hvsock.Parent))
	down := hvsocktest.Over("hv_sock host to guest", client.Listen, host.Dial, ports.services(hvsock.Parent, id))
	up.NeverRefuses, down.NeverRefuses = true, true // Linux ignores the host's refusal (hvsock.md 5.1)
	// A call is a message to a machine in an emulated machine.
	up.Patience, down.Patience = 2*time.Minute, 2*time.Minute
	var systems []System
	for _, tr := range []hvsocktest.Transport{up, down} {
		s := System{Name: tr.Name, About: about}
		for _, r := range Rows() {
			began := time.Now()
			did := r.answer(tr)
			t.Logf("%s: %s: %s (%v)", tr.Name, r.Name, did, time.Since(began).Round(time.Millisecond))
			s.Answers = append(s.Answers, Answer{r.Name, did})
		}
		systems = append(systems, s)
	}
	stop()
	b, err := json.Marshal(Document{Rows: Rows(), Systems: systems})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(out, "conform-hvsock.json"), b, 0o644))
}

// bootLender boots a kernel that lends its sockets. stop has it power itself off.
func bootLender(t *testing.T, host *sim.Host, id uuid.UUID, kernel string) (client *remote.Client, stop func()) {
	t.Helper()
	console := &kerneltest.Console{}
	vm, err := kvmguest.New(kvmguest.Options{
		// Backlog has 200 connections at once, each with a block of 128 pages for its
		// rings. With 256 MiB the kernel found no 170th or so, and left it unopened.
		Kernel: kernel, Initrd: initrdWithThisProgram(t), MemoryBytes: 512 << 20,
		// /init runs hvlab.do, with blanks for commas.
		Append:  fmt.Sprintf("%s nokaslr mitigations=off hvlab.do=%s=1,/bin/lender", kvmguest.DefaultAppend, lendVariable),
		Console: console,
	})
	require.NoError(t, err)
	attachment, err := host.Attach("linux", id, vm.Memory(), vm.Port())
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console:\n%s", console)
		}
		attachment.Close()
		require.NoError(t, vm.Close())
		require.NoError(t, host.Close())
	})
	l, err := host.Listen(hvsock.Addr{VMID: hvsock.Wildcard, ServiceID: hvsock.ServiceIDFromPort(lendPort)})
	require.NoError(t, err)
	defer l.Close()
	require.NoError(t, l.SetDeadline(time.Now().Add(90*time.Second)), "a guest that does not come is a failure, not a hang")
	ended := make(chan error, 1)
	go func() { ended <- vm.Run(context.Background()) }()
	c, err := l.Accept()
	require.NoError(t, err, "the guest did not report")
	client = remote.NewClient(c)
	return client, func() {
		require.NoError(t, client.Close())
		require.NoError(t, <-ended)
	}
}

// initrdWithThisProgram is the image that internal/kerneltest has made, with this
// program as /bin/lender behind it: the kernel unpacks one archive after another.
func initrdWithThisProgram(t *testing.T) string {
	t.Helper()
	image, err := os.ReadFile(os.Getenv("KERNELTEST_INITRD"))
	require.NoError(t, err)
	self, err := os.Executable()
	require.NoError(t, err)
	program, err := os.ReadFile(self)
	require.NoError(t, err)
	image = append(image, make([]byte, -len(image)&3)...) // archives begin at a multiple of 4
	image = appendCPIO(image, "bin/lender", 0o100755, program)
	image = appendCPIO(image, "TRAILER!!!", 0, nil)
	name := filepath.Join(t.TempDir(), "initrd")
	require.NoError(t, os.WriteFile(name, image, 0o600))
	return name
}

// appendCPIO appends one file as a cpio archive of the kind "newc" has it.
// Source: Linux Documentation/driver-api/early-userspace/buffer-format.rst.
func appendCPIO(b []byte, name string, mode uint32, data []byte) []byte {
	fields := [13]uint32{1: mode, 4: 1, 6: uint32(len(data)), 11: uint32(len(name) + 1)} // 4: links
	b = append(b, "070701"...)
	for _, f := range fields {
		b = fmt.Appendf(b, "%08X", f)
	}
	b = append(append(b, name...), 0)
	b = append(b, make([]byte, -len(b)&3)...)
	b = append(b, data...)
	return append(b, make([]byte, -len(b)&3)...)
}

// The kernel is strict about these: 6 + 13 x 8 bytes of head, everything aligned.
func TestAppendCPIO(t *testing.T) {
	b := appendCPIO(nil, "abc", 0o100644, []byte("12345"))
	require.Equal(t, "070701"+strings.Repeat("0", 8)+"000081A4"+strings.Repeat("0", 16)+"00000001"+strings.Repeat("0", 8)+"00000005"+
		strings.Repeat("0", 32)+"00000004"+strings.Repeat("0", 8)+"abc\x00\x00\x0012345\x00\x00\x00", string(b))
}
