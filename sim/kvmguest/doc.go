// Package kvmguest boots an unmodified Linux kernel as a guest of a Hyper-V
// that exists only in this process.
//
// It is a small virtual machine monitor over /dev/kvm (linux/amd64, no cgo).
// To the kernel it looks like Hyper-V: CPUID leaves 0x40000000 to 0x40000006,
// the synthetic MSRs, a hypercall page, message slots, event flags and the ACPI
// device that makes Linux load its VMBus driver. What the kernel then sends
// arrives at a synic.Partition, so that a host needs two things only:
//
//	vm, err := kvmguest.New(kvmguest.Options{Kernel: "vmlinuz", Initrd: "initrd", Console: os.Stdout})
//	host := ... // built from vm.Memory() and vm.Port(), like the host of a simulated guest
//	err = vm.Run(ctx) // nil: the guest powered off; ErrReset: it asked for a reset
//	vm.Close()
//
// The guest's RAM is the Memory: nothing is copied between host and guest.
//
// Read it in the order of a boot:
//
//	options.go, layout.go          what is asked for, and where things lie in guest memory
//	image.go bzimage.go elf.go     the kernel file, checked before a byte of it is used
//	bootparams.go tables.go        what a boot loader owes a 64-bit Linux kernel
//	acpi.go aml.go                 the firmware tables with the VMBUS device
//	cpuid.go msr.go hypercall.go   the face of Hyper-V
//	ports.go serial.go power.go    the few PC devices that remain
//	kvm_*.go vcpu_*.go vm_*.go     /dev/kvm, the run loop, and the VM that owns them
//
// Only the last group needs Linux on amd64; New and Probe say so elsewhere.
package kvmguest
