package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/sim"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/trace"
	"golang.org/x/sync/errgroup"
)

// The services of a run.
const (
	sumPort  = 5000 // of the host: echoes the SHA-256 of what it receives
	echoPort = 6000 // of guest1: echoes what it receives
)

// greeting is what the host says when it dials guest1.
const greeting = "the host greets guest1"

// neighbourBytes is what the second guest sends while the first one is busy.
const neighbourBytes = 1 << 20

// settleTimeout is how long a run waits for what happens after the last Close:
// hvsock itself gives a silent peer 8 s.
const settleTimeout = 10 * time.Second

// Options configures Run.
type Options struct {
	Input     *Input
	Version   vmbus.Version // newest that the host serves, so that guests walk down to it; 0: the newest there is
	RingPages int           // of each ring, in 4 KiB pages with the control page; 0: 5
	Event     trace.Sink    // sees every event as it happens; may be nil
	Progress  func(bytes int)
}

// A run is one world: the host, its guests, and what is known so far.
type run struct {
	opts   Options
	host   *sim.Host
	guests []*sim.Guest // guest1 sends the input, guest2 is its neighbour
	events trace.Recorder

	mu   sync.Mutex
	ends map[endKey]transferEnd
}

// An endKey names one end of one connection.
type endKey struct {
	guest string // whose bus carries the connection
	port  uint32
	side  string // "guest" or "host"
}

// Run runs the demo. It returns an error if something could not be done, and a
// Report that says which promises held otherwise. In both cases everything it
// started has ended.
func Run(ctx context.Context, opts Options) (*Report, error) {
	before := runtime.NumGoroutine()
	r := &run{opts: opts, ends: map[endKey]transferEnd{}}
	report := &Report{Input: opts.Input.Name}
	var left Left
	err := r.start()
	if err == nil {
		report.Guests = r.describe()
		report.Duration, err = r.scenario(ctx)
	}
	if err == nil {
		left.Connected = r.settle()
	}
	if cerr := r.close(); err == nil {
		err = cerr
	}
	if err == nil {
		left.Closed = r.settle()
	}
	left.GoroutinesBefore, left.GoroutinesAfter = before, goroutines(before)
	if ctx.Err() != nil {
		return nil, ctx.Err() // whatever failed, failed because of that
	}
	if err != nil {
		return nil, err
	}
	r.account(report, left)
	return report, nil
}

// start starts the host and both guests.
func (r *run) start() (err error) {
	r.host, err = sim.NewHost(sim.HostOptions{MaxVersion: r.opts.Version, Trace: trace.Tee(r.events.Record, r.opts.Event)})
	if err != nil {
		return err
	}
	for _, name := range []string{"guest1", "guest2"} {
		g, err := r.host.NewGuest(sim.GuestOptions{Name: name, RingPages: r.opts.RingPages})
		if err != nil {
			return err
		}
		r.guests = append(r.guests, g)
	}
	return nil
}

func (r *run) describe() (guests []Guest) {
	for _, g := range r.guests {
		guests = append(guests, Guest{Name: g.Name(), ID: g.ID(), Version: g.Version().String()})
	}
	return guests
}

// scenario lets both guests dial the host and send at the same time, then the
// host dial guest1. It returns how long guest1's transfer took.
func (r *run) scenario(ctx context.Context) (time.Duration, error) {
	took, err := r.guestsDial(ctx)
	if err != nil {
		return 0, err
	}
	return took, r.hostDials(ctx)
}

// guestsDial has each guest send to the host's service. Nobody sends before both
// are connected, so that the transfers do run at the same time.
func (r *run) guestsDial(ctx context.Context) (took time.Duration, err error) {
	l, err := r.host.Listen(hvsock.Addr{VMID: hvsock.Children, ServiceID: hvsock.ServiceIDFromPort(sumPort)})
	if err != nil {
		return 0, err
	}
	defer l.Close()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return r.serve(ctx, l, len(r.guests), r.receiveFrom) })
	group.Go(func() error {
		conns, err := r.dialHost(ctx)
		if err != nil {
			return err
		}
		group.Go(func() error {
			start := time.Now()
			defer func() { took = time.Since(start) }()
			return r.sendFrom(ctx, r.guests[0], conns[0], r.opts.Input, r.opts.Progress)
		})
		group.Go(func() error {
			return r.sendFrom(ctx, r.guests[1], conns[1], Generated("pattern", neighbourBytes, 2), nil)
		})
		return nil
	})
	err = group.Wait()
	return took, err
}

// dialHost returns a connection of every guest to the host's service.
func (r *run) dialHost(ctx context.Context) (conns []*hvsock.Conn, err error) {
	for _, g := range r.guests {
		c, err := g.Dial(ctx, hvsock.Addr{VMID: hvsock.Parent, ServiceID: hvsock.ServiceIDFromPort(sumPort)})
		if err != nil {
			for _, c := range conns {
				_ = c.Close() // the dial's error is what matters
			}
			return nil, fmt.Errorf("%s: %w", g.Name(), err)
		}
		conns = append(conns, c)
	}
	return conns, nil
}

// sendFrom is the guest's end of a transfer.
func (r *run) sendFrom(ctx context.Context, g *sim.Guest, c *hvsock.Conn, in io.Reader, progress func(int)) error {
	end, err := send(ctx, c, in, progress)
	r.finished(endKey{g.Name(), sumPort, "guest"}, end)
	return err
}

// hostDials has the host call a service of guest1: the offer comes first, and
// the guest cannot refuse it.
func (r *run) hostDials(ctx context.Context) error {
	g := r.guests[0]
	service := hvsock.ServiceIDFromPort(echoPort)
	l, err := g.Listen(hvsock.Addr{VMID: hvsock.Parent, ServiceID: service})
	if err != nil {
		return err
	}
	defer l.Close()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return r.serve(ctx, l, 1, func(ctx context.Context, c *hvsock.Conn) error {
			end, err := echo(ctx, c)
			r.finished(endKey{g.Name(), echoPort, "guest"}, end)
			return err
		})
	})
	group.Go(func() error {
		c, err := r.host.Dial(ctx, hvsock.Addr{VMID: g.ID(), ServiceID: service})
		if err != nil {
			return fmt.Errorf("the host: %w", err)
		}
		end, err := call(ctx, c, greeting)
		r.finished(endKey{g.Name(), echoPort, "host"}, end)
		return err
	})
	return group.Wait()
}

// serve accepts n connections and serves them at the same time.
func (r *run) serve(ctx context.Context, l *hvsock.Listener, n int, serve func(context.Context, *hvsock.Conn) error) error {
	defer interrupt(ctx, l)()
	group, ctx := errgroup.WithContext(ctx)
	for range n {
		c, err := l.Accept()
		if err != nil {
			return errors.Join(err, group.Wait())
		}
		group.Go(func() error { return serve(ctx, c.(*hvsock.Conn)) })
	}
	return group.Wait()
}

// receiveFrom serves the host's end of a guest's transfer.
func (r *run) receiveFrom(ctx context.Context, c *hvsock.Conn) error {
	end, err := receive(ctx, c)
	r.finished(endKey{r.nameOf(c.RemoteAddr()), sumPort, "host"}, end)
	return err
}

// nameOf returns the name of the guest that a connection of the host leads to.
func (r *run) nameOf(remote net.Addr) string {
	var id uuid.UUID
	if a, ok := remote.(hvsock.Addr); ok {
		id = a.VMID
	}
	for _, g := range r.guests {
		if g.ID() == id {
			return g.Name()
		}
	}
	return remote.String()
}

func (r *run) finished(k endKey, end transferEnd) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ends[k] = end
}

// settle waits until nothing is left of any connection, and returns what is left
// after all.
func (r *run) settle() (kept []string) {
	eventually(func() bool {
		kept = nil
		if u := r.host.Usage(); u != (sim.Usage{}) {
			kept = append(kept, fmt.Sprintf("the host keeps %+v", u))
		}
		for _, g := range r.guests {
			if u := g.Usage(); u != (sim.Usage{}) {
				kept = append(kept, fmt.Sprintf("%s keeps %+v", g.Name(), u))
			}
		}
		return len(kept) == 0
	})
	return kept
}

// close ends the world, however far it came.
func (r *run) close() error {
	if r.host == nil {
		return nil
	}
	return r.host.Close()
}

// goroutines returns the number of goroutines, once no more than want are left
// or they have had their time.
func goroutines(want int) int {
	eventually(func() bool { return runtime.NumGoroutine() <= want })
	return runtime.NumGoroutine()
}

// eventually polls done until it holds or settleTimeout has passed. There is no
// event to wait for: what is awaited is that nothing more happens.
func eventually(done func() bool) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(settleTimeout); !done() && time.Now().Before(end); {
		<-tick.C
	}
}
