package native

import (
	"context"
	"net"
	"time"

	"github.com/hvlab/hvlab/hvsock"
)

// network is what every *net.OpError carries, as in package hvsock.
const network = "hvsock"

// Listen accepts connections on addr. A nil service id, or port 0, picks a free
// port, which Addr of the listener shows.
//
// Errors are *net.OpError around an errno (EADDRINUSE, EADDRNOTAVAIL, EACCES,
// ...), an *AddressError or an *UnsupportedError.
func Listen(addr hvsock.Addr) (*Listener, error) { return current().listenOn(addr) }

// Dial connects to addr. ctx covers the whole connect; without a deadline the
// timeout is 2 s. A deadline further away is waited for, even if the system's
// own timer is shorter: Dial then connects again.
//
// Errors are *net.OpError around os.ErrDeadlineExceeded (the deadline of ctx),
// context.Canceled, an errno (ETIMEDOUT, ECONNREFUSED, ECONNRESET, ENODEV, ...:
// whatever this system says), an *AddressError or an *UnsupportedError.
func Dial(ctx context.Context, addr hvsock.Addr) (*Conn, error) { return current().dialTo(ctx, addr) }

// DialContext is Dial for http.Transport and gRPC: address is in any form
// hvsock.ParseAddr takes, and network names a stream ("hvsock", "vsock", "tcp",
// ...). Datagrams and sequenced packets are what this system says they are, ENODEV
// or ESOCKTNOSUPPORT (hvsock.md 10), without asking it; a name that means nothing
// is net.UnknownNetworkError.
func DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return current().dialText(ctx, network, address)
}

// A system is one address family of one operating system.
type system struct {
	family string // AF_VSOCK or AF_HYPERV
	// profile is what hvsock knows of this kind of system.
	profile hvsock.Profile

	// dial and listen return the library's own errors, or an *AddressError. An
	// unconnected or unbound socket is closed before they do. dial ends soon
	// after ctx does.
	dial   func(ctx context.Context, addr hvsock.Addr) (stream, error)
	listen func(addr hvsock.Addr) (acceptor, error)

	// addr turns the library's form of an address into hvsock's.
	addr func(net.Addr) net.Addr
	// errno names the call behind a number, and gives the number its POSIX
	// meaning where the system has its own.
	errno func(call string, err error) error
	// admits says whether a listener that asked for addr wants a connection from
	// remote, for systems that cannot bind to that.
	admits func(addr hvsock.Addr, remote net.Addr) bool
	// enable is the command that provides the address family.
	enable string
}

// A stream is a connected socket of a library.
type stream interface {
	net.Conn
	CloseRead() error
	CloseWrite() error
}

// An acceptor is a listening socket of a library. What it accepts is a stream.
type acceptor interface {
	net.Listener
	SetDeadline(time.Time) error
}
