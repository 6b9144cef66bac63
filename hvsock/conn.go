package hvsock

import (
	"net"
	"sync/atomic"
	"time"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/ringbuffer"
)

// A connEvent is what a Conn tells its owner, the socket machine. Each is told
// at most once.
type connEvent uint8

const (
	// evClosed: the application called Close. The FIN is in the ring, or can
	// no longer be sent.
	evClosed connEvent = iota
	// evFault: the peer has broken a ring. The application gets EIO; the owner
	// ends the channel.
	evFault
	// evEnded: our FIN was sent and the peer's was reached, by a reader or by
	// discarding after Close or CloseRead. Nothing more can travel.
	evEnded
	// evLateData: after Close the peer has sent data, which was discarded, and
	// no FIN behind it. Data that was unread at Close does not count.
	evLateData
)

// A detachCause says why a Conn loses its rings.
type detachCause uint8

const (
	// detachReset: the host rescinded, the guest closed the channel, or the bus
	// is gone. A stream that had not ended was cut off.
	detachReset detachCause = iota
	// detachEnd: as detachReset, but the stream is to look complete.
	detachEnd
)

// connOptions choose between behaviours that real systems differ in.
type connOptions struct {
	cutOff         CutOff // how a stream ends that was cut off
	noHalfClose    bool   // CloseWrite sends no FIN
	keepsUnread    bool   // CloseRead does not discard
	onePacketReads bool   // a Read stops at the end of a packet
	recheck        bool   // the peer may not signal the space a Write waits for
	family         OptionFamily
	// buffer takes memory for a transfer, and gives it back when release is
	// called; nil needs none.
	buffer func() (release func(), ok bool)
}

// A link is what a Conn needs of an open channel.
type link struct {
	in                *channel.PipeReader
	out               *channel.PipeWriter // keeps room for a FIN
	inPages, outPages int                 // ring sizes, control pages included
	// signal rings the peer's doorbell. It is called without any lock of the
	// Conn, so it may still be called while detach returns. nil does nothing.
	signal func()
	// events is told what happens. It must not block, and is called without
	// any lock of the Conn. nil does nothing.
	events  func(connEvent)
	clock   live.Clock // nil is the system's
	options connOptions
}

// A Conn is one end of a connection: a byte stream over a pair of rings, which
// it reads and writes directly, without a goroutine in between. It is a net.Conn
// whose halves can be closed one by one.
//
// All methods may be called from any goroutine. Reads are serialised among
// themselves, and so are Writes: the bytes of one Write stay together.
//
// Errors are *net.OpError, around one of: net.ErrClosed (and EBADF) after this end's Close;
// os.ErrDeadlineExceeded; EPIPE for writing after CloseWrite or when the channel
// is gone; ECONNRESET for reading when the channel is gone and the peer had not
// ended its stream, once everything that had arrived was read; EIO (and
// vmbus.ErrProtocol) if the peer broke the rings. The end of the peer's stream
// is a bare io.EOF.
//
// ReadFrom and WriteTo, which io.Copy looks for, copy from ring to ring between two
// Conns, else through a buffer that all Conns share. Ring memory is lent to nobody.
type Conn struct {
	local, remote Addr
	link          link

	in, out   half
	reader    *channel.PipeReader // guarded by in.mu; nil once detached
	writer    *channel.PipeWriter // guarded by out.mu; nil once detached
	rest      []byte              // guarded by in.mu; unread bytes saved by detach
	reads     int                 // guarded by in.mu; Reads that found something since the last wait
	readBytes int                 // guarded by in.mu; what they found
	masked    bool                // guarded by in.mu; the peer does not signal data
	inBytes   uint64              // guarded by in.mu; of the stream, so far
	outBytes  uint64              // guarded by out.mu; likewise
	inRing    ringCounts          // guarded by in.mu; what Stats saw last, or detach
	outRing   ringCounts          // guarded by out.mu; likewise

	discarding            atomic.Bool // nobody will read: whatever arrives is dropped
	again                 live.Timer  // guarded by in.mu; goes on discarding
	marks                 atomic.Uint32
	reported              atomic.Uint32         // bit per connEvent
	readAgain, writeAgain atomic.Pointer[error] // what TryRead and TryWrite return with EAGAIN, once made

	file     atomic.Pointer[connFile] // set by File, with both locks
	sockopts optionSet
}

// What report decides from.
const (
	markClosed uint32 = 1 << iota
	markFault
	markFINSent
	markFINSeen
	markLate
)

// newConn makes the end of a connection whose channel is open.
func newConn(local, remote Addr, l link) *Conn {
	if l.signal == nil {
		l.signal = func() {}
	}
	if l.clock == nil {
		l.clock = live.SystemClock()
	}
	if l.events == nil {
		l.events = func(connEvent) {}
	}
	c := &Conn{local: local, remote: remote, link: l, reader: l.in, writer: l.out}
	c.in.init(l.clock)
	c.out.init(l.clock)
	return c
}

// LocalAddr is this end's address, an Addr. It stays valid after Close.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is the other end's address, an Addr. It stays valid after Close.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets the read and the write deadline.
func (c *Conn) SetDeadline(t time.Time) error {
	err := c.SetReadDeadline(t)
	if err == nil {
		err = c.SetWriteDeadline(t)
	}
	return err
}

// SetReadDeadline makes blocked and future Reads fail with
// os.ErrDeadlineExceeded from t on; the zero time means never. A later call
// revives the Conn: no byte is lost to a deadline.
func (c *Conn) SetReadDeadline(t time.Time) error {
	if !c.in.setDeadline(t) {
		if f := c.file.Load(); f != nil {
			return c.setError(f.own.SetReadDeadline(t))
		}
		return c.setError(net.ErrClosed)
	}
	return nil
}

// SetWriteDeadline does the same for Writes, which then say how much they have
// written.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	if !c.out.setDeadline(t) {
		if f := c.file.Load(); f != nil {
			return c.setError(f.own.SetWriteDeadline(t))
		}
		return c.setError(net.ErrClosed)
	}
	return nil
}

// setError is what a call returns that only concerns this end.
func (c *Conn) setError(err error) error {
	if err == nil {
		return nil
	}
	return localError("set", c.local, bare(err))
}

// doorbell says that the peer has signalled: it wrote into an empty ring, or
// made the space a writer waits for. It may come from any goroutine, the peer's
// own Write included, and does not block.
func (c *Conn) doorbell() {
	c.in.wake()
	c.out.wake()
	if c.discarding.Load() {
		c.discardLate()
	}
}

// mark notes something that report looks at.
func (c *Conn) mark(bits uint32) { c.marks.Or(bits) }

// report tells the owner what became true and was not told yet. It is called
// without locks.
func (c *Conn) report() {
	for _, e := range [...]struct {
		event connEvent
		needs uint32
	}{
		{evClosed, markClosed},
		{evFault, markFault},
		{evEnded, markFINSent | markFINSeen},
		{evLateData, markLate},
	} {
		if c.marks.Load()&e.needs != e.needs {
			continue
		}
		if bit := uint32(1) << e.event; c.reported.Or(bit)&bit == 0 {
			c.link.events(e.event)
		}
	}
}

// Stats counts what a Conn did.
type Stats struct {
	In, Out DirectionStats
}

// DirectionStats counts what a Conn did in one direction.
type DirectionStats struct {
	Bytes        uint64 // of the stream
	Packets      uint64 // in the ring, the FIN included
	Signals      uint64 // times the peer was signalled: in: space, out: data
	SignalsSaved uint64 // ring commits that needed no signal
	Sleeps       uint64 // times a Read or Write had to sleep
	RingPages    int    // of 4 KiB, the control page included
}

// ringCounts is what Stats tells of a ring.
type ringCounts struct{ packets, suppressed uint64 }

func countsOf(s ringbuffer.Stats) ringCounts { return ringCounts{s.Packets, s.Suppressed} }

// Stats returns the counters so far. They stay after Close.
func (c *Conn) Stats() Stats {
	var s Stats
	c.in.mu.Lock()
	if c.reader != nil || putback.On(putback.GC11) {
		c.inRing = countsOf(c.reader.Stats())
	}
	s.In.Bytes = c.inBytes
	s.In.Signals, s.In.Sleeps = c.in.signals, c.in.sleeps
	s.In.Packets, s.In.SignalsSaved, s.In.RingPages = c.inRing.packets, c.inRing.suppressed, c.link.inPages
	c.in.mu.Unlock()
	c.out.mu.Lock()
	if c.writer != nil {
		c.outRing = countsOf(c.writer.Stats())
	}
	s.Out.Bytes = c.outBytes
	s.Out.Signals, s.Out.Sleeps = c.out.signals, c.out.sleeps
	s.Out.Packets, s.Out.SignalsSaved, s.Out.RingPages = c.outRing.packets, c.outRing.suppressed, c.link.outPages
	c.out.mu.Unlock()
	return s
}
