//go:build !(linux && amd64)

package kvmguest

import (
	"context"
	"runtime"

	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// Probe reports that this platform has no KVM for x86-64 guests.
func Probe() (reason string, ok bool) {
	return "a KVM guest needs linux/amd64, this is " + runtime.GOOS + "/" + runtime.GOARCH, false
}

// A VM cannot exist on this platform.
type VM struct{}

// New checks the options and returns an *UnsupportedError.
func New(o Options) (*VM, error) {
	if _, err := o.withDefaults(); err != nil {
		return nil, err
	}
	reason, _ := Probe()
	return nil, &UnsupportedError{reason}
}

// Memory, Port, Type, Run and Close exist so that callers compile; no VM does.
func (*VM) Memory() guestmem.Memory { return nil }

// Port is never called, see Memory.
func (*VM) Port() synic.Port { return nil }

// Type is never called, see Memory.
func (*VM) Type([]byte) int { return 0 }

// Run is never called, see Memory.
func (*VM) Run(context.Context) error { return &UnsupportedError{"no VM"} }

// Close is never called, see Memory.
func (*VM) Close() error { return nil }
