package kvmguest

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/sim"
)

// A Guest is a VM attached to a simulated host: to Go code a guest of that host
// like any other. host.Dial with its ID reaches a listener in the real kernel,
// host.Listen accepts from it; Dial and Listen are the same for this guest alone.
type Guest struct {
	vm         *VM
	host       *sim.Host
	attachment *sim.Attachment
	id         uuid.UUID
}

// Dialect is d with what a real kernel needs beyond the specification: an answer
// to an OpenChannel that a rescind has overtaken. Without one Linux 6.1 may sleep
// for ever, and its whole bus with it.
func Dialect(d endpoint.Dialect) endpoint.Dialect {
	d.AnswerRescindedOpens = true
	return d
}

// Attach builds the machine and attaches it to host; Run boots it. name labels
// its traces; the host speaks Dialect to it. The errors are those of New and of sim.Host.Attach.
func Attach(host *sim.Host, name string, o Options) (*Guest, error) {
	vm, err := New(o)
	if err != nil {
		return nil, err
	}
	g := &Guest{vm: vm, host: host, id: uuid.New()}
	g.attachment, err = host.AttachDialect(name, g.id, vm.Memory(), vm.Port(), Dialect(host.Dialect()))
	if err != nil {
		return nil, errors.Join(err, vm.Close())
	}
	return g, nil
}

// ID returns the guest's VM id: what the host dials.
func (g *Guest) ID() uuid.UUID { return g.id }

// Bus returns the host's end of the guest's VMBus.
func (g *Guest) Bus() *live.Host { return g.attachment.Bus() }

// Type enters p at the serial console and returns how many bytes it took.
func (g *Guest) Type(p []byte) int { return g.vm.Type(p) }

// Run runs the guest until it ends by itself or ctx does: see VM.Run. A guest
// that reset itself (ErrReset) may be run again. The host then forgets its
// connection first: a real kernel reuses its memory without a word of goodbye,
// and nobody may look at the old rings any more.
func (g *Guest) Run(ctx context.Context) error {
	err := g.vm.Run(ctx)
	if errors.Is(err, ErrReset) {
		g.Bus().Reset()
	}
	return err
}

// Listen accepts connections of this guest on addr.ServiceID; addr.VMID does not
// matter. A nil service id picks a free port.
func (g *Guest) Listen(addr hvsock.Addr) (*hvsock.Listener, error) {
	return g.host.Listen(hvsock.Addr{VMID: g.id, ServiceID: addr.ServiceID})
}

// Dial connects to a service of this guest; addr.VMID does not matter. See
// sim.Host.Dial.
func (g *Guest) Dial(ctx context.Context, addr hvsock.Addr) (*hvsock.Conn, error) {
	return g.host.Dial(ctx, hvsock.Addr{VMID: g.id, ServiceID: addr.ServiceID})
}

// Close ends every channel of the guest, forgets it, and frees the machine.
func (g *Guest) Close() error {
	g.attachment.Close()
	return g.vm.Close()
}
