package kerneltest

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"sync"
	"time"
)

// A Client is the host's end of the control connection. Its methods may be
// called from several goroutines.
type Client struct {
	conn    io.ReadWriteCloser
	writing sync.Mutex // one line at a time

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan Response
	failed  error // set when the connection has ended
	done    chan struct{}
}

// NewClient drives the agent at the other end of conn, which it owns from now on.
func NewClient(conn io.ReadWriteCloser) *Client {
	c := &Client{conn: conn, waiting: make(map[uint64]chan Response), done: make(chan struct{})}
	go c.receive()
	return c
}

// receive hands responses to those who wait until the connection ends.
func (c *Client) receive() {
	defer close(c.done)
	lines := json.NewDecoder(bufio.NewReader(c.conn))
	for {
		var r Response
		err := lines.Decode(&r)
		c.mu.Lock()
		if err != nil {
			c.failed = err
			for id, ch := range c.waiting {
				close(ch)
				delete(c.waiting, id)
			}
			c.mu.Unlock()
			return
		}
		if ch := c.waiting[r.ID]; ch != nil {
			ch <- r // room for one, and there is one answer
			delete(c.waiting, r.ID)
		}
		c.mu.Unlock()
	}
}

// Do carries out one request. The error is a *RemoteError if the guest refused
// or failed; the Response then still says what it can. Otherwise it is about
// the control connection.
func (c *Client) Do(ctx context.Context, q Request) (Response, error) {
	ch := make(chan Response, 1)
	if err := c.post(&q, ch); err != nil {
		return Response{}, err
	}
	select {
	case r, ok := <-ch:
		switch {
		case !ok:
			c.mu.Lock()
			defer c.mu.Unlock()
			return Response{}, c.failed
		case r.Error != "":
			return r, &RemoteError{Op: q.Op, Errno: r.Errno, Text: r.Error}
		}
		return r, nil
	case <-ctx.Done():
		c.forget(q.ID)
		return Response{}, ctx.Err()
	}
}

// post numbers the request and sends it.
func (c *Client) post(q *Request, ch chan Response) error {
	if err := c.expect(q, ch); err != nil {
		return err
	}
	line, err := json.Marshal(q)
	if err == nil {
		c.writing.Lock()
		_, err = c.conn.Write(append(line, '\n'))
		c.writing.Unlock()
	}
	if err != nil {
		c.forget(q.ID)
	}
	return err
}

// expect numbers a request and makes room for its answer.
func (c *Client) expect(q *Request, ch chan Response) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed != nil {
		return c.failed
	}
	c.last++
	q.ID = c.last
	c.waiting[q.ID] = ch
	return nil
}

// forget drops the answer to a request.
func (c *Client) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

// Close ends the control connection; the agent then ends too.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	return err
}

// Serve makes the guest listen on port and provide a service to all who connect.
func (c *Client) Serve(ctx context.Context, port uint32, service Service, job Job) error {
	_, err := c.Do(ctx, Request{Op: OpServe, Port: port, Service: service, Bytes: job.Bytes, Seed: job.Seed})
	return err
}

// Listen makes the guest listen on port; Accept takes the connections.
func (c *Client) Listen(ctx context.Context, port uint32) error {
	_, err := c.Do(ctx, Request{Op: OpListen, Port: port})
	return err
}

// Unlisten ends Serve or Listen.
func (c *Client) Unlisten(ctx context.Context, port uint32) error {
	_, err := c.Do(ctx, Request{Op: OpUnlisten, Port: port})
	return err
}

// Run makes the guest connect to a port of the host and run whole exchanges:
// count of them, parallel at once. All must succeed.
func (c *Client) Run(ctx context.Context, port uint32, service Service, job Job, count, parallel int) (time.Duration, error) {
	r, err := c.Do(ctx, Request{Op: OpRun, Port: port, Service: service, Bytes: job.Bytes, Seed: job.Seed, Count: count, Parallel: parallel})
	return time.Duration(r.Millis * float64(time.Millisecond)), err
}

// Dial makes the guest connect to a port of the host.
func (c *Client) Dial(ctx context.Context, port uint32) (*Remote, error) {
	r, err := c.Do(ctx, Request{Op: OpDial, Port: port})
	if err != nil {
		return nil, err
	}
	return &Remote{c, r.Handle}, nil
}

// Accept takes a connection from Listen in the guest.
func (c *Client) Accept(ctx context.Context, port uint32, timeout time.Duration) (*Remote, error) {
	r, err := c.Do(ctx, Request{Op: OpAccept, Port: port, TimeoutMillis: int(timeout.Milliseconds())})
	if err != nil {
		return nil, err
	}
	return &Remote{c, r.Handle}, nil
}

// Log returns the lines of the guest kernel's log that contain text.
func (c *Client) Log(ctx context.Context, text string) (string, error) {
	r, err := c.Do(ctx, Request{Op: OpLog, Text: text})
	return r.Output, err
}

// Exec runs a program in the guest. A status other than zero is no error.
func (c *Client) Exec(ctx context.Context, args ...string) (output string, status int, err error) {
	r, err := c.Do(ctx, Request{Op: OpExec, Args: args})
	return r.Output, r.Exit, err
}

// Quit ends the agent, whereupon the guest powers off.
func (c *Client) Quit(ctx context.Context) error {
	_, err := c.Do(ctx, Request{Op: OpQuit})
	return err
}

// A Remote is a socket inside the guest.
type Remote struct {
	client *Client
	handle int
}

// Write writes the job's pattern in one system call per 32 KiB; n counts what
// went through before an error.
func (r *Remote) Write(ctx context.Context, job Job) (n int64, err error) {
	a, err := r.client.Do(ctx, Request{Op: OpWrite, Handle: r.handle, Bytes: job.Bytes, Seed: job.Seed})
	return a.Bytes, err
}

// Read reads up to job.Bytes bytes and checks them against the pattern. It ends
// early at EOF.
func (r *Remote) Read(ctx context.Context, job Job, timeout time.Duration) (n int64, eof bool, err error) {
	a, err := r.client.Do(ctx, Request{
		Op: OpRead, Handle: r.handle, Bytes: job.Bytes, Seed: job.Seed, TimeoutMillis: int(timeout.Milliseconds()),
	})
	return a.Bytes, a.EOF, err
}

// Shutdown is shutdown(2): how is "read", "write" or "both".
func (r *Remote) Shutdown(ctx context.Context, how string) error {
	_, err := r.client.Do(ctx, Request{Op: OpShutdown, Handle: r.handle, How: how})
	return err
}

// Close closes the socket.
func (r *Remote) Close(ctx context.Context) error {
	_, err := r.client.Do(ctx, Request{Op: OpClose, Handle: r.handle})
	return err
}
