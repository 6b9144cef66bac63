package channel

import (
	"io"

	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/ringbuffer"
)

// A PipeReader turns the packets of one ring back into bytes (or, if made by
// NewMessageReader, messages). It never blocks and never signals: it says when
// the writer must be signalled, and the caller does it.
//
// It returns ring space late, because each store of the read index takes the
// control page's cache line from the writer: only when half a ring has been
// read, when the ring is drained, or when a Read returns and the writer has
// announced that it waits. No wake-up is lost by that. A writer sleeps only
// after it stored its pending size and looked at the read index again. If the
// reader's look at the pending size came before, then space is unreleased at
// most while a packet (or part of one) is still waiting, so the reader does not
// sleep, and its next return releases the space, sees the pending size and
// crosses it. A reader that is about to sleep has drained the ring, hence
// released everything.
//
// A PipeReader belongs to one goroutine at a time.
type PipeReader struct {
	ring      *ringbuffer.Reader
	messages  bool
	halfBytes int // of the ring

	open  bool // the packet at the head of the ring is data, checked
	size  int  // its data bytes
	taken int  // of those, delivered or discarded

	eof bool
	err error // sticky *PipeError
}

// NewPipeReader makes the receiving end of a byte pipe.
func NewPipeReader(r *ringbuffer.Reader) *PipeReader {
	return &PipeReader{ring: r, halfBytes: r.DataBytes() / 2}
}

// NewMessageReader makes the receiving end of a message pipe: each Read returns
// one message, and there is no end of stream.
func NewMessageReader(r *ringbuffer.Reader) *PipeReader {
	return &PipeReader{ring: r, halfBytes: r.DataBytes() / 2, messages: true}
}

// Read copies what is there into b, across as many packets as it takes, and
// says whether the writer must be signalled. It keeps its place in a packet
// that b is too short for.
//
// Bytes come first: errors are returned with n = 0. They are
// ringbuffer.ErrEmpty if nothing is waiting, io.EOF at and for ever after the
// FIN, *PipeError and *ringbuffer.CorruptError (both vmbus.ErrProtocol), which
// are final too. In message mode a b that is too short gets a
// *ringbuffer.BufferError and the message stays.
func (p *PipeReader) Read(b []byte) (n int, signal bool, err error) {
	if p.messages {
		return p.readMessage(b)
	}
	if len(b) == 0 {
		return 0, false, nil
	}
	if !p.open && !p.eof && p.err == nil {
		// Errors but this are left to next to tell.
		switch p.ring.Refresh() {
		case nil:
			n = p.readRun(b)
		case ringbuffer.ErrEmpty:
			return 0, p.release(), ringbuffer.ErrEmpty
		}
	}
	for n < len(b) {
		if !p.open {
			// A FIN behind data is left for the next call: whoever saves the
			// ring in between must find it there.
			if err = p.next(n == 0); err != nil {
				break
			}
		}
		want := min(len(b)-n, p.size-p.taken)
		n += p.ring.CopyPayload(b[n:n+want], pipeHeaderBytes+p.taken)
		p.take(want)
		if n < len(b) { // then the packet is through
			n += p.readRun(b[n:])
		}
	}
	if n > 0 {
		err = nil
	}
	return n, p.release(), err
}

// readRun copies whole packets into b for as long as they lie in one piece, fit
// and are unremarkable. Whatever is not is left for next to judge, which loads it
// anew.
func (p *PipeReader) readRun(b []byte) (n int) {
	run := p.ring.Run()
	packets, at := 0, 0
	for {
		packetBytes, word, ok := ringbuffer.SmallPacket(run[at:])
		size := word >> 32
		if !ok || uint32(word) != pipeData || size == 0 || size > MaxPipeBytes ||
			size > uint64(packetBytes-pipeOverheadBytes) && !putback.On(putback.SS06) || size > uint64(len(b)-n) {
			break
		}
		data := at + ringbuffer.DescriptorBytes + pipeHeaderBytes
		ringbuffer.CopyRun(b[n:], run[data:data+int(size)])
		n += int(size)
		at += packetBytes
		packets++
	}
	if packets > 0 {
		p.ring.Skip(packets, at)
	}
	return n
}

func (p *PipeReader) readMessage(b []byte) (n int, signal bool, err error) {
	if !p.open {
		if err := p.next(true); err != nil {
			return 0, p.release(), err
		}
	}
	if left := p.size - p.taken; left > len(b) {
		return 0, false, &ringbuffer.BufferError{Need: left, Have: len(b)}
	}
	n = p.ring.CopyPayload(b[:p.size-p.taken], pipeHeaderBytes+p.taken)
	p.take(n)
	return n, p.release(), nil
}

// View is the waiting part of the oldest packet that lies in one piece, without
// copying it; Discard steps over what was used. ok is false if nothing is
// waiting: Read tells why. The memory is the ring: the peer may change it while
// it is looked at, and it is the writer's again after Discard.
func (p *PipeReader) View() (b []byte, ok bool) {
	if !p.open && p.next(false) != nil {
		return nil, false
	}
	b = p.ring.View(pipeHeaderBytes + p.taken)
	if putback.On(putback.HV13) {
		return b, true
	}
	return b[:min(len(b), p.size-p.taken)], true
}

// Discard steps over n bytes of the oldest packet, at most what View showed,
// and says whether the writer must be signalled.
func (p *PipeReader) Discard(n int) (signal bool) {
	if !p.open || n < 0 {
		return false
	}
	p.take(min(n, p.size-p.taken))
	return p.release()
}

// take accounts for n bytes of the open packet and steps past it at its end.
func (p *PipeReader) take(n int) {
	p.taken += n
	if p.taken == p.size {
		p.ring.Advance()
		p.open = false
	}
}

// release returns ring space when it is time to; see PipeReader.
func (p *PipeReader) release() (signal bool) {
	held := p.ring.Uncommitted()
	if held == 0 || p.err != nil {
		return false
	}
	if held < p.halfBytes && !p.ring.Drained() && !p.ring.WriterWaits() {
		return false
	}
	return p.ring.Commit()
}

// next opens the oldest packet. Its header is loaded once and checked in the
// copy. A FIN gives io.EOF; it is stepped past and latched only if finish is
// set, and nothing behind it is ever looked at.
func (p *PipeReader) next(finish bool) error {
	if p.eof {
		return io.EOF
	}
	if p.err != nil {
		return p.err
	}
	if err := p.ring.Hold(); err != nil {
		return err
	}
	head := p.ring.Held()
	word, ok := p.ring.Word(0)
	kind, bytes := uint32(word), uint32(word>>32)
	size, taken := bytes, uint32(0)
	if kind == pipePartial {
		size, taken = bytes&0xFFFF, bytes>>16
	}
	var fault PipeFault
	switch {
	case head.Type != ringbuffer.InBand:
		fault = PipeNotInBand
	case !ok:
		fault = PipeNoHeader
	case kind != pipeData && (kind != pipePartial || p.messages):
		fault = PipeUnknownType
	case uint64(size) > uint64(head.PayloadBytes-pipeHeaderBytes) && !putback.On(putback.HV16) && !putback.On(putback.SS06):
		fault = PipeBeyondPacket
	case size > MaxPipeBytes && !putback.On(putback.HV16):
		fault = PipeTooLong
	case kind == pipePartial && taken >= size:
		fault = PipeConsumedWhole
	}
	if fault != 0 {
		p.err = &PipeError{Fault: fault, Packet: head.Type, Type: kind, Bytes: bytes, PayloadBytes: head.PayloadBytes}
		return p.err
	}
	if size == 0 && !p.messages {
		if putback.On(putback.HV12) {
			return &PipeError{Fault: PipeUnknownType, Packet: head.Type, Type: kind, PayloadBytes: head.PayloadBytes}
		}
		if finish {
			p.ring.Advance()
			p.eof = true
		}
		return io.EOF
	}
	p.size, p.taken, p.open = int(size), int(taken), true
	return nil
}

// Stats returns the counters of the ring that is read.
func (p *PipeReader) Stats() ringbuffer.Stats { return p.ring.Stats() }

// Readable says whether Read has something to return, an end or an error
// included, from a fresh load of the write index. Ask it last before sleeping:
// Read has released all space when it returned ringbuffer.ErrEmpty, so after
// false the writer finds the ring empty and will signal.
func (p *PipeReader) Readable() (bool, error) {
	if p.open || p.eof {
		return true, nil
	}
	if p.err != nil {
		return false, p.err
	}
	return p.ring.Readable()
}

// Mask tells the writer not to signal data, for as long as the caller is awake
// and will look by itself. Unmask before sleeping, then ask Readable.
func (p *PipeReader) Mask() { p.ring.Mask() }

// Unmask makes the writer signal data again. Readable must follow: data that
// came under the mask was not signalled.
func (p *PipeReader) Unmask() { p.ring.Unmask() }

// Save writes what a successor needs into the ring and releases what was
// delivered: a packet read in part becomes type 2, which tells a PipeReader made
// later over the same pages where to go on. Only the end of the stream, once
// Read has returned it, is not in the ring and the caller's to remember.
// The error is the sticky one of a pipe that is broken.
func (p *PipeReader) Save() (signal bool, err error) {
	if p.err != nil {
		return false, p.err
	}
	if err := p.ring.Err(); err != nil {
		return false, err
	}
	if p.open && p.taken > 0 {
		bytes := uint64(p.size) | uint64(p.taken)<<16
		if err := p.ring.SetWord(0, pipePartial|bytes<<32); err != nil {
			return false, err
		}
	}
	return p.ring.Commit(), nil
}

// ReadPacket is Read that stops at the end of a packet, as one recv on Linux
// does (hvsock.md 6).
func (p *PipeReader) ReadPacket(b []byte) (n int, signal bool, err error) {
	if len(b) == 0 {
		return 0, false, nil
	}
	if !p.open {
		if err := p.next(true); err != nil {
			return 0, p.release(), err
		}
	}
	n = p.ring.CopyPayload(b[:min(len(b), p.size-p.taken)], pipeHeaderBytes+p.taken)
	p.take(n)
	return n, p.release(), nil
}
