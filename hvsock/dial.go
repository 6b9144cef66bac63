package hvsock

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/ringbuffer"
)

// network is what Addr.Network returns and every *net.OpError carries.
const network = "hvsock"

// newPipeWriter writes as Linux does: chunks of 4088 bytes, unless chunkBytes is
// not 0, always leaving room for a FIN (ringbuffer.md 12).
func newPipeWriter(w *ringbuffer.Writer, chunkBytes int) *channel.PipeWriter {
	return channel.NewPipeWriter(w, channel.PipeOptions{ReserveFIN: true, ChunkBytes: chunkBytes})
}

// dialOptions are what a dialer may ask for besides the address.
type dialOptions struct {
	timeout              time.Duration // 0: what the profile says
	highVTL              bool          // HVSOCKET_HIGH_VTL
	sendBytes, recvBytes int64         // hints for the rings; 0: what the profile says

	passthru bool // HVSOCKET_CONTAINER_PASSTHRU: Parent is the VM's host, whatever SiloParent says
}

// A dialResult is the outcome of a connect: a connection or a bare errno.
type dialResult struct {
	conn *Conn
	err  error
}

// await returns the outcome of a connect once it is decided. Otherwise it gives
// up when ctx is done or, without a deadline in ctx, after the timeout, and after
// maxDialTimeout at the latest unless the timeout is NoTimeout; giveUp
// reports false if the outcome was decided in that very moment: success wins.
// The error is a bare errno or that of ctx.
func await(ctx context.Context, timeout time.Duration, result <-chan dialResult, giveUp func() bool) (*Conn, error) {
	var expired <-chan time.Time // for ever without, if ctx has a deadline
	deadline, ok := ctx.Deadline()
	if ok && timeout >= 0 {
		timeout = maxDialTimeout
	}
	if timeout >= 0 && (!ok || time.Until(deadline) > timeout) {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		expired = timer.C
	}
	var ended error
	select {
	case r := <-result:
		return r.conn, r.err
	case <-ctx.Done():
		ended = contextError(ctx.Err())
	case <-expired:
		ended = syscall.ETIMEDOUT
	}
	if !giveUp() && !putback.On(putback.SS01) {
		r := <-result
		return r.conn, r.err
	}
	return nil, ended
}

// A begunDial is a dial whose caller does not wait: whatever decides it first,
// the bus, the timeout or the caller, ends it.
type begunDial struct {
	local, remote Addr
	done          func(*Conn, error)
	giveUp        func() bool

	mu    sync.Mutex
	ended bool
	told  bool       // done was called
	timer live.Timer // nil before bound
}

// bound arms the timeout. giveUp reports false if the outcome is decided.
func (d *begunDial) bound(clock live.Clock, timeout time.Duration, giveUp func() bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.giveUp = giveUp
	if !d.ended {
		d.timer = clock.AfterFunc(min(timeout, maxDialTimeout), func() { d.abandon(syscall.ETIMEDOUT) })
	}
}

// end is told the outcome by the bus.
func (d *begunDial) end(r dialResult) {
	d.stop()
	if r.err != nil {
		d.tell(nil, r.err)
		return
	}
	d.tell(r.conn, nil)
}

func (d *begunDial) abandon(err error) {
	if d.giveUp() {
		d.tell(nil, err)
	}
}

// tell calls done, once: an open that was given up may fail later.
func (d *begunDial) tell(c *Conn, err error) {
	d.mu.Lock()
	told := d.told
	d.told = true
	d.mu.Unlock()
	switch {
	case told:
	case err != nil:
		d.done(nil, dialError(d.local, d.remote, err))
	default:
		d.done(c, nil)
	}
}

func (d *begunDial) cancel() {
	d.stop()
	d.abandon(context.Canceled)
}

func (d *begunDial) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = true
	if d.timer != nil {
		d.timer.Stop()
	}
}

// contextError is what a dial that its context ended returns: a deadline is a
// timeout, as net does it; a cancellation stays itself.
func contextError(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return errDialDeadline
	}
	return err
}

// dialError wraps err as net does. local is the zero Addr if none was bound.
func dialError(local, remote Addr, err error) error {
	op := &net.OpError{Op: "dial", Net: network, Addr: remote, Err: systemCall("connect", err)}
	if local != (Addr{}) {
		op.Source = local
	}
	return op
}

// listenError wraps err as net does.
func listenError(addr Addr, err error) error {
	return &net.OpError{Op: "listen", Net: network, Addr: addr, Err: systemCall("bind", err)}
}

// systemCall names the call behind an errno; other errors pass through.
func systemCall(call string, err error) error {
	if errno, ok := err.(syscall.Errno); ok {
		return os.NewSyscallError(call, errno)
	}
	return closedToo(err)
}

// A SocketType is what a program asks for besides the family.
type SocketType uint8

// The socket types. Hyper-V sockets are streams only (hvsock.md 1).
const (
	Stream    SocketType = iota // SOCK_STREAM
	Datagram                    // SOCK_DGRAM
	SeqPacket                   // SOCK_SEQPACKET
)

// socketTypes are the network names that DialText knows. All stream networks are
// alike to it, since callers pass "tcp" out of habit.
var socketTypes = map[string]SocketType{
	network: Stream, "vsock": Stream, "stream": Stream, "tcp": Stream, "tcp4": Stream, "tcp6": Stream, "unix": Stream, "": Stream,
	"dgram": Datagram, "udp": Datagram, "udp4": Datagram, "udp6": Datagram, "unixgram": Datagram,
	"seqpacket": SeqPacket, "unixpacket": SeqPacket,
}

// typeError is what a family without type t says of it, in a profile.
func (p Profile) typeError(name string, t SocketType) error {
	switch {
	case t == Datagram && p.DatagramErrno != 0:
		return os.NewSyscallError("socket", p.DatagramErrno)
	case t == Datagram:
		return os.NewSyscallError("socket", syscall.ESOCKTNOSUPPORT)
	case t == SeqPacket:
		return os.NewSyscallError("connect", syscall.ESOCKTNOSUPPORT)
	}
	return net.UnknownNetworkError(name)
}

// CheckNetwork returns nil if network, as a program passes it to DialContext, is a
// stream. Otherwise it returns the *net.OpError of DialText, with the errno that a
// system of this profile has for it.
func (p Profile) CheckNetwork(network string) error {
	t, known := socketTypes[network]
	if known && t == Stream {
		return nil
	}
	return &net.OpError{Op: "dial", Net: network, Err: p.typeError(network, t)}
}

// DialText is the shape http.Transport and gRPC want: it parses address and
// dials it. stream must name a stream network. Datagrams ("udp", "unixgram",
// "dgram") and sequenced packets ("seqpacket", "unixpacket") are
// ESOCKTNOSUPPORT, as Windows says it; a name that means nothing is
// net.UnknownNetworkError.
func DialText(ctx context.Context, dial func(context.Context, Addr) (*Conn, error), stream, address string) (net.Conn, error) {
	return Profile{}.dialText(ctx, dial, stream, address)
}

func (p Profile) dialText(ctx context.Context, dial func(context.Context, Addr) (*Conn, error), stream, address string) (net.Conn, error) {
	if err := p.CheckNetwork(stream); err != nil {
		return nil, err
	}
	addr, err := ParseAddr(address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	c, err := dial(ctx, addr)
	if err != nil {
		return nil, err // not c: a nil *Conn is not a nil net.Conn
	}
	return c, nil
}
