package native

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"syscall"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/internal/putback"
)

// hypervEnable provides AF_HYPERV, in an elevated PowerShell.
const hypervEnable = "Enable-WindowsOptionalFeature -Online -All -FeatureName Microsoft-Hyper-V"

// RegisterCommand is the line that registers service on a Windows host, in an
// elevated PowerShell; name is shown to administrators. A host needs it whichever
// side listens. Source: hvsock.md 3.
func RegisterCommand(service uuid.UUID, name string) string {
	const key = `HKLM:\SOFTWARE\Microsoft\Windows NT\CurrentVersion\Virtualization\GuestCommunicationServices`
	return fmt.Sprintf("New-Item -Path '%s' -Name '%s' | New-ItemProperty -Name ElementName -Value '%s'", key, service, name)
}

// A hypervCalls is the socket calls of AF_HYPERV.
type hypervCalls struct {
	// dial need not look at the context.
	dial   func(ctx context.Context, addr hvsock.Addr) (stream, error)
	listen func(addr hvsock.Addr) (rawListener, error)
	addr   func(net.Addr) net.Addr
}

// A rawListener is a listener without deadlines. Close makes Accept return.
type rawListener interface {
	Accept() (net.Conn, error)
	Addr() net.Addr
	Close() error
}

// newHyperVSystem is AF_HYPERV on top of calls.
func newHyperVSystem(calls hypervCalls) system {
	return system{
		family:  "AF_HYPERV",
		profile: hvsock.Windows,
		enable:  hypervEnable,
		errno:   winsockErrno,
		addr:    calls.addr,
		admits:  func(hvsock.Addr, net.Addr) bool { return true }, // the system has bound to the VM id
		dial: func(ctx context.Context, addr hvsock.Addr) (stream, error) {
			return abandon(ctx, func() (stream, error) { return calls.dial(ctx, addr) })
		},
		listen: func(addr hvsock.Addr) (acceptor, error) {
			l, err := listenAnywhere(addr, calls.listen)
			if err != nil {
				return nil, err
			}
			return newAcceptQueue(l), nil
		},
	}
}

// abandon runs dial, and leaves it behind when ctx ends first: go-winio waits in
// the kernel and does not look at the context there. A connection that comes too
// late is closed.
func abandon(ctx context.Context, dial func() (stream, error)) (stream, error) {
	type result struct {
		stream stream
		err    error
	}
	done, gone := make(chan result), make(chan struct{})
	defer close(gone)
	go func() {
		s, err := dial()
		select {
		case done <- result{s, err}:
		case <-gone:
			if err == nil && !putback.On(putback.GO04) {
				_ = s.Close() // nobody has it
			}
		}
	}()
	select {
	case r := <-done:
		return r.stream, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Ports for listeners that leave the choice to us, because Windows has no
// automatic ones. Above the privileged ports and below those that old Linux
// kernels keep for themselves, as package hvsock picks them.
const (
	minAutoPort   = 1024
	maxAutoPort   = 0x7FFFFFFF
	autoPortTries = 24 // successive ports, as Linux tries
)

// listenAnywhere listens on addr, on a free port if it leaves that open.
func listenAnywhere(addr hvsock.Addr, listen func(hvsock.Addr) (rawListener, error)) (rawListener, error) {
	if !wantsAnyPort(addr.ServiceID) {
		return listen(addr)
	}
	first := minAutoPort + rand.Uint32N(maxAutoPort-minAutoPort-autoPortTries)
	for i := range uint32(autoPortTries) {
		addr.ServiceID = hvsock.ServiceIDFromPort(first + i)
		l, err := listen(addr)
		if err == nil || !errors.Is(winsockErrno("bind", err), syscall.EADDRINUSE) {
			return l, err
		}
	}
	return nil, &AddressError{addr, syscall.EADDRNOTAVAIL, fmt.Sprintf("ports %d to %d are all taken", first, first+autoPortTries-1)}
}
