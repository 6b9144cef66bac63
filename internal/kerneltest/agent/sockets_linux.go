package main

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A family is an address family whose addresses are ports. The tests of this
// package use Unix sockets, which every machine has.
type family struct {
	domain int
	listen func(port uint32) unix.Sockaddr
	dial   func(cid, port uint32) unix.Sockaddr
}

// vsock is AF_VSOCK, under which Linux has Hyper-V sockets.
var vsock = family{
	domain: unix.AF_VSOCK,
	listen: func(port uint32) unix.Sockaddr { return &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: port} },
	dial:   func(cid, port uint32) unix.Sockaddr { return &unix.SockaddrVM{CID: cid, Port: port} },
}

// socketOptions are the options that a request may set before connecting.
// Source: Linux include/uapi/linux/vm_sockets.h.
var socketOptions = map[string]struct{ level, option int }{
	"SO_SNDBUF":                     {unix.SOL_SOCKET, unix.SO_SNDBUF},
	"SO_RCVBUF":                     {unix.SOL_SOCKET, unix.SO_RCVBUF},
	"SO_VM_SOCKETS_BUFFER_SIZE":     {unix.AF_VSOCK, unix.SO_VM_SOCKETS_BUFFER_SIZE},
	"SO_VM_SOCKETS_BUFFER_MAX_SIZE": {unix.AF_VSOCK, unix.SO_VM_SOCKETS_BUFFER_MAX_SIZE},
}

// connectTimeout is the name of the option that is a struct timeval.
const connectTimeout = "SO_VM_SOCKETS_CONNECT_TIMEOUT_MILLIS"

// A socket is a connected socket. It is a kerneltest.Stream.
type socket struct {
	f    *os.File // not blocking, with deadlines
	once sync.Once
	err  error
}

func newSocket(fd int) (*socket, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return &socket{f: os.NewFile(uintptr(fd), "socket")}, nil
}

func (s *socket) Read(p []byte) (int, error)  { return s.f.Read(p) }
func (s *socket) Write(p []byte) (int, error) { return s.f.Write(p) }
func (s *socket) CloseWrite() error           { return s.shutdown(unix.SHUT_WR) }

// Close closes the socket once; a second call gives the first result.
func (s *socket) Close() error {
	s.once.Do(func() { s.err = s.f.Close() })
	return s.err
}

func (s *socket) shutdown(how int) error {
	return s.control(func(fd int) error { return unix.Shutdown(fd, how) })
}

// control runs f on the descriptor.
func (s *socket) control(f func(fd int) error) error {
	raw, err := s.f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { inner = f(int(fd)) })
	return errors.Join(err, inner)
}

// dial connects as most programs do: with a blocking connect, whose time limit
// is the kernel's.
func (f family) dialPort(cid, port uint32, options map[string]uint64) (*socket, error) {
	fd, err := unix.Socket(f.domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := setOptions(fd, options); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	for {
		err = unix.Connect(fd, f.dial(cid, port))
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("connect", err)
	}
	return newSocket(fd)
}

// setOptions sets socket options by name.
func setOptions(fd int, options map[string]uint64) error {
	for name, v := range options {
		var err error
		if name == connectTimeout {
			t := unix.NsecToTimeval(int64(v) * int64(time.Millisecond))
			err = unix.SetsockoptTimeval(fd, unix.AF_VSOCK, unix.SO_VM_SOCKETS_CONNECT_TIMEOUT, &t)
		} else if o, known := socketOptions[name]; !known {
			err = fmt.Errorf("unknown socket option %s", name)
		} else if o.level == unix.AF_VSOCK {
			err = unix.SetsockoptUint64(fd, o.level, o.option, v)
		} else {
			err = unix.SetsockoptInt(fd, o.level, o.option, int(v))
		}
		if err != nil {
			return fmt.Errorf("setsockopt %s: %w", name, err)
		}
	}
	return nil
}

// A listener is a listening socket.
type listener struct{ *socket }

// listenPort binds and listens.
func (f family) listenPort(port uint32, backlog int) (*listener, error) {
	fd, err := unix.Socket(f.domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, f.listen(port)); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	if err := unix.Listen(fd, backlog); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("listen", err)
	}
	s, err := newSocket(fd)
	if err != nil {
		return nil, err
	}
	return &listener{s}, nil
}

// accept waits for a connection; timeout 0 waits until the listener is closed.
func (l *listener) accept(timeout time.Duration) (*socket, error) {
	deadline := time.Time{}
	if timeout > 0 {
		deadline = time.Now().Add(timeout)
	}
	if err := l.f.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	raw, err := l.f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var inner error
	err = raw.Read(func(listening uintptr) bool {
		fd, _, inner = unix.Accept4(int(listening), unix.SOCK_CLOEXEC)
		return !errors.Is(inner, unix.EAGAIN) && !errors.Is(inner, unix.EINTR)
	})
	switch {
	case err != nil:
		return nil, err
	case inner != nil:
		return nil, os.NewSyscallError("accept", inner)
	}
	return newSocket(fd)
}
