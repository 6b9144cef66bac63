package fuzz

import (
	"errors"
	"io/fs"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/vmbus"
)

// Addresses parses an address; the input is its text.
func Addresses(data []byte) error {
	text := string(data)
	a, err := hvsock.ParseAddr(text)
	if err != nil {
		var bad *hvsock.AddrError
		if !errors.As(err, &bad) || a != (hvsock.Addr{}) {
			return violated("whose fault", "ParseAddr(%q) = %v, %v", text, a, err)
		}
		return nil
	}
	if again, err := hvsock.ParseAddr(a.String()); err != nil || again != a {
		return violated("parse of encode", "%q is %v, whose text is %v, %v", text, a, again, err)
	}
	b := a.SockaddrHV()
	if again, err := hvsock.ParseSockaddrHV(b[:]); err != nil || again != a {
		return violated("parse of encode", "%q is %v, whose SOCKADDR_HV is %v, %v", text, a, again, err)
	}
	if v, ok := a.VSock(); ok {
		if again, ok := v.Addr(); !ok || again != a {
			return violated("parse of encode", "%q is %v, whose vsock view is %v", text, a, again)
		}
		if again, err := hvsock.ParseAddr(v.String()); err != nil || again != a {
			return violated("parse of encode", "%q is %v, whose vsock text %q is %v, %v", text, a, v.String(), again, err)
		}
	}
	return nil
}

func addressSeeds(fs.FS) ([][]byte, error) {
	var seeds [][]byte
	for _, name := range []string{"wildcard", "any", "broadcast", "children", "loopback", "local", "parent", "host", "silohost", "HOST"} {
		seeds = append(seeds, []byte(name+":5000"))
	}
	const someVM = "3c8b4f0e-6a55-4f6c-9d1e-2b7a90c4d811"
	for _, text := range []string{
		"", ":", "5000", "host(2):5000", "vm(4294967295):0", "vm():1", "(2):1", "2:2:2", "2:4294967296",
		someVM + ":" + someVM, hvsock.Addr{VMID: hvsock.Children, ServiceID: hvsock.ServiceIDFromPort(1)}.String(),
	} {
		seeds = append(seeds, []byte(text))
	}
	return seeds, nil
}

// Sockaddrs parses the bytes of a socket address of Windows and of Linux, and
// their first 16 as a service.
func Sockaddrs(data []byte) error {
	if a, err := hvsock.ParseSockaddrHV(data); err == nil {
		b := a.SockaddrHV()
		if string(b[4:]) != string(data[4:]) { // before that: family and reserved
			return violated("encode of parse", "%x became %x", data, b)
		}
	} else if !errors.Is(err, vmbus.ErrState) && !errors.Is(err, vmbus.ErrProtocol) {
		return violated("whose fault", "%v", err)
	}
	if v, err := hvsock.ParseSockaddrVM(data); err == nil {
		b := v.SockaddrVM()
		if string(b[4:12]) != string(data[4:12]) { // around it: family, reserved, flags
			return violated("encode of parse", "%x became %x", data, b)
		}
	}
	if len(data) < 16 {
		return nil
	}
	id := uuid.UUID(data[:16])
	port, ok := hvsock.PortFromServiceID(id)
	if ok != (hvsock.ServiceIDFromPort(port) == id) {
		return violated("encode of parse", "%v is port %d, %v", id, port, ok)
	}
	if vmbus.GUIDFromUUID(id).UUID() != id {
		return violated("encode of parse", "%v does not survive the wire's order", id)
	}
	return nil
}

func sockaddrSeeds(fs.FS) ([][]byte, error) {
	hv := hvsock.Addr{VMID: hvsock.Parent, ServiceID: hvsock.ServiceIDFromPort(5000)}.SockaddrHV()
	vm := hvsock.VSockAddr{CID: hvsock.CIDHost, Port: 5000}.SockaddrVM()
	port := hvsock.ServiceIDFromPort(0x80000001)
	return [][]byte{hv[:], vm[:], port[:], nil, append(hv[:], 0), vm[:15]}, nil
}
