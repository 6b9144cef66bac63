package boot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/sim"
	"github.com/hvlab/hvlab/sim/bridge"
	"github.com/hvlab/hvlab/sim/kvmguest"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/synic"
	"github.com/hvlab/hvlab/vmbus/trace"
)

// Options says what to boot. Kernel is required.
type Options struct {
	Kernel, Initrd string
	Append         string        // the kernel command line; kvmguest.DefaultAppend if empty
	MemoryBytes    int64         // RAM; kvmguest.DefaultMemoryBytes if 0
	CPUs           int           // virtual processors, 1 if 0
	MaxVersion     vmbus.Version // newest version served; 0 is the newest there is
	Bridge         string        // Unix socket to bridge the guest's ports to; none if empty
	Reboot         bool          // boot again when the guest resets itself
	Verbose        bool          // print every control message

	In  io.Reader // typed on the guest's console; nothing if nil
	Out io.Writer // the guest's console
	Err io.Writer // messages and notes, one a line

	// Interrupts: the first asks the guest to shut down, the second stops it.
	Interrupts <-chan os.Signal
}

// dialTimeout is how long a program that dials through the bridge waits for the
// guest to accept. A kernel on an emulated machine needs more than the usual 2 s.
const dialTimeout = 10 * time.Second

// A session is one run of the command.
type session struct {
	opts    Options
	notes   *notes
	vm      *kvmguest.VM
	host    *sim.Host
	guest   *sim.Attachment
	care    *care
	closers []func()
	asked   atomic.Bool // somebody asked for a shutdown
	contact atomic.Bool // the guest has sent an InitiateContact
}

// Run boots the kernel and returns when the guest has ended: nil if it powered
// off and had made contact with VMBus, context.Canceled if it was stopped by a
// second interrupt or by ctx, or else what went wrong and what to do about it.
//
// A read of Options.In may still be under way when Run returns.
func Run(ctx context.Context, o Options) error {
	s := &session{opts: o, notes: &notes{w: o.Err, verbose: o.Verbose}}
	defer s.close()
	err := s.setUp()
	if err != nil {
		return advise(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go s.obey(ctx, cancel)
	if o.In != nil {
		go typeInto(ctx, s.vm, o.In)
	}
	err = s.boots(ctx)
	switch {
	case errors.Is(err, kvmguest.ErrReset):
		return errReset
	case err != nil:
		return advise(err)
	case !s.contact.Load():
		return s.noContact()
	}
	return nil
}

// setUp builds the machine and everything the host has for it. Nothing runs yet.
func (s *session) setUp() (err error) {
	o := s.opts
	s.vm, err = kvmguest.New(kvmguest.Options{
		Kernel: o.Kernel, Initrd: o.Initrd, Append: o.Append, MemoryBytes: o.MemoryBytes, CPUs: o.CPUs,
		Console: o.Out, Log: s.notes.monitor,
	})
	if err != nil {
		return err
	}
	s.atEnd(func() { _ = s.vm.Close() }) // always nil
	s.host, err = sim.NewHost(sim.HostOptions{MaxVersion: o.MaxVersion, Trace: s.message, Dialect: kvmguest.Dialect(endpoint.Dialect{})})
	if err != nil {
		return err
	}
	s.atEnd(func() { _ = s.host.Close() }) // it has no guests but ours
	id := uuid.New()
	s.guest, err = s.host.Attach("", id, s.vm.Memory(), s.vm.Port())
	if err != nil {
		return err
	}
	s.atEnd(s.guest.Close)
	s.care = newCare(s.guest.Bus(), s.notes)
	if o.Bridge == "" {
		return nil
	}
	b, err := bridge.New(bridge.Options{
		Path: o.Bridge, VMID: id, Dial: s.host.Dial, DialTimeout: dialTimeout, HandleRequests: s.host.HandleRequests,
		Log: s.notes.say,
	})
	if err != nil {
		return err
	}
	s.atEnd(func() { _ = b.Close() }) // at worst the socket stays behind
	return nil
}

// atEnd has f called by close, last come, first served.
func (s *session) atEnd(f func()) { s.closers = append(s.closers, f) }

func (s *session) close() {
	for _, f := range slices.Backward(s.closers) {
		f()
	}
}

// message takes every control message, as the host sees it.
func (s *session) message(e trace.Event) {
	if e.Dir == trace.GuestToHost && strings.HasPrefix(e.Name, vmbus.TypeInitiateContact.String()) {
		s.contact.Store(true)
	}
	if s.opts.Verbose {
		s.notes.line(e.String())
	}
}

// boots runs the guest until it ends; with Options.Reboot a reset is no end.
func (s *session) boots(ctx context.Context) error {
	for {
		up, down := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.care.run(up)
		}()
		err := s.vm.Run(ctx)
		down()
		<-ended
		if !errors.Is(err, kvmguest.ErrReset) || !s.opts.Reboot || s.asked.Load() {
			return err
		}
		s.guest.Bus().Reset()
		s.notes.say("the guest resets itself and boots again")
	}
}

// obey waits for interrupts: the first asks the guest to shut down, the second
// calls stop.
func (s *session) obey(ctx context.Context, stop func()) {
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case _, open := <-s.opts.Interrupts:
			switch {
			case !open:
				return
			case n > 1:
				stop()
				return
			}
			s.asked.Store(true)
			go s.care.powerOff(ctx)
		}
	}
}

// noContact explains a guest that ran to its end without a word on VMBus.
func (s *session) noContact() error {
	var osID uint64
	if p, ok := s.vm.Port().(synic.GuestPort); ok { // the same Partition has both sides
		osID, _ = p.ReadMSR(0, synic.MSRGuestOSID)
	}
	if osID == 0 {
		return errors.New("the kernel never used Hyper-V: it was built without CONFIG_HYPERV, or ended too early; " +
			"use a kernel that has it, such as Debian's linux-image-cloud-amd64 (hvlab boot -h shows how to get it)")
	}
	return fmt.Errorf("the kernel knows Hyper-V (guest OS id %#x) but never made contact with VMBus: "+
		"load its modules hv_vmbus, vsock and hv_sock, from the initramfs for example (hvlab boot -h shows one)", osID)
}
