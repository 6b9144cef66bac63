package kvmguest

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// The tests here run a few hand-assembled instructions instead of a kernel.

const (
	codeAt   = 0x1000000
	textAt   = codeAt + 0x200 // data for the code to use
	callPage = 0x200000
	resultAt = 0x300000 // RAX and RBX at the end
)

// Instructions, in 64-bit mode.
var (
	ud2  = []byte{0x0F, 0x0B} // without an IDT a triple fault
	spin = []byte{0xEB, 0xFE} // jmp $
	halt = []byte{0xF4, 0xEB, 0xFD}
)

func movECX(v uint32) []byte { return binary.LittleEndian.AppendUint32([]byte{0xB9}, v) }
func movEDX(v uint32) []byte { return binary.LittleEndian.AppendUint32([]byte{0xBA}, v) }
func movEAX(v uint32) []byte { return binary.LittleEndian.AppendUint32([]byte{0xB8}, v) }
func movESI(v uint32) []byte { return binary.LittleEndian.AppendUint32([]byte{0xBE}, v) }
func movEBX(v uint32) []byte { return binary.LittleEndian.AppendUint32([]byte{0xBB}, v) }
func rdmsr(msr uint32) []byte {
	return concat(movECX(msr), []byte{0x0F, 0x32})
}
func wrmsr(msr, v uint32) []byte {
	return concat(movECX(msr), movEAX(v), movEDX(0), []byte{0x0F, 0x30})
}

// outAL and outAX write to a port.
func outAL(port uint16, v byte) []byte {
	return concat(movEDX(uint32(port)), []byte{0xB0, v, 0xEE})
}
func outAX(port, v uint16) []byte {
	return concat(movEDX(uint32(port)), movEAX(uint32(v)), []byte{0x66, 0xEF})
}

// report stores RAX and RBX at resultAt and powers off.
func report() []byte {
	store := func(modrm byte) []byte {
		return binary.LittleEndian.AppendUint32([]byte{0x48, 0x89, modrm, 0x25}, resultAt)
	}
	rax, rbx := store(0x04), store(0x1C)
	rbx[4] += 8
	return concat(rax, rbx, powerOff())
}

func powerOff() []byte { return outAX(powerPort, powerSleepNow|sleepTypeOff<<powerTypeShift) }

// machine is a VM that will execute code; it is closed when the test ends.
func machine(t *testing.T, code ...[]byte) (*VM, *bytes.Buffer) {
	t.Helper()
	if reason, ok := Probe(); !ok {
		t.Skip("no usable KVM: " + reason)
	}
	program := make([]byte, 0x400)
	copy(program, concat(code...))
	copy(program[textAt-codeAt:], "hello\n")
	kernel := filepath.Join(t.TempDir(), "vmlinux")
	require.NoError(t, os.WriteFile(kernel, tinyELF(codeAt, program, 0x1000), 0o600))
	var out bytes.Buffer
	vm, err := New(Options{Kernel: kernel, MemoryBytes: minMemoryBytes, Console: &out, Log: func(s string) { t.Log(s) }})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, vm.Close()) })
	return vm, &out
}

// result runs code and returns what it left in RAX and RBX.
func result(t *testing.T, code ...[]byte) (rax, rbx uint64) {
	t.Helper()
	vm, _ := machine(t, append(code, report())...)
	require.NoError(t, vm.Run(t.Context()))
	return results(t, vm)
}

func results(t *testing.T, vm *VM) (rax, rbx uint64) {
	t.Helper()
	page, err := vm.Memory().Page(resultAt / pageBytes)
	require.NoError(t, err)
	return page.Load64(0), page.Load64(8)
}

func TestMachinePowersOff(t *testing.T) {
	vm, out := machine(t, outAL(serialPort, 'A'), outAL(serialPort, '\n'), powerOff(), spin)
	require.NoError(t, vm.Run(t.Context()))
	require.Equal(t, "A\n", out.String())
	require.ErrorIs(t, vm.Run(t.Context()), vmbus.ErrState, "a machine that is off stays off")
}

func TestMachineStringOutput(t *testing.T) {
	vm, out := machine(t, movESI(textAt), movECX(6), movEDX(serialPort), []byte{0xF3, 0x6E}, powerOff()) // rep outsb
	require.NoError(t, vm.Run(t.Context()))
	require.Equal(t, "hello\n", out.String(), "one exit may carry several bytes")
}

func TestMachineTripleFault(t *testing.T) {
	vm, _ := machine(t, movEBX(0x1234), ud2)
	var e *CrashError
	require.ErrorAs(t, vm.Run(t.Context()), &e)
	require.ErrorIs(t, e, vmbus.ErrProtocol, "the guest is at fault")
	require.Contains(t, e.Reason, "triple fault")
	if e.Known { // Intel; KVM on AMD has reset the processor by then
		require.Equal(t, uint64(0x1234), e.Registers.RBX)
		require.Equal(t, uint64(pageTableAddress), e.Registers.CR3)
	}
}

func TestMachineMSRs(t *testing.T) {
	rax, _ := result(t, rdmsr(synic.MSRAPICFrequency))
	require.Equal(t, uint64(apicHz), rax)
	vm, _ := machine(t, wrmsr(synic.MSRVPIndex, 3), powerOff())
	var e *CrashError
	require.ErrorAs(t, vm.Run(t.Context()), &e, "a write to a read-only MSR faults, and there is no handler")
}

// TestMachineCPUID asks for leaf 0x40000000 with the instruction itself.
func TestMachineCPUID(t *testing.T) {
	rax, rbx := result(t, movEAX(leafHypervisorFirst), []byte{0x0F, 0xA2})
	require.Equal(t, uint64(leafHyperVMax), rax)
	require.Equal(t, uint64(0x7263694D), rbx, `"Micr"`)
}

func TestMachineHypercall(t *testing.T) {
	call := concat(movEAX(callPage), []byte{0xFF, 0xD0}) // call rax
	stack := []byte{0xBC, 0x00, 0x00, 0x40, 0x00}        // mov esp, 0x400000
	vm, _ := machine(t, stack, wrmsr(synic.MSRGuestOSID, 1), wrmsr(synic.MSRHypercall, callPage|msrEnable),
		movECX(1<<16|synic.CallSignalEvent), movEDX(9), call, movEBX(0x77), report())
	var flags []uint16
	require.NoError(t, vm.Port().BindEvents(9, func(flag uint16) { flags = append(flags, flag) }))
	require.NoError(t, vm.Run(t.Context()))
	rax, rbx := results(t, vm)
	require.Equal(t, uint64(0x77), rbx, "the hypercall returned to its caller")
	require.Equal(t, uint64(synic.StatusSuccess), rax)
	require.Equal(t, []uint16{0}, flags)
}

func TestMachineAbsentMemoryReadsAsOnes(t *testing.T) {
	rax, _ := result(t, movEBX(0xE0000000), []byte{0x8B, 0x03}) // mov eax, [rbx]
	require.Equal(t, uint64(0xFFFFFFFF), rax)
}

// TestMachineReset: Run again boots again, in the same memory and on the same port.
func TestMachineReset(t *testing.T) {
	vm, out := machine(t, outAL(serialPort, 'r'), outAL(serialPort, '\n'), outAL(keyboardPort, keyboardReset), spin)
	memory, port := vm.Memory(), vm.Port()
	for range 3 {
		require.ErrorIs(t, vm.Run(t.Context()), ErrReset)
	}
	require.Equal(t, "r\nr\nr\n", out.String())
	require.Equal(t, memory, vm.Memory())
	require.Equal(t, port, vm.Port())
}

// TestMachineContext: a guest that computes and one that sleeps both stop with the context.
func TestMachineContext(t *testing.T) {
	for name, code := range map[string][]byte{"spin": spin, "halt": halt} {
		t.Run(name, func(t *testing.T) {
			vm, _ := machine(t, code)
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			require.ErrorIs(t, vm.Run(ctx), context.DeadlineExceeded)
		})
	}
}

// TestMachineClose: Close stops a running guest, and Run says so.
func TestMachineClose(t *testing.T) {
	vm, out := machine(t, outAL(serialPort, '\n'), halt)
	started := make(chan struct{})
	vm.serial.out = writerFunc(func(p []byte) (int, error) { close(started); return out.Write(p) })
	end := make(chan error, 1)
	go func() { end <- vm.Run(context.Background()) }()
	<-started
	require.ErrorIs(t, vm.Run(t.Context()), vmbus.ErrState, "one Run at a time")
	require.NoError(t, vm.Close())
	require.ErrorIs(t, <-end, context.Canceled)
	require.NoError(t, vm.Close(), "closing twice is harmless")
	require.ErrorIs(t, vm.Run(t.Context()), vmbus.ErrState)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
