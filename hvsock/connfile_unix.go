//go:build unix

package hvsock

import (
	"errors"
	"net"
	"os"
	"syscall"
)

// socketPair returns two joined ends.
func socketPair() (a, b *net.UnixConn, err error) {
	syscall.ForkLock.RLock() // no child process may get the ends before they are close-on-exec
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	a, errA := unixConn(fds[0])
	b, errB := unixConn(fds[1])
	if err = errors.Join(errA, errB); err != nil {
		for _, c := range []*net.UnixConn{a, b} {
			if c != nil {
				_ = c.Close()
			}
		}
		return nil, nil, err
	}
	return a, b, nil
}

// unixConn takes over the socket fd.
func unixConn(fd int) (*net.UnixConn, error) {
	file := os.NewFile(uintptr(fd), "hvsock")
	defer file.Close() // FileConn has a copy
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, bare(err)
	}
	c, ok := conn.(*net.UnixConn)
	if !ok {
		_ = conn.Close()
		return nil, errors.ErrUnsupported
	}
	return c, nil
}

// awaitClose is called when the handles' stream has ended. It sends the FIN if that
// was shutdown(2), waits until no handle is left or wants to read anything, and
// reports whether that came and not the near end's own close.
func (f *connFile) awaitClose() bool {
	raw, err := f.near.SyscallConn()
	if err != nil {
		return false
	}
	// There is nothing to read, so the function is called once now, and then for
	// each change of the other end's state. Sending nothing at all fails if
	// nobody could receive it.
	first := true
	err = raw.Read(func(fd uintptr) (done bool) {
		_, err := syscall.SendmsgN(int(fd), nil, nil, nil, 0)
		done = err != nil && !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EINTR)
		if first && !done {
			f.conn.shutWrite()
		}
		first = false
		return done
	})
	return err == nil
}
