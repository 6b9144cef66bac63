package kvmguest

import "strings"

// nestedHint is what to do on a machine whose processor offers no virtualization.
const nestedHint = "run internal/kerneltest/run, which emulates a machine that has it with qemu-system-x86_64"

// hasVirtualization reports whether /proc/cpuinfo names vmx (Intel) or svm
// (AMD). A KVM without either runs guests by emulating instructions: it is too
// slow for a kernel and fails at cmpxchg16b, xrstor64 and int3.
func hasVirtualization(cpuinfo string) bool {
	for line := range strings.Lines(cpuinfo) {
		name, flags, found := strings.Cut(line, ":")
		if !found || strings.TrimSpace(name) != "flags" {
			continue
		}
		for flag := range strings.FieldsSeq(flags) {
			if flag == "vmx" || flag == "svm" {
				return true
			}
		}
	}
	return false
}
