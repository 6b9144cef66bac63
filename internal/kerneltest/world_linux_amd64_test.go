package kerneltest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/internal/kerneltest"
	"github.com/hvlab/hvlab/sim"
	"github.com/hvlab/hvlab/sim/kvmguest"
	"github.com/hvlab/hvlab/vmbus/synic"
	"github.com/hvlab/hvlab/vmbus/trace"
	"github.com/stretchr/testify/require"
)

// bootTimeout is far above the 5 to 8 seconds an emulated boot takes.
const bootTimeout = 90 * time.Second

// controlPort is where the agent in the guest reports for duty.
const controlPort = 9000

// A world is our host with a real Linux kernel attached to it.
type world struct {
	t       *testing.T
	host    *sim.Host
	id      uuid.UUID
	guest   *sim.Attachment
	vm      *kvmguest.VM
	agent   *kerneltest.Client
	console *kerneltest.Console
	trace   *trace.Recorder
	ended   chan error // what vm.Run returned
}

// A setup is how a world differs from the usual one.
type setup struct {
	host sim.HostOptions
	cpus int
	todo string                      // shell script for /init with commas for blanks; the agent if empty
	port func(synic.Port) synic.Port // puts something between host and guest
}

// attach builds the machine and attaches it to a host; start boots it.
func attach(t *testing.T, o sim.HostOptions) *world { return attachTo(t, setup{host: o}) }

// attachTo is attach for an unusual world.
func attachTo(t *testing.T, o setup) *world {
	t.Helper()
	kernel, initrd := kerneltest.Kernel(t, kvmguest.Probe)
	w := &world{t: t, id: uuid.New(), console: &kerneltest.Console{}, trace: &trace.Recorder{}, ended: make(chan error, 1)}
	o.host.Trace = w.trace.Record
	var err error
	w.host, err = sim.NewHost(o.host)
	require.NoError(t, err)
	todo := " hvlab.agent=control-dial:9000"
	if o.todo != "" {
		todo = " hvlab.do=" + o.todo
	}
	w.vm, err = kvmguest.New(kvmguest.Options{
		Kernel: kernel, Initrd: initrd, MemoryBytes: 192 << 20, CPUs: o.cpus,
		Append:  kvmguest.DefaultAppend + " nokaslr mitigations=off" + todo,
		Console: w.console, Log: func(s string) { t.Log("monitor: " + s) },
	})
	require.NoError(t, err)
	port := w.vm.Port()
	if o.port != nil {
		port = o.port(port)
	}
	w.guest, err = w.host.Attach("linux", w.id, w.vm.Memory(), port)
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console:\n%s\ntrace:\n%s", w.console, w.conversation())
		}
		w.guest.Close()
		require.NoError(t, w.vm.Close())
		require.NoError(t, w.host.Close())
	})
	return w
}

// start boots the kernel.
func (w *world) start() {
	go func() { w.ended <- w.vm.Run(context.Background()) }()
}

// boot attaches, boots and waits for the agent.
func boot(t *testing.T, o sim.HostOptions) *world { return bootTo(t, setup{host: o}) }

// bootTo is boot for an unusual world.
func bootTo(t *testing.T, o setup) *world {
	t.Helper()
	w := attachTo(t, o)
	l := w.listen(controlPort)
	began := time.Now()
	w.start()
	w.agent = kerneltest.NewClient(w.accept(l))
	t.Logf("the agent reports %v after power-on", time.Since(began).Round(time.Millisecond))
	require.NoError(t, l.Close())
	return w
}

// shutdown ends the agent, whereupon the guest powers off.
func (w *world) shutdown(ctx context.Context) {
	w.t.Helper()
	require.NoError(w.t, w.agent.Quit(ctx))
	_ = w.agent.Close() // the agent may have closed first
	require.NoError(w.t, w.wait(), "the guest powers off by itself")
}

// wait returns how the guest ended.
func (w *world) wait() error {
	w.t.Helper()
	select {
	case err := <-w.ended:
		return err
	case <-time.After(bootTimeout):
		w.t.Fatal("the guest does not end")
		return nil
	}
}

func (w *world) listen(port uint32) *hvsock.Listener {
	w.t.Helper()
	l, err := w.host.Listen(hvsock.Addr{VMID: hvsock.Children, ServiceID: hvsock.ServiceIDFromPort(port)})
	require.NoError(w.t, err)
	return l
}

func (w *world) accept(l *hvsock.Listener) *hvsock.Conn {
	w.t.Helper()
	require.NoError(w.t, l.SetDeadline(time.Now().Add(bootTimeout)))
	c, err := l.AcceptHVSock()
	require.NoError(w.t, err, "console:\n%s", w.console)
	return c
}

// serve provides a service of the host until the listener is closed.
func (w *world) serve(port uint32, service kerneltest.Service, job kerneltest.Job) (stop func()) {
	l := w.listen(port)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.AcceptHVSock()
			if err != nil {
				return
			}
			all.Go(func() {
				if err := kerneltest.Serve(c, service, job); err != nil {
					w.t.Errorf("%s service of the host: %v", service, err)
				}
			})
		}
	})
	return func() {
		require.NoError(w.t, l.Close())
		all.Wait()
	}
}

// addrOf is a port of the guest as the host names it.
func addrOf(w *world, port uint32) hvsock.Addr {
	return hvsock.Addr{VMID: w.id, ServiceID: hvsock.ServiceIDFromPort(port)}
}

// dial connects to a port of the guest.
func (w *world) dial(ctx context.Context, port uint32) *hvsock.Conn {
	w.t.Helper()
	c, err := w.host.Dial(ctx, addrOf(w, port))
	require.NoError(w.t, err)
	return c
}

// conversation is the trace as text.
func (w *world) conversation() string {
	var b strings.Builder
	for _, e := range w.trace.Events() {
		fmt.Fprintf(&b, "%s %v\n", e.At.Format("15:04:05.000"), e)
	}
	return b.String()
}

// fields returns the values of one field of all messages called name.
func (w *world) fields(name, field string) []any {
	var list []any
	for _, e := range w.trace.Events() {
		for _, f := range e.Fields {
			if e.Name == name && f.Name == field {
				list = append(list, f.Value)
			}
		}
	}
	return list
}

// count returns how many messages called name were exchanged.
func (w *world) count(name string) int {
	n := 0
	for _, e := range w.trace.Events() {
		if e.Name == name {
			n++
		}
	}
	return n
}

// eventually waits until done reports true: for what the guest does on its own,
// such as giving a channel id back.
func (w *world) eventually(what string, done func() bool) {
	w.t.Helper()
	require.Eventually(w.t, done, bootTimeout, 20*time.Millisecond, what)
}

// readAll reads to the end of a stream.
func readAll(c net.Conn) ([]byte, error) {
	b, err := io.ReadAll(c)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b, err
}
