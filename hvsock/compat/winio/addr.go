package winio

import (
	"net"

	"github.com/Microsoft/go-winio/pkg/guid"
	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock"
)

// HvsockGUIDWildcard is the VM id of a listener for every partition.
func HvsockGUIDWildcard() guid.GUID { return toGUID(hvsock.Wildcard) }

// HvsockGUIDBroadcast has no documented meaning.
func HvsockGUIDBroadcast() guid.GUID { return toGUID(hvsock.Broadcast) }

// HvsockGUIDLoopback is the VM id of the caller's own partition.
func HvsockGUIDLoopback() guid.GUID { return toGUID(hvsock.Loopback) }

// HvsockGUIDSiloHost is the VM id of a silo's host.
func HvsockGUIDSiloHost() guid.GUID { return toGUID(hvsock.SiloHost) }

// HvsockGUIDChildren is the VM id of a listener for the host's guests.
func HvsockGUIDChildren() guid.GUID { return toGUID(hvsock.Children) }

// HvsockGUIDParent is the VM id of a guest's host.
func HvsockGUIDParent() guid.GUID { return toGUID(hvsock.Parent) }

// VsockServiceID is the service id that stands for an AF_VSOCK port.
func VsockServiceID(port uint32) guid.GUID { return toGUID(hvsock.ServiceIDFromPort(port)) }

// An HvsockAddr names a partition and a service in it.
type HvsockAddr struct {
	VMID      guid.GUID
	ServiceID guid.GUID
}

var _ net.Addr = &HvsockAddr{}

// Network is "hvsock".
func (*HvsockAddr) Network() string { return network }

// String is "vmid:serviceid", both as plain GUIDs.
func (addr *HvsockAddr) String() string { return addr.hvsock().String() }

func (addr *HvsockAddr) hvsock() hvsock.Addr {
	return hvsock.Addr{VMID: addr.VMID.ToArray(), ServiceID: addr.ServiceID.ToArray()}
}

// fromHvsock is the other way round. The address is a Conn's or Listener's, hence
// an hvsock.Addr.
func fromHvsock(a net.Addr) HvsockAddr {
	from, _ := a.(hvsock.Addr)
	return HvsockAddr{VMID: toGUID(from.VMID), ServiceID: toGUID(from.ServiceID)}
}

// toGUID turns an id whose bytes are as printed into the mixed-endian form.
func toGUID(id uuid.UUID) guid.GUID { return guid.FromArray(id) }
