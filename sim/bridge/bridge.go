package bridge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/vmbus"
)

// Options says which guest to bridge, and where. Path, VMID and Dial are
// required.
type Options struct {
	// Path is the Unix socket that programs connect to. A socket left behind by
	// a process that has ended is replaced.
	Path string
	// VMID is the guest's id.
	VMID uuid.UUID
	// Dial connects to a service of the guest: (*sim.Host).Dial.
	Dial func(context.Context, hvsock.Addr) (*hvsock.Conn, error)
	// DialTimeout is how long the guest may take to accept; 0 leaves it to Dial.
	DialTimeout time.Duration
	// HandleRequests tells which connections the guest wants:
	// (*sim.Host).HandleRequests. If nil the guest reaches no Unix socket.
	HandleRequests func(vmid uuid.UUID, fn func(*hvsock.Request)) (stop func(), err error)
	// Log gets one line about each connection that did not come about, from any
	// goroutine; nil is off.
	Log func(line string)
}

// A PathError reports a Unix socket that cannot be made.
type PathError struct {
	Path   string
	Reason string // what is wrong and what would help
	Err    error  // what the system said, or nil
}

func (e *PathError) Error() string { return fmt.Sprintf("bridge: %s: %s", e.Path, e.Reason) }

// Unwrap is what the system said.
func (e *PathError) Unwrap() error { return e.Err }

// Is reports the caller's misuse.
func (e *PathError) Is(target error) bool { return target == vmbus.ErrState }

// A Bridge serves the Unix sockets of one guest until Close.
type Bridge struct {
	opts     Options
	listener net.Listener
	stop     func() // ends HandleRequests
	ctx      context.Context
	cancel   context.CancelFunc

	mu     sync.Mutex
	closed bool
	open   int // connections, handshakes included
	all    sync.WaitGroup
}

// New binds the Unix socket and serves it. The error is a *PathError, or that of
// HandleRequests.
func New(opts Options) (*Bridge, error) {
	if opts.Log == nil {
		opts.Log = func(string) {}
	}
	l, err := listen(opts.Path)
	if err != nil {
		return nil, err
	}
	b := &Bridge{opts: opts, listener: l, stop: func() {}}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	if opts.HandleRequests != nil {
		if b.stop, err = opts.HandleRequests(opts.VMID, b.requested); err != nil {
			_ = l.Close()
			b.cancel()
			return nil, err
		}
	}
	b.all.Go(b.accept)
	return b, nil
}

// listen binds path, over a socket that nobody serves any more if need be.
func listen(path string) (net.Listener, error) {
	l, err := net.Listen("unix", path)
	if err == nil {
		return l, nil
	}
	switch info, statErr := os.Lstat(path); {
	case errors.Is(err, syscall.EINVAL):
		return nil, &PathError{path, "the path is too long for a Unix socket (about 100 bytes); use a shorter one, in /tmp for example", err}
	case errors.Is(err, fs.ErrNotExist):
		return nil, &PathError{path, "there is no such folder; make it first", err}
	case statErr != nil || !errors.Is(err, syscall.EADDRINUSE):
		return nil, &PathError{path, "cannot make a Unix socket here: " + err.Error(), err}
	case info.Mode()&fs.ModeSocket == 0:
		return nil, &PathError{path, "a file is in the way; name another path, or remove it", err}
	}
	if c, dialErr := net.DialTimeout("unix", path, localTimeout); dialErr == nil {
		_ = c.Close()
		return nil, &PathError{path, "another process serves this socket; name another path", err}
	}
	if err := os.Remove(path); err != nil {
		return nil, &PathError{path, "cannot remove the socket of a process that has ended: " + err.Error(), err}
	}
	if l, err = net.Listen("unix", path); err != nil {
		return nil, &PathError{path, "cannot make a Unix socket here: " + err.Error(), err}
	}
	return l, nil
}

// Close removes the Unix socket, ends every connection and returns when nothing
// is left. Called again, it returns net.ErrClosed.
func (b *Bridge) Close() error {
	b.mu.Lock()
	was := b.closed
	b.closed = true
	b.mu.Unlock()
	if was {
		return net.ErrClosed
	}
	b.stop()
	b.cancel()
	err := b.listener.Close()
	b.all.Wait()
	return err
}

// start runs serve on a goroutine of its own, unless the bridge is closed or has
// as many connections as it may have.
func (b *Bridge) start(serve func()) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.open >= maxConnections {
		return false
	}
	b.open++
	b.all.Go(func() {
		serve()
		b.mu.Lock()
		defer b.mu.Unlock()
		b.open--
	})
	return true
}

// accept takes clients until the bridge is closed.
func (b *Bridge) accept() {
	for {
		c, err := b.listener.Accept()
		if err != nil {
			select {
			case <-b.ctx.Done():
				return
			case <-time.After(acceptPause):
				continue
			}
		}
		client := c.(stream) // a *net.UnixConn
		if !b.start(func() { b.serveClient(client) }) {
			_ = client.Close()
			b.opts.Log(fmt.Sprintf("a client was turned away: there are %d connections", maxConnections))
		}
	}
}

// serveClient is one connection that a program makes to the guest.
func (b *Bridge) serveClient(client stream) {
	defer client.Close() // a second time, mostly
	stop := context.AfterFunc(b.ctx, func() { _ = client.Close() })
	defer stop()
	want, early, err := greet(client)
	if err != nil {
		b.opts.Log("a client was closed: " + err.Error())
		return
	}
	guest, err := b.dial(want.service)
	if err != nil {
		b.opts.Log("a client was closed: " + b.noAnswer(want.service, err))
		return
	}
	defer context.AfterFunc(b.ctx, func() { _ = guest.Close() })()
	_ = client.SetWriteDeadline(time.Now().Add(answerTimeout)) // fails only if client is closed
	if _, err := client.Write([]byte(want.answer(guest.LocalAddr().(hvsock.Addr).ServiceID))); err != nil {
		_ = guest.Close() // the client is gone
		return
	}
	_ = client.SetDeadline(time.Time{})
	relay(client, guest, early)
}

// greet reads what the client wants. The error is a *HandshakeError.
func greet(client net.Conn) (wanted, []byte, error) {
	if !putback.On(putback.SS12) {
		_ = client.SetReadDeadline(time.Now().Add(handshakeTimeout)) // fails only if client is closed
	}
	line, early, err := readLine(client)
	if err != nil {
		return wanted{}, nil, err
	}
	want, err := parseLine(line)
	return want, early, err
}

// dial connects to a service of the guest.
func (b *Bridge) dial(service uuid.UUID) (*hvsock.Conn, error) {
	ctx := b.ctx
	if b.opts.DialTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, b.opts.DialTimeout)
		defer cancel()
	}
	return b.opts.Dial(ctx, hvsock.Addr{VMID: b.opts.VMID, ServiceID: service})
}

// noAnswer says why a service of the guest was not reached.
func (b *Bridge) noAnswer(service uuid.UUID, err error) string {
	to := hvsock.Addr{VMID: b.opts.VMID, ServiceID: service}
	if op, ok := err.(*net.OpError); ok {
		err = op.Err // the address is more than a person wants to read
	}
	text := fmt.Sprintf("no connection to %s: %v", to.Short(), err)
	if errors.Is(err, syscall.ETIMEDOUT) {
		text += "; probably nobody listens there: a guest has no way to say so"
	}
	return text
}

// requested is called when the guest wants a connection. It must not block.
func (b *Bridge) requested(r *hvsock.Request) {
	if !b.start(func() { b.serveGuest(r) }) {
		r.Refuse()
		b.opts.Log(fmt.Sprintf("the guest was turned away: closing, or there are %d connections", maxConnections))
	}
}

// serveGuest is one connection that the guest makes to a program.
func (b *Bridge) serveGuest(r *hvsock.Request) {
	service := r.LocalAddr().ServiceID
	client, err := b.connect(service)
	if err != nil {
		r.Refuse()
		b.opts.Log(fmt.Sprintf("the guest was refused: %v", err))
		return
	}
	defer context.AfterFunc(b.ctx, func() { _ = client.Close() })()
	guest, err := r.Accept(b.ctx)
	if err != nil {
		_ = client.Close()
		b.opts.Log("the guest gave up: " + err.Error())
		return
	}
	defer context.AfterFunc(b.ctx, func() { _ = guest.Close() })()
	relay(client, guest, nil)
}

// connect connects to the program that serves a service: at PATH_5000 if it is
// that of a port, else at PATH_<guid>.
func (b *Bridge) connect(service uuid.UUID) (stream, error) {
	paths := []string{b.opts.Path + "_" + service.String()}
	if port, ok := hvsock.PortFromServiceID(service); ok {
		paths = []string{b.opts.Path + "_" + strconv.FormatUint(uint64(port), 10), paths[0]}
	}
	dialer := net.Dialer{Timeout: localTimeout}
	for _, path := range paths {
		c, err := dialer.DialContext(b.ctx, "unix", path)
		if err == nil {
			return c.(stream), nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return nil, &PathError{paths[0], "nobody listens here", fs.ErrNotExist}
}
