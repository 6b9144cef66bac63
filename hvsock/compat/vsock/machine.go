package vsock

import (
	"context"
	"maps"
	"os"
	"syscall"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/hvsock/compat"
)

// A Machine is the package as it works on one simulated machine: the functions
// of the package are its methods. OnGuest and OnHost make one.
type Machine struct {
	sockets compat.Sockets
	cid     uint32               // what ContextID says
	guests  map[uint32]uuid.UUID // of a host: whom a CID means; nil in a guest
}

// OnGuest returns the package on a guest of Hyper-V, a *sim.Guest.
func OnGuest(guest compat.Sockets) *Machine { return &Machine{sockets: guest, cid: hvsock.CIDAny} }

// OnHost returns the package on a host. guests are the CIDs, from 3 on, under
// which it knows its guests' VM ids.
func OnHost(host compat.Sockets, guests map[uint32]uuid.UUID) *Machine {
	m := &Machine{sockets: host, cid: Host, guests: map[uint32]uuid.UUID{}}
	maps.Copy(m.guests, guests)
	return m
}

var installed compat.Slot[Machine]

// Use makes the functions of this package work on m, in the whole process, until
// stop is called. It panics while another machine is installed, since two tests
// would otherwise meet on one machine by accident.
//
//	defer vsock.Use(vsock.OnGuest(guest))()
func Use(m *Machine) (stop func()) { return installed.Use("vsock", m) }

// absent is what a call fails with when no machine is installed.
func absent(errno syscall.Errno) error { return &compat.NoMachineError{Package: "vsock", Errno: errno} }

// contextID is ContextID, without a machine too.
func (m *Machine) contextID() (uint32, error) {
	if m == nil {
		return 0, &os.PathError{Op: "open", Path: devVsock, Err: absent(syscall.ENOENT)}
	}
	return m.cid, nil
}

// listen binds as bind(2) does, and listens.
func (m *Machine) listen(cid, port uint32) (*Listener, error) {
	if m == nil {
		return nil, os.NewSyscallError("socket", absent(syscall.EAFNOSUPPORT))
	}
	vmid, ok := m.bind(cid)
	if !ok {
		return nil, os.NewSyscallError("bind", syscall.EADDRNOTAVAIL)
	}
	if port == hvsock.PortAny {
		port = 0
	}
	l, err := m.sockets.Listen(hvsock.Addr{VMID: vmid, ServiceID: hvsock.ServiceIDFromPort(port)})
	if err != nil {
		return nil, compat.Cause(err)
	}
	bound, _ := l.Addr().(hvsock.Addr) // that is what its documentation says
	return &Listener{l: l, machine: m, addr: &Addr{ContextID: cid, Port: portOf(bound.ServiceID)}}, nil
}

// bind is the VM id that a listener on cid is for: its own CID is for everybody,
// and CIDLocal for itself. A machine has no other.
// Source: hvsock.md 2.7.
func (m *Machine) bind(cid uint32) (vmid uuid.UUID, ok bool) {
	switch cid {
	case hvsock.CIDAny, m.cid:
		return hvsock.Wildcard, true
	case Local:
		return hvsock.Loopback, true
	}
	return vmid, false
}

// dial connects as connect(2) does.
func (m *Machine) dial(ctx context.Context, cid, port uint32) (*Conn, error) {
	if m == nil {
		return nil, os.NewSyscallError("socket", absent(syscall.EAFNOSUPPORT))
	}
	vmid, err := m.target(cid)
	var c *hvsock.Conn
	if err == nil {
		c, err = compat.Dial(ctx, m.sockets, hvsock.Addr{VMID: vmid, ServiceID: hvsock.ServiceIDFromPort(port)})
	}
	if err != nil {
		return nil, os.NewSyscallError("connect", err)
	}
	local, _ := c.LocalAddr().(hvsock.Addr)
	return &Conn{
		c:      c,
		local:  &Addr{ContextID: hvsock.CIDAny, Port: portOf(local.ServiceID)}, // a port is bound, a CID is not
		remote: &Addr{ContextID: cid, Port: port},
	}, nil
}

// target is the VM id that a connection to cid goes to, or an errno.
// Source: hvsock.md 2.7; Linux net/vmw_vsock/af_vsock.c, vsock_assign_transport
// and vsock_use_local_transport: a machine's own CID is its loopback's too.
func (m *Machine) target(cid uint32) (vmid uuid.UUID, err error) {
	switch cid {
	case Local, m.cid:
		return hvsock.Loopback, nil
	case Hypervisor:
		return vmid, syscall.ENETUNREACH
	}
	if cid == Host {
		return hvsock.Parent, nil
	}
	vmid, ok := m.guests[cid]
	if !ok {
		return vmid, syscall.ENODEV
	}
	return vmid, nil
}

// remote is the address of who has dialled us.
func (m *Machine) remote(from hvsock.Addr) *Addr {
	a := &Addr{ContextID: hvsock.CIDAny, Port: portOf(from.ServiceID)}
	switch from.VMID {
	case hvsock.Loopback:
		a.ContextID = Local
	case hvsock.Parent:
		a.ContextID = Host
	default:
		for cid, vmid := range m.guests {
			if vmid == from.VMID {
				a.ContextID = cid
			}
		}
	}
	return a
}

// portOf is the port that Linux shows for a service id or endpoint id: its first
// 32 bits, which are all of it unless the other end is no Linux.
// Source: hvsock.md 2.7.
func portOf(id uuid.UUID) uint32 {
	return uint32(id[0])<<24 | uint32(id[1])<<16 | uint32(id[2])<<8 | uint32(id[3])
}
