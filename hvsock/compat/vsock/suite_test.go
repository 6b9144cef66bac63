package vsock_test

import (
	"context"
	"maps"
	"net"
	"testing"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/hvsock/compat/vsock"
	"github.com/hvlab/hvlab/hvsock/hvsocktest"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/nettest"
)

// A role is who listens, who dials, and under which CID.
type role struct {
	name       string
	on, by     *vsock.Machine
	listen, to uint32 // CIDs
}

func roles(host, guest *vsock.Machine) []role {
	return []role{
		{"guest to host", host, guest, vsock.Host, vsock.Host},
		{"host to guest", guest, host, hvsock.CIDAny, 3},
		{"guest to itself", guest, guest, vsock.Local, vsock.Local},
		{"host to itself", host, host, vsock.Local, vsock.Local},
	}
}

// deviations are what the original does not promise either.
var deviations = map[string]string{
	"AfterClose":         "its second Close returns nil; the rest is in TestErrorsAreTheOriginals",
	"ListenerCloseTwice": "its second Close returns nil",
	"DialDeadline":       "the error is the context's own, see TestDialContext",
}

// impatient are the behaviours that end a dial by its context's deadline, where
// nobody can refuse it.
var impatient = []string{"NoListener", "DialAfterListenerClose", "DialCancelledMidway"}

// The suite of all Hyper-V sockets, over the original's API.
func TestConformance(t *testing.T) {
	host, guest := newPair(t)
	for _, r := range roles(host, guest) {
		port := uint32(20_000)
		tr := hvsocktest.Over(r.name,
			func(a hvsock.Addr) (*vsock.Listener, error) { return r.on.ListenContextID(r.listen, portOf(a), nil) },
			func(ctx context.Context, a hvsock.Addr) (*vsock.Conn, error) {
				return r.by.DialContext(ctx, r.to, portOf(a), nil)
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

func portOf(a hvsock.Addr) uint32 {
	port, _ := hvsock.PortFromServiceID(a.ServiceID) // ports are all that the suite is given
	return port
}

// A Conn is a net.Conn by the standards of package net.
func TestNettest(t *testing.T) {
	host, guest := newPair(t)
	for _, r := range roles(host, guest)[:2] { // the others differ in their addresses only
		t.Run(r.name, func(t *testing.T) {
			l, err := r.on.ListenContextID(r.listen, 0, nil)
			require.NoError(t, err)
			defer l.Close()
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				c1, err = r.by.Dial(r.to, l.Addr().(*vsock.Addr).Port, nil)
				if err != nil {
					return nil, nil, nil, err
				}
				c2, err = l.Accept()
				return c1, c2, func() { _, _ = c1.Close(), c2.Close() }, err
			})
		})
	}
}
