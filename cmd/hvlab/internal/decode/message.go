package decode

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/vmbus"
)

var le = binary.LittleEndian

// newest is a negotiation in which every message exists.
var newest = vmbus.Negotiated{Version: vmbus.Copper, Features: vmbus.AllFeatures}

// messageSections are the sections of vmbus-control.md, by type.
var messageSections = map[vmbus.Type]string{
	vmbus.TypeOfferChannel: "3.1", vmbus.TypeRescindChannelOffer: "3.2", vmbus.TypeRequestOffers: "3.3", vmbus.TypeAllOffersDelivered: "3.3",
	vmbus.TypeOpenChannel: "3.4", vmbus.TypeOpenResult: "3.5", vmbus.TypeCloseChannel: "3.6",
	vmbus.TypeGPADLHeader: "3.7", vmbus.TypeGPADLBody: "3.7", vmbus.TypeGPADLCreated: "3.8", vmbus.TypeGPADLTeardown: "3.8", vmbus.TypeGPADLTorndown: "3.8",
	vmbus.TypeRelIDReleased: "3.9", vmbus.TypeInitiateContact: "3.10", vmbus.TypeVersionResponse: "3.11",
	vmbus.TypeUnload: "3.12", vmbus.TypeUnloadComplete: "3.12",
	vmbus.TypeOpenReservedChannel: "3.13", vmbus.TypeCloseReservedChannel: "3.13", vmbus.TypeCloseReservedChannelResponse: "3.13",
	vmbus.TypeTLConnectRequest: "3.14", vmbus.TypeTLConnectResult: "3.14",
	vmbus.TypeModifyChannel: "3.15", vmbus.TypeModifyChannelResponse: "3.15",
	vmbus.TypeModifyConnection: "3.16", vmbus.TypeModifyConnectionResponse: "3.16",
	vmbus.TypePause: "3.17", vmbus.TypePauseResponse: "3.17", vmbus.TypeResume: "3.17",
}

// message explains the control message in in[at:at+n].
func (e *explainer) message(at, n int) {
	surplus := max(0, n-vmbus.MaxPayloadBytes)
	b := e.in[at : at+n-surplus]
	negotiated, why := e.negotiation(b)
	m, tail, err := vmbus.Parse(b, negotiated)
	var short *vmbus.ParseError
	var absent *vmbus.TypeError
	cut := false
	switch {
	case errors.As(err, &short):
		m, cut = longer(b, negotiated, short), true
	case errors.As(err, &absent):
		m, _, _ = vmbus.Parse(append(b[:len(b):len(b)], make([]byte, vmbus.MaxPayloadBytes)...), newest) // nil if it is unknown at all
	}
	if m == nil {
		e.unknown(at, b, err)
	} else {
		e.known(at, b, m, why)
		switch {
		case absent != nil:
			e.refuseType(at, absent.Error())
		case e.o.Direction != 0 && m.Type().Direction() != e.o.Direction:
			e.refuseType(at, (&vmbus.DirectionError{Type: m.Type(), From: e.o.Direction}).Error())
		}
		e.body(at, b, m)
		if cut {
			e.problem(at+e.covered(at), err.Error())
			e.bad(at+e.covered(at), n-surplus-e.covered(at), "cut short")
		} else if absent == nil {
			e.tail(at+len(b)-len(tail), tail, m)
		} else {
			e.bad(at+e.covered(at), n-surplus-e.covered(at), "cut short")
		}
	}
	if surplus > 0 {
		e.problem(at+len(b), fmt.Sprintf("a message slot carries at most %d bytes", vmbus.MaxPayloadBytes))
		e.bad(at+len(b), surplus, "surplus")
	}
}

// covered is how many bytes from at on the last part has explained.
func (e *explainer) covered(at int) int {
	fields := e.last().Fields
	if len(fields) == 0 {
		return 0
	}
	f := fields[len(fields)-1]
	return f.Offset + len(f.Bytes) - at
}

// negotiation is what to read b as, and why.
func (e *explainer) negotiation(b []byte) (vmbus.Negotiated, string) {
	n := e.o.Negotiated
	if n.Version != 0 {
		return n, fmt.Sprintf("read as of version %v with features %v", n.Version, n.Features)
	}
	n = vmbus.Negotiated{Version: vmbus.Copper, Features: vmbus.AllFeatures}
	if e.o.Negotiated.Features != 0 {
		n.Features = e.o.Negotiated.Features
	}
	if len(b) < 4 || vmbus.Type(le.Uint32(b)) != vmbus.TypeOpenChannel {
		return n, ""
	}
	if len(b) == vmbus.Size(new(vmbus.OpenChannel2)) {
		return n, "156 bytes: read as of version 6.0 with GuestSignalParams or RedirectInterrupt"
	}
	return vmbus.Negotiated{Version: vmbus.Iron}, "not 156 bytes: read as of version 5.3, or 6.0 without the features of OpenChannel2"
}

// longer is the form that b is cut short of, its missing bytes zero; nil if even
// the header is cut.
func longer(b []byte, n vmbus.Negotiated, short *vmbus.ParseError) vmbus.Message {
	for range 2 { // a longer input may call for a longer form, once
		if short == nil || short.Have < 0 {
			return nil
		}
		padded := make([]byte, vmbus.HeaderBytes+short.Min)
		copy(padded, b)
		m, _, err := vmbus.Parse(padded, n)
		if err == nil {
			return m
		}
		short = nil
		errors.As(err, &short)
	}
	return nil
}

// unknown explains as much of b as has no type: the header.
func (e *explainer) unknown(at int, b []byte, err error) {
	e.part("vmbus-control.md 3.0", "control message, %d bytes", len(b))
	var absent *vmbus.TypeError
	if errors.As(err, &absent) {
		e.problem(at, err.Error())
		e.bad(at, len(b), "unknown message")
		return
	}
	whole := 0
	if len(b) >= 4 { // a header that is cut after its type
		whole = 4
		e.field(at, whole, "message_type", fmt.Sprint(le.Uint32(b)), typeName(vmbus.Type(le.Uint32(b))))
	}
	e.problem(at+whole, err.Error())
	e.bad(at+whole, len(b)-whole, "cut short")
}

func typeName(t vmbus.Type) string {
	if t.Direction() == 0 {
		return "no known type"
	}
	return t.String()
}

// known begins the part of a message and explains its header.
func (e *explainer) known(at int, b []byte, m vmbus.Message, why string) {
	t := m.Type()
	e.part("vmbus-control.md "+messageSections[t], "%s (message %d), %s, %d bytes", vmbus.Name(m), uint32(t), way(t.Direction()), len(b))
	if why != "" {
		e.note("%s", why)
	}
	e.field(at, 4, "message_type", fmt.Sprint(uint32(t)), t.String())
	e.field(at+4, 4, "reserved", fmt.Sprint(le.Uint32(b[4:])), unlessZero(b[4:8], "send 0; receivers ignore it"))
}

func way(d vmbus.Direction) string {
	if d == vmbus.HostToGuest {
		return "host to guest"
	}
	return "guest to host"
}

// refuseType marks the message's type as what is wrong with it.
func (e *explainer) refuseType(at int, reason string) {
	e.problem(at, reason)
	fields := e.last().Fields
	fields[len(fields)-2].Bad = true
}

// body explains the fields of m as far as b has them.
func (e *explainer) body(at int, b []byte, m vmbus.Message) {
	next := vmbus.HeaderBytes
	end := min(len(b), vmbus.Size(m))
	s := sense{m: m, given: e.o.Negotiated.Version}
	for _, f := range vmbus.Fields(m) {
		if f.Offset <= end {
			e.padding(at+next, f.Offset-next)
		}
		if f.Offset+f.Bytes > end {
			break
		}
		next = f.Offset + f.Bytes
		if e.split(at, f, s) {
			continue
		}
		value, meaning := s.say(f)
		e.field(at+f.Offset, f.Bytes, f.Name, value, meaning)
	}
}

func (e *explainer) padding(at, n int) {
	e.field(at, n, "padding", "", unlessZero(e.in[at:at+n], "send 0; receivers ignore it"))
}

// tail explains what follows the form of m.
func (e *explainer) tail(at int, tail []byte, m vmbus.Message) {
	words := vmbus.Words(tail)
	rest := len(tail) - len(words)*wordBytes
	switch m := m.(type) {
	case *vmbus.GPADLHeader:
		want := int(m.RangeBufLen) / wordBytes
		if m.RangeCount == 0 {
			e.problem(at-2, "there are no ranges (vmbus-control.md 4.1)")
			fields := e.last().Fields
			fields[len(fields)-1].Bad = true
		}
		have := min(len(words), want)
		e.note("%d of %d words of the range buffer are here, %d are left for GPADLBody", have, want, want-have)
		e.ranges(at, words[:have], int(m.RangeCount), want-have)
		e.field(at+have*wordBytes, len(tail)-have*wordBytes, "tail", "", "ignored: more than range_buflen announces")
	case *vmbus.GPADLBody:
		e.note("each word is a PFN or begins a range: only the header and the bodies before tell which")
		for i, w := range words {
			e.field(at+i*wordBytes, wordBytes, fmt.Sprintf("word[%d]", i), hexOf(w), "")
		}
		e.field(at+len(words)*wordBytes, rest, "tail", "", "ignored: less than a word")
	default:
		e.field(at, len(tail), "tail", "", "ignored: a message may be longer than its form")
	}
}

// ranges explains range words at offset at: count ranges, -1 for as many as there
// are, and more words that are somewhere else.
func (e *explainer) ranges(at int, words []uint64, count, more int) {
	left := words
	offset := func() int { return at + (len(words)-len(left))*wordBytes }
	r := 0
	for ; len(left) > 0 && r != count; r++ {
		shape := rangeOf(left[0])
		pages, err := shape.Pages()
		if err != nil {
			e.problem(offset(), (&channel.RangeError{Range: r, Word: len(words) - len(left), Reason: err.Error()}).Error())
			e.bad(offset(), len(left)*wordBytes, fmt.Sprintf("range[%d]", r))
			return
		}
		e.field(offset(), wordBytes, fmt.Sprintf("range[%d]", r), hexOf(left[0]),
			fmt.Sprintf("%s from byte %#x of the first page: %s", amount(int(shape.ByteCount), "byte"), shape.ByteOffset, amount(pages, "page")))
		left = left[1:]
		here := min(pages, len(left))
		for i, w := range left[:here] {
			e.field(offset()+i*wordBytes, wordBytes, fmt.Sprintf("pfn[%d]", i), hexOf(w), pageMeaning(w))
		}
		left = left[here:]
		if here < pages && pages-here > more {
			e.problem(offset(), (&channel.RangeError{Range: r, Word: len(words), Reason: fmt.Sprintf("needs %d page numbers, %d are here", pages, here)}).Error())
			return
		}
	}
	if r < count && more == 0 {
		e.problem(offset(), (&channel.RangeError{Range: r, Word: len(words), Reason: fmt.Sprintf("the buffer ends, %d ranges were promised", count)}).Error())
	}
	e.field(offset(), len(left)*wordBytes, "surplus", "", "ignored: words beyond the last range")
}

// pageMeaning is the address of a page, which has 52 bits of frame number.
func pageMeaning(pfn uint64) string {
	if pfn>>52 != 0 {
		return "beyond every address"
	}
	return "GPA " + hexOf(pfn*vmbus.PageBytes)
}

// gpadl explains the input as a range list.
func (e *explainer) gpadl() {
	count := e.o.Ranges
	if count <= 0 {
		count = -1
	}
	e.part("vmbus-control.md 4.1", "GPADL range list, %d bytes", len(e.in))
	words := vmbus.Words(e.in)
	if len(words) == 0 {
		e.problem(0, "there are no ranges (vmbus-control.md 4.1)")
	}
	e.ranges(0, words, count, 0)
	if rest := len(e.in) % wordBytes; rest > 0 {
		e.problem(len(e.in)-rest, fmt.Sprintf("a range list is 8-byte words; the last has %d bytes", rest))
		e.bad(len(e.in)-rest, rest, "cut short")
	}
}
