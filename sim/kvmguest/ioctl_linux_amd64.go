package kvmguest

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file is the only one here that needs unsafe: an ioctl takes the address
// of its argument, and KVM must be told where the guest's RAM lies.

// ioctl makes a request whose argument is a number, or none. A signal, such as
// those of the Go scheduler, only delays it.
func ioctl(fd int, name string, request, argument uintptr) (int, error) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, argument)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
			continue
		}
		return 0, &KVMError{name, errno}
	}
}

// ioctlBytes makes a request whose argument is the structure encoded in b, which
// must not be empty. The kernel may write to b.
func ioctlBytes(fd int, name string, request uintptr, b []byte) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(unsafe.SliceData(b))))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
			continue
		}
		return &KVMError{name, errno}
	}
}

// enterGuest runs a processor until its next exit or until a signal arrives
// (EINTR). EAGAIN means that it waits to be started by another processor.
func enterGuest(vcpu int) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(vcpu), kvmRun, 0); errno != 0 {
		return &KVMError{"KVM_RUN", errno}
	}
	return nil
}

// addressOf is the address of b for a field of a structure. b must be heap
// memory, which Go does not move, and stay alive: callers use runtime.KeepAlive
// or hold b for as long as the kernel uses it.
func addressOf(b []byte) uint64 {
	return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b))))
}

// setMSRFilter denies reads and writes of [first, first+count), so that they
// leave KVM; all other MSRs stay with KVM. A clear bit in the bitmap denies.
// Source: Linux Documentation/virt/kvm/api.rst, 4.97 KVM_X86_SET_MSR_FILTER.
func setMSRFilter(vm int, first, count uint32) error {
	bitmap := make([]byte, (count+7)/8)
	filter := kvmMSRFilter{Ranges: [16]kvmMSRFilterRange{{
		Flags: msrFilterRead | msrFilterWrite, Count: count, First: first, Bitmap: addressOf(bitmap),
	}}}
	err := ioctlBytes(vm, "KVM_X86_SET_MSR_FILTER", kvmSetMSRFilter, encode(&filter))
	runtime.KeepAlive(bitmap) // the kernel copies it during the call
	return err
}

// giveBack returns the memory behind RAM that nobody runs in any more to the
// machine: its bytes read as zeros from now on, and stay valid. Parts of a page of
// the machine at either end are left alone. A machine that refuses keeps it until
// the garbage collector comes by, which harms nothing.
func giveBack(ram []byte) {
	size := uint64(os.Getpagesize())
	start := addressOf(ram)
	from, to := (start+size-1)&^(size-1), (start+uint64(len(ram)))&^(size-1)
	if from < to {
		_ = unix.Madvise(ram[from-start:to-start], unix.MADV_DONTNEED)
	}
}
