package kvmguest

import "github.com/hvlab/hvlab/vmbus/synic"

// hypercallCode is the hypercall page: out hypercallPort, al; ret. The port
// exit is the hypercall, since no VMCALL reaches user space. The number of the
// port is an immediate, so every register still holds what the guest put there.
var hypercallCode = []byte{0xE6, hypercallPort, 0xC3}

// A hypercallEntry is how a hypercall is carried out; *synic.Partition is one.
type hypercallEntry func(control, input uint64) (result uint64)

// noting passes calls on and notes those that the hypervisor does not know.
func (call hypercallEntry) noting(note noteFunc) hypercallEntry {
	const codeMask = 0xFFFF
	return func(control, input uint64) uint64 {
		result := call(control, input)
		if result == uint64(synic.StatusInvalidHypercallCode) {
			note("unknown hypercall %#x (control %#x): answered HV_STATUS_INVALID_HYPERCALL_CODE", control&codeMask, control)
		}
		return result
	}
}
