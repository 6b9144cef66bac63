package channel

import (
	"errors"

	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/ringbuffer"
)

// PipeOptions shape what a PipeWriter sends. The zero value is a byte pipe that
// cuts like Linux and uses the whole ring.
type PipeOptions struct {
	// ChunkBytes is the most data bytes put into one packet; 0 means
	// DefaultChunkBytes. It is cut to MaxPipeBytes and to what the ring can
	// ever hold.
	ChunkBytes int
	// ReserveFIN keeps room for a FIN free, so that WriteFIN always succeeds.
	// hv_sock does: its close must not wait for the peer.
	ReserveFIN bool
	// Messages makes every Write one packet, whole or not at all.
	Messages bool
}

// A PipeWriter turns bytes (or messages) into the packets of one ring. It never
// blocks and never signals: it says when the reader must be signalled, and the
// caller does it. A PipeWriter belongs to one goroutine at a time.
//
// To wait for space: Wait after a short Write; if it says so, sleep until the
// channel is signalled; Resume; Write again.
type PipeWriter struct {
	ring       *ringbuffer.Writer
	messages   bool
	finished   bool
	chunkBytes int
	plainBytes int // chunkBytes, or 0 if finished or for messages: Write's first look
	keepBytes  int // raw free bytes that carry no data: packet overhead, the last granule, the FIN
	wantBytes  int // raw free bytes to exceed before another attempt makes sense
}

// NewPipeWriter makes the sending end of a pipe.
func NewPipeWriter(w *ringbuffer.Writer, options PipeOptions) *PipeWriter {
	p := &PipeWriter{ring: w, messages: options.Messages, chunkBytes: options.ChunkBytes}
	p.keepBytes = pipeOverheadBytes + pipeGranuleBytes
	if options.ReserveFIN && !options.Messages {
		p.keepBytes += finReserveBytes
	}
	if p.chunkBytes <= 0 {
		p.chunkBytes = DefaultChunkBytes
	}
	if p.messages {
		p.chunkBytes = MaxPipeBytes
	}
	p.chunkBytes = min(p.chunkBytes, MaxPipeBytes, p.writable(w.DataBytes()))
	if !p.messages {
		p.plainBytes = p.chunkBytes
	}
	return p
}

// Stats returns the counters of the ring that is written.
func (p *PipeWriter) Stats() ringbuffer.Stats { return p.ring.Stats() }

// MaxMessageBytes is the longest message, or chunk of bytes, one packet takes.
func (p *PipeWriter) MaxMessageBytes() int { return p.chunkBytes }

// writable is how many data bytes one packet may carry if rawBytes of the ring
// are free. With the reserve this is Linux' rule: none up to 72, else what is
// above 72 rounded down to granules; after the largest packet it allows, 40 raw
// bytes remain and a FIN needs more than 32.
// Source: ringbuffer.md 12; Linux net/vmw_vsock/hyperv_transport.c.
func (p *PipeWriter) writable(rawBytes int) int {
	return max(0, rawBytes-p.keepBytes) &^ (pipeGranuleBytes - 1)
}

// want remembers how much must be free before bytes more data fit: one granule
// less than needed, since the reader signals when the free space exceeds it.
func (p *PipeWriter) want(bytes int) {
	padded := (bytes + pipeGranuleBytes - 1) &^ (pipeGranuleBytes - 1)
	p.wantBytes = padded + p.keepBytes - pipeGranuleBytes
}

// Write puts as much of b as fits now into the ring, in chunks that become
// visible together, and says whether the reader must be signalled. n < len(b)
// means that the ring is full; nothing at all is ErrFull. No bytes send nothing,
// since an empty packet would be the FIN. In message mode b is one message, an
// empty one included, and goes whole or not at all.
//
// Errors besides ErrFull: *PipeStateError after WriteFIN, *ringbuffer.SizeError
// for a message that can never fit, *ringbuffer.CorruptError (vmbus.ErrProtocol).
func (p *PipeWriter) Write(b []byte) (n int, signal bool, err error) {
	// What is known to be free is a whole number of granules, and so is what is
	// kept: no rounding.
	if len(b) > 0 && len(b) <= p.plainBytes && len(b) <= p.ring.KnownFreeBytes()-p.keepBytes {
		signal, err = p.ring.SendGranule(pipeData|uint64(len(b))<<32, b)
		if err != nil {
			return 0, false, err
		}
		return len(b), signal, nil
	}
	switch {
	case p.finished:
		return 0, false, &PipeStateError{Op: "Write", Finished: true}
	case p.messages:
		return p.writeMessage(b)
	case len(b) == 0:
		return 0, false, nil
	case putback.On(putback.HV15) && len(b) > p.chunkBytes:
		return 0, false, &ringbuffer.SizeError{Need: len(b), Max: p.chunkBytes}
	}
	rawBytes, err := p.ring.FreeBytes()
	if err != nil {
		return 0, false, err
	}
	for n < len(b) {
		chunk := min(len(b)-n, p.chunkBytes, p.writable(rawBytes))
		if chunk == 0 {
			break
		}
		if err := p.append(b[n : n+chunk]); err != nil {
			return n, p.ring.Commit(), err
		}
		n += chunk
		rawBytes -= ringbuffer.PacketBytes(pipeHeaderBytes + chunk)
	}
	if n < len(b) {
		p.want(min(len(b)-n, p.chunkBytes))
	}
	if n == 0 {
		return 0, false, ErrFull
	}
	return n, p.ring.Commit(), nil
}

func (p *PipeWriter) writeMessage(b []byte) (n int, signal bool, err error) {
	if len(b) > p.chunkBytes {
		return 0, false, &ringbuffer.SizeError{
			Need: ringbuffer.PacketBytes(pipeHeaderBytes + len(b)),
			Max:  ringbuffer.PacketBytes(pipeHeaderBytes + p.chunkBytes),
		}
	}
	rawBytes, err := p.ring.FreeBytes()
	if err != nil {
		return 0, false, err
	}
	if ringbuffer.PacketBytes(pipeHeaderBytes+len(b)) >= rawBytes {
		p.want(len(b))
		return 0, false, ErrFull
	}
	if err := p.append(b); err != nil {
		return 0, false, err
	}
	return len(b), p.ring.Commit(), nil
}

// append stages one pipe packet. Flags and transaction id are 0, as all known
// senders leave them.
func (p *PipeWriter) append(data []byte) error {
	return p.ring.AppendGranule(pipeData|uint64(len(data))<<32, data)
}

// WriteFIN ends the stream: the reader gets what was written before, then the
// end. It is sent once; later calls do nothing. ErrFull is possible only without
// ReserveFIN: then Wait and call it again. A message pipe has no FIN.
func (p *PipeWriter) WriteFIN() (signal bool, err error) {
	if p.messages {
		return false, &PipeStateError{Op: "WriteFIN"}
	}
	if p.finished {
		return false, nil
	}
	if err := p.append(nil); errors.Is(err, ErrFull) {
		p.wantBytes = pipeOverheadBytes
		return false, ErrFull
	} else if err != nil {
		return false, err
	}
	p.finished, p.plainBytes = true, 0
	return p.ring.Commit(), nil
}

// Wait announces to the reader how much space the data left over by the last
// Write needs, and then looks again (W4: pending size stored, read index
// loaded). It returns true if the caller must sleep until it is signalled, and
// false if there is room already, or an error that the next Write returns.
func (p *PipeWriter) Wait() (sleep bool) {
	ready, err := p.ring.SetPending(p.wantBytes)
	return !ready && err == nil
}

// Resume withdraws what Wait announced; the reader needs not signal any more.
func (p *PipeWriter) Resume() { p.ring.ClearPending() }
