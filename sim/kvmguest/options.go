package kvmguest

import (
	"fmt"
	"io"
)

// DefaultAppend is the kernel command line used when Options.Append is empty.
// The serial port costs one exit a byte, so the kernel is quiet; a panic or a
// reboot ends Run at once instead of waiting.
const DefaultAppend = "console=ttyS0 quiet panic=-1 reboot=k"

// DefaultMemoryBytes is the RAM of a guest that did not say how much it wants.
const DefaultMemoryBytes = 512 << 20

// Options describes the machine to build. Kernel is required.
type Options struct {
	Kernel      string               // path of a bzImage (boot protocol 2.12 or newer) or an ELF vmlinux
	Initrd      string               // path of an initramfs; none if empty
	Append      string               // the whole kernel command line; DefaultAppend if empty
	MemoryBytes int64                // RAM, a multiple of 4096; DefaultMemoryBytes if zero
	CPUs        int                  // virtual processors, 1 if zero
	Console     io.Writer            // receives what the guest writes to ttyS0, in lines; discarded if nil; must not call the VM
	Log         func(message string) // told once about each unusual event, such as an unknown hypercall; may be nil
}

// withDefaults fills the zero fields and checks the rest. The error is an
// *OptionError.
func (o Options) withDefaults() (Options, error) {
	if o.Append == "" {
		o.Append = DefaultAppend
	}
	if o.MemoryBytes == 0 {
		o.MemoryBytes = DefaultMemoryBytes
	}
	if o.CPUs == 0 {
		o.CPUs = 1
	}
	if o.Console == nil {
		o.Console = io.Discard
	}
	if o.Log == nil {
		o.Log = func(string) {}
	}
	switch {
	case o.Kernel == "":
		return o, &OptionError{"Kernel", "no kernel image given"}
	case o.MemoryBytes%pageBytes != 0:
		return o, &OptionError{"MemoryBytes", fmt.Sprintf("%d is not a multiple of %d", o.MemoryBytes, pageBytes)}
	case o.MemoryBytes < minMemoryBytes || o.MemoryBytes > maxMemoryBytes:
		return o, &OptionError{"MemoryBytes", fmt.Sprintf("%d MiB is outside %d to %d MiB", o.MemoryBytes>>20, minMemoryBytes>>20, maxMemoryBytes>>20)}
	case o.CPUs < 1 || o.CPUs > maxCPUs:
		return o, &OptionError{"CPUs", fmt.Sprintf("%d is outside 1 to %d", o.CPUs, maxCPUs)}
	}
	return o, nil
}
