package native

import (
	"errors"
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

// openVSock opens a socket and looks at its name.
func openVSock() error {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	name, err := unix.Getsockname(fd)
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	vm, ok := name.(*unix.SockaddrVM)
	if !ok {
		vm = &unix.SockaddrVM{}
	}
	return checkName(name, ok, vm.CID, vm.Port)
}
