package hvsock

import (
	"bytes"
	"encoding/binary"

	"github.com/google/uuid"
)

// The VM ids with a meaning of their own. A VM id never crosses VMBus, where
// guest and host know each other; it only selects inside one side.
// Source: hvsock.md 2.5, after Microsoft's hvsocket.h.
var (
	// Wildcard binds a listener to connections from every partition.
	Wildcard = uuid.UUID{}
	// Broadcast has no documented meaning.
	Broadcast = uuid.MustParse("ffffffff-ffff-ffff-ffff-ffffffffffff")
	// Children binds a listener of the host to connections from its guests.
	Children = uuid.MustParse("90db8b89-0d35-4f79-8ce9-49ea0ac8b7cd")
	// Loopback names the connector's own partition.
	Loopback = uuid.MustParse("e0e16197-dd56-4a10-9195-5ee7a155a838")
	// Parent names the host, seen from its guest.
	Parent = uuid.MustParse("a42e7cda-d03f-480c-9cc2-a4de20abb878")
	// SiloHost names the partition that hosts a silo (container).
	SiloHost = uuid.MustParse("36bd0c5c-7276-4223-88ba-7d03b654c568")
)

// vsockTemplate is the service id of port 0. All ports share everything behind
// its first 4 bytes, and other service ids mean nothing to a Linux guest.
var vsockTemplate = uuid.MustParse("00000000-facb-11e6-bd58-64006a7986d3")

const (
	// PortAny asks a Linux bind for a free port.
	PortAny uint32 = 0xFFFFFFFF

	// portBytes is the size of the port at the start of a service id.
	portBytes = 4
)

// ServiceIDFromPort is the service id that stands for an AF_VSOCK port: port
// 2761 is 00000ac9-facb-11e6-bd58-64006a7986d3. Old Linux kernels refuse ports
// above 0x7fffffff. Source: hvsock.md 2.6.
func ServiceIDFromPort(port uint32) uuid.UUID {
	id := vsockTemplate
	// A uuid.UUID holds its bytes as printed, hence most significant first; on
	// the wire the same field is little endian (see vmbus.GUID).
	binary.BigEndian.PutUint32(id[:portBytes], port)
	return id
}

// PortFromServiceID is the AF_VSOCK port that id stands for; ok is false if id
// is not such an id.
func PortFromServiceID(id uuid.UUID) (port uint32, ok bool) {
	if !bytes.Equal(id[portBytes:], vsockTemplate[portBytes:]) {
		return 0, false
	}
	return binary.BigEndian.Uint32(id[:portBytes]), true
}

// The context ids of AF_VSOCK, as a guest of Hyper-V sees them.
// Source: hvsock.md 2.7; Linux include/uapi/linux/vm_sockets.h.
const (
	CIDHypervisor uint32 = 0          // reserved; nothing listens there
	CIDLocal      uint32 = 1          // the connector's own machine
	CIDHost       uint32 = 2          // the only CID hv_sock itself connects to
	CIDAny        uint32 = 0xFFFFFFFF // bind: from everywhere
)

// vmidFromCID is the VM id with the meaning of cid. CIDs of other virtual
// machines have none: Hyper-V does not number its guests.
func vmidFromCID(cid uint32) (vmid uuid.UUID, ok bool) {
	switch cid {
	case CIDHost:
		return Parent, true
	case CIDLocal:
		return Loopback, true
	case CIDAny:
		return Wildcard, true
	}
	return uuid.UUID{}, false
}

// cidFromVMID is the inverse of vmidFromCID.
func cidFromVMID(vmid uuid.UUID) (cid uint32, ok bool) {
	switch vmid {
	case Parent:
		return CIDHost, true
	case Loopback:
		return CIDLocal, true
	case Wildcard:
		return CIDAny, true
	}
	return 0, false
}
