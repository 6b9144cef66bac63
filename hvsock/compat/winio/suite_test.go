package winio_test

import (
	"context"
	"maps"
	"net"
	"testing"
	"time"

	"github.com/Microsoft/go-winio/pkg/guid"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/hvsock/compat/winio"
	"github.com/hvlab/hvlab/hvsock/hvsocktest"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"
)

// A role is who listens, who dials, and under which VM ids.
type role struct {
	name     string
	on, by   *winio.Machine
	bind, to guid.GUID
}

func roles(host, guest *winio.Machine, vmid guid.GUID) []role {
	return []role{
		{"guest to host", host, guest, winio.HvsockGUIDChildren(), winio.HvsockGUIDParent()},
		{"host to guest", guest, host, winio.HvsockGUIDParent(), vmid},
		{"guest to itself", guest, guest, winio.HvsockGUIDLoopback(), winio.HvsockGUIDLoopback()},
		{"host to itself", host, host, winio.HvsockGUIDLoopback(), winio.HvsockGUIDLoopback()},
	}
}

// deviations are what the original does not promise either.
var deviations = map[string]string{
	"AcceptDeadline":     "its listeners have no deadlines",
	"AcceptDeadlinePast": "its listeners have no deadlines",
	"AfterClose":         "its second Close returns nil, and so does a deadline after Close; the rest is in TestErrorsAreTheOriginals",
	"CloseRead":          "its Read after CloseRead is WSAESHUTDOWN, see TestErrorsAreTheOriginals",
	"CloseReadUnblocks":  "its Read after CloseRead is WSAESHUTDOWN, see TestErrorsAreTheOriginals",
	"ShutdownBoth":       "its Read after CloseRead is WSAESHUTDOWN, see TestErrorsAreTheOriginals",
	"ListenerCloseTwice": "its second Close returns nil",
	"DialDeadline":       "the error is the context's own, see TestDialEnds",
}

// impatient are the behaviours that end a dial by its context's deadline, where
// nobody can refuse it.
var impatient = []string{"NoListener", "DialAfterListenerClose", "DialCancelledMidway"}

// A listener is an HvsockListener with what the suite wants besides.
type listener struct{ *winio.HvsockListener }

// SetDeadline fails as on a closed listener, which is where the suite asks for it.
func (listener) SetDeadline(time.Time) error { return net.ErrClosed }

// The suite of all Hyper-V sockets, over the original's API.
func TestConformance(t *testing.T) {
	host, guest, vmid := newPair(t)
	for _, r := range roles(host, guest, vmid) {
		port := uint32(20_000)
		tr := hvsocktest.Over(r.name,
			func(a hvsock.Addr) (listener, error) {
				l, err := r.on.ListenHvsock(&winio.HvsockAddr{VMID: r.bind, ServiceID: guid.FromArray(a.ServiceID)})
				return listener{l}, err
			},
			func(ctx context.Context, a hvsock.Addr) (*winio.HvsockConn, error) {
				return r.by.Dial(ctx, &winio.HvsockAddr{VMID: r.to, ServiceID: guid.FromArray(a.ServiceID)})
			},
			func() (bind, dial hvsock.Addr) {
				port++
				a := hvsock.Addr{ServiceID: hvsock.ServiceIDFromPort(port)}
				return a, a
			})
		tr.Deviations = maps.Clone(deviations)
		if r.name == "host to guest" {
			for _, name := range impatient {
				tr.Deviations[name] = deviations["DialDeadline"]
			}
		}
		t.Run(r.name, func(t *testing.T) { hvsocktest.Run(t, tr) })
	}
}

// An HvsockConn is a net.Conn by the standards of package net.
func TestNettest(t *testing.T) {
	host, guest, vmid := newPair(t)
	for i, r := range roles(host, guest, vmid)[:2] { // the others differ in their addresses only
		t.Run(r.name, func(t *testing.T) {
			service := winio.VsockServiceID(uint32(10_000 + i))
			l, err := r.on.ListenHvsock(&winio.HvsockAddr{VMID: r.bind, ServiceID: service})
			require.NoError(t, err)
			defer l.Close()
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				c1, err = r.by.Dial(context.Background(), &winio.HvsockAddr{VMID: r.to, ServiceID: service})
				if err != nil {
					return nil, nil, nil, err
				}
				c2, err = l.Accept()
				return c1, c2, func() { _, _ = c1.Close(), c2.Close() }, err
			})
		})
	}
}
