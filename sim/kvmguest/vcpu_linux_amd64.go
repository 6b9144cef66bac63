package kvmguest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// msrTSC is IA32_TIME_STAMP_COUNTER.
const msrTSC = 0x10

// Control register bits of the entry state. Source: Intel SDM vol. 3, 2.5.
const (
	cr0ProtectedMode = 1 << 0
	cr0Numeric       = 1 << 5
	cr0Paging        = 1 << 31
	cr4PAE           = 1 << 5
	eferLongMode     = 1<<8 | 1<<10 // LME and LMA
	rflagsReserved   = 1 << 1       // always set
)

// A vcpu is one virtual processor: a KVM file, the page shared with KVM, and,
// while it runs, the thread that runs it.
type vcpu struct {
	vp     uint32
	fd     int
	run    []byte       // struct kvm_run and the I/O data behind it
	thread atomic.Int32 // thread id while running, else 0
	board  *board
}

// newVCPU creates processor vp of the machine.
func newVCPU(vm, vp, mapBytes int, b *board) (*vcpu, error) {
	fd, err := ioctl(vm, "KVM_CREATE_VCPU", kvmCreateVCPU, uintptr(vp))
	if err != nil {
		return nil, err
	}
	run, err := unix.Mmap(fd, 0, mapBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		_ = unix.Close(fd)
		return nil, &KVMError{"mmap of kvm_run", err}
	}
	return &vcpu{vp: uint32(vp), fd: fd, run: run, board: b}, nil
}

func (c *vcpu) close() {
	_ = unix.Munmap(c.run)
	_ = unix.Close(c.fd)
}

// enterAt gives the processor the state of the 64-bit boot protocol: long mode,
// identity-mapped, flat segments, interrupts off, RSI at boot_params.
// Source: Linux Documentation/arch/x86/boot.rst, "64-bit Boot Protocol".
func (c *vcpu) enterAt(entry uint64) error {
	buf := encode(&kvmSRegs{})
	if err := ioctlBytes(c.fd, "KVM_GET_SREGS", kvmGetSRegs, buf); err != nil {
		return err
	}
	var s kvmSRegs
	decode(buf, &s)
	const (
		codeType = 0xB // execute, read, accessed
		dataType = 0x3 // read, write, accessed
	)
	flat := kvmSegment{Limit: 0xFFFFFFFF, Present: 1, S: 1, G: 1}
	s.CS, s.DS = flat, flat
	s.CS.Selector, s.CS.Type, s.CS.L = bootCodeSelector, codeType, 1
	s.DS.Selector, s.DS.Type, s.DS.DB = bootDataSelector, dataType, 1
	s.ES, s.FS, s.GS, s.SS = s.DS, s.DS, s.DS, s.DS
	s.GDT = kvmDescriptorTable{Base: gdtAddress, Limit: uint16(len(descriptorTable()) - 1)}
	s.IDT = kvmDescriptorTable{}
	s.CR0 = cr0ProtectedMode | cr0Numeric | cr0Paging
	s.CR3 = pageTableAddress
	s.CR4 = cr4PAE
	s.EFER = eferLongMode
	if err := ioctlBytes(c.fd, "KVM_SET_SREGS", kvmSetSRegs, encode(&s)); err != nil {
		return err
	}
	r := kvmRegs{RIP: entry, RSI: bootParamsAddress, RFLAGS: rflagsReserved}
	return ioctlBytes(c.fd, "KVM_SET_REGS", kvmSetRegs, encode(&r))
}

// kick makes a running processor leave the guest; a processor that is about to
// enter will not. The flag must be seen before the signal can matter, hence the
// atomic load after it.
func (c *vcpu) kick() {
	c.run[runImmediateExit] = 1
	if tid := c.thread.Swap(0); tid != 0 {
		// Go ignores a SIGURG that it did not ask for; the system call still ends with EINTR.
		_ = unix.Tgkill(unix.Getpid(), int(tid), unix.SIGURG)
	}
}

// loop runs the processor until the machine stops or something ends it. It
// returns nil when the machine was stopped from elsewhere.
func (c *vcpu) loop() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c.thread.Store(int32(unix.Gettid()))
	defer c.thread.Store(0)
	for !c.board.stopping.Load() {
		err := enterGuest(c.fd)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue // a signal, or a processor that waits to be started
		case err != nil:
			return c.crash(err.Error())
		}
		if err := c.exit(); err != nil {
			return err
		}
	}
	return nil
}

// exit handles one exit from the guest.
func (c *vcpu) exit() error {
	le := binary.LittleEndian
	u := c.run[runUnion:]
	reason := le.Uint32(c.run[runExitReason:])
	c.board.count(reason)
	switch reason {
	case exitIO:
		return c.io()
	case exitMMIO:
		c.mmio()
		return nil
	case exitReadMSR:
		v, ok := c.board.msrs.read(c.vp, le.Uint32(u[12:]))
		le.PutUint64(u[16:], v)
		u[0] = boolByte(!ok) // non-zero: inject #GP
		return nil
	case exitWriteMSR:
		effect := c.board.msrs.write(c.vp, le.Uint32(u[12:]), le.Uint64(u[16:]))
		u[0] = boolByte(effect == msrFault)
		if effect == msrResetVM {
			return ErrReset
		}
		return nil
	case exitHLT, exitInterrupted:
		return nil
	case exitShutdown:
		return c.crash("triple fault")
	case exitInternalError:
		return c.crash(fmt.Sprintf("KVM internal error %d%s", le.Uint32(u), emulationHint(u)))
	case exitFailEntry:
		return c.crash(fmt.Sprintf("the processor refused to enter the guest: hardware reason %#x", le.Uint64(u)))
	case exitSystemEvent:
		return c.crash(fmt.Sprintf("KVM system event %d", le.Uint32(u)))
	}
	return c.crash(fmt.Sprintf("unknown KVM exit %d", reason))
}

// io carries out a port access, which may be a string of them.
func (c *vcpu) io() error {
	le := binary.LittleEndian
	u := c.run[runUnion:]
	const directionOut = 1
	out, size, port := u[0] == directionOut, int(u[1]), le.Uint16(u[2:])
	count, offset := int(le.Uint32(u[4:])), le.Uint64(u[8:])
	if out && port == hypercallPort {
		return c.hypercall()
	}
	for i := range count {
		data := c.run[offset+uint64(i*size):][:size]
		if !out {
			putSized(data, c.board.ports.in(port, size))
			continue
		}
		switch c.board.ports.out(port, sized(data)) {
		case eventReset:
			return ErrReset
		case eventPowerOff:
			return errPowerOff
		}
	}
	return nil
}

// hypercall is the port write in the hypercall page. Control and input are in
// RCX and RDX, the result goes to RAX.
func (c *vcpu) hypercall() error {
	buf := make([]byte, binary.Size(kvmRegs{}))
	if err := ioctlBytes(c.fd, "KVM_GET_REGS", kvmGetRegs, buf); err != nil {
		return err
	}
	const raxAt, rcxAt, rdxAt = 0, 16, 24
	le := binary.LittleEndian
	le.PutUint64(buf[raxAt:], c.board.call(le.Uint64(buf[rcxAt:]), le.Uint64(buf[rdxAt:])))
	return ioctlBytes(c.fd, "KVM_SET_REGS", kvmSetRegs, buf)
}

// mmio answers an access where nothing is: reads give all ones.
func (c *vcpu) mmio() {
	u := c.run[runUnion:]
	address, isWrite := binary.LittleEndian.Uint64(u), u[20] != 0
	c.board.note("access to guest physical page %#x, where there is no memory", address&^(pageBytes-1))
	if !isWrite {
		for i := range u[8:16] {
			u[8+i] = 0xFF
		}
	}
}

// crash is the end of a run that the guest did not ask for.
func (c *vcpu) crash(reason string) error {
	e := &CrashError{VP: c.vp, Reason: reason}
	var r kvmRegs
	var s kvmSRegs
	rb, sb := encode(&r), encode(&s)
	if ioctlBytes(c.fd, "KVM_GET_REGS", kvmGetRegs, rb) != nil || ioctlBytes(c.fd, "KVM_GET_SREGS", kvmGetSRegs, sb) != nil {
		return e
	}
	decode(rb, &r)
	decode(sb, &s)
	if s.CR0&cr0ProtectedMode == 0 {
		e.Reason += " (the registers are lost: KVM on AMD resets the processor)"
		return e
	}
	e.Known = true
	e.Registers = Registers{
		RAX: r.RAX, RBX: r.RBX, RCX: r.RCX, RDX: r.RDX, RSI: r.RSI, RDI: r.RDI, RSP: r.RSP, RBP: r.RBP,
		R8: r.R8, R9: r.R9, R10: r.R10, R11: r.R11, R12: r.R12, R13: r.R13, R14: r.R14, R15: r.R15,
		RIP: r.RIP, RFLAGS: r.RFLAGS, CR0: s.CR0, CR2: s.CR2, CR3: s.CR3, CR4: s.CR4, EFER: s.EFER,
	}
	return e
}

// emulationHint names the instruction bytes of an emulation failure, when KVM
// tells them. Source: Linux include/uapi/linux/kvm.h, struct kvm_run emulation_failure.
func emulationHint(u []byte) string {
	const emulationFailure, hasBytes = 1, 1 << 0
	le := binary.LittleEndian
	if le.Uint32(u) != emulationFailure {
		return ""
	}
	if flags := le.Uint64(u[8:]); le.Uint32(u[4:]) < 3 || flags&hasBytes == 0 {
		return " (emulation)"
	}
	n := min(int(u[16]), 15)
	return fmt.Sprintf(" (emulation of instruction % x)", u[17:17+n])
}

// sized is the little-endian number in 1, 2 or 4 bytes.
func sized(b []byte) uint32 {
	var v uint32
	for i, x := range b {
		v |= uint32(x) << (8 * i)
	}
	return v
}

func putSized(b []byte, v uint32) {
	for i := range b {
		b[i] = byte(v >> (8 * i))
	}
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}
