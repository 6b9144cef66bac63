package remote

import (
	"context"
	"encoding/gob"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hvlab/hvlab/hvsock"
)

// ErrGone is returned by every call once the server cannot be reached any more.
var ErrGone = errors.New("remote: the server is gone")

// A Client uses the sockets of the Server at the other end of a connection.
type Client struct {
	conn io.ReadWriteCloser
	done chan struct{} // closed when the connection has ended

	sending sync.Mutex // guards out
	out     *gob.Encoder

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan response
}

// NewClient makes a Client of a connection to a Server, which it owns from then
// on.
func NewClient(conn io.ReadWriteCloser) *Client {
	c := &Client{conn: conn, done: make(chan struct{}), out: gob.NewEncoder(conn), waiting: map[uint64]chan response{}}
	go c.receive()
	return c
}

// receive hands responses to those who wait for them.
func (c *Client) receive() {
	defer close(c.done)
	in := gob.NewDecoder(c.conn)
	for {
		var r response
		if in.Decode(&r) != nil {
			return
		}
		c.mu.Lock()
		answer := c.waiting[r.ID]
		delete(c.waiting, r.ID)
		c.mu.Unlock()
		if answer != nil {
			answer <- r // has room
		}
	}
}

// Close ends the server's work, which closes what was opened there.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	return err
}

// call sends r and waits for the response.
func (c *Client) call(r request) (response, error) {
	answer := make(chan response, 1)
	c.mu.Lock()
	c.last++
	r.ID = c.last
	c.waiting[r.ID] = answer
	c.mu.Unlock()
	c.sending.Lock()
	err := c.out.Encode(r)
	c.sending.Unlock()
	if err != nil {
		return response{}, ErrGone
	}
	select {
	case a := <-answer:
		return a, nil
	case <-c.done:
		return response{}, ErrGone
	}
}

// Listen listens on the server's machine.
func (c *Client) Listen(addr hvsock.Addr) (*Listener, error) {
	a, err := c.call(request{Op: opListen, Addr: addr})
	if err == nil {
		err = a.Fault.err(nil, addr)
	}
	if err != nil {
		return nil, err
	}
	return &Listener{client: c, handle: a.Handle, addr: a.Local}, nil
}

// Dial dials on the server's machine. What ctx says now is honoured there; a
// cancellation that comes later is not.
func (c *Client) Dial(ctx context.Context, addr hvsock.Addr) (*Conn, error) {
	r := request{Op: opDial, Addr: addr}
	if t, ok := ctx.Deadline(); ok {
		r.Limit = newLimit(t)
	}
	r.Limit.Cancelled = errors.Is(ctx.Err(), context.Canceled)
	a, err := c.call(r)
	if err == nil {
		err = a.Fault.err(nil, addr)
	}
	if err != nil {
		return nil, err
	}
	return &Conn{client: c, handle: a.Handle, local: a.Local, remote: a.Remote}, nil
}

// A Listener is a listener on the server's machine.
type Listener struct {
	client *Client
	handle uint64
	addr   hvsock.Addr
}

// Addr is the address bound to there.
func (l *Listener) Addr() net.Addr { return l.addr }

// Accept waits for a connection.
func (l *Listener) Accept() (net.Conn, error) {
	a, err := l.client.call(request{Op: opAccept, Handle: l.handle})
	if err == nil {
		err = a.Fault.err(nil, l.addr)
	}
	if err != nil {
		return nil, err
	}
	return &Conn{client: l.client, handle: a.Handle, local: a.Local, remote: a.Remote}, nil
}

// SetDeadline bounds Accept.
func (l *Listener) SetDeadline(t time.Time) error {
	return l.do(request{Op: opDeadline, Read: true, Write: true, Limit: newLimit(t)})
}

// Close stops listening.
func (l *Listener) Close() error { return l.do(request{Op: opClose}) }

func (l *Listener) do(r request) error {
	r.Handle = l.handle
	a, err := l.client.call(r)
	if err != nil {
		return err
	}
	return a.Fault.err(nil, l.addr)
}

// A Conn is a connection of the server's machine.
type Conn struct {
	client        *Client
	handle        uint64
	local, remote hvsock.Addr
}

// LocalAddr is the server's end.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is the other end, as the server's machine sees it.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// do makes one call and puts its error together.
func (c *Conn) do(r request) (response, error) {
	r.Handle = c.handle
	a, err := c.client.call(r)
	if err != nil {
		return a, err
	}
	return a, a.Fault.err(c.local, c.remote)
}

// Read is one Read there, of at most 1 MiB.
func (c *Conn) Read(p []byte) (int, error) {
	a, err := c.do(request{Op: opRead, Bytes: len(p)})
	return copy(p, a.Data), err
}

// Write is one Write there.
func (c *Conn) Write(p []byte) (int, error) {
	a, err := c.do(request{Op: opWrite, Data: p})
	return a.Bytes, err
}

// CloseRead is CloseRead there; so are the rest.
func (c *Conn) CloseRead() error { return c.only(request{Op: opCloseRead}) }

// CloseWrite ends the stream to the other end.
func (c *Conn) CloseWrite() error { return c.only(request{Op: opCloseWrite}) }

// Close closes the connection.
func (c *Conn) Close() error { return c.only(request{Op: opClose}) }

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	return c.only(request{Op: opDeadline, Read: true, Write: true, Limit: newLimit(t)})
}

// SetReadDeadline bounds Read.
func (c *Conn) SetReadDeadline(t time.Time) error {
	return c.only(request{Op: opDeadline, Read: true, Limit: newLimit(t)})
}

// SetWriteDeadline bounds Write.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	return c.only(request{Op: opDeadline, Write: true, Limit: newLimit(t)})
}

func (c *Conn) only(r request) error {
	_, err := c.do(r)
	return err
}
