package kvmguest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// errPowerOff ends a processor loop when the guest switched the machine off.
var errPowerOff = errors.New("kvmguest: powered off")

// msiAddress is where a message-signalled interrupt for APIC id 0 is written.
const (
	msiAddress   = 0xFEE00000
	msiAPICShift = 12
)

// A board is one power cycle of a machine: the KVM files and the devices, built
// anew after a reset. The RAM outlives it.
type board struct {
	vm    int // KVM file of the virtual machine
	vcpus []*vcpu
	ram   []byte // the kernel knows its address: alive as long as vm is open

	ports *portSpace
	msrs  *msrFile
	call  hypercallEntry
	note  noteFunc

	stopping atomic.Bool
	exits    [exitWriteMSR + 1]atomic.Uint64 // by KVM exit reason
}

// newBoard creates the virtual machine with its RAM, interrupt controllers,
// timer and processors; nothing runs yet. On error nothing stays open.
func newBoard(ram []byte, cpus int) (b *board, err error) {
	kvm, err := openKVM()
	if err != nil {
		return nil, err
	}
	defer unix.Close(kvm) // the machine's own files keep what they need
	vm, err := ioctl(kvm, "KVM_CREATE_VM", kvmCreateVM, 0)
	if err != nil {
		return nil, err
	}
	b = &board{vm: vm, ram: ram}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if err := b.chips(); err != nil {
		return nil, err
	}
	if err := b.userSpaceMSRs(); err != nil {
		return nil, err
	}
	region := memoryRegion{Bytes: uint64(len(ram)), ProcessAddress: addressOf(ram)}
	if err := ioctlBytes(vm, "KVM_SET_USER_MEMORY_REGION", kvmSetUserMemoryRegion, encode(&region)); err != nil {
		return nil, err
	}
	supported, err := supportedCPUID(kvm)
	if err != nil {
		return nil, err
	}
	mapBytes, err := ioctl(kvm, "KVM_GET_VCPU_MMAP_SIZE", kvmGetVCPUMapSize, 0)
	if err != nil {
		return nil, err
	}
	for vp := range cpus {
		c, err := newVCPU(vm, vp, mapBytes, b)
		if err != nil {
			return nil, err
		}
		b.vcpus = append(b.vcpus, c)
		if err := setCPUID(c.fd, guestCPUID(supported, uint32(vp), cpus)); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// chips creates what KVM emulates itself: APICs, PICs and the timer.
func (b *board) chips() error {
	if _, err := ioctl(b.vm, "KVM_SET_TSS_ADDR", kvmSetTSSAddr, tssAddress); err != nil {
		return err
	}
	identity := uint64(identityMapAddress)
	if err := ioctlBytes(b.vm, "KVM_SET_IDENTITY_MAP_ADDR", kvmSetIdentityMapAddr, encode(&identity)); err != nil {
		return err
	}
	if _, err := ioctl(b.vm, "KVM_CREATE_IRQCHIP", kvmCreateIRQChip, 0); err != nil {
		return err
	}
	return ioctlBytes(b.vm, "KVM_CREATE_PIT2", kvmCreatePIT2, encode(&pitConfig{Flags: pitSpeakerDummy}))
}

// userSpaceMSRs sends the synthetic MSRs to this process. The filter is needed
// besides the capability: a KVM with Hyper-V emulation would answer them itself
// and the guest's hypercalls would fail.
func (b *board) userSpaceMSRs() error {
	e := enableCap{Cap: capUserSpaceMSR, Args: [4]uint64{msrExitInvalid | msrExitUnknown | msrExitFilter}}
	if err := ioctlBytes(b.vm, "KVM_ENABLE_CAP (KVM_CAP_X86_USER_SPACE_MSR)", kvmEnableCap, encode(&e)); err != nil {
		return err
	}
	return setMSRFilter(b.vm, msrFilterFirst, msrFilterCount)
}

// tscHz is the rate of the guest's time stamp counter.
func (b *board) tscHz() (uint64, error) {
	kHz, err := ioctl(b.vcpus[0].fd, "KVM_GET_TSC_KHZ", kvmGetTSCKHz, 0)
	return uint64(kHz) * 1000, err
}

// readTSC is the counter as processor vp reads it; called from its own loop.
func (b *board) readTSC(vp uint32) uint64 {
	v, err := readMSR(b.vcpus[vp].fd, msrTSC)
	if err != nil {
		b.note("reading the TSC: %v", err)
	}
	return v
}

// setIRQ drives the interrupt line of an ISA device.
func (b *board) setIRQ(irq uint32, level bool) {
	l := irqLevel{IRQ: irq, Level: uint32(boolByte(level))}
	if err := ioctlBytes(b.vm, "KVM_IRQ_LINE", kvmIRQLine, encode(&l)); err != nil {
		b.note("interrupt line %d: %v", irq, err)
	}
}

// interrupt sends vector to the APIC of processor vp.
func (b *board) interrupt(vp uint32, vector uint8) {
	m := messageInterrupt{AddressLow: msiAddress | vp<<msiAPICShift, Data: uint32(vector)}
	if err := ioctlBytes(b.vm, "KVM_SIGNAL_MSI", kvmSignalMSI, encode(&m)); err != nil {
		b.note("interrupt %#x to processor %d: %v", vector, vp, err)
	}
}

// run runs all processors until one of them ends the machine or ctx ends. It
// returns nil for power off, ErrReset, a *CrashError or the context's error.
func (b *board) run(ctx context.Context) error {
	ends := make(chan error, len(b.vcpus))
	var running sync.WaitGroup
	for _, c := range b.vcpus {
		running.Go(func() {
			ends <- c.loop()
			b.stop()
		})
	}
	ended := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { // waited for: it must not touch processors that are closed
		select {
		case <-ctx.Done():
			b.stop()
		case <-ended:
		}
	})
	running.Wait()
	close(ended)
	watching.Wait()
	close(ends)
	var end error
	for err := range ends {
		if end == nil {
			end = err
		}
	}
	switch {
	case errors.Is(end, errPowerOff):
		return nil
	case end != nil:
		return end
	}
	return ctx.Err()
}

// stop makes every processor leave its loop soon. Safe to call at any time
// before close, from any goroutine.
func (b *board) stop() {
	b.stopping.Store(true)
	for _, c := range b.vcpus {
		c.kick()
	}
}

// count notes one exit.
func (b *board) count(reason uint32) {
	if int(reason) < len(b.exits) {
		b.exits[reason].Add(1)
	}
}

// exitNames are the exits that cost time and can be avoided.
var exitNames = map[int]string{exitIO: "port", exitMMIO: "mmio", exitReadMSR: "rdmsr", exitWriteMSR: "wrmsr"}

// exitCounts tells how often the guest left for this process and why.
func (b *board) exitCounts() string {
	var parts []string
	for reason, name := range exitNames {
		parts = append(parts, fmt.Sprintf("%s %d", name, b.exits[reason].Load()))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// close releases the KVM files. No processor may be running.
func (b *board) close() {
	for _, c := range b.vcpus {
		c.close()
	}
	_ = unix.Close(b.vm)
}
