// Package echo is a program as somebody wrote it for real Hyper-V sockets on
// Windows: a server that echoes, and its client. It knows nothing of simulated
// machines.
package echo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/Microsoft/go-winio/pkg/guid"

	"github.com/Microsoft/go-winio"
)

// A Server echoes what each of its clients sends.
type Server struct {
	listener *winio.HvsockListener
	log      io.Writer
}

// NewServer listens on a service for connections of one kind of partition.
func NewServer(vmid, service guid.GUID, log io.Writer) (*Server, error) {
	l, err := winio.ListenHvsock(&winio.HvsockAddr{VMID: vmid, ServiceID: service})
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(log, "listening on %s %s\n", l.Addr().Network(), l.Addr())
	return &Server{listener: l, log: log}, nil
}

// Close makes Serve return.
func (s *Server) Close() error { return s.listener.Close() }

// Serve serves one client after the other, until Close.
func (s *Server) Serve() error {
	for {
		c, err := s.listener.Accept()
		if errors.Is(err, winio.ErrFileClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.echo(c.(*winio.HvsockConn)); err != nil {
			return err
		}
	}
}

// echo returns what the client sends, and then ends its own stream.
func (s *Server) echo(c *winio.HvsockConn) error {
	defer c.Close()
	from := c.RemoteAddr().(*winio.HvsockAddr)
	name := "partition " + from.VMID.String()
	switch from.VMID {
	case winio.HvsockGUIDParent():
		name = "the host"
	case winio.HvsockGUIDLoopback():
		name = "this machine"
	}
	n, err := io.Copy(c, c)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.log, "%d bytes of %s\n", n, name)
	return c.CloseWrite()
}

// Call sends text to a server and returns what it answers. It knocks up to three
// times.
func Call(ctx context.Context, vmid guid.GUID, port uint32, text string) (answer string, err error) {
	d := &winio.HvsockDialer{Deadline: time.Now().Add(time.Minute), Retries: 2, RetryWait: 100 * time.Millisecond}
	c, err := d.Dial(ctx, &winio.HvsockAddr{VMID: vmid, ServiceID: winio.VsockServiceID(port)})
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	if err := c.CloseWrite(); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

// Why explains an error of Call in the program's own words.
func Why(err error) string {
	var op *net.OpError
	switch {
	case errors.Is(err, winio.ErrTimeout):
		return "took too long"
	case errors.As(err, &op):
		return op.Op + " on " + op.Net
	}
	return "not a network error"
}
