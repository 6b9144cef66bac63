package boot

import (
	"errors"
	"fmt"

	"github.com/hvlab/hvlab/sim/kvmguest"
)

// errReset is a guest that reset itself without Options.Reboot.
var errReset = errors.New("the guest reset itself: it rebooted (use -reboot to let it), or its kernel panicked, " +
	"which its console tells; out of memory is cured by a larger -mem")

// advise adds to an error of the monitor what the user can do about it.
func advise(err error) error {
	const mib = 1 << 20
	var (
		image  *kvmguest.ImageError
		memory *kvmguest.MemoryError
		crash  *kvmguest.CrashError
		kvm    *kvmguest.KVMError
	)
	switch {
	case errors.As(err, &image):
		return fmt.Errorf("%w; hvlab boot -h shows where a kernel and an initramfs that work come from", err)
	case errors.As(err, &memory):
		// Loading is not all: the kernel unpacks the initramfs into more RAM.
		need := (memory.NeedBytes + mib - 1) / mib
		return fmt.Errorf("%w; try -mem %dM", err, roundUp(2*need, 64))
	case errors.As(err, &crash):
		return fmt.Errorf("%w\nthe guest cannot go on: to see how far it came, boot with "+
			`-append "console=ttyS0 earlyprintk=ttyS0 panic=-1"`, err)
	case errors.As(err, &kvm):
		return fmt.Errorf("%w; the log of this machine's own kernel (dmesg) may say why", err)
	}
	return err
}

// roundUp returns the least multiple of unit that is n or more.
func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }
