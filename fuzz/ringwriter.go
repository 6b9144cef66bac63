package fuzz

import (
	"bytes"
	"errors"
	"io/fs"

	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// Steps of RingWriter; a byte chooses one.
const (
	ringAppend = iota
	ringCommit
	ringRevert
	ringPending
	ringRead   // the honest reader takes packets and releases them
	ringMask   // the honest reader masks or unmasks
	ringTamper // the peer overwrites a control word
	ringSteps
)

// A ringWorld is a writer, an honest reader of the same pages, and what the
// writer has put in: the model.
type ringWorld struct {
	pages    []*guestmem.Page
	w        *ringbuffer.Writer
	r        *ringbuffer.Reader
	size     int
	index    int      // the write index that the model expects
	visible  [][]byte // committed and not read, as extension and payload
	staged   [][]byte
	used     int // ring bytes of both, and of what was read but not released
	masked   bool
	tampered bool
	fault    error
}

// RingWriter writes into a ring whose reader is honest until the peer
// overwrites a control word: a byte for size and layout, two for the place where
// it starts, then steps.
func RingWriter(data []byte) error {
	in := &input{data}
	shape := in.u8()
	w := &ringWorld{pages: newPages(ringLayouts[shape%2], 1+int(shape/2%2))}
	w.size = (len(w.pages) - 1) * guestmem.PageSize
	w.index = int(in.u16()) % w.size &^ 7
	if err := ringbuffer.Init(w.pages); err != nil {
		return violated("I-STATE-LEGAL", "Init: %v", err)
	}
	w.pages[0].Store32(offReadIndex, uint32(w.index))
	w.pages[0].Store32(offWriteIndex, uint32(w.index))
	var err error
	if w.w, err = ringbuffer.NewWriter(w.pages); err != nil {
		return violated("I-STATE-LEGAL", "NewWriter: %v", err)
	}
	if w.r, err = ringbuffer.NewReader(w.pages); err != nil {
		return violated("I-STATE-LEGAL", "NewReader: %v", err)
	}
	for in.more() && w.fault == nil {
		w.play(in)
		w.check()
	}
	return w.fault
}

func (w *ringWorld) play(in *input) {
	switch in.u8() % ringSteps {
	case ringAppend:
		w.append(in)
	case ringCommit:
		w.commit()
	case ringRevert:
		w.w.Revert()
		for _, p := range w.staged {
			w.used -= ringbuffer.PacketBytes(len(p))
		}
		w.staged = nil
	case ringPending:
		w.pending(int(in.u16()))
	case ringRead:
		w.read(int(in.u8() % 8))
	case ringMask:
		if w.masked = in.u8()&1 != 0; w.masked {
			w.r.Mask()
		} else {
			w.r.Unmask()
		}
	case ringTamper:
		w.tampered = true
		w.pages[0].Store32([...]int{offReadIndex, offMask, offPendingSize, offFeatures}[in.u8()%4], in.u32())
	}
}

func (w *ringWorld) append(in *input) {
	kind, flags, ext := in.u8(), in.u8(), int(in.u8())
	body := bytes.Repeat(in.bytes(1), int(in.u16())%(w.size+64))
	h := ringbuffer.Header{Type: ringbuffer.InBand, Flags: uint16(flags & 1), ID: uint64(kind)}
	if kind&1 != 0 { // a transfer page set without ranges: a legal extension
		h.Type, h.ExtBytes = ringbuffer.TransferPages, 8
		body = append(make([]byte, 8), body...)
	}
	if kind&0x80 != 0 { // a header nobody should send
		h.Type, h.Flags, h.ExtBytes = ringbuffer.PacketType(kind), uint16(flags), ext
	}
	total := ringbuffer.PacketBytes(len(body))
	head := min(h.ExtBytes, len(body))
	err := w.w.Append(h, body[:head], body[head:])
	switch {
	case err == nil:
		if kind&0x80 != 0 {
			w.tampered = true // the Writer does not look into extensions; no Reader need take this
		}
		w.staged = append(w.staged, body)
		w.used += total
	case errors.Is(err, ringbuffer.ErrFull):
		if !w.tampered && w.used+total+8 <= w.size {
			w.fail("I-FREE", "%d bytes do not fit beside %d of %d", total, w.used, w.size)
		}
	case errors.Is(err, vmbus.ErrState):
		if kind&0x80 == 0 && total <= w.w.MaxTotalBytes() {
			w.fail("whose fault", "%v", err)
		}
	case !w.tampered:
		w.fail("whose fault", "%v, and the peer is honest", err)
	}
}

func (w *ringWorld) commit() {
	empty := len(w.visible) == 0
	signal := w.w.Commit()
	if w.w.Err() != nil {
		return
	}
	if want := len(w.staged) > 0 && w.readAll() && !w.masked; signal != want && !w.tampered {
		w.fail("I-SIGNAL-MIN", "signal %v with %d staged, empty %v, masked %v", signal, len(w.staged), empty, w.masked)
	}
	for _, p := range w.staged {
		w.index = (w.index + ringbuffer.PacketBytes(len(p))) % w.size
	}
	w.visible = append(w.visible, w.staged...)
	w.staged = nil
}

// readAll: the reader has released everything that was visible so far.
func (w *ringWorld) readAll() bool { return len(w.visible) == 0 }

func (w *ringWorld) pending(bytes int) {
	ready, err := w.w.SetPending(bytes)
	switch {
	case err != nil:
		if !w.tampered && !errors.Is(err, vmbus.ErrState) {
			w.fail("whose fault", "SetPending(%d): %v", bytes, err)
		}
	case !w.tampered && ready != (w.size-w.used > bytes):
		w.fail("L-WRITER", "SetPending(%d) says %v with %d of %d bytes used", bytes, ready, w.used, w.size)
	}
}

// read takes up to n packets and releases them together.
func (w *ringWorld) read(n int) {
	if w.tampered {
		return
	}
	for range n {
		h, err := w.r.Peek()
		if len(w.visible) == 0 {
			if !errors.Is(err, ringbuffer.ErrEmpty) {
				w.fail("I-PREFIX", "%+v, %v was never written", h, err)
			}
			break
		}
		if err != nil {
			w.fail("I-PREFIX", "a packet of %d bytes is lost: %v", len(w.visible[0]), err)
			return
		}
		payload := make([]byte, h.PayloadBytes)
		w.r.CopyPayload(payload, 0)
		got, want := append(bytes.Clone(w.r.Extension()), payload...), w.visible[0]
		if !bytes.Equal(got[:len(want)], want) || !bytes.Equal(got[len(want):], make([]byte, len(got)-len(want))) {
			w.fail("I-ZERO-OUT", "%x was written, %x was read", want, got)
		}
		w.r.Advance()
		w.used -= ringbuffer.PacketBytes(len(want))
		w.visible = w.visible[1:]
	}
	free, pending := w.free(), int(w.pages[0].Load32(offPendingSize))
	signal := w.r.Commit()
	if want := pending != 0 && free <= pending && w.free() > pending; signal != want {
		w.fail("I-SIGNAL-MIN", "releasing says %v: %d bytes free before, %d after, %d awaited", signal, free, w.free(), pending)
	}
}

// free is the space that the two indices leave: what is staged is free to them.
func (w *ringWorld) free() int {
	read, write := int(w.pages[0].Load32(offReadIndex)), int(w.pages[0].Load32(offWriteIndex))
	return w.size - (write-read+w.size)%w.size
}

// check holds what is true after every step, whatever the peer does.
func (w *ringWorld) check() {
	if got := w.pages[0].Load32(offWriteIndex); int(got) != w.index && w.w.Err() == nil {
		w.fail("I-INDEX", "the write index is %d, and should be %d", got, w.index)
	}
	if w.tampered {
		if err := w.w.Err(); err != nil {
			index := w.pages[0].Load32(offWriteIndex)
			if err := w.w.Append(ringbuffer.Header{Type: ringbuffer.InBand}, nil, nil); !errors.Is(err, vmbus.ErrProtocol) {
				w.fail("I-CORRUPT-STICKY", "a dead writer says %v", err)
			}
			if w.w.Commit() || w.pages[0].Load32(offWriteIndex) != index {
				w.fail("I-CORRUPT-STICKY", "a dead writer publishes")
			}
		}
		return
	}
	free, err := w.w.FreeBytes()
	if err != nil || free != w.size-w.used || free <= 0 {
		w.fail("I-FREE", "free %d, used %d of %d: %v", free, w.used, w.size, err)
	}
}

func (w *ringWorld) fail(property, format string, args ...any) {
	if w.fault == nil {
		w.fault = violated(property, format, args...)
	}
}

func ringWriterSeeds(fs.FS) ([][]byte, error) {
	small := func(s seed, kind uint8, bytes uint16) seed { return s.u8(ringAppend, kind, 0, 0, 'x').u16(bytes) }
	var seeds [][]byte
	for _, start := range []uint16{0, 4088, 4072} {
		for _, shape := range []uint8{0, 1, 2, 3} {
			s := small(small(seed{shape}.u16(start), 0, 5), 1, 300).u8(ringCommit)
			s = s.u8(ringRead, 1).u8(ringMask, 1)
			s = small(s, 0, 3500).u8(ringCommit).u8(ringPending).u16(2000).u8(ringRead, 7, ringMask, 0)
			s = small(s, 0, 4064).u8(ringRevert)
			seeds = append(seeds, s)
			for _, v := range []uint32{4, 8, 4088, 4096, 0xFFFFFFFF} {
				t := small(append(seed{}, s...), 0, 100).u8(ringTamper, 0).u32(v).u8(ringCommit)
				seeds = append(seeds, small(t, 0, 100).u8(ringCommit))
			}
		}
	}
	seeds = append(seeds, seed{0, 0, 0, ringAppend, 0x89, 7, 24, 'y'}.u16(64).u8(ringCommit))
	return seeds, nil
}
