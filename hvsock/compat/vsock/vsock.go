package vsock

import (
	"context"
	"fmt"
	"os"
	"syscall"
)

const (
	// Hypervisor is the CID of the hypervisor process; nothing of Hyper-V
	// listens there.
	Hypervisor = 0x0

	// Local is the CID of the machine that dials.
	Local = 0x1

	// Host is the CID of the host: the one CID a guest reaches over hv_sock.
	Host = 0x2

	// devVsock is what ContextID opens in the original.
	devVsock = "/dev/vsock"

	// network is what Addr.Network returns and every *net.OpError carries.
	network = "vsock"
)

// Config has no options yet.
type Config struct{}

// An Addr is the address of a socket: a machine and a port of it.
type Addr struct {
	ContextID, Port uint32
}

// Network is "vsock".
func (a *Addr) Network() string { return network }

// String is like "host(2):5000", "local(1):5000" or "vm(3):5000".
func (a *Addr) String() string {
	host := "vm"
	switch a.ContextID {
	case Hypervisor:
		host = "hypervisor"
	case Local:
		host = "local"
	case Host:
		host = "host"
	}
	return fmt.Sprintf("%s(%d):%d", host, a.ContextID, a.Port)
}

// ContextID returns the CID of the installed machine: 4294967295 for a guest of
// Hyper-V, 2 for a host. Without a machine, the error matches os.ErrNotExist.
func ContextID() (uint32, error) { return installed.Get().ContextID() }

// ContextID returns the machine's CID: 4294967295 for a guest of Hyper-V, which
// does not know its own, and 2 for a host.
func (m *Machine) ContextID() (uint32, error) { return m.contextID() }

// Dial connects to a port of the machine contextID. The connect timer of the
// installed machine ends it, by default after 2 s. cfg may be nil.
//
// Errors are *net.OpError around an errno: ECONNREFUSED, ETIMEDOUT, ENODEV,
// ENETUNREACH, ...; without a machine EAFNOSUPPORT.
func Dial(contextID, port uint32, cfg *Config) (*Conn, error) {
	return DialContext(context.Background(), contextID, port, cfg)
}

// Dial connects to a port of the machine contextID.
func (m *Machine) Dial(contextID, port uint32, cfg *Config) (*Conn, error) {
	return m.DialContext(context.Background(), contextID, port, cfg)
}

// DialContext is Dial until ctx ends, which then is in the error.
func DialContext(ctx context.Context, contextID, port uint32, cfg *Config) (*Conn, error) {
	return installed.Get().DialContext(ctx, contextID, port, cfg)
}

// DialContext is Dial until ctx ends, which then is in the error.
func (m *Machine) DialContext(ctx context.Context, contextID, port uint32, _ *Config) (*Conn, error) {
	c, err := m.dial(ctx, contextID, port)
	if err != nil {
		return nil, opError(opDial, err, nil, &Addr{ContextID: contextID, Port: port})
	}
	return c, nil
}

// Listen accepts connections to a port of the installed machine; 0 picks a free
// one, which Addr of the Listener shows. cfg may be nil.
//
// Errors are *net.OpError around an errno: EADDRINUSE, EADDRNOTAVAIL, ENODEV;
// without a machine they match os.ErrNotExist.
func Listen(port uint32, cfg *Config) (*Listener, error) { return installed.Get().Listen(port, cfg) }

// Listen accepts connections to a port; 0 picks a free one.
func (m *Machine) Listen(port uint32, cfg *Config) (*Listener, error) {
	cid, err := m.ContextID()
	if err != nil {
		return nil, opError(opListen, err, nil, nil)
	}
	return m.ListenContextID(cid, port, cfg)
}

// ListenContextID is Listen on one CID of the machine: its own, 4294967295 for
// any, or Local for connections of its own programs only.
func ListenContextID(contextID, port uint32, cfg *Config) (*Listener, error) {
	return installed.Get().ListenContextID(contextID, port, cfg)
}

// ListenContextID is Listen on one CID of the machine.
func (m *Machine) ListenContextID(contextID, port uint32, _ *Config) (*Listener, error) {
	l, err := m.listen(contextID, port)
	if err != nil {
		return nil, opError(opListen, err, &Addr{ContextID: contextID, Port: port}, nil)
	}
	return l, nil
}

// FileListener fails with EINVAL, as it does for a file of another family: no
// file stands for a simulated socket.
func FileListener(f *os.File) (*Listener, error) { return installed.Get().FileListener(f) }

// FileListener fails with EINVAL: no file stands for a simulated socket.
func (*Machine) FileListener(*os.File) (*Listener, error) {
	return nil, opError(opListen, os.NewSyscallError("listen", syscall.EINVAL), nil, nil)
}
