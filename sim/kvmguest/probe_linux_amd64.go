package kvmguest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

const kvmPath = "/dev/kvm"

// Probe reports whether this machine can run a guest. If not, reason says in
// one line what is missing and which command provides it.
func Probe() (reason string, ok bool) {
	fd, err := openKVM()
	if err != nil {
		var unsupported *UnsupportedError
		if errors.As(err, &unsupported) {
			return unsupported.Reason, false
		}
		return err.Error(), false
	}
	_ = unix.Close(fd)
	return "", true
}

// openKVM opens /dev/kvm and checks that it has all that is needed. The error
// is an *UnsupportedError.
func openKVM() (int, error) {
	unsupported := func(format string, args ...any) (int, error) {
		return 0, &UnsupportedError{fmt.Sprintf(format, args...)}
	}
	cpuinfo, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return unsupported("cannot tell whether the processor has virtualization: %v", err)
	}
	virtual := hasVirtualization(string(cpuinfo))
	fd, err := unix.Open(kvmPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !virtual:
		return unsupported("%s does not exist and the processor shows no vmx or svm: enable virtualization in the firmware, or %s", kvmPath, nestedHint)
	case errors.Is(err, fs.ErrNotExist):
		return unsupported("%s does not exist: modprobe kvm_intel || modprobe kvm_amd", kvmPath)
	case errors.Is(err, fs.ErrPermission):
		return unsupported("no permission to open %s: sudo usermod -aG kvm $USER, then log in again", kvmPath)
	case err != nil:
		return unsupported("cannot open %s: %v", kvmPath, err)
	}
	if !virtual {
		_ = unix.Close(fd)
		return unsupported("%s exists but the processor shows no vmx or svm: a paravirtual KVM (pvm) cannot run this guest; %s", kvmPath, nestedHint)
	}
	if version, err := ioctl(fd, "KVM_GET_API_VERSION", kvmGetAPIVersion, 0); err != nil || version != kvmAPIVersion {
		_ = unix.Close(fd)
		return unsupported("%s speaks API version %d, %d is needed", kvmPath, version, kvmAPIVersion)
	}
	for _, c := range []struct {
		capability uintptr
		name       string
	}{
		{capUserMemory, "KVM_CAP_USER_MEMORY"},
		{capIRQChip, "KVM_CAP_IRQCHIP"},
		{capPIT2, "KVM_CAP_PIT2"},
		{capSignalMSI, "KVM_CAP_SIGNAL_MSI"},
		{capImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"},
		{capUserSpaceMSR, "KVM_CAP_X86_USER_SPACE_MSR"},
		{capMSRFilter, "KVM_CAP_X86_MSR_FILTER"},
	} {
		if n, err := ioctl(fd, c.name, kvmCheckExtension, c.capability); err != nil || n == 0 {
			_ = unix.Close(fd)
			return unsupported("the KVM of this kernel lacks %s: Linux 5.10 or newer is needed", c.name)
		}
	}
	return fd, nil
}
