package native

import (
	"context"

	"github.com/mdlayher/vsock"
)

// current is the system this program runs on.
func current() system { return newVSockSystem(linuxCalls) }

// linuxCalls are AF_VSOCK as mdlayher/vsock does it, which closes what it has
// opened when a later call fails, and retries EINTR.
var linuxCalls = vsockCalls{
	dial: func(ctx context.Context, cid, port uint32) (stream, error) {
		c, err := vsock.DialContext(ctx, cid, port, nil)
		if err != nil {
			return nil, err // not c: a nil *vsock.Conn is not a nil stream
		}
		return c, nil
	},
	listen: func(cid, port uint32) (acceptor, error) {
		l, err := vsock.ListenContextID(cid, port, nil)
		if err != nil {
			return nil, err
		}
		return l, nil
	},
}
