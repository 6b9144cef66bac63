package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/sim"
	"google.golang.org/grpc/test/bufconn"
)

// A transport makes connections within this process.
type transport struct {
	name string
	dial func() (net.Conn, error)
	// accept returns the other end of the oldest dial; it may wait.
	accept func() (net.Conn, error)
	// settle returns when nothing is left to do for closed connections.
	settle func()
	close  func()
}

// settlePause is a fraction of a turn.
const settlePause = 20 * time.Microsecond

// Names of the candidates, as the goals and the report use them.
const (
	hvlab5     = "hvlab-5"  // rings of 5 pages, the default
	hvlab33    = "hvlab-33" // rings of 33 pages: 128 KiB of data
	hvlab5L    = "hvlab-5L" // with packets as long as Windows sends them, 16 KiB instead of 4088 bytes
	hvlab33L   = "hvlab-33L"
	bufconn16  = "bufconn-16KiB"
	bufconn64  = "bufconn-64KiB"
	bufconn1M  = "bufconn-1MiB"
	unixSocket = "unix"
	tcpSocket  = "tcp"
	netPipe    = "net.Pipe"
	ioPipe     = "io.Pipe"
	bare5      = "bare-5" // see bareRing
	bare33     = "bare-33"
)

// transports are all rivals in the order of the table. They are opened only
// when used.
var transports = []struct {
	name string
	open func() (*transport, error)
}{
	{hvlab5, func() (*transport, error) { return openHVLab(5, hvsock.Profile{}) }},
	{hvlab33, func() (*transport, error) { return openHVLab(33, hvsock.Profile{}) }},
	{hvlab5L, func() (*transport, error) { return openHVLab(5, longPackets) }},
	{hvlab33L, func() (*transport, error) { return openHVLab(33, longPackets) }},
	{bufconn16, func() (*transport, error) { return openBufconn(16 << 10) }},
	{bufconn64, func() (*transport, error) { return openBufconn(64 << 10) }},
	{bufconn1M, func() (*transport, error) { return openBufconn(1 << 20) }},
	{unixSocket, openUnix},
	{tcpSocket, openTCP},
	{netPipe, openPipe},
	{bare5, func() (*transport, error) { return openBare(5) }},
	{bare33, func() (*transport, error) { return openBare(33) }},
}

// longPackets is a guest that puts as much into a packet as every receiver takes.
var longPackets = hvsock.Profile{ChunkBytes: channel.MaxPipeBytes}

// openHVLab starts a host with one guest that dials it.
func openHVLab(ringPages int, profile hvsock.Profile) (*transport, error) {
	host, err := sim.NewHost(sim.HostOptions{})
	if err != nil {
		return nil, err
	}
	guest, err := host.NewGuest(sim.GuestOptions{RingPages: ringPages, Profile: profile})
	if err != nil {
		return nil, err
	}
	service := hvsock.ServiceIDFromPort(5000)
	l, err := host.Listen(hvsock.Addr{VMID: hvsock.Wildcard, ServiceID: service})
	if err != nil {
		return nil, err
	}
	return &transport{
		dial: func() (net.Conn, error) {
			return guest.Dial(context.Background(), hvsock.Addr{VMID: hvsock.Parent, ServiceID: service})
		},
		accept: l.Accept,
		settle: func() {
			for guest.Usage().Channels != 0 || host.Usage().Connections != 0 {
				letOthersRun(settlePause) // asking all the time would keep the ends from working
			}
		},
		close: func() { _ = host.Close() },
	}, nil
}

// letOthersRun is a short time.Sleep, which would take a millisecond.
func letOthersRun(d time.Duration) {
	for start := time.Now(); time.Since(start) < d; {
		runtime.Gosched()
	}
}

// listening is a transport over a listener whose dials need nobody to accept.
func listening(l net.Listener) *transport {
	a := l.Addr()
	return &transport{
		dial:   func() (net.Conn, error) { return net.Dial(a.Network(), a.String()) },
		accept: l.Accept,
		settle: func() {},
		close:  func() { _ = l.Close() },
	}
}

func openUnix() (*transport, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", filepath.Join(dir, uuid.NewString()))
	if err != nil {
		return nil, err
	}
	t := listening(l)
	t.close = func() { _, _ = l.Close(), os.RemoveAll(dir) }
	return t, nil
}

func openTCP() (*transport, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return listening(l), nil
}

func openBufconn(bufferBytes int) (*transport, error) {
	l := bufconn.Listen(bufferBytes)
	t := listening(l)
	t.dial = l.Dial
	return t, nil
}

func openPipe() (*transport, error) {
	other := make(chan net.Conn, 1)
	return &transport{
		dial: func() (net.Conn, error) {
			a, b := net.Pipe()
			other <- b
			return a, nil
		},
		accept: func() (net.Conn, error) { return <-other, nil },
		settle: func() {},
		close:  func() {},
	}, nil
}

// pair dials once and returns both ends.
func (t *transport) pair() (dialed, accepted net.Conn, err error) {
	type end struct {
		conn net.Conn
		err  error
	}
	got := make(chan end, 1)
	go func() {
		c, err := t.accept()
		got <- end{c, err}
	}()
	if dialed, err = t.dial(); err != nil {
		return nil, nil, err
	}
	e := <-got
	return dialed, e.conn, e.err
}
