package hvsocktest

import (
	"context"
	"net"
	"time"

	"github.com/hvlab/hvlab/hvsock"
)

// A Conn is what a transport's Dial returns and its Accept, too, behind a
// net.Conn.
type Conn interface {
	net.Conn
	CloseRead() error
	CloseWrite() error
}

// A Listener is what a transport's Listen returns.
type Listener interface {
	net.Listener
	SetDeadline(t time.Time) error
}

// A Transport is something that connects a dialer and a listener: one direction
// of one pair of partitions.
type Transport struct {
	// Name says which, in reports: "guest to host".
	Name string

	Listen func(hvsock.Addr) (Listener, error)
	Dial   func(context.Context, hvsock.Addr) (Conn, error)

	// Service returns a service nobody has used before: the address a listener
	// binds to, and the address under which the dialer reaches it.
	Service func() (bind, dial hvsock.Addr)

	// NeverRefuses is set where a dial that finds no listener has to wait for
	// its timeout, as when a host dials: a guest has no way to refuse
	// (hvsock.md 5.2).
	NeverRefuses bool

	// Dialer and Acceptor are how either end behaves; some promises depend on
	// it. The zero value behaves best.
	Dialer, Acceptor hvsock.Profile

	// Patience is how long one behaviour or question may take; 30 s if zero. A
	// transport needs more where each call is a message to an emulated machine.
	Patience time.Duration

	// Deviations name the behaviours this transport is known not to have, each
	// with the reason. They are not checked.
	Deviations map[string]string
}

// Over makes a Transport of functions with concrete types, such as the methods
// Listen and Dial of a simulated host and guest.
func Over[L Listener, C Conn](
	name string,
	listen func(hvsock.Addr) (L, error),
	dial func(context.Context, hvsock.Addr) (C, error),
	service func() (bind, dial hvsock.Addr),
) Transport {
	// A nil pointer must not become a Listener or Conn that is not nil.
	return Transport{
		Name:    name,
		Service: service,
		Listen: func(a hvsock.Addr) (Listener, error) {
			l, err := listen(a)
			if err != nil {
				return nil, err
			}
			return l, nil
		},
		Dial: func(ctx context.Context, a hvsock.Addr) (Conn, error) {
			c, err := dial(ctx, a)
			if err != nil {
				return nil, err
			}
			return c, nil
		},
	}
}
