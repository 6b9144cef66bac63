package fuzz

import (
	"bytes"
	"errors"
	"io"
	"io/fs"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/ringbuffer"
)

// Steps of PipeStream; a byte chooses one.
const (
	streamWrite = iota
	streamRead
	streamWait
	streamFIN
	streamMask
	streamSave
	streamSteps
)

// A streamWorld is both ends of an honest byte pipe, and what is in it.
type streamWorld struct {
	w        *channel.PipeWriter
	r        *channel.PipeReader
	inPipe   []byte // written and not read
	written  byte   // counts up, so that an exchange of bytes shows
	finished bool
	ended    bool // the reader has seen the end
	asleep   bool // the writer waits for a signal
	save     func() error
	fault    error
}

// PipeStream writes and reads an honest byte pipe: a byte for the layout, one
// for the size of the packets, then steps.
func PipeStream(data []byte) error {
	in := &input{data}
	shape, chunk := in.u8(), in.u16()
	pages := newPages(ringLayouts[shape%2], 1+int(shape/2%2))
	if err := ringbuffer.Init(pages); err != nil {
		return violated("I-STATE-LEGAL", "Init: %v", err)
	}
	writer, err := ringbuffer.NewWriter(pages)
	if err != nil {
		return violated("I-STATE-LEGAL", "NewWriter: %v", err)
	}
	w := &streamWorld{w: channel.NewPipeWriter(writer, channel.PipeOptions{ChunkBytes: int(chunk), ReserveFIN: true})}
	newReader := func() error {
		ring, err := ringbuffer.NewReader(pages)
		if err == nil {
			w.r = channel.NewPipeReader(ring)
		}
		return err
	}
	if err := newReader(); err != nil {
		return violated("I-STATE-LEGAL", "NewReader: %v", err)
	}
	w.save = newReader
	for in.more() && w.fault == nil {
		w.play(in)
	}
	w.finish()
	return w.fault
}

func (w *streamWorld) play(in *input) {
	switch in.u8() % streamSteps {
	case streamWrite:
		w.write(int(in.u16() % 5000))
	case streamRead:
		w.read(int(in.u16() % 5000))
	case streamWait:
		if !w.finished && !w.asleep {
			w.asleep = w.w.Wait()
		}
	case streamFIN:
		w.fin()
	case streamMask:
		if in.u8()&1 != 0 {
			w.r.Mask()
		} else {
			w.r.Unmask()
		}
	case streamSave:
		if w.ended { // the end is the caller's to remember, once it was read
			return
		}
		signal, err := w.r.Save()
		if err == nil {
			err = w.save()
		}
		if err != nil {
			w.fail("I-SAVE-ID", "%v", err)
		}
		w.wake(signal)
	}
}

func (w *streamWorld) write(n int) {
	if w.asleep {
		return
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = w.written + byte(i)
	}
	done, _, err := w.w.Write(b)
	var over *channel.PipeStateError
	switch {
	case w.finished:
		if n > 0 && !errors.As(err, &over) {
			w.fail("I-HALF-CLOSE", "a write after the FIN: %d, %v", done, err)
		}
		return
	case err != nil && (!errors.Is(err, channel.ErrFull) || done != 0):
		w.fail("whose fault", "Write: %d, %v", done, err)
	}
	w.inPipe = append(w.inPipe, b[:done]...)
	w.written += byte(done)
}

func (w *streamWorld) read(n int) {
	buf := make([]byte, n+1)
	got, signal, err := w.r.Read(buf)
	switch {
	case err == nil && got > 0:
		if got > len(w.inPipe) || !bytes.Equal(buf[:got], w.inPipe[:got]) {
			w.fail("I-STREAM", "%x came out of %x", buf[:got], w.inPipe)
			return
		}
		w.inPipe = w.inPipe[got:]
	case errors.Is(err, io.EOF):
		w.ended = true
		if !w.finished || len(w.inPipe) > 0 {
			w.fail("I-STREAM", "the end with %d bytes in the pipe, FIN %v", len(w.inPipe), w.finished)
		}
	case errors.Is(err, ringbuffer.ErrEmpty):
		if w.finished || len(w.inPipe) > 0 {
			w.fail("L-READER", "nothing, with %d bytes in the pipe, FIN %v", len(w.inPipe), w.finished)
		}
		if w.asleep && !signal {
			w.fail("L-WRITER", "the pipe is empty and the writer sleeps")
		}
	default:
		w.fail("whose fault", "Read: %d, %v", got, err)
	}
	w.wake(signal)
}

// wake gives a sleeping writer a signal: it has room for something then.
func (w *streamWorld) wake(signal bool) {
	if signal && w.asleep {
		w.asleep = false
		w.w.Resume()
	}
}

func (w *streamWorld) fin() {
	if _, err := w.w.WriteFIN(); err != nil {
		w.fail("I-FIN-ROOM", "%v", err)
	}
	w.finished = true
}

// finish reads to the end, which must come.
func (w *streamWorld) finish() {
	if w.asleep {
		w.asleep = false
		w.w.Resume()
	}
	w.fin()
	for reads := 0; w.fault == nil && reads < 10_000; reads++ {
		if ready, err := w.r.Readable(); !ready || err != nil {
			w.fail("L-READER", "not readable before the end: %v", err)
		}
		before := len(w.inPipe)
		w.read(4999)
		if before == 0 {
			return // the end was seen
		}
	}
}

func (w *streamWorld) fail(property, format string, args ...any) {
	if w.fault == nil {
		w.fault = violated(property, format, args...)
	}
}

func pipeStreamSeeds(fs.FS) ([][]byte, error) {
	var seeds [][]byte
	for _, shape := range []uint8{0, 1, 2, 3} {
		for _, chunk := range []uint16{0, 1, 100, 4088} {
			s := seed{shape}.u16(chunk)
			for _, n := range []uint16{1, 4088, 700, 4999} {
				s = s.u8(streamWrite).u16(n).u8(streamWait, streamRead).u16(n/2).u8(streamMask, byte(n)).u8(streamSave, streamRead).u16(4000)
			}
			seeds = append(seeds, s.u8(streamFIN, streamWrite).u16(3).u8(streamRead).u16(100))
		}
	}
	return seeds, nil
}
