package native

import (
	"errors"
	"fmt"
	"os"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"
)

func probe() Report {
	f := vsockFacts{family: openVSock()}
	if f.family != nil {
		return f.report()
	}
	f.cid, f.cidErr = vsock.ContextID()
	_, err := os.Stat("/sys/module/hv_sock")
	f.hvSock = err == nil
	f.loopback = current().tryLoopback(hvsock.Addr{VMID: hvsock.Loopback})
	return f.report()
}

// errNotVSock reports a family 40 that is something else: sandboxes that emulate
// Linux answer a socket call they do not know in odd ways (faults.md GO-07).
var errNotVSock = errors.New("a socket of address family 40 has no AF_VSOCK name")

// openVSock opens a socket and looks at its name, which of a new socket is "any
// port of any CID".
func openVSock() error {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	name, err := unix.Getsockname(fd)
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	if vm, ok := name.(*unix.SockaddrVM); !ok || vm.CID != hvsock.CIDAny || vm.Port != hvsock.PortAny {
		return fmt.Errorf("%w, but %T %+v", errNotVSock, name, name)
	}
	return nil
}
