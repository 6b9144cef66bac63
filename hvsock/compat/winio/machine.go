package winio

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/hvlab/hvlab/hvsock/compat"
)

// A Machine is the package as it works on one simulated machine: the functions
// of the package are its methods. On makes one.
type Machine struct{ sockets compat.Sockets }

// On returns the package on a machine: a *sim.Host, *sim.Guest or *sim.Container.
func On(machine compat.Sockets) *Machine { return &Machine{sockets: machine} }

var installed compat.Slot[Machine]

// Use makes the functions of this package work on m, in the whole process, until
// stop is called. It panics while another machine is installed, since two tests
// would otherwise meet on one machine by accident.
//
//	defer winio.Use(winio.On(host))()
func Use(m *Machine) (stop func()) { return installed.Use("winio", m) }

// absent is what a call fails with when no machine is installed.
func absent() error {
	return os.NewSyscallError("socket", &compat.NoMachineError{Package: "winio", Errno: winsock(syscall.EAFNOSUPPORT)})
}

// ListenHvsock accepts connections to a service of the installed machine.
//
// Errors are *net.OpError around a *WinsockError: WSAEADDRINUSE, WSAEADDRNOTAVAIL,
// WSAEACCES, ...
func ListenHvsock(addr *HvsockAddr) (*HvsockListener, error) {
	return installed.Get().ListenHvsock(addr)
}

// listenBacklog is how many connections wait for Accept in the original.
const listenBacklog = 16

// ListenHvsock accepts connections to a service of the machine.
func (m *Machine) ListenHvsock(addr *HvsockAddr) (*HvsockListener, error) {
	fail := func(err error) error {
		at := *addr
		return &net.OpError{Op: "listen", Net: network, Addr: &at, Err: err}
	}
	if m == nil {
		return nil, fail(absent())
	}
	l, err := m.sockets.Listen(addr.hvsock())
	if err != nil {
		return nil, fail(failed("socket", err)) // the original's name for bind
	}
	l.SetBacklog(listenBacklog)
	return &HvsockListener{l: l, addr: fromHvsock(l.Addr())}, nil
}

// An HvsockDialer dials. The zero value is ready.
type HvsockDialer struct {
	// Deadline ends Dial; zero means never.
	Deadline time.Time

	// Retries is how often Dial tries again after a connect that timed out, was
	// refused, or found no way.
	Retries uint

	// RetryWait is how long it waits before it does.
	RetryWait time.Duration

	machine *Machine // nil means the installed one
}

// Dial connects to addr from the installed machine, as a zero HvsockDialer does.
func Dial(ctx context.Context, addr *HvsockAddr) (*HvsockConn, error) {
	return (&HvsockDialer{}).Dial(ctx, addr)
}

// Dial connects to addr from the machine.
func (m *Machine) Dial(ctx context.Context, addr *HvsockAddr) (*HvsockConn, error) {
	return m.Dialer(HvsockDialer{}).Dial(ctx, addr)
}

// Dialer returns d as a dialer of the machine.
func (m *Machine) Dialer(d HvsockDialer) *HvsockDialer {
	d.machine = m
	return &d
}

// Dial connects to addr, and tries again as often as d says. The machine's own
// connect timer ends each try, by default after 2 s.
//
// Errors are *net.OpError around a *WinsockError (WSAECONNREFUSED, WSAETIMEDOUT,
// WSAENETUNREACH, ...) or the end of ctx, which the dialer's deadline is too.
func (d *HvsockDialer) Dial(ctx context.Context, addr *HvsockAddr) (*HvsockConn, error) {
	m := d.machine
	if m == nil {
		m = installed.Get()
	}
	if !d.Deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, d.Deadline)
		defer cancel()
	}
	conn := &HvsockConn{remote: *addr} // for its errors, too
	if err := ctx.Err(); err != nil {
		return nil, conn.opErr("dial", err)
	}
	if m == nil {
		return nil, conn.opErr("dial", absent())
	}
	for tries := uint(0); ; tries++ {
		c, err := compat.Dial(ctx, m.sockets, addr.hvsock())
		if err == nil {
			conn.c, conn.local = c, fromHvsock(c.LocalAddr())
			return conn, nil
		}
		if ctx.Err() == nil && tries < d.Retries && canRedial(err) {
			if err = d.redialWait(ctx); err == nil {
				continue
			}
		}
		if ctx.Err() == nil {
			err = failed("connectex", err)
		}
		return nil, conn.opErr("dial", err)
	}
}

// canRedial says whether another try may go better than one that ended with err.
func canRedial(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.ETIMEDOUT)
}

// redialWait waits, or returns why not.
func (d *HvsockDialer) redialWait(ctx context.Context) error {
	if d.RetryWait == 0 {
		return nil
	}
	timer := time.NewTimer(d.RetryWait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
