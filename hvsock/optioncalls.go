package hvsock

import (
	"context"
	"net"
	"time"
)

// A Dialer dials with options: it stands for sockets that are not connected yet,
// all alike. Its methods may be called from any goroutine.
type Dialer struct {
	stack   containerHost
	from    *site
	options optionSet
}

// Dialer returns a Dialer with the default options.
func (s *GuestStack) Dialer() *Dialer { return &Dialer{stack: s, from: &s.root} }

// Dialer returns a Dialer with the default options.
func (s *HostStack) Dialer() *Dialer { return &Dialer{stack: s, from: &s.root} }

// Dialer returns a Dialer with the default options.
func (c *Container) Dialer() *Dialer { return &Dialer{stack: c.stack, from: &c.site} }

// SetOption changes an option of the sockets to come. Errors are *net.OpError
// around ENOPROTOOPT, EINVAL or ERANGE.
func (d *Dialer) SetOption(o Option, value int64) error {
	return optionError("set", Addr{}, d.options.set(o, value, d.stack.dialProfile().Options))
}

// GetOption returns an option's value. Errors are *net.OpError around
// ENOPROTOOPT.
func (d *Dialer) GetOption(o Option) (int64, error) {
	value, err := d.options.get(o, d.stack.dialProfile().Options)
	return value, optionError("get", Addr{}, err)
}

// SetTimeout is SetOption(ConnectTimeout), or VSockConnectTimeout on systems that
// have only that. 0 means the default.
func (d *Dialer) SetTimeout(t time.Duration) error {
	if d.stack.dialProfile().Options == VSockOptions {
		return d.SetOption(VSockConnectTimeout, t.Microseconds())
	}
	return d.SetOption(ConnectTimeout, t.Milliseconds())
}

// Dial dials with the options, which the connection keeps. It is otherwise the
// Dial of whoever made d.
func (d *Dialer) Dial(ctx context.Context, addr Addr) (*Conn, error) {
	send, recv := d.options.ringHints()
	c, err := d.stack.dialFrom(ctx, d.from, addr, dialOptions{
		timeout: d.options.timeout(), passthru: d.options.flag(ContainerPassthru), highVTL: d.options.flag(HighVTL),
		sendBytes: send, recvBytes: recv,
	})
	if err != nil {
		return nil, err
	}
	c.sockopts.inherit(&d.options)
	return c, nil
}

// DialContext is Dial for http.Transport and gRPC: see DialText.
func (d *Dialer) DialContext(ctx context.Context, stream, address string) (net.Conn, error) {
	return d.stack.dialProfile().dialText(ctx, d.Dial, stream, address)
}

// SetOption changes an option. On a connection most have nothing left to change;
// they are kept. Errors are *net.OpError around ENOPROTOOPT, EINVAL or ERANGE.
func (c *Conn) SetOption(o Option, value int64) error {
	return optionError("set", c.local, c.sockopts.set(o, value, c.link.options.family))
}

// GetOption returns an option's value. Errors are *net.OpError around
// ENOPROTOOPT.
func (c *Conn) GetOption(o Option) (int64, error) {
	value, err := c.sockopts.get(o, c.link.options.family)
	return value, optionError("get", c.local, err)
}

// SetOption changes an option of the listener, which connections inherit that
// are accepted from now on. Errors are *net.OpError around ENOPROTOOPT, EINVAL or
// ERANGE.
func (l *Listener) SetOption(o Option, value int64) error {
	return optionError("set", l.addr, l.sockopts.set(o, value, l.family))
}

// GetOption returns an option's value. Errors are *net.OpError around
// ENOPROTOOPT.
func (l *Listener) GetOption(o Option) (int64, error) {
	value, err := l.sockopts.get(o, l.family)
	return value, optionError("get", l.addr, err)
}

// optionError wraps a bare errno as net does.
func optionError(op string, local Addr, err error) error {
	if err == nil {
		return nil
	}
	return localError(op, local, optionCall(op, err))
}
