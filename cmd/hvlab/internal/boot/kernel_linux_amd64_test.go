package boot_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hvlab/hvlab/cmd/hvlab/internal/boot"
	"github.com/hvlab/hvlab/internal/kerneltest"
	"github.com/hvlab/hvlab/sim/kvmguest"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
)

// bootTimeout is far above the 5 to 8 seconds an emulated boot takes.
const bootTimeout = 90 * time.Second

// A screen lets a test wait for some of the output.
type screen struct{ kerneltest.Console }

func (s *screen) waitFor(t *testing.T, text string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(s.String(), text) }, bootTimeout, 10*time.Millisecond, text)
}

// A run is `hvlab boot` in the middle of its work.
type run struct {
	out, err   screen
	interrupts chan os.Signal
	ended      chan error
}

// start boots the real kernel with more on its command line.
func start(t *testing.T, o boot.Options, more string) *run {
	t.Helper()
	o.Kernel, o.Initrd = kerneltest.Kernel(t, kvmguest.Probe)
	r := &run{interrupts: make(chan os.Signal, 2), ended: make(chan error, 1)}
	o.Append = kvmguest.DefaultAppend + " nokaslr mitigations=off " + more
	o.MemoryBytes = 192 << 20
	o.Out, o.Err, o.Interrupts = &r.out, &r.err, r.interrupts
	go func() { r.ended <- boot.Run(t.Context(), o) }()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console:\n%s\nstderr:\n%s", &r.out, &r.err)
		}
	})
	return r
}

func (r *run) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(bootTimeout):
		t.Fatal("the guest does not end")
		return nil
	}
}

// TestKernelBootBridge is the command's main job, seen from outside: console
// both ways, the conversation, sockets as a program such as socat sees them, and
// an orderly shutdown.
func TestKernelBootBridge(t *testing.T) {
	dir, err := os.MkdirTemp("", "b") // short: a Unix socket's path has 107 bytes at most
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "g")
	fromGuest, err := net.Listen("unix", path+"_9000")
	require.NoError(t, err)
	defer fromGuest.Close()
	keys, keyboard := io.Pipe()
	defer keyboard.Close()
	r := start(t, boot.Options{Bridge: path, Verbose: true, MaxVersion: vmbus.Win10RS3, In: keys},
		"hvlab.do=read,line;echo,typed:$line;/bin/agent,control-dial:9000")

	// Typed before the guest is there: it must not be lost.
	_, err = io.WriteString(keyboard, "hello\n")
	require.NoError(t, err)
	r.out.waitFor(t, "typed:hello")

	// The guest dials port 9000 of its host: that is PATH_9000.
	control, err := fromGuest.Accept()
	require.NoError(t, err)
	agent := kerneltest.NewClient(control)
	defer agent.Close()
	ctx, cancel := context.WithTimeout(t.Context(), bootTimeout)
	defer cancel()
	log, err := agent.Log(ctx, "Vmbus version")
	require.NoError(t, err)
	require.Contains(t, log, "Vmbus version:4.1", "-max-version caps the host")
	_, err = agent.Dial(ctx, 4444)
	require.Error(t, err, "there is no PATH_4444")

	// A program connects to port 5000 of the guest, by port and by GUID.
	require.NoError(t, agent.Serve(ctx, 5000, kerneltest.Echo, kerneltest.Job{}))
	for _, line := range []string{"CONNECT 5000\n", "CONNECT 00001388-facb-11e6-bd58-64006a7986d3\n"} {
		c, err := net.Dial("unix", path)
		require.NoError(t, err)
		want := bytes.Repeat([]byte("as socat would "), 20_000)
		go func() {
			_, _ = c.Write(append([]byte(line), want...))
			_ = c.(*net.UnixConn).CloseWrite()
		}()
		in := bufio.NewReader(c)
		answer, err := in.ReadString('\n')
		require.NoError(t, err)
		require.Regexp(t, "^OK [0-9a-f-]+\n$", answer)
		got, err := io.ReadAll(in)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got), "%d bytes came back, %d were sent", len(got), len(want))
		require.NoError(t, c.Close())
	}

	r.interrupts <- os.Interrupt
	require.NoError(t, r.wait(t), "the guest powers off in order")
	require.Contains(t, r.err.String(), "the guest is shutting down")
	for _, line := range []string{"guest>host InitiateContact", "host>guest VersionResponse", "guest>host TLConnectRequest", "host>guest OfferChannel"} {
		require.Contains(t, r.err.String(), "\n"+line, "-v shows the conversation, a message a line")
	}
	_, err = os.Lstat(path)
	require.ErrorIs(t, err, os.ErrNotExist, "the socket goes with the guest")
}

// Guests that do not do what one would like, and what the user is told.
func TestKernelBootProblems(t *testing.T) {
	for _, c := range []struct{ name, more, message string }{
		{"VMBus not loaded", "rdinit=/bin/busybox -- poweroff -f", "never made contact with VMBus: load its modules hv_vmbus"},
		{"no Hyper-V", "nopv rdinit=/bin/busybox -- poweroff -f", "never used Hyper-V: it was built without CONFIG_HYPERV"},
		{"panic", "rdinit=/bin/busybox -- true", "the guest reset itself: it rebooted (use -reboot to let it), or its kernel panicked"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := start(t, boot.Options{}, c.more).wait(t)
			require.ErrorContains(t, err, c.message)
		})
	}
	t.Run("two interrupts", func(t *testing.T) {
		r := start(t, boot.Options{}, "hvlab.do=rmmod,hv_utils;echo,waiting;read,line")
		r.out.waitFor(t, "waiting")
		r.interrupts <- os.Interrupt
		r.err.waitFor(t, "interrupt again to stop it")
		r.interrupts <- os.Interrupt
		require.ErrorIs(t, r.wait(t), context.Canceled)
	})
	t.Run("reboot", func(t *testing.T) {
		keys, keyboard := io.Pipe()
		defer keyboard.Close()
		r := start(t, boot.Options{Reboot: true, In: keys}, "hvlab.do=echo,waiting;read,line;$line")
		for boots, line := range []string{"/bin/busybox reboot -f\n", "/bin/busybox true\n"} {
			require.Eventually(t, func() bool { return strings.Count(r.out.String(), "waiting") > boots }, bootTimeout, 10*time.Millisecond)
			_, err := io.WriteString(keyboard, line)
			require.NoError(t, err)
		}
		require.NoError(t, r.wait(t), "the second time it powers off")
		require.Contains(t, r.err.String(), "the guest resets itself and boots again")
	})
}
