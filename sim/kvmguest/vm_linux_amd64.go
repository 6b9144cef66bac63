package kvmguest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// A VM is one virtual machine: RAM, a synic.Partition and, between resets, a
// board with KVM's files.
type VM struct {
	options   Options
	ram       []byte
	memory    *guestmem.Region
	partition *synic.Partition
	program   program
	notes     *notebook
	serial    *uart

	mu     sync.RWMutex
	board  *board // nil after a reset and after Close
	state  vmState
	cancel context.CancelFunc // ends the current Run
	ended  chan struct{}      // closed when the current Run has ended
}

type vmState int

const (
	vmReady vmState = iota
	vmRunning
	vmOff
	vmClosed
)

// New reads and checks the images, allocates the RAM and creates the machine;
// nothing runs before Run. Errors: *OptionError, *ImageError, *MemoryError,
// *UnsupportedError (this machine has no usable KVM), *KVMError.
func New(o Options) (*VM, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	vm := &VM{options: o, notes: newNotebook(o.Log), program: program{commandLine: o.Append, cpus: o.CPUs}}
	file, err := readImage(o.Kernel)
	if err != nil {
		return nil, err
	}
	if vm.program.image, err = parseKernel(o.Kernel, file); err != nil {
		return nil, err
	}
	if o.Initrd != "" {
		if vm.program.initrd, err = readImage(o.Initrd); err != nil {
			return nil, err
		}
	}
	if _, err := place(vm.program.image, uint64(len(vm.program.initrd)), uint64(o.MemoryBytes)); err != nil {
		return nil, err
	}
	if reason, ok := Probe(); !ok {
		return nil, &UnsupportedError{reason}
	}
	// Ordinary Go memory: it does not move, only touched pages cost anything, and
	// a Page that somebody still holds after Close stays valid. Close gives the
	// machine's memory back at once, without waiting for the garbage collector.
	vm.ram = make([]byte, o.MemoryBytes)
	if vm.memory, err = guestmem.NewRegion(0, vm.ram); err != nil {
		return nil, fmt.Errorf("kvmguest: guest memory: %w", err)
	}
	vm.partition = synic.NewPartition(vm.memory, o.CPUs)
	vm.partition.SetInterrupt(vm.interrupt)
	vm.serial = newUART(o.Console, vm.serialInterrupt)
	if err := vm.powerUp(); err != nil {
		return nil, err
	}
	return vm, nil
}

// Memory is the guest's RAM, from guest physical address 0 on.
func (vm *VM) Memory() guestmem.Memory { return vm.memory }

// Port is how a host reaches the guest.
func (vm *VM) Port() synic.Port { return vm.partition }

// Type sends p to the guest's serial console and returns how many bytes fit.
func (vm *VM) Type(p []byte) int { return vm.serial.Type(p) }

// powerUp builds a board and loads the images: power on, or the rest of a reset.
func (vm *VM) powerUp() error {
	b, err := newBoard(vm.ram, vm.options.CPUs)
	if err != nil {
		return err
	}
	hz, err := b.tscHz()
	if err != nil {
		b.close()
		return err
	}
	b.note = vm.notes.note
	b.ports = &portSpace{serial: vm.serial}
	b.call = hypercallEntry(vm.partition.Hypercall).noting(vm.notes.note)
	b.msrs = &msrFile{synic: vm.partition, memory: vm.memory, tscHz: hz, guestTSC: b.readTSC, note: vm.notes.note}
	vm.partition.Reset()
	entry, err := vm.program.load(vm.ram)
	if err == nil {
		err = b.vcpus[0].enterAt(entry)
	}
	if err != nil {
		b.close()
		return err
	}
	vm.mu.Lock()
	defer vm.mu.Unlock()
	vm.board = b
	return nil
}

// Run runs the guest until it ends or ctx does. It returns nil when the guest
// powered off, ErrReset when it asked for a reset, a *CrashError when it cannot
// go on, and the context's error.
//
// After ErrReset, Run may be called again: it boots the same images in the same
// RAM with the same Port, as a machine that resets does. A host that is
// attached sees a guest that starts over.
func (vm *VM) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := vm.begin(cancel); err != nil {
		return err
	}
	err := vm.runBoard(ctx)
	vm.serial.Flush()
	vm.end(err)
	return err
}

// begin claims the VM for one Run.
func (vm *VM) begin(cancel context.CancelFunc) error {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	switch vm.state {
	case vmRunning:
		return &StateError{"Run", "the guest is already running"}
	case vmOff:
		return &StateError{"Run", "the guest is off: build a new VM"}
	case vmClosed:
		return &StateError{"Run", "the VM is closed"}
	}
	vm.state, vm.cancel, vm.ended = vmRunning, cancel, make(chan struct{})
	return nil
}

// runBoard runs the current board, or a new one after a reset.
func (vm *VM) runBoard(ctx context.Context) error {
	vm.mu.RLock()
	b := vm.board
	vm.mu.RUnlock()
	if b == nil {
		if err := vm.powerUp(); err != nil {
			return err
		}
		b = vm.board // only this goroutine writes it while the VM runs
	}
	err := b.run(ctx)
	vm.notes.note("exits to the monitor: %s", b.exitCounts())
	return err
}

// end takes the board away and lets Close go on.
func (vm *VM) end(err error) {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if vm.board != nil {
		vm.board.close()
		vm.board = nil
	}
	if vm.state == vmRunning {
		vm.state = vmOff
		if errors.Is(err, ErrReset) {
			vm.state = vmReady
		}
	}
	close(vm.ended)
}

// Close stops the guest if it runs, waits for Run to return, and releases KVM's
// files. The RAM goes when nobody holds a page of it. Calling it again is harmless.
func (vm *VM) Close() error {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	was := vm.state
	vm.state = vmClosed
	if was == vmRunning {
		vm.cancel()
		ended := vm.ended
		vm.mu.Unlock()
		<-ended
		vm.mu.Lock()
	}
	if vm.board != nil {
		vm.board.close()
		vm.board = nil
	}
	if was != vmClosed {
		giveBack(vm.ram)
	}
	return nil
}

// interrupt is what the partition calls to interrupt a processor. Between
// boards there is none to interrupt.
func (vm *VM) interrupt(vp uint32, vector uint8) {
	vm.mu.RLock()
	defer vm.mu.RUnlock()
	if vm.board != nil {
		vm.board.interrupt(vp, vector)
	}
}

// serialInterrupt drives the console's interrupt line.
func (vm *VM) serialInterrupt(level bool) {
	vm.mu.RLock()
	defer vm.mu.RUnlock()
	if vm.board != nil {
		vm.board.setIRQ(serialIRQ, level)
	}
}
