package fuzz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// pipeInput is two bytes for the size of the reads, two that say after how many
// of them the pipe is saved, and a ring.
func pipeInput(data []byte) (readBytes, saveAfter int, s ringState) {
	in := &input{data}
	readBytes, saveAfter = int(in.u16()), int(in.u16())
	s = in.ringState()
	size := uint32(s.dataPages * guestmem.PageSize)
	s.read, s.write = s.read%size&^7, s.write%size&^7
	return readBytes, saveAfter, s
}

// A pipeEnd is what came out of a pipe, and how it ended.
type pipeEnd struct {
	bytes []byte
	err   error
}

// PipeBytes reads a byte pipe over arbitrary ring memory in several ways that
// must agree.
func PipeBytes(data []byte) error {
	size, saveAfter, s := pipeInput(data)
	ways := []struct {
		name      string
		layout    guestmem.Layout
		readBytes int
		saveAfter int
		view      bool
	}{
		{"at once", guestmem.ContiguousPages, 1 << 16, 0, false},
		{"in pieces", guestmem.ScatteredPages, size + 1, 0, false},
		{"saved on the way", guestmem.ContiguousPages, size + 1, saveAfter, false},
		{"without copying", guestmem.ScatteredPages, size + 1, 0, true},
	}
	var first pipeEnd
	for i, way := range ways {
		got, err := readPipe(s.pages(way.layout), way.readBytes, way.saveAfter, way.view)
		if err != nil {
			return err
		}
		if i == 0 {
			first = got
		}
		if !bytes.Equal(first.bytes, got.bytes) || !sameEnd(first.err, got.err) {
			return violated("I-STREAM", "%s: %x, %v; %s: %x, %v", ways[0].name, first.bytes, first.err, way.name, got.bytes, got.err)
		}
	}
	return nil
}

func sameEnd(a, b error) bool { return a.Error() == b.Error() }

func readPipe(pages []*guestmem.Page, readBytes, saveAfter int, view bool) (end pipeEnd, err error) {
	ring, err := ringbuffer.NewReader(pages)
	if err != nil {
		return end, violated("I-INDEX", "%v", err)
	}
	size := (len(pages) - 1) * guestmem.PageSize
	r := channel.NewPipeReader(ring)
	buf := make([]byte, readBytes)
	for reads := 1; ; reads++ {
		n, err := 0, error(nil)
		if b, ok := r.View(); view && ok {
			n = min(len(b), readBytes)
			end.bytes = append(end.bytes, b[:n]...)
			r.Discard(n)
		} else {
			n, _, err = r.Read(buf)
			end.bytes = append(end.bytes, buf[:n]...)
		}
		if err != nil {
			end.err = err
			return end, checkPipeEnd(r, n, err)
		}
		if n == 0 || len(end.bytes) > size {
			return end, violated("I-LEN", "read %d gave %d bytes, %d in all from a ring of %d", reads, n, len(end.bytes), size)
		}
		if reads != saveAfter {
			continue
		}
		if _, err := r.Save(); err != nil {
			if !errors.Is(err, vmbus.ErrProtocol) {
				return end, violated("whose fault", "Save: %v", err)
			}
			continue // it is broken; the next Read says so too
		}
		if ring, err = ringbuffer.NewReader(pages); err != nil {
			return end, violated("I-SAVE-ID", "%v", err)
		}
		r = channel.NewPipeReader(ring)
	}
}

// checkPipeEnd: an end comes alone, is one of three kinds, and is final.
func checkPipeEnd(r *channel.PipeReader, n int, err error) error {
	if n != 0 || !errors.Is(err, io.EOF) && !errors.Is(err, ringbuffer.ErrEmpty) && !errors.Is(err, vmbus.ErrProtocol) {
		return violated("whose fault", "%d bytes and %v", n, err)
	}
	if _, _, again := r.Read(make([]byte, 1)); again == nil || !sameEnd(err, again) {
		return violated("I-CORRUPT-STICKY", "%v, and then %v", err, again)
	}
	return nil
}

// PipeMessages reads a message pipe over arbitrary ring memory, beside a reader
// that looks at each packet by itself.
func PipeMessages(data []byte) error {
	_, _, s := pipeInput(data)
	ring, err := ringbuffer.NewReader(s.pages(guestmem.ScatteredPages))
	if err != nil {
		return violated("I-INDEX", "%v", err)
	}
	reference, err := ringbuffer.NewReader(s.pages(guestmem.ContiguousPages))
	if err != nil {
		return violated("I-INDEX", "%v", err)
	}
	r := channel.NewMessageReader(ring)
	small, large := make([]byte, 16), make([]byte, channel.MaxPipeBytes)
	for {
		want, ok := nextMessage(reference)
		n, _, err := r.Read(small) // as a caller that does not know how long they are
		buf := small
		if tooSmall := (*ringbuffer.BufferError)(nil); errors.As(err, &tooSmall) {
			if tooSmall.Need != len(want) {
				return violated("I-LEN", "a message of %d bytes wants a buffer of %d", len(want), tooSmall.Need)
			}
			n, _, err = r.Read(large)
			buf = large
		}
		if err != nil {
			if ok {
				return violated("I-PREFIX", "%x is lost: %v", want, err)
			}
			return checkPipeEnd(r, n, err)
		}
		if !ok || !bytes.Equal(want, buf[:n]) {
			return violated("I-PREFIX", "%x, should be %x, %v", buf[:n], want, ok)
		}
	}
}

// nextMessage decodes the next packet as ringbuffer.md 7 says: one in-band
// packet, a header of two words, the type 1, and no more bytes than there are.
func nextMessage(r *ringbuffer.Reader) (message []byte, ok bool) {
	h, err := r.Peek()
	if err != nil || h.Type != ringbuffer.InBand || h.PayloadBytes < 8 {
		return nil, false
	}
	payload := make([]byte, h.PayloadBytes)
	r.CopyPayload(payload, 0)
	r.Advance()
	kind, n := binary.LittleEndian.Uint32(payload), binary.LittleEndian.Uint32(payload[4:])
	if kind != 1 || n > channel.MaxPipeBytes || int64(n) > int64(len(payload)-8) {
		return nil, false
	}
	return payload[8 : 8+n], true
}

func pipeSeeds(vectors fs.FS) ([][]byte, error) {
	var seeds [][]byte
	add := func(read, saveAfter uint16, s ringState) {
		seeds = append(seeds, seed{}.u16(read).u16(saveAfter).bytes(s.seed()))
	}
	for _, line := range FaultLines("pipe") {
		b := line.Parts[0]
		add(2, 1, ringState{dataPages: 1, write: uint32(len(b)), features: 1, data: b})
		add(64, 1, ringState{dataPages: 1, read: 4088, write: uint32(len(b)) - 8, features: 1, data: b})
	}
	recorded, err := ringVectors(vectors)
	for _, v := range recorded {
		add(5, 3, ringState{dataPages: 1, write: uint32(len(v.data)) &^ 7, features: 1, data: v.data})
		add(1000, 1, ringState{dataPages: 2, read: 4080, write: (4080 + uint32(len(v.data))) % 8192 &^ 7, features: 1, data: v.data})
	}
	return seeds, err
}
