package hvsock

import (
	"syscall"
	"time"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/vmbus"
)

// A Profile is how the sockets of one kind of guest behave where systems differ
// (hvsock.md 15). The zero value is the best behaviour, that of hvsock.md 16, and
// each field is a deviation from it; a number of 0 is the best value. Linux,
// FreeBSD, Windows and AFHyperV2016 are guests that exist; a program may change
// its copy of one.
type Profile struct {
	// Name is how reports call it; "" is hvlab's own.
	Name string

	// PortsOnly: a service id that is no port is EINVAL, since addresses hold
	// 32 bits (2.6).
	PortsOnly bool
	// GUIDEndpoints: a dial's own endpoint is a random GUID instead of a port
	// (1, 15).
	GUIDEndpoints bool
	// PortsDown: automatic ports go down from 0xFFFFFFFE instead of up from a
	// random one above 1023 (2.6).
	PortsDown bool
	// AnyPort: a listener on PortAny gets a free port, as everywhere one on port 0
	// (2.6).
	AnyPort bool
	// PrivilegedPorts is the first port that an unprivileged program may listen
	// on; below it is EACCES (2.6).
	PrivilegedPorts uint32
	// BindConflict is what a listener's port must not be in use by.
	BindConflict BindConflict
	// AnyBindOnly: listeners take Wildcard, and Loopback unless NoLoopback;
	// other VM ids are EADDRNOTAVAIL (2.3, 2.7).
	AnyBindOnly bool
	// NoLoopback: a guest cannot dial itself.
	NoLoopback bool
	// NoSilos: the guest knows no containers, and does not look at an offer's
	// silo.
	NoSilos bool
	// LocalAny: a socket's own address is Wildcard, not the VM's id (2.7).
	LocalAny bool
	// RemotePort is what an accepted connection says of the other end.
	RemotePort RemotePort
	// UnreachableErrno is what a dial to any VM id but the host's gets; 0 means
	// ENETUNREACH (2.7).
	UnreachableErrno syscall.Errno
	// DatagramErrno is what socket() says to SOCK_DGRAM; 0 means
	// ESOCKTNOSUPPORT (10).
	DatagramErrno syscall.Errno

	// ConnectTimeout ends a dial whose context has no deadline; 0 means 2 s, and
	// NoTimeout never (8).
	ConnectTimeout time.Duration
	// IgnoresRefusal: TLConnectResult has no effect, so a refused dial waits for
	// its timeout (5.1, 15).
	IgnoresRefusal bool
	// SilentOpenFailure: a dial whose channel cannot be opened waits for its
	// timeout as well (5.1, step 5).
	SilentOpenFailure bool
	// ShortRequest: TLConnectRequest has 40 bytes at every version (5.0).
	ShortRequest bool
	// Backlog is the number of connections a listener queues; 0 means 128 (16).
	Backlog int
	// MaxSockets bounds the connections of the guest; 0 means no limit of its
	// own. One more is ENOMEM to a dial, and an ignored offer.
	MaxSockets int

	// Options are the socket options that the guest knows.
	Options OptionFamily
	// RingHints is what SendBuffer and RecvBuffer make of the rings.
	RingHints RingHints
	// Rings are the sizes of the rings that the guest opens.
	Rings RingSizes
	// ChunkBytes is the most data bytes in one packet; 0 means 4088 (6).
	ChunkBytes int
	// OnePacketReads: a Read returns the bytes of one packet at most (6).
	OnePacketReads bool
	// BuffersWhileMoving: Read and Write each take buffers from the guest's memory
	// while bytes move, and are ENOMEM if there are none (1).
	BuffersWhileMoving bool

	// NoHalfClose: CloseWrite sends nothing; only Close tells the peer (7.2, 15).
	NoHalfClose bool
	// KeepsUnread: after CloseRead what arrives stays in the ring, until the
	// peer's Writes block (7.2, 16).
	KeepsUnread bool
	// CutOff is how a stream ends that the peer did not end.
	CutOff CutOff
	// ClosesAtOnce: Close gives the channel up without waiting for the host's
	// rescind (15).
	ClosesAtOnce bool
}

// NoTimeout is a ConnectTimeout that never ends.
const NoTimeout time.Duration = -1

// A BindConflict is what makes a listener EADDRINUSE. Source: hvsock.md 15, bind
// conflict.
type BindConflict uint8

const (
	BindListeners BindConflict = iota // a listener of the same VM id and service
	BindBound                         // a listener of the same service, or a dial from that port
	BindConnected                     // also a connection that was accepted there
)

// A RemotePort is what RemoteAddr says of a host that dialed. Source: hvsock.md
// 15, remote port of an accepted socket.
type RemotePort uint8

const (
	RemoteGUID    RemotePort = iota // the id of its endpoint
	RemoteData1                     // a port: the first 32 bits of that id
	RemoteUnknown                   // the port 0xFFFFFFFF
)

// A CutOff is what a reader gets at the end of a stream that was cut off by a
// rescind. Source: hvsock.md 15, read after disconnect.
type CutOff uint8

const (
	CutOffReset CutOff = iota // ECONNRESET
	CutOffEOF                 // io.EOF, as if the peer had ended it
	CutOffPipe                // EPIPE
)

// RingSizes are in 4 KiB pages, control page included; 0 means the field before
// it, and the first channel.DefaultRingPages. Source: ringbuffer.md 12.
type RingSizes struct {
	SendPages     int // to the host
	RecvPages     int // from the host
	AcceptedPages int // both, of accepted connections
	OldPages      int // both, of all connections, on hosts below VMBus 5.0
}

// RingHints is what the options SendBuffer and RecvBuffer, set before a connection
// is there, make of its rings. They count from 24 KiB to 256 KiB. Source:
// hvsock.md 6; ringbuffer.md 12.
type RingHints uint8

const (
	// HintsOfAll: pages for so many bytes, rounded up, and a control page.
	HintsOfAll RingHints = iota
	// HintsOfListeners: likewise, but not for a dialer, since connect sets them
	// anew (an inference).
	HintsOfListeners
	// HintsWholeRing: the control page is one of the pages, rounded down.
	HintsWholeRing
	// HintsIgnored: the sizes are always those of Rings.
	HintsIgnored
)

// Linux is a guest of the last years: 5.5 or later, on VMBus 5.0 or later. The
// page counts are those of Linux 6.1 and 6.12 (testdata/observed): a dialer's
// buffers are 24 KiB, a listener's the system's default of 208 KiB.
var Linux = Profile{
	Name:            "Linux",
	PortsOnly:       true,
	AnyPort:         true,
	PrivilegedPorts: 1024,
	BindConflict:    BindBound,
	AnyBindOnly:     true,
	NoSilos:         true,
	LocalAny:        true,
	RemotePort:      RemoteData1,

	UnreachableErrno: syscall.ENODEV,
	DatagramErrno:    syscall.ENODEV,

	IgnoresRefusal:    true,
	SilentOpenFailure: true,
	ShortRequest:      true,

	Rings:          RingSizes{SendPages: 7, AcceptedPages: 52, OldPages: 6},
	OnePacketReads: true,
	KeepsUnread:    true,
	CutOff:         CutOffEOF,
	Options:        VSockOptions,
	RingHints:      HintsOfListeners,
}

// FreeBSD is a FreeBSD guest (AF_HYPERV, a port and nothing else). Its writers
// keep 64 bytes of the ring free, not 72, which can leave no room for the FIN; that
// is not imitated (ringbuffer.md 12).
var FreeBSD = Profile{
	Name:         "FreeBSD",
	PortsOnly:    true,
	PortsDown:    true,
	BindConflict: BindConnected,
	AnyBindOnly:  true,
	NoLoopback:   true,
	NoSilos:      true,
	LocalAny:     true,
	RemotePort:   RemoteUnknown,

	ConnectTimeout: NoTimeout,
	IgnoresRefusal: true,
	ShortRequest:   true,

	Rings:     RingSizes{SendPages: 6, OldPages: 6},
	RingHints: HintsWholeRing,

	NoHalfClose:  true,
	CutOff:       CutOffPipe,
	ClosesAtOnce: true,
	Options:      SocketOptions,
}

// Windows is a Windows guest. It sends a FIN and takes the channel down, so its host
// cannot write to it after Close. The size of its rings is not known; they are
// hvlab's.
var Windows = Profile{
	Name:          "Windows",
	GUIDEndpoints: true,
	ChunkBytes:    channel.MaxPipeBytes,
	ClosesAtOnce:  true,
	Options:       HyperVOptions,
}

// AFHyperV2016 is the address family that Linux' hv_sock was to be at first:
// versions 12 to 18 of the series, as its cover letters describe them. Endpoints
// are GUIDs instead of ports; each ring has exactly five pages, which was what
// hosts demanded; any user may open a socket; the first byte of an offer's own
// data says which side dialed; a channel's rescind is heard only once its open
// has succeeded (which is so in every profile here); buffers exist only while
// data moves. That message 23 is ignored is an inference from the kernel of that
// time, which had no handler for it.
//
// Version 11 had module parameters instead, and these defaults:
// Rings.SendPages (send_ring_page) 2, Rings.RecvPages (recv_ring_page) 3 and
// MaxSockets (max_socket_number) 1024.
var AFHyperV2016 = Profile{
	Name:               "AF_HYPERV (2016)",
	GUIDEndpoints:      true,
	NoLoopback:         true,
	NoSilos:            true,
	IgnoresRefusal:     true,
	ShortRequest:       true,
	Rings:              RingSizes{SendPages: 5},
	RingHints:          HintsIgnored,
	BuffersWhileMoving: true,
	CutOff:             CutOffEOF,
	Options:            SocketOptions,
}

// Profiles are all that exist, the best behaviour first.
func Profiles() []Profile { return []Profile{{}, Linux, FreeBSD, Windows, AFHyperV2016} }

// connectTimeout is how long a dial without a deadline may take; NoTimeout means
// that it may take for ever.
func (p Profile) connectTimeout() time.Duration {
	if p.ConnectTimeout == 0 {
		return defaultDialTimeout
	}
	return p.ConnectTimeout
}

// ringPages are the sizes of the rings of a connection on a bus of version v, for
// buffers of so many bytes, if not 0.
func (p Profile) ringPages(v vmbus.Version, accepted bool, sendBytes, recvBytes int64) (send, recv int) {
	orElse := func(pages, other int) int {
		if pages == 0 {
			return other
		}
		return pages
	}
	byDefault := channel.DefaultRingPages
	if putback.On(putback.HV06) {
		byDefault = 0
	}
	send = orElse(p.Rings.SendPages, byDefault)
	recv = orElse(p.Rings.RecvPages, send)
	if accepted && p.Rings.AcceptedPages != 0 {
		send, recv = p.Rings.AcceptedPages, p.Rings.AcceptedPages
	}
	if p.RingHints != HintsIgnored && (accepted || p.RingHints != HintsOfListeners) {
		send, recv = p.RingHints.pages(sendBytes, send), p.RingHints.pages(recvBytes, recv)
	}
	if v < vmbus.Win10V5 && p.Rings.OldPages != 0 {
		send, recv = p.Rings.OldPages, p.Rings.OldPages
	}
	return send, recv
}

// unreachable is what a dial to nowhere gets.
func (p Profile) unreachable() error {
	if p.UnreachableErrno != 0 {
		return p.UnreachableErrno
	}
	return syscall.ENETUNREACH
}

// connOptions are what a connection's two ends of a ring need of the profile.
func (p Profile) connOptions() connOptions {
	return connOptions{
		cutOff: p.CutOff, noHalfClose: p.NoHalfClose, keepsUnread: p.KeepsUnread, onePacketReads: p.OnePacketReads,
		family: p.Options,
	}
}
