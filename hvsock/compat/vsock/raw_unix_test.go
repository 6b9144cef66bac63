//go:build unix

package vsock_test

import (
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/hvlab/hvlab/hvsock/compat/vsock"
	"github.com/stretchr/testify/require"
)

// A program that wants the descriptor gets one, and uses it beside the Conn.
func TestSyscallConn(t *testing.T) {
	host, guest := newPair(t)
	l, err := host.Listen(5000, nil)
	require.NoError(t, err)
	defer l.Close()
	c, err := guest.Dial(vsock.Host, 5000, nil)
	require.NoError(t, err)
	far, err := l.Accept()
	require.NoError(t, err)
	defer far.Close()
	raw, err := c.SyscallConn()
	require.NoError(t, err)

	_, err = far.Write([]byte("ping"))
	require.NoError(t, err)
	var b [4]byte
	require.NoError(t, raw.Read(func(fd uintptr) bool {
		n, err := syscall.Read(int(fd), b[:2])
		return n > 0 || err != syscall.EAGAIN
	}))
	_, err = io.ReadFull(c, b[2:])
	require.NoError(t, err)
	require.Equal(t, "ping", string(b[:]), "the descriptor and the Conn read one stream")
	require.NoError(t, raw.Write(func(fd uintptr) bool {
		_, err := syscall.Write(int(fd), []byte("po"))
		return err != syscall.EAGAIN
	}))
	_, err = c.Write([]byte("ng"))
	require.NoError(t, err)
	_, err = io.ReadFull(far, b[:])
	require.NoError(t, err)
	require.Equal(t, "pong", string(b[:]))

	require.NoError(t, c.Close())
	_, err = far.Read(b[:])
	require.Equal(t, io.EOF, err, "the descriptor went with its Conn")
	err = raw.Control(func(uintptr) { t.Error("there is no descriptor any more") })
	require.Equal(t, &net.OpError{Op: "raw-control", Net: "vsock", Addr: c.LocalAddr(), Err: net.ErrClosed}, err)
	err = raw.Read(func(uintptr) bool { return true })
	require.Equal(t, &net.OpError{Op: "raw-read", Net: "vsock", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: net.ErrClosed}, err)
}
