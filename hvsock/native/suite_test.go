package native

import (
	"sync/atomic"
	"testing"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/hvsock/hvsocktest"
)

// freshServices returns services that no other test here uses.
func freshServices(first uint32) func() (bind, dial hvsock.Addr) {
	var used atomic.Uint32
	return func() (bind, dial hvsock.Addr) {
		a := service(hvsock.Loopback, first+used.Add(1))
		return a, a
	}
}

func TestConformance(t *testing.T) {
	bothSystems(t, func(t *testing.T, s system) {
		tr := hvsocktest.Over("Unix sockets", s.listenOn, s.dialTo, freshServices(1<<20))
		tr.Deviations = map[string]string{ // of the fake below, not of the layer under test
			"CloseReadDiscards":  "a Unix socket tells its peer of CloseRead: Writes are EPIPE",
			"CloseWriteUnblocks": "a Unix socket lets a blocked Write wait on for its reader",
			"OwnEndpoints":       "a Unix socket that dials has no name",
			"CloseWithUnread":    "a Unix socket resets its peer on Close with unread data",
		}
		hvsocktest.Run(t, tr)
	})
}

// The loopback transport of Linux; testdata/observed has its whole record.
func TestRealConformance(t *testing.T) {
	requireLoopback(t)
	tr := hvsocktest.Over("loopback", Listen, Dial, freshServices(1<<20))
	if current().family == "AF_VSOCK" {
		tr.Deviations = map[string]string{
			"CloseReadDiscards":      "the transport tells the peer of CloseRead: Writes are EPIPE",
			"NoListener":             "the transport refuses with a reset, and connect returns ECONNRESET",
			"DialAfterListenerClose": "likewise",
			"DialCancelledMidway":    "likewise",
			"CloseWriteUnblocks":     "a local shutdown does not wake a Write that waits for space (seen on 6.1)",
		}
	}
	hvsocktest.Run(t, tr)
}
