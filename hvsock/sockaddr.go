package hvsock

import (
	"encoding/binary"

	"github.com/hvlab/hvlab/vmbus"
)

// Address families. Source: hvsock.md 2.1 to 2.3.
const (
	FamilyVSock           uint16 = 40 // Linux AF_VSOCK
	FamilyHyperV          uint16 = 34 // Windows AF_HYPERV
	FamilyHyperVOutOfTree uint16 = 43 // AF_HYPERV of Linux kernels from before hv_sock was merged; FreeBSD's has another layout
)

const (
	// SockaddrHVBytes is the size of a SOCKADDR_HV.
	SockaddrHVBytes = 36
	// SockaddrVMBytes is the size of a struct sockaddr_vm.
	SockaddrVMBytes = 16
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
// CID u32, flags u8, zeros, in the byte order of this machine. The flags are 0.
// Source: hvsock.md 2.2; Linux include/uapi/linux/vm_sockets.h, struct sockaddr_vm.
func (v VSockAddr) SockaddrVM() [SockaddrVMBytes]byte {
	var b [SockaddrVMBytes]byte
	binary.NativeEndian.PutUint16(b[0:], FamilyVSock)
	binary.NativeEndian.PutUint32(b[4:], v.Port)
	binary.NativeEndian.PutUint32(b[8:], v.CID)
	return b
}

// ParseSockaddrVM reads a struct sockaddr_vm. Flags and reserved fields, which
// were padding once, are ignored. The error is a *SockaddrError.
func ParseSockaddrVM(b []byte) (VSockAddr, error) {
	family := sockaddrFamily(b, binary.NativeEndian)
	if len(b) != SockaddrVMBytes || family != FamilyVSock {
		return VSockAddr{}, &SockaddrError{Family: family, WantFamily: FamilyVSock, Have: len(b), Want: SockaddrVMBytes}
	}
	return VSockAddr{Port: binary.NativeEndian.Uint32(b[4:]), CID: binary.NativeEndian.Uint32(b[8:])}, nil
}

// sockaddrFamily is the family every socket address starts with, or 0 if b is
// too short for one.
func sockaddrFamily(b []byte, order binary.ByteOrder) uint16 {
	if len(b) < 2 {
		return 0
	}
	return order.Uint16(b)
}
