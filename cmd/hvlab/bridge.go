package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/sim"
	"github.com/hvlab/hvlab/sim/bridge"
	"github.com/hvlab/hvlab/vmbus/trace"
)

// bridgeVerb is `hvlab bridge`.
type bridgeVerb struct {
	Path string `arg:"" help:"Unix socket to make."`

	Echo    uint32  `default:"5000" placeholder:"PORT" help:"Port of the guest with an echo service (${default})."`
	Dial    *uint32 `placeholder:"PORT" help:"Have the guest dial this port of its host, again and again until somebody serves PATH_PORT, and echo what comes."`
	Version string  `placeholder:"4.0" help:"Force this VMBus version."`
	Verbose bool    `short:"v" help:"Print every control message in one line on stderr."`
}

// Help is the long text of `hvlab bridge -h`.
func (bridgeVerb) Help() string {
	return `A host and a guest start in this process, and the guest's Hyper-V sockets appear
as Unix sockets, until Ctrl-C:

    connect to PATH and send "CONNECT 5000" (or a service GUID) and a newline:
        "OK" and a number come back, and the connection is the guest's port 5000
    listen on PATH_6000 (or PATH_<service GUID>):
        the guest's connections to port 6000 of its host come here

Examples:

    hvlab bridge /tmp/guest
    (echo CONNECT 5000; cat) | socat - UNIX-CONNECT:/tmp/guest

    hvlab bridge -dial 6000 -v /tmp/guest
    socat UNIX-LISTEN:/tmp/guest_6000 -
`
}

// redialInterval is the wait before the guest dials again.
const redialInterval = time.Second

// Run serves the Unix socket until the first interrupt, which is its proper end.
func (v *bridgeVerb) Run(ctx context.Context, o output) error {
	version, err := socketVersion(v.Version)
	if err != nil {
		return err
	}
	var sink trace.Sink
	if v.Verbose {
		sink = trace.TextSink(o.err)
	}
	host, err := sim.NewHost(sim.HostOptions{Trace: sink})
	if err != nil {
		return err
	}
	defer host.Close()
	guest, err := host.NewGuest(sim.GuestOptions{Version: version})
	if err != nil {
		return err
	}
	service := &echoService{err: o.err}
	listener, err := guest.Listen(hvsock.Addr{VMID: hvsock.Wildcard, ServiceID: hvsock.ServiceIDFromPort(v.Echo)})
	if err != nil {
		return err
	}
	b, err := bridge.New(bridge.Options{
		Path: v.Path, VMID: guest.ID(), Dial: host.Dial, HandleRequests: host.HandleRequests, Log: service.log,
	})
	if err != nil {
		return err
	}
	service.all.Go(func() { service.serve(listener) })
	fmt.Fprintf(o.out, "%s: guest %v, echo on port %d\n", v.Path, guest.ID(), v.Echo)
	if v.Dial != nil {
		fmt.Fprintf(o.out, "%s_%d: listen here, the guest dials port %d\n", v.Path, *v.Dial, *v.Dial)
		service.all.Go(func() { service.dial(ctx, guest, *v.Dial) })
	}
	<-ctx.Done()
	err = errors.Join(b.Close(), guest.Close())
	service.all.Wait()
	return err
}

// An echoService sends back what comes, in the guest.
type echoService struct {
	all sync.WaitGroup
	err io.Writer

	mu   sync.Mutex
	last string
}

// log writes a line to the user, unless it is the same as the one before: a guest
// that dials again and again is refused again and again.
func (s *echoService) log(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if text != s.last {
		s.last = text
		fmt.Fprintln(s.err, "hvlab: "+text)
	}
}

// serve echoes connections until the listener is closed.
func (s *echoService) serve(l *hvsock.Listener) {
	for {
		c, err := l.AcceptHVSock()
		if err != nil {
			return // the guest is closing
		}
		s.all.Go(func() { s.echo(c) })
	}
}

// dial echoes one connection to a port of the host at a time, until ctx ends.
func (s *echoService) dial(ctx context.Context, guest *sim.Guest, port uint32) {
	for ctx.Err() == nil {
		c, err := guest.Dial(ctx, hvsock.Addr{VMID: hvsock.Parent, ServiceID: hvsock.ServiceIDFromPort(port)})
		if err == nil {
			s.echo(c)
		} else if !errors.Is(err, syscall.ECONNREFUSED) && ctx.Err() == nil {
			s.log("guest: " + err.Error())
		}
		select {
		case <-ctx.Done():
		case <-time.After(redialInterval):
		}
	}
}

// echo sends back what comes, then its end.
func (s *echoService) echo(c *hvsock.Conn) {
	defer c.Close()
	n, err := io.Copy(c, c)
	if err != nil {
		s.log(fmt.Sprintf("guest: echo ended after %d bytes: %v", n, err))
		return
	}
	_ = c.CloseWrite() // Close would do it too
}
