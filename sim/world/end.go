package world

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/hvlab/hvlab/hvsock"
)

// maxChunk is the most one read or write asks for, in bytes.
const maxChunk = 1 << 16

// An end is an application at one end of a connection. Its stream is made from
// its key, so that the other end can tell every byte's place.
type end struct {
	w     *World
	pair  *pair
	which int
	side  side
	name  string
	conn  *hvsock.Conn
	key   uint64

	plan, sent, got uint64 // bytes to send, sent, received
	readWait        bool   // EAGAIN, and not told since that there is something
	writeWait       bool
	eof, cut        bool // the peer's stream has ended, or was cut off
	broken          bool // writing failed for good
	fault           bool // EIO
	shutWrite       bool
	shutRead        bool
	closed          bool
	finished        bool          // closed, or its machine has crashed
	readDeadline    time.Duration // 0 is none
	writeDeadline   time.Duration
	blockedBoth     bool // both directions were full
	again           int  // reads after a fault
}

func (e *end) peer() *end { return e.pair.ends[1-e.which] }

func (e *end) step(op uint8) Step {
	return Step{Kind: App, Op: op, Actor: 2*e.pair.id + uint32(e.which)}
}

// enable lists what e could do.
func (e *end) enable() {
	w := e.w
	if e.side == guestSide && e.pair.m.frozen {
		return
	}
	canRead := !e.eof && !e.cut && !e.shutRead && !e.fault
	canWrite := e.sent < e.plan && !e.shutWrite && !e.broken
	if canRead && (!e.readWait || e.expired(e.readDeadline)) {
		w.add(e.step(opRead), normalWeight)
	}
	if canWrite && (!e.writeWait || e.expired(e.writeDeadline)) {
		w.add(e.step(opWrite), normalWeight)
	}
	if !canWrite && !e.shutWrite && !e.broken {
		w.add(e.step(opCloseWrite), lowWeight)
	}
	if !canRead && !canWrite {
		w.add(e.step(opClose), lowWeight)
	}
	if e.fault && e.again < 3 {
		w.add(e.step(opRead), lowWeight) // it stays broken
	}
	if w.resting {
		if e.pair.m.attacked() { // whom nobody answers gives up
			w.add(e.step(opClose), rareWeight)
		}
		return
	}
	w.add(e.step(opClose), rareWeight)
	if !e.shutWrite {
		weight := uint16(rareWeight)
		if e.writeWait { // a FIN has room in a full ring
			weight = lowWeight
		}
		w.add(e.step(opCloseWrite), weight)
	}
	if canRead {
		w.add(e.step(opCloseRead), rareWeight)
		w.add(e.step(opReadDeadline), rareWeight)
	}
	if canWrite {
		w.add(e.step(opWriteDeadline), rareWeight)
	}
}

// expired reports whether a call would fail because of the deadline.
func (e *end) expired(at time.Duration) bool { return at != 0 && at <= e.w.clock.now }

// fill chooses the argument of a step.
func (w *World) fill(s Step) Step {
	if s.Kind == Hostile && s.Op != hostileMute {
		s.Arg = 1 + uint64(w.choose.Draw(1<<30))
		return s
	}
	if s.Kind != App || !drawnOps[s.Op] {
		return s
	}
	switch {
	case s.Op == opDial || s.Op == opHostDial:
		s.Arg = uint64(w.apps.serial) + 1
	case w.resting && (s.Op == opRead || s.Op == opWrite):
		s.Arg = maxChunk
	case s.Op == opRead || s.Op == opWrite:
		s.Arg = uint64([...]int{1, 8, 100, 512, 512, 4088, 5000, 20000}[w.choose.Draw(8)])
	default:
		s.Arg = uint64([...]int{0, 1, 50, 2000}[w.choose.Draw(4)])
	}
	return s
}

func (e *end) do(s Step) {
	switch s.Op {
	case opRead:
		e.read(int(min(s.Arg, maxChunk)))
	case opWrite:
		e.write(int(min(s.Arg, maxChunk)))
	case opCloseWrite:
		e.closeWrite()
	case opCloseRead:
		if err := e.conn.CloseRead(); err != nil {
			e.w.fail(Closed, "%s: CloseRead: %v", e.name, err)
		}
		e.shutRead = true
	case opClose:
		e.close()
	case opReadDeadline:
		e.readDeadline = e.setDeadline(s.Arg, e.conn.SetReadDeadline)
	case opWriteDeadline:
		e.writeDeadline = e.setDeadline(s.Arg, e.conn.SetWriteDeadline)
	}
}

func (e *end) setDeadline(micros uint64, set func(time.Time) error) time.Duration {
	var t time.Time
	var at time.Duration
	if micros != 0 {
		at = e.w.clock.now + time.Duration(min(micros, 1e9))*time.Microsecond
		t = epoch.Add(at)
	}
	if err := set(t); err != nil {
		e.w.fail(Closed, "%s: setting a deadline: %v", e.name, err)
	}
	return at
}

func (e *end) read(n int) {
	w := e.w
	b := w.apps.buf[:n]
	e.readWait = false
	n, err := e.conn.TryRead(b)
	w.mix(uint64(n))
	if w.o.Trace != nil {
		w.note("%s: read %d bytes%s", e.name, n, because(err))
	}
	if n > 0 {
		e.received(b[:n])
	}
	if e.fault {
		if n > 0 || !errors.Is(err, syscall.EIO) && !errors.Is(err, os.ErrDeadlineExceeded) {
			w.fail(CorruptSticky, "%s: read %d bytes and %v from a broken ring", e.name, n, err)
		}
		w.hit(CorruptSticky)
		e.again++
	}
	switch {
	case err == nil:
	case errors.Is(err, syscall.EAGAIN):
		e.readWait = true
	case err == io.EOF:
		e.ended()
	case errors.Is(err, os.ErrDeadlineExceeded):
		e.checkDeadline(e.readDeadline, err)
		e.readDeadline = e.setDeadline(0, e.conn.SetReadDeadline)
	case errors.Is(err, syscall.ECONNRESET):
		e.cut = true
		w.hit(HalfClose)
		if p := e.peer(); e.lossless() && (p == nil || !p.closed) {
			w.fail(CloseGrace, "%s: cut off after %d bytes, for no reason", e.name, e.got)
		}
	case errors.Is(err, syscall.EIO) && e.pair.m.attacked():
		if !e.fault {
			e.fault = true
			e.read(len(b)) // it stays broken
		}
	default:
		w.fail(Stream, "%s: read failed: %v", e.name, err)
	}
}

// because is the reason of a failed call, without the addresses, which the trace has
// where the connection begins.
func because(err error) string {
	var op *net.OpError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &op):
		return ": " + op.Err.Error()
	}
	return ": " + err.Error()
}

// lossless reports whether nothing has happened that may cut the connection off.
func (e *end) lossless() bool { return e.pair.excused == "" && !e.pair.m.attacked() }

func (e *end) checkDeadline(at time.Duration, err error) {
	var timeout net.Error
	if !e.expired(at) || !errors.As(err, &timeout) || !timeout.Timeout() {
		e.w.fail(Deadline, "%s: %v although the deadline is %v and now is %v", e.name, err, at, e.w.clock.now)
		return
	}
	e.w.hit(Deadline)
}

// received checks bytes of the peer's stream.
func (e *end) received(b []byte) {
	w := e.w
	if e.pair.m.attacked() {
		e.got += uint64(len(b))
		return
	}
	key := mixKey(w.o.Seed, uint64(e.pair.id)*2+uint64(1-e.which))
	if at := mismatch(key, e.got, b); at >= 0 {
		w.fail(Stream, "%s: byte %d of the stream is not what was written", e.name, e.got+uint64(at))
	}
	e.got += uint64(len(b))
	if p := e.peer(); p != nil && e.got > p.sent {
		w.fail(Stream, "%s: %d bytes received, only %d were sent", e.name, e.got, p.sent)
	} else {
		w.hit(Stream)
		w.hit(Prefix)
		w.hit(Len)
	}
	if p := e.peer(); e.shutWrite && p != nil && !p.closed {
		w.hit(HalfClose)
	}
}

// ended checks that the stream may end here.
func (e *end) ended() {
	w := e.w
	p := e.peer()
	e.eof = true
	switch {
	case !e.lossless():
	case p == nil || !p.shutWrite:
		w.fail(HalfClose, "%s: end of file, but the other end has not closed", e.name)
	case e.got != p.sent:
		w.fail(CloseGrace, "%s: end of file after %d bytes of %d", e.name, e.got, p.sent)
	default:
		w.hit(CloseGrace)
		w.hit(HalfClose)
	}
	var one [1]byte
	if n, err := e.conn.TryRead(one[:]); n != 0 || err != io.EOF {
		w.fail(Stream, "%s: after end of file came %d bytes, %v", e.name, n, err)
	}
}

func (e *end) write(n int) {
	w := e.w
	n = int(min(uint64(n), max(e.plan, e.sent+1)-e.sent))
	b := w.apps.buf[:n]
	pattern(e.key, e.sent, b)
	e.writeWait = false
	n, err := e.conn.TryWrite(b)
	e.sent += uint64(n)
	if n > 0 && e.blockedBoth {
		w.hit(NoDeadlock)
	}
	w.mix(uint64(n))
	if w.o.Trace != nil {
		w.note("%s: wrote %d bytes of %d%s", e.name, n, len(b), because(err))
	}
	switch {
	case err == nil:
	case errors.Is(err, syscall.EAGAIN):
		e.writeWait = true
		if p := e.peer(); p != nil && p.writeWait {
			e.blockedBoth, p.blockedBoth = true, true
		}
	case errors.Is(err, os.ErrDeadlineExceeded):
		e.checkDeadline(e.writeDeadline, err)
		e.writeDeadline = e.setDeadline(0, e.conn.SetWriteDeadline)
	case errors.Is(err, syscall.EPIPE):
		e.broken = true
		if p := e.peer(); e.lossless() && !e.shutWrite && (p == nil || !p.closed) {
			w.fail(CloseGrace, "%s: cannot write, for no reason", e.name)
		}
	case errors.Is(err, syscall.EIO) && e.pair.m.attacked():
		e.broken = true
	default:
		w.fail(Stream, "%s: write failed: %v", e.name, err)
	}
}

func (e *end) closeWrite() {
	w := e.w
	full := e.writeWait
	if err := e.conn.CloseWrite(); err != nil && !e.pair.m.attacked() {
		w.fail(FINRoom, "%s: CloseWrite: %v", e.name, err)
		return
	}
	e.shutWrite = true
	if full {
		w.hit(FINRoom)
	}
}

// close closes e, and checks that nothing can be done with it any more.
func (e *end) close() {
	w := e.w
	if err := e.conn.Close(); err != nil {
		w.fail(Closed, "%s: Close: %v", e.name, err)
	}
	e.closed, e.shutWrite = true, true
	var one [1]byte
	_, readErr := e.conn.TryRead(one[:])
	_, writeErr := e.conn.TryWrite(one[:])
	for _, err := range []error{readErr, writeErr, e.conn.CloseWrite(), e.conn.CloseRead(), e.conn.SetDeadline(epoch), e.conn.Close()} {
		if !errors.Is(err, net.ErrClosed) {
			w.fail(Closed, "%s: a call after Close returned %v", e.name, err)
		}
	}
	w.hit(Closed)
	e.finish()
}

// finish forgets an end nobody uses any more.
func (e *end) finish() {
	e.finished = true
	a := &e.w.apps
	a.live = slices.DeleteFunc(a.live, func(o *end) bool { return o == e })
	a.tidy(e.pair)
}

// mixKey makes the key of a stream.
func mixKey(seed, n uint64) uint64 {
	x := (seed ^ n*0xD6E8FEB86659FD93) + 0x9E3779B97F4A7C15
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	return x ^ x>>27
}

// word is the 8 bytes of a stream that begin at byte 8n.
func word(key, n uint64) uint64 { return (key + n) * 0x9E3779B97F4A7C15 }

// pattern fills b with the bytes of a stream from byte at on.
func pattern(key, at uint64, b []byte) {
	for len(b) > 0 && at%8 != 0 {
		b[0] = byte(word(key, at/8) >> (at % 8 * 8))
		b, at = b[1:], at+1
	}
	for ; len(b) >= 8; b, at = b[8:], at+8 {
		binary.LittleEndian.PutUint64(b, word(key, at/8))
	}
	for i := range b {
		b[i] = byte(word(key, at/8) >> (8 * i))
	}
}

// mismatch is the first place where b is not the stream from byte at on, or -1.
func mismatch(key, at uint64, b []byte) int {
	for i := 0; i < len(b); {
		pos := at + uint64(i)
		if pos%8 == 0 && len(b)-i >= 8 {
			if binary.LittleEndian.Uint64(b[i:]) == word(key, pos/8) {
				i += 8
				continue
			}
		}
		if b[i] != byte(word(key, pos/8)>>(pos%8*8)) {
			return i
		}
		i++
	}
	return -1
}
