package decode

import (
	"fmt"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus"
)

const granuleBytes = 8

// descriptor is what every packet begins with. Source: ringbuffer.md 4.1.
type descriptor struct {
	Type    uint16 `wire:"type"`
	Offset8 uint16 `wire:"offset8"`
	Len8    uint16 `wire:"len8"`
	Flags   uint16 `wire:"flags"`
	ID      uint64 `wire:"transaction_id"`
}

// wrongLength names the length that does not fit; the reader has found that one
// does not. Source: ringbuffer.md 13, rules 4 and 6.
func (d *descriptor) wrongLength(available int) string {
	if d.Offset8 < 2 || d.Offset8 <= d.Len8 && int(d.Len8)*granuleBytes+ringbuffer.TrailerBytes <= available {
		return "offset8"
	}
	return "len8"
}

// descriptor explains a descriptor up to the field called wrong, "" for all of
// it, and returns how far it came in the packet.
func (r *ring) descriptor(d *descriptor, wrong string) int {
	for _, f := range vmbus.FieldsOf(d, 0) {
		if f.Name == wrong {
			return f.Offset
		}
		n := number(f.Value)
		value, meaning := fmt.Sprint(n), ""
		switch f.Name {
		case "type":
			meaning = ringbuffer.PacketType(n).String()
		case "offset8":
			meaning = fmt.Sprintf("the payload begins at byte %d", n*granuleBytes)
		case "len8":
			meaning = fmt.Sprintf("%d bytes, and %d of footer", n*granuleBytes, ringbuffer.TrailerBytes)
		case "flags":
			meaning = choose(n&uint64(ringbuffer.FlagCompletion), "", "a completion is asked for")
		case "transaction_id":
			value = hexOf(n)
		}
		r.span(r.at+f.Offset, f.Bytes, f.Name, value, meaning, plain)
	}
	return ringbuffer.DescriptorBytes
}

// A packet is one the reader has accepted.
type packet struct {
	*ring
	ringbuffer.Header
}

// explain explains the packet; false if it ends the walk.
func (p *packet) explain() bool {
	p.part(sectionPacket, "packet %d at data offset %#x: %v, %d bytes", p.packets, p.at, p.Type, p.TotalBytes())
	d := descriptor{uint16(p.Type), uint16((ringbuffer.DescriptorBytes + p.ExtBytes) / granuleBytes),
		uint16((ringbuffer.DescriptorBytes + p.ExtBytes + p.PayloadBytes) / granuleBytes), p.Flags, p.ID}
	off := p.descriptor(&d, "")
	end := off + p.ExtBytes
	if p.Type == ringbuffer.GPADirect || p.Type == ringbuffer.TransferPages {
		p.last().Section = sectionPacket + ", " + map[ringbuffer.PacketType]string{ringbuffer.TransferPages: "5.1", ringbuffer.GPADirect: "5.2"}[p.Type]
		x := extension{ring: p.ring, off: off, end: end}
		p.extension(&x, p.Type)
		off = x.off
	}
	p.span(p.at+off, end-off, "surplus", "", "ignored: behind the ranges", plain)
	off = end
	end += p.PayloadBytes
	if p.framing == Pipe {
		ok := false
		if off, ok = p.pipe(off); !ok {
			return false
		}
	} else {
		p.span(p.at+off, end-off, "payload", fmt.Sprintf("%d bytes", end-off), "padding included", dumped)
		off = end
	}
	p.span(p.at+off, end-off, "padding", "", unlessZero(p.bytes(off, end-off), "should be zero"), plain)
	footer := le.Uint64(p.bytes(end, ringbuffer.TrailerBytes))
	p.footer(end, footer)
	return true
}

// footer explains the eight bytes behind a packet, which readers ignore.
func (p *packet) footer(off int, footer uint64) {
	p.span(p.at+off, 4, "reserved", fmt.Sprint(uint32(footer)), unlessNumber(footer&0xFFFFFFFF, "should be 0"), plain)
	meaning := "where this packet starts"
	if int(footer>>32) != p.at {
		meaning = fmt.Sprintf("not %#x, where this packet starts; readers ignore it", p.at)
	}
	p.span(p.at+off+4, 4, "footer", hexOf(footer>>32), meaning, plain)
}

// pipeHeader begins the payload of a packet in pipe mode.
// Source: ringbuffer.md 7.
type pipeHeader struct {
	Type  uint32 `wire:"pipe_type"`
	Bytes uint32 `wire:"data_size"`
}

// The pipe packet types. Source: ringbuffer.md 7.
const (
	pipeData    = 1
	pipePartial = 2
)

// split is how many bytes of data h announces and how many of them are consumed
// already.
func (h pipeHeader) split() (data, consumed int) {
	if h.Type == pipePartial {
		return int(h.Bytes & 0xFFFF), int(h.Bytes >> 16)
	}
	return int(h.Bytes), 0
}

// fault is what a reader of a byte pipe finds wrong with a packet, 0 for nothing.
func (p *packet) fault(h pipeHeader) channel.PipeFault {
	data, consumed := h.split()
	switch {
	case p.Type != ringbuffer.InBand:
		return channel.PipeNotInBand
	case p.PayloadBytes < granuleBytes:
		return channel.PipeNoHeader
	case h.Type != pipeData && h.Type != pipePartial:
		return channel.PipeUnknownType
	case data > p.PayloadBytes-granuleBytes:
		return channel.PipeBeyondPacket
	case data > channel.MaxPipeBytes:
		return channel.PipeTooLong
	case h.Type == pipePartial && consumed >= data:
		return channel.PipeConsumedWhole
	}
	return 0
}

// pipe explains the pipe header and the data of the packet, and returns how far
// it came; false if the framing is broken.
func (p *packet) pipe(off int) (int, bool) {
	var h pipeHeader
	decodePacked(p.bytes(off, min(granuleBytes, p.PayloadBytes)), &h)
	p.last().Section += ", 7"
	data, consumed := h.split()
	switch fault := p.fault(h); fault {
	case 0:
	case channel.PipeBeyondPacket, channel.PipeTooLong, channel.PipeConsumedWhole:
		p.span(p.at+off, 4, "pipe_type", fmt.Sprint(h.Type), pipeMeaning(h), plain)
		off += 4
		fallthrough
	default:
		p.stop(off, (&channel.PipeError{Fault: fault, Packet: p.Type, Type: h.Type, Bytes: h.Bytes, PayloadBytes: p.PayloadBytes}).Error())
		return off, false
	}
	p.span(p.at+off, 4, "pipe_type", fmt.Sprint(h.Type), pipeMeaning(h), plain)
	size, meaning := fmt.Sprint(data), ""
	if h.Type == pipePartial {
		size, meaning = hexOf(uint64(h.Bytes)), fmt.Sprintf("%d bytes, of which %d are consumed", data, consumed)
	}
	p.span(p.at+off+4, 4, "data_size", size, meaning, plain)
	off += granuleBytes
	p.span(p.at+off, consumed, "consumed", "", "was read before a save", plain)
	off += consumed
	p.span(p.at+off, data-consumed, "data", amount(data-consumed, "byte"), "", dumped)
	return off + data - consumed, true
}

func pipeMeaning(h pipeHeader) string {
	switch {
	case h.Type == pipePartial:
		return "partially consumed data, as a reader leaves it when it is saved"
	case h.Bytes == 0:
		return "end of the stream (FIN)"
	}
	return "data"
}

// guessFraming looks at all packets: they are pipe packets if each could be one
// and is no longer than its data needs.
func (r *ring) guessFraming() error {
	pages, err := copyPages(r.in)
	if err != nil {
		return err
	}
	reader, err := ringbuffer.NewReader(pages)
	if err != nil {
		return err
	}
	r.framing = Plain
	packets := 0
	for ; ; packets++ {
		h, err := reader.Peek()
		if err != nil {
			break
		}
		p := packet{ring: r, Header: h}
		word, _ := reader.Word(0)
		head := pipeHeader{uint32(word), uint32(word >> 32)}
		data, _ := head.split()
		if p.fault(head) != 0 || p.PayloadBytes-granuleBytes-data >= granuleBytes {
			return nil
		}
		reader.Advance()
	}
	if packets > 0 {
		r.framing = Pipe
		r.note("every packet begins with a pipe header, so this is a pipe's ring")
	}
	return nil
}

// An extension is the range list of a packet while it is being explained.
type extension struct {
	*ring
	off, end int // of what is left, in the packet
	wrong    bool
}

// take is the next n bytes as a number, added as a field unless say finds that it
// makes no sense.
func (x *extension) take(n int, name string, say func(uint64) (value, meaning string, ok bool)) (v uint64) {
	if x.wrong || x.end-x.off < n {
		x.wrong = true
		return 0
	}
	for i, b := range x.bytes(x.off, n) {
		v |= uint64(b) << (8 * i)
	}
	value, meaning, ok := say(v)
	if !ok {
		x.wrong = true
		return 0
	}
	x.span(x.at+x.off, n, name, value, meaning, plain)
	x.off += n
	return v
}

// extension explains a range list; then x stands behind it, or where it stops
// making sense. Source: ringbuffer.md 5.1, 5.2.
func (r *ring) extension(x *extension, t ringbuffer.PacketType) {
	decimal := func(v uint64) (string, string, bool) { return fmt.Sprint(v), "", true }
	if t == ringbuffer.TransferPages {
		x.take(2, "page_set_id", decimal)
		x.take(1, "sender_owns_set", decimal)
		x.take(1, "reserved", decimal)
	} else {
		x.take(4, "reserved", func(v uint64) (string, string, bool) { return fmt.Sprint(v), unlessNumber(v, "ignored"), true })
	}
	count := x.take(4, "range_count", func(v uint64) (string, string, bool) {
		return fmt.Sprint(v), "", (v > 0 || t == ringbuffer.TransferPages) && v*granuleBytes <= uint64(x.end-x.off-4)
	})
	for i := uint64(0); i < count && !x.wrong; i++ {
		bytes := x.take(4, fmt.Sprintf("range[%d].bytes", i), decimal)
		offset := x.take(4, fmt.Sprintf("range[%d].offset", i), func(v uint64) (string, string, bool) {
			pages := (v + bytes + vmbus.PageBytes - 1) / vmbus.PageBytes
			fits := t == ringbuffer.TransferPages || v < vmbus.PageBytes && pages*granuleBytes <= uint64(x.end-x.off-4)
			return hexOf(v), "", fits
		})
		if t != ringbuffer.GPADirect {
			continue
		}
		for j := range (offset + bytes + vmbus.PageBytes - 1) / vmbus.PageBytes {
			if x.wrong {
				break
			}
			x.take(granuleBytes, fmt.Sprintf("range[%d].pfn[%d]", i, j), func(v uint64) (string, string, bool) { return hexOf(v), pageMeaning(v), true })
		}
	}
}
