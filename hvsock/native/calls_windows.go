package native

import (
	"context"
	"net"

	"github.com/Microsoft/go-winio"
	"github.com/Microsoft/go-winio/pkg/guid"
	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock"
)

// current is the system this program runs on.
func current() system { return newHyperVSystem(windowsCalls) }

// windowsCalls are AF_HYPERV as go-winio does it. From version 0.6.4 on it gives
// dialed sockets their connect context, without which shutdown and getsockname
// fail on them, and closes handles when a later call fails (faults.md GO-04, GO-08).
var windowsCalls = hypervCalls{
	dial: func(ctx context.Context, addr hvsock.Addr) (stream, error) {
		c, err := winio.Dial(ctx, toWinio(addr))
		if err != nil {
			return nil, err // not c: a nil *HvsockConn is not a nil stream
		}
		return c, nil
	},
	listen: func(addr hvsock.Addr) (rawListener, error) {
		l, err := winio.ListenHvsock(toWinio(addr))
		if err != nil {
			return nil, err
		}
		return l, nil
	},
	addr: func(a net.Addr) net.Addr {
		from, ok := a.(*winio.HvsockAddr)
		if !ok {
			return a
		}
		return hvsock.Addr{VMID: from.VMID.ToArray(), ServiceID: from.ServiceID.ToArray()}
	},
}

// toWinio is addr for go-winio.
func toWinio(addr hvsock.Addr) *winio.HvsockAddr {
	return &winio.HvsockAddr{VMID: toGUID(addr.VMID), ServiceID: toGUID(addr.ServiceID)}
}

// toGUID turns an id whose bytes are as printed into the mixed-endian form.
func toGUID(id uuid.UUID) guid.GUID { return guid.FromArray(id) }
