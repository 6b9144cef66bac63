package native

import (
	"context"
	"errors"
	"net"
	"syscall"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/mdlayher/vsock"
)

// vsockEnable provides AF_VSOCK, vsockLoopbackEnable its loopback.
const (
	vsockEnable         = "sudo modprobe vsock"
	vsockLoopbackEnable = "sudo modprobe vsock_loopback"
)

// A vsockCalls is the socket calls of AF_VSOCK.
type vsockCalls struct {
	dial   func(ctx context.Context, cid, port uint32) (stream, error)
	listen func(cid, port uint32) (acceptor, error) // port 0 is any
}

// newVSockSystem is AF_VSOCK on top of calls.
func newVSockSystem(calls vsockCalls) system {
	return system{
		family:  "AF_VSOCK",
		profile: hvsock.Linux,
		enable:  vsockEnable,
		errno:   posixErrno,
		addr:    fromVSock,
		dial: func(ctx context.Context, addr hvsock.Addr) (stream, error) {
			to, err := vsockTarget(addr)
			if err != nil {
				return nil, err
			}
			if to.CID == hvsock.CIDLocal {
				if err := calls.requireLoopback(addr); err != nil {
					return nil, err
				}
			}
			return calls.dial(ctx, to.CID, to.Port)
		},
		listen: func(addr hvsock.Addr) (acceptor, error) {
			at, err := vsockBind(addr)
			if err != nil {
				return nil, err
			}
			l, err := calls.listen(at.CID, at.Port)
			if at.CID == hvsock.CIDLocal && errors.Is(err, syscall.EADDRNOTAVAIL) {
				return nil, noLoopback(addr, syscall.EADDRNOTAVAIL)
			}
			return l, err
		},
		// No CID to bind to means "only the host": Linux has no such thing.
		admits: func(asked hvsock.Addr, remote net.Addr) bool {
			from, ok := remote.(hvsock.Addr)
			return asked.VMID != hvsock.Parent || ok && from.VMID == hvsock.Parent
		},
	}
}

// requireLoopback makes sure that CID 1 is this machine. Without the loopback
// transport Linux hands a connection to CID 1 to the transport of a guest, which
// takes it to the hypervisor: bytes meant to stay here would leave. Only the
// loopback transport lets a socket bind to CID 1 (vsock_find_cid of Linux).
func (calls vsockCalls) requireLoopback(addr hvsock.Addr) error {
	l, err := calls.listen(hvsock.CIDLocal, 0)
	switch {
	case err == nil:
		return l.Close()
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return noLoopback(addr, syscall.ENETUNREACH)
	}
	return err
}

func noLoopback(addr hvsock.Addr, errno syscall.Errno) error {
	return &AddressError{addr, errno, "no loopback transport is loaded; try: " + vsockLoopbackEnable}
}

// vsockTarget is where a connection to addr goes.
func vsockTarget(addr hvsock.Addr) (hvsock.VSockAddr, error) {
	if addr.VMID != hvsock.Parent && addr.VMID != hvsock.Loopback {
		return hvsock.VSockAddr{}, &AddressError{addr, syscall.ENETUNREACH, "AF_VSOCK connects to VM ids Parent and Loopback only"}
	}
	to, ok := addr.VSock()
	if !ok {
		return hvsock.VSockAddr{}, notAPort(addr)
	}
	return to, nil
}

// vsockBind is where a listener on addr binds; port 0 is any.
func vsockBind(addr hvsock.Addr) (at hvsock.VSockAddr, err error) {
	switch addr.VMID {
	case hvsock.Wildcard, hvsock.Parent:
		at.CID = hvsock.CIDAny
	case hvsock.Loopback:
		at.CID = hvsock.CIDLocal
	case hvsock.Children:
		at.CID = hvsock.CIDHost // what guests dial
	default:
		return at, &AddressError{addr, syscall.EADDRNOTAVAIL, "AF_VSOCK listens on VM ids Wildcard, Parent, Children and Loopback only"}
	}
	if wantsAnyPort(addr.ServiceID) {
		return at, nil
	}
	var ok bool
	if at.Port, ok = hvsock.PortFromServiceID(addr.ServiceID); !ok {
		return at, notAPort(addr)
	}
	return at, nil
}

func notAPort(addr hvsock.Addr) error {
	return &AddressError{addr, syscall.EADDRNOTAVAIL, "service id " + addr.ServiceID.String() + " is no AF_VSOCK port"}
}

// fromVSock turns addresses of mdlayher/vsock into ours.
func fromVSock(a net.Addr) net.Addr {
	from, ok := a.(*vsock.Addr)
	if !ok {
		return a
	}
	v := hvsock.VSockAddr{CID: from.ContextID, Port: from.Port}
	if addr, ok := v.Addr(); ok {
		return addr
	}
	return v
}
