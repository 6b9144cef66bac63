package hvsock

import (
	"encoding/binary"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/vmbus"
)

// Address families. Source: hvsock.md 2.1 to 2.3.
const (
	FamilyVSock           uint16 = 40 // Linux AF_VSOCK
	FamilyHyperV          uint16 = 34 // Windows AF_HYPERV
	FamilyHyperVOutOfTree uint16 = 43 // AF_HYPERV of Linux kernels from before hv_sock was merged
	FamilyHyperVFreeBSD   uint8  = 43 // FreeBSD's AF_HYPERV: another layout, and one byte wide
)

// What socket() takes besides the family. Source: hvsock.md 2.1 and 2.3.
const (
	ProtocolRaw = 1 // HV_PROTOCOL_RAW of Windows, HYPERV_SOCK_PROTO_TRANS of FreeBSD
)

// FlagToHost is bit 0 of svm_flags: route to the host although the CID is not
// 2. Source: hvsock.md 2.2; VMADDR_FLAG_TO_HOST of vm_sockets.h.
const FlagToHost uint8 = 1

const (
	// SockaddrHVBytes is the size of a SOCKADDR_HV.
	SockaddrHVBytes = 36
	// SockaddrVMBytes is the size of a struct sockaddr_vm.
	SockaddrVMBytes = 16
	// SockaddrHVSBytes is the size of FreeBSD's struct sockaddr_hvs.
	SockaddrHVSBytes = 20
	// AddressInfoBytes is the size of HVSOCKET_ADDRESS_INFO.
	AddressInfoBytes = 52
)

// SockaddrHV is the Windows socket address: family u16, reserved u16, VM id and
// service id as GUIDs in wire order.
// Source: hvsock.md 2.1, after SOCKADDR_HV of Microsoft's hvsocket.h.
func (a Addr) SockaddrHV() [SockaddrHVBytes]byte {
	var b [SockaddrHVBytes]byte
	binary.LittleEndian.PutUint16(b[0:], FamilyHyperV)
	vmid, service := vmbus.GUIDFromUUID(a.VMID), vmbus.GUIDFromUUID(a.ServiceID)
	copy(b[4:], vmid[:])
	copy(b[20:], service[:])
	return b
}

// ParseSockaddrHV reads a SOCKADDR_HV, of Windows or of the out-of-tree Linux
// family. The reserved field is ignored. The error is a *SockaddrError.
func ParseSockaddrHV(b []byte) (Addr, error) {
	family := sockaddrFamily(b, binary.LittleEndian)
	if len(b) != SockaddrHVBytes || family != FamilyHyperV && family != FamilyHyperVOutOfTree {
		return Addr{}, &SockaddrError{Family: family, WantFamily: FamilyHyperV, Have: len(b), Want: SockaddrHVBytes}
	}
	return Addr{
		VMID:      vmbus.GUID(b[4:20]).UUID(),
		ServiceID: vmbus.GUID(b[20:36]).UUID(),
	}, nil
}

// SockaddrVM is the Linux socket address: family u16, reserved u16, port u32,
// CID u32, flags u8, zeros, in the byte order of this machine: the port is not
// in network order. The flags are 0.
// Source: hvsock.md 2.2; Linux include/uapi/linux/vm_sockets.h, struct sockaddr_vm.
func (v VSockAddr) SockaddrVM() [SockaddrVMBytes]byte {
	var b [SockaddrVMBytes]byte
	binary.NativeEndian.PutUint16(b[0:], FamilyVSock)
	binary.NativeEndian.PutUint32(b[4:], v.Port)
	binary.NativeEndian.PutUint32(b[8:], v.CID)
	return b
}

// ParseSockaddrVM reads a struct sockaddr_vm. Flags (SockaddrVMFlags has them)
// and reserved fields, which were padding once, are ignored. The error is a
// *SockaddrError.
func ParseSockaddrVM(b []byte) (VSockAddr, error) {
	family := sockaddrFamily(b, binary.NativeEndian)
	if len(b) != SockaddrVMBytes || family != FamilyVSock {
		return VSockAddr{}, &SockaddrError{Family: family, WantFamily: FamilyVSock, Have: len(b), Want: SockaddrVMBytes}
	}
	return VSockAddr{Port: binary.NativeEndian.Uint32(b[4:]), CID: binary.NativeEndian.Uint32(b[8:])}, nil
}

// SockaddrVMFlags is the svm_flags byte of b, or 0 if b is no sockaddr_vm. On
// kernels that know none it is padding.
func SockaddrVMFlags(b []byte) uint8 {
	if len(b) != SockaddrVMBytes {
		return 0
	}
	return b[12]
}

// SockaddrHVS is FreeBSD's socket address: length u8, family u8, two bytes of
// alignment, port u32 in the byte order of this machine, zeros. It names no VM:
// a guest talks to its host.
// Source: hvsock.md 2.3.
func SockaddrHVS(port uint32) [SockaddrHVSBytes]byte {
	b := [SockaddrHVSBytes]byte{0: SockaddrHVSBytes, 1: FamilyHyperVFreeBSD}
	binary.NativeEndian.PutUint32(b[4:], port)
	return b
}

// ParseSockaddrHVS reads a struct sockaddr_hvs, whose length byte must be its
// size. The error is a *SockaddrError.
func ParseSockaddrHVS(b []byte) (port uint32, err error) {
	if len(b) != SockaddrHVSBytes || b[0] != SockaddrHVSBytes || b[1] != FamilyHyperVFreeBSD {
		e := &SockaddrError{WantFamily: uint16(FamilyHyperVFreeBSD), Have: len(b), Want: SockaddrHVSBytes}
		if len(b) >= 2 {
			e.Family, e.Have = uint16(b[1]), min(int(b[0]), len(b))
		}
		return 0, e
	}
	return binary.NativeEndian.Uint32(b[4:]), nil
}

// An AddressInfo is HVSOCKET_ADDRESS_INFO: where exactly a connected socket's
// other end is.
// Source: hvsock.md 9, after Microsoft's hvsocket.h.
type AddressInfo struct {
	SystemID uuid.UUID // of the machine
	VMID     uuid.UUID // VirtualMachineId
	SiloID   uuid.UUID // zero = none
	Flags    uint32    // AddressPassthru
}

// AddressPassthru is HVSOCKET_ADDRESS_FLAG_PASSTHRU: the container's connection
// was passed through to the VM's host.
const AddressPassthru uint32 = 1

// Encode is the structure as Windows lays it out: three GUIDs in wire order,
// then the flags.
func (a AddressInfo) Encode() [AddressInfoBytes]byte {
	var b [AddressInfoBytes]byte
	for i, id := range []uuid.UUID{a.SystemID, a.VMID, a.SiloID} {
		guid := vmbus.GUIDFromUUID(id)
		copy(b[16*i:], guid[:])
	}
	binary.LittleEndian.PutUint32(b[48:], a.Flags)
	return b
}

// ParseAddressInfo reads an HVSOCKET_ADDRESS_INFO; every value is legal. The
// error, for another size, is a *SockaddrError.
func ParseAddressInfo(b []byte) (AddressInfo, error) {
	if len(b) != AddressInfoBytes {
		return AddressInfo{}, &SockaddrError{WantFamily: FamilyHyperV, Have: len(b), Want: AddressInfoBytes}
	}
	return AddressInfo{
		SystemID: vmbus.GUID(b[0:16]).UUID(),
		VMID:     vmbus.GUID(b[16:32]).UUID(),
		SiloID:   vmbus.GUID(b[32:48]).UUID(),
		Flags:    binary.LittleEndian.Uint32(b[48:]),
	}, nil
}

// sockaddrFamily is the family every socket address starts with, or 0 if b is
// too short for one.
func sockaddrFamily(b []byte, order binary.ByteOrder) uint16 {
	if len(b) < 2 {
		return 0
	}
	return order.Uint16(b)
}
