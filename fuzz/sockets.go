package fuzz

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// A peerChannel is one channel as the fuzzer's end sees it: its rings, and what
// it has put into them.
type peerChannel struct {
	id       vmbus.ChannelID
	endpoint vmbus.GUID // the connector's endpoint, which names the connection
	pages    []*guestmem.Page
	in       *channel.PipeReader
	out      *channel.PipeWriter
	wrote    []byte // by this end
	got      []byte // from the other
	finished bool   // this end has sent its FIN
	tampered bool   // this end broke the rules: nothing is promised about the stream any more
	gone     bool   // closed or rescinded
}

// A socketPair is a connection of the stack under test and the channel it runs
// over.
type socketPair struct {
	conn  *hvsock.Conn
	peer  *peerChannel
	wrote []byte // by the stack's application
	read  int
	ended bool // io.EOF was read
}

// A socketWorld is what both directions of the socket targets have in common: a
// stack under test without any goroutine, and the fuzzer at the other end of the
// bus.
type socketWorld struct {
	clock    *clock
	heap     *guestmem.Heap
	part     *synic.Partition
	listener *hvsock.Listener
	channels []*peerChannel
	conns    []*socketPair
	dials    int // begun and not decided
	run      func()
	fault    error
	trace    *strings.Builder
}

func newSocketWorld(trace *strings.Builder) socketWorld {
	heap := guestmem.NewHeap(guestmem.HeapOptions{Seed: 1, Layout: guestmem.ScatteredPages})
	return socketWorld{clock: newClock(), heap: heap, part: synic.NewPartition(heap, 1), trace: trace}
}

// steps carries out one step of each kind; it reports whether there was one.
func steps(end interface {
	Steps() live.Steps
	Do(live.Steps)
}) bool {
	if end.Steps() == 0 {
		return false
	}
	for _, s := range []live.Steps{live.StepAction, live.StepPost, live.StepCall, live.StepReceive} {
		end.Do(s)
	}
	return true
}

// dialed is what a dial of the stack under test reports.
func (w *socketWorld) dialed(c *hvsock.Conn, err error) {
	w.dials--
	if w.dials < 0 || (c == nil) == (err == nil) {
		w.fail("I-CONNECT-MATCH", "a dial ends with %v, %v; %d are left", c, err, w.dials)
		return
	}
	w.note("dial: %v", err)
	if c != nil {
		w.connected(c)
	} else if op := (*net.OpError)(nil); !errors.As(err, &op) {
		w.fail("whose fault", "a dial fails with %T", err)
	}
}

// connected takes a new connection of the stack under test: its local or remote
// service is the endpoint that named it.
func (w *socketWorld) connected(c *hvsock.Conn) {
	p := &socketPair{conn: c}
	for _, ch := range w.channels {
		for _, addr := range []net.Addr{c.LocalAddr(), c.RemoteAddr()} {
			if a, ok := addr.(hvsock.Addr); ok && vmbus.GUIDFromUUID(a.ServiceID) == ch.endpoint && !ch.gone {
				p.peer = ch
			}
		}
	}
	w.conns = append(w.conns, p)
	w.note("connected: %v - %v", c.LocalAddr(), c.RemoteAddr())
}

// app is something that an application does with one of its connections.
func (w *socketWorld) app(in *input) {
	what, n := in.u8(), int(in.u16())
	if len(w.conns) == 0 {
		return
	}
	p := w.conns[int(what>>4)%len(w.conns)]
	switch what % 6 {
	case 0, 1:
		p.readSome(w, n%9000+1)
	case 2:
		p.write(w, n%9000)
	case 3:
		w.check("CloseWrite", p.conn.CloseWrite())
	case 4:
		w.check("CloseRead", p.conn.CloseRead())
		p.peer = nil // nothing is promised about what is read now
	case 5:
		w.check("Close", p.conn.Close())
		w.conns = slices.DeleteFunc(w.conns, func(o *socketPair) bool { return o == p })
	}
}

// check: errors are those of a socket.
func (w *socketWorld) check(call string, err error) {
	var op *net.OpError
	if err != nil && !errors.As(err, &op) {
		w.fail("whose fault", "%s: %v", call, err)
	}
}

// readSome holds I-STREAM: what is read is a prefix of what the peer wrote, and
// the end comes after all of it.
func (p *socketPair) readSome(w *socketWorld, n int) {
	buf := make([]byte, n)
	n, err := p.conn.TryRead(buf)
	w.note("read: %d bytes, %v", n, err)
	if peer := p.peer; peer != nil && !peer.tampered {
		if n > len(peer.wrote)-p.read || !bytes.Equal(buf[:n], peer.wrote[p.read:p.read+n]) {
			w.fail("I-STREAM", "%x was read after %d of %d bytes", buf[:n], p.read, len(peer.wrote))
			return
		}
		if errors.Is(err, io.EOF) && (p.read+n < len(peer.wrote) || !peer.finished) {
			w.fail("I-STREAM", "the end after %d of %d bytes, FIN %v", p.read+n, len(peer.wrote), peer.finished)
		}
		if errors.Is(err, syscall.EIO) {
			w.fail("whose fault", "the peer is honest: %v", err)
		}
	}
	p.read += n
	if p.ended && !errors.Is(err, io.EOF) {
		w.fail("HV-12", "%d bytes, %v after the end", n, err)
	}
	p.ended = p.ended || errors.Is(err, io.EOF)
	if err != nil && !errors.Is(err, io.EOF) {
		w.check("Read", err)
	}
}

func (p *socketPair) write(w *socketWorld, n int) {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(len(p.wrote) + i)
	}
	n, err := p.conn.TryWrite(b)
	w.note("write: %d bytes, %v", n, err)
	w.check("Write", err)
	p.wrote = append(p.wrote, b[:n]...)
}

// socketMoves are what a fuzzer's end can do that depends on which end it is.
type socketMoves interface {
	raw(message []byte)
	message(in *input) // one by kind
	manner(what uint8) // how it behaves, or what it does with a channel
	signal(*peerChannel)
	dial(what uint8)
}

// play is one step.
func (w *socketWorld) play(in *input, m socketMoves) {
	switch in.u8() % socketSteps {
	case socketRaw:
		w.hostile()
		m.raw(in.block())
	case socketTyped:
		w.hostile()
		m.message(in)
	case socketOpen:
		m.manner(in.u8())
	case socketPeer:
		w.peerStep(in, m.signal)
	case socketApp:
		if c, err := w.listener.TryAccept(); err == nil {
			w.connected(c)
		}
		w.app(in)
	case socketDial:
		m.dial(in.u8())
	case socketTime:
		w.clock.advance(time.Duration(in.u16())*time.Millisecond, w.run)
	}
}

// hostile: a fuzzer that says what it likes may end any channel, and nothing is
// promised about the stream of one that is there.
func (w *socketWorld) hostile() {
	for _, c := range w.channels {
		c.tampered = true
	}
}

// lost: the channels that had this id are gone.
func (w *socketWorld) lost(id vmbus.ChannelID) {
	for _, c := range w.channels {
		if c.id == id {
			c.gone = true
		}
	}
}

// peerStep is something that the fuzzer's end does with one of its channels.
func (w *socketWorld) peerStep(in *input, signal func(*peerChannel)) {
	what, n := in.u8(), int(in.u16())
	var open []*peerChannel
	for _, c := range w.channels {
		if c.in != nil && !c.gone {
			open = append(open, c)
		}
	}
	if len(open) == 0 {
		return
	}
	c := open[int(what>>4)%len(open)]
	switch what % 7 {
	case 0, 1:
		c.write(w, n%9000)
	case 2:
		c.read(w, n%9000+1)
	case 3:
		if _, err := c.out.WriteFIN(); err == nil {
			c.finished = true
		}
	case 4: // a control word of either ring
		c.tampered = true
		page := c.pages[0]
		if n&1 != 0 {
			page = c.pages[len(c.pages)/2]
		}
		page.Store32([...]int{offWriteIndex, offReadIndex, offMask, offPendingSize, offFeatures}[n/2%5], in.u32())
	case 5: // bytes of either ring
		c.tampered = true
		for i, b := range in.block() {
			at := n + i
			c.pages[at/guestmem.PageSize%len(c.pages)].Bytes()[at%guestmem.PageSize] = b
		}
	case 6:
		w.note("signal")
	}
	signal(c)
}

func (c *peerChannel) write(w *socketWorld, n int) {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(7 * (len(c.wrote) + i))
	}
	n, _, err := c.out.Write(b)
	w.note("channel %d: peer writes %d bytes, %v", c.id, n, err)
	c.wrote = append(c.wrote, b[:n]...)
	if err != nil && !c.tampered && !errors.Is(err, channel.ErrFull) && !c.finished {
		w.fail("whose fault", "the peer's own ring: %v", err)
	}
}

// read checks what the stack under test sends (I-STREAM, I-ZERO-OUT).
func (c *peerChannel) read(w *socketWorld, n int) {
	buf := make([]byte, n)
	n, _, err := c.in.Read(buf)
	w.note("channel %d: peer reads %d bytes, %v", c.id, n, err)
	if c.tampered {
		return
	}
	c.got = append(c.got, buf[:n]...)
	for _, p := range w.conns {
		if p.peer == c && (len(c.got) > len(p.wrote) || !bytes.Equal(c.got, p.wrote[:len(c.got)])) {
			w.fail("I-STREAM", "%d bytes came out of %d", len(c.got), len(p.wrote))
		}
	}
	if errors.Is(err, vmbus.ErrProtocol) && !errors.Is(err, ringbuffer.ErrEmpty) {
		w.fail("whose fault", "the stack under test writes: %v", err)
	}
}

// finish lets all time pass that anything may take, with every application gone.
func (w *socketWorld) finish() {
	for _, p := range w.conns {
		w.check("Close", p.conn.Close())
		if _, err := p.conn.TryRead(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			w.fail("I-CLOSED", "a read after Close: %v", err)
		}
	}
	w.conns = nil
	w.run()
	w.clock.advance(400*time.Second, w.run) // more than any timeout of a socket
	w.run()
	if w.dials != 0 {
		w.fail("L-CALLS", "%d dials have no outcome", w.dials)
	}
}

// settle runs fn until it has nothing to do.
func (w *socketWorld) settle(fn func() bool) {
	for n := 0; fn(); n++ {
		if n > 10_000 {
			w.fail("L-NO-LIVELOCK", "the world does not come to rest")
			return
		}
	}
}

func (w *socketWorld) fail(property, format string, args ...any) {
	if w.fault == nil {
		w.fault = violated(property, format, args...)
	}
}

func (w *socketWorld) note(format string, args ...any) {
	if w.trace != nil {
		fmt.Fprintf(w.trace, format+"\n", args...)
	}
}
