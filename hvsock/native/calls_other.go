//go:build !linux && !windows

package native

import (
	"context"
	"net"

	"github.com/hvlab/hvlab/hvsock"
)

// current is a system without Hyper-V sockets.
func current() system {
	unsupported := &UnsupportedError{System: thisSystem}
	return system{
		dial:   func(context.Context, hvsock.Addr) (stream, error) { return nil, unsupported },
		listen: func(hvsock.Addr) (acceptor, error) { return nil, unsupported },
		errno:  posixErrno,
		addr:   func(a net.Addr) net.Addr { return a },
		admits: func(hvsock.Addr, net.Addr) bool { return true },
	}
}
