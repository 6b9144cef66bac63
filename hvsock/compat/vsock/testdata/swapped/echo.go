// Package echo is a program as somebody wrote it for real AF_VSOCK sockets: a
// server that echoes, and its client. It knows nothing of simulated machines.
package echo

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/hvlab/hvlab/hvsock/compat/vsock"
)

// A Server echoes what each of its clients sends.
type Server struct {
	listener *vsock.Listener
	log      io.Writer
}

// NewServer listens on a port; 0 means any.
func NewServer(port uint32, log io.Writer) (*Server, error) {
	cid, err := vsock.ContextID()
	if err != nil {
		return nil, fmt.Errorf("this machine has no vsock: %w", err)
	}
	l, err := vsock.Listen(port, &vsock.Config{})
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(log, "CID %d, listening on a %s address\n", cid, l.Addr().Network())
	return &Server{listener: l, log: log}, nil
}

// Port is the port that the server listens on.
func (s *Server) Port() uint32 { return s.listener.Addr().(*vsock.Addr).Port }

// Serve serves one client after the other, until none has come for idle.
func (s *Server) Serve(idle time.Duration) error {
	for {
		if err := s.listener.SetDeadline(time.Now().Add(idle)); err != nil {
			return err
		}
		c, err := s.listener.Accept()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			fmt.Fprintln(s.log, "idle")
			return s.listener.Close()
		}
		if err != nil {
			return err
		}
		if err := s.echo(c.(*vsock.Conn)); err != nil {
			return err
		}
	}
}

// echo returns what the client sends, and then ends its own stream.
func (s *Server) echo(c *vsock.Conn) error {
	defer c.Close()
	from, ok := c.RemoteAddr().(*vsock.Addr)
	if !ok {
		return fmt.Errorf("%v is no vsock address", c.RemoteAddr())
	}
	name := "a guest"
	switch from.ContextID {
	case vsock.Host:
		name = "the host"
	case vsock.Local:
		name = "this machine"
	}
	n, err := io.Copy(c, c)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.log, "%d bytes of %s\n", n, name)
	return c.CloseWrite()
}

// Call sends text to a server and returns what it answers.
func Call(cid, port uint32, text string) (answer, peer string, err error) {
	c, err := vsock.Dial(cid, port, nil)
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return "", "", err
	}
	if _, err := io.WriteString(c, text); err != nil {
		return "", "", err
	}
	if err := c.CloseWrite(); err != nil {
		return "", "", err
	}
	b, err := io.ReadAll(c)
	return string(b), c.RemoteAddr().String(), err
}

// Why explains an error of Call in the program's own words.
func Why(err error) string {
	var op *net.OpError
	if !errors.As(err, &op) {
		return "not a network error"
	}
	return fmt.Sprintf("%s on %s: %v", op.Op, op.Net, op.Err)
}
