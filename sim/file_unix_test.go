//go:build unix

package sim

import (
	"context"
	"net"
	"testing"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/hvsock/hvsocktest"
)

// fileConn is a connection through the file descriptor of c: see hvsock.Conn.File.
func fileConn(c *hvsock.Conn, err error) (*net.UnixConn, error) {
	if err != nil {
		return nil, err
	}
	f, err := c.File()
	if err != nil {
		return nil, err
	}
	defer f.Close() // FileConn has a copy
	defer c.Close() // and the connection lives as long as any handle
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// A fileListener accepts connections through their file descriptors.
type fileListener struct{ *hvsock.Listener }

func (l fileListener) Accept() (net.Conn, error) {
	c, err := fileConn(l.AcceptHVSock())
	if err != nil {
		return nil, err
	}
	return c, nil
}

// TestConformanceOfFiles runs the suite with file descriptors at both ends: a
// program that insists on one loses next to nothing by it.
func TestConformanceOfFiles(t *testing.T) {
	host, guest := newPair(t, HostOptions{}, GuestOptions{})
	r := roles(host, guest)[0]
	port := uint32(20_000)
	tr := hvsocktest.Over("files",
		func(a hvsock.Addr) (fileListener, error) {
			l, err := r.listen(a)
			return fileListener{l}, err
		},
		func(ctx context.Context, a hvsock.Addr) (*net.UnixConn, error) { return fileConn(r.dial(ctx, a)) },
		func() (bind, dial hvsock.Addr) {
			port++
			id := hvsock.ServiceIDFromPort(port)
			return hvsock.Addr{VMID: r.bind.VMID, ServiceID: id}, hvsock.Addr{VMID: r.to.VMID, ServiceID: id}
		})
	tr.Deviations = map[string]string{
		"CloseRead":          "a Unix socket still hands out what has arrived before, if it was quick enough",
		"CloseWriteUnblocks": "a Unix socket's own shutdown does not wake its writers on Linux",
		"OwnEndpoints":       "the ends of a socket pair have no addresses",
	}
	hvsocktest.Run(t, tr)
}
