package kvmguest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hvlab/hvlab/vmbus"
)

// ErrReset is returned by Run when the guest asked for a reset (reboot, or a
// panic with panic=-1).
var ErrReset = errors.New("kvmguest: the guest reset itself")

// An OptionError reports an Options field that cannot be used.
type OptionError struct {
	Field, Problem string
}

func (e *OptionError) Error() string        { return "kvmguest: option " + e.Field + ": " + e.Problem }
func (e *OptionError) Is(target error) bool { return target == vmbus.ErrState }

// An ImageError reports a kernel or initramfs file that cannot be booted.
type ImageError struct {
	Path    string
	Problem string
}

func (e *ImageError) Error() string { return fmt.Sprintf("kvmguest: %s: %s", e.Path, e.Problem) }

// Is reports the caller's misuse: the file was chosen by the caller.
func (e *ImageError) Is(target error) bool { return target == vmbus.ErrState }

// A MemoryError reports that the kernel and its initramfs need more RAM than
// the guest has.
type MemoryError struct {
	HaveBytes, NeedBytes int64
}

func (e *MemoryError) Error() string {
	const mib = 1 << 20
	return fmt.Sprintf("kvmguest: %d MiB of memory is too little for this kernel and initramfs: at least %d MiB is needed to load them",
		e.HaveBytes/mib, (e.NeedBytes+mib-1)/mib)
}

// Is reports the caller's misuse.
func (e *MemoryError) Is(target error) bool { return target == vmbus.ErrState }

// An UnsupportedError reports that this machine cannot run a KVM guest, and
// what would help. It matches errors.ErrUnsupported.
type UnsupportedError struct {
	Reason string
}

func (e *UnsupportedError) Error() string        { return "kvmguest: not supported: " + e.Reason }
func (e *UnsupportedError) Is(target error) bool { return target == errors.ErrUnsupported }

// A StateError reports a method called at the wrong time, such as Run after Close.
type StateError struct {
	Call, Problem string
}

func (e *StateError) Error() string        { return "kvmguest: " + e.Call + ": " + e.Problem }
func (e *StateError) Is(target error) bool { return target == vmbus.ErrState }

// A KVMError reports a KVM request that the kernel of this machine refused.
type KVMError struct {
	Request string // such as "KVM_CREATE_VM"
	Err     error  // the errno
}

func (e *KVMError) Error() string { return "kvmguest: " + e.Request + ": " + e.Err.Error() }
func (e *KVMError) Unwrap() error { return e.Err }

// A CrashError reports a virtual processor that cannot go on: a triple fault,
// an instruction that KVM cannot emulate, or an exit that this monitor does not
// know. It matches vmbus.ErrProtocol: the guest is at fault.
type CrashError struct {
	VP        uint32
	Reason    string // "triple fault", "KVM internal error 1 (emulation)", ...
	Registers Registers
	Known     bool // whether Registers could be read
}

func (e *CrashError) Error() string {
	s := fmt.Sprintf("kvmguest: vp %d: %s", e.VP, e.Reason)
	if e.Known {
		s += "\n" + e.Registers.String()
	}
	return s
}

// Is reports the guest's fault.
func (e *CrashError) Is(target error) bool { return target == vmbus.ErrProtocol }

// Registers is the state of a virtual processor in a CrashError.
type Registers struct {
	RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP uint64
	R8, R9, R10, R11, R12, R13, R14, R15   uint64
	RIP, RFLAGS                            uint64
	CR0, CR2, CR3, CR4, EFER               uint64
}

// String shows the registers on eight lines.
func (r Registers) String() string {
	var b strings.Builder
	row := func(names string, v ...uint64) {
		for i, n := range strings.Fields(names) {
			fmt.Fprintf(&b, "  %-6s %016x", n, v[i])
		}
		b.WriteByte('\n')
	}
	row("RIP RFLAGS RSP", r.RIP, r.RFLAGS, r.RSP)
	row("RAX RBX RCX", r.RAX, r.RBX, r.RCX)
	row("RDX RSI RDI", r.RDX, r.RSI, r.RDI)
	row("RBP R8 R9", r.RBP, r.R8, r.R9)
	row("R10 R11 R12", r.R10, r.R11, r.R12)
	row("R13 R14 R15", r.R13, r.R14, r.R15)
	row("CR0 CR2 CR3", r.CR0, r.CR2, r.CR3)
	row("CR4 EFER", r.CR4, r.EFER)
	return strings.TrimRight(b.String(), "\n")
}
