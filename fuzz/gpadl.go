package fuzz

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"slices"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/vmbus"
)

// exactRanges reads a range buffer as vmbus-control.md 4.1 defines it, with no
// sum that could overflow: lengths have 32 bits, the arithmetic 64. It returns
// one {first word, page numbers} per range, or false.
func exactRanges(words []uint64, count int) (spans [][2]int, ok bool) {
	at := 0
	for range count {
		if at >= len(words) {
			return nil, false
		}
		bytes, offset := words[at]&0xFFFFFFFF, words[at]>>32
		pages := (bytes + offset + vmbus.PageBytes - 1) / vmbus.PageBytes
		// The host also refuses what 32-bit arithmetic, as others use it, gets wrong.
		if bytes == 0 || offset >= vmbus.PageBytes || bytes+offset+vmbus.PageBytes-1 > 0xFFFFFFFF || pages > uint64(len(words)-at-1) {
			return nil, false
		}
		spans = append(spans, [2]int{at + 1, at + 1 + int(pages)})
		at += 1 + int(pages)
	}
	return spans, count > 0
}

// GPADLs announces one range buffer in one piece and in pieces: two bytes with
// the number of ranges, two with the page where the second ring starts, a byte
// with the number of pieces and their lengths, and the words.
func GPADLs(data []byte) error {
	in := &input{data}
	count, hostOffset := int(in.u16()), uint32(in.u16())
	cuts := in.block()
	words := vmbus.Words(in.left)[:min(len(in.left)/8, channel.MaxRangeBufferBytes/8)]
	ranges, err := channel.ParseRanges(words, count)
	if err := checkRanges(words, count, ranges, err); err != nil {
		return err
	}
	var table channel.GPADLTable
	g, beginErr := announce(&table, words, count, cuts)
	if (beginErr == nil) != (err == nil) && len(words) > 0 {
		return violated("pieces as one", "in one piece: %v; in pieces: %v", err, beginErr)
	}
	if beginErr != nil {
		if !errors.Is(beginErr, vmbus.ErrProtocol) || table.Len() != 0 {
			return violated("I-NO-LEAK", "%d GPADLs after %v", table.Len(), beginErr)
		}
		return nil
	}
	if !g.Complete() || !slices.EqualFunc(g.Ranges, ranges, equalRange) {
		return violated("pieces as one", "%v\n%v", g.Ranges, ranges)
	}
	if err := checkSplit(ranges, hostOffset); err != nil {
		return err
	}
	return checkLife(&table, g)
}

func equalRange(a, b channel.Range) bool {
	return a.ByteCount == b.ByteCount && a.ByteOffset == b.ByteOffset && slices.Equal(a.PFNs, b.PFNs)
}

// checkRanges compares with the reference, and encodes again (I-GPADL-PFN).
func checkRanges(words []uint64, count int, ranges []channel.Range, err error) error {
	spans, ok := exactRanges(words, count)
	if ok != (err == nil) {
		return violated("I-GPADL-PFN", "%d ranges in %x: %v, the reference says %v", count, words, err, ok)
	}
	if err != nil {
		if !errors.Is(err, vmbus.ErrProtocol) {
			return violated("whose fault", "%v", err)
		}
		return nil
	}
	used := 0
	for i, r := range ranges {
		if !slices.Equal(r.PFNs, words[spans[i][0]:spans[i][1]]) {
			return violated("I-GPADL-PFN", "range %d has the pages %x of %x", i, r.PFNs, words)
		}
		used = spans[i][1]
	}
	if own := channel.AppendRanges(nil, ranges...); !slices.Equal(own, words[:used]) {
		return violated("encode of parse", "%x became %x", words[:used], own)
	}
	return nil
}

// announce hands the words to the table, a header and bodies cut as told; each
// piece is longer than what is promised by some words that are to be ignored.
func announce(table *channel.GPADLTable, words []uint64, count int, cuts []byte) (*channel.GPADL, error) {
	piece := func() []uint64 {
		n := len(words)
		if len(cuts) > 0 {
			n = min(n, int(cuts[0]))
			cuts = cuts[1:]
		}
		p := words[:n]
		if words = words[n:]; len(words) == 0 {
			p = append(slices.Clone(p), 0xBAD, 0xBAD) // behind the last there may be anything
		}
		return p
	}
	g, err := table.Begin(vmbus.GPADLHeader{Channel: 1, GPADL: 9, RangeBufLen: uint16(len(words) * 8), RangeCount: uint16(count)}, piece())
	for err == nil && len(words) > 0 {
		g, err = table.Continue(vmbus.GPADLBody{GPADL: 9}, piece())
	}
	return g, err
}

// checkSplit: the two rings are all pages of the one range, in their order.
func checkSplit(ranges []channel.Range, hostOffset uint32) error {
	toHost, toGuest, err := channel.SplitRings(ranges, hostOffset)
	if err != nil {
		if !errors.Is(err, vmbus.ErrProtocol) {
			return violated("whose fault", "SplitRings: %v", err)
		}
		return nil
	}
	if len(toHost) < channel.MinRingPages || len(toGuest) < channel.MinRingPages || len(toHost) != int(hostOffset) ||
		!slices.Equal(append(slices.Clone(toHost), toGuest...), ranges[0].PFNs) {
		return violated("I-GPADL-PFN", "rings %x and %x of %x at %d", toHost, toGuest, ranges, hostOffset)
	}
	return nil
}

// checkLife saves and loads the table, and tears the GPADL down.
func checkLife(table *channel.GPADLTable, g *channel.GPADL) error {
	if err := table.Move(g, channel.Completes); err != nil {
		return violated("I-STATE-LEGAL", "%v", err)
	}
	saved, _ := table.Save()
	var loaded channel.GPADLTable
	list, err := loaded.Load(saved)
	if err != nil || len(list) != 1 || !slices.EqualFunc(list[0].Ranges, g.Ranges, equalRange) {
		return violated("I-SAVE-ID", "%v comes back as %v: %v", g.Ranges, list, err)
	}
	for _, on := range []channel.GPADLEvent{channel.DeviceAccepts, channel.GuestTearsDown, channel.DeviceLetsGo} {
		if err := loaded.Move(list[0], on); err != nil {
			return violated("I-STATE-LEGAL", "%v: %v", on, err)
		}
	}
	if loaded.Len() != 0 || loaded.InUse(9) {
		return violated("I-NO-LEAK", "%d GPADLs after the teardown", loaded.Len())
	}
	return nil
}

func gpadlSeeds(vectors fs.FS) ([][]byte, error) {
	var seeds [][]byte
	add := func(count, offset uint16, cuts []byte, words []byte) {
		seeds = append(seeds, seed{}.u16(count).u16(offset).block(cuts).bytes(words))
	}
	add(1, 5, []byte{26}, vmbus.AppendWords(nil, channel.AppendRanges(nil, channel.Range{ByteCount: 40 * 4096, PFNs: make([]uint64, 40)})))
	add(3, 2, []byte{1, 0, 2}, vmbus.AppendWords(nil, channel.AppendRanges(nil,
		channel.Range{ByteCount: 1, ByteOffset: 4095, PFNs: []uint64{1}}, channel.Range{ByteCount: 2, ByteOffset: 4095, PFNs: []uint64{1, 2}},
		channel.Range{ByteCount: 8192, PFNs: []uint64{3, 4}})))
	fromMessage := func(b []byte) {
		const head = 20 // of a GPADLHeader, before the words
		if len(b) >= head && b[0] == byte(vmbus.TypeGPADLHeader) {
			add(binary.LittleEndian.Uint16(b[18:]), 2, nil, b[head:])
		}
	}
	for _, line := range FaultLines("host") {
		for _, b := range line.Parts {
			fromMessage(b)
		}
	}
	recorded, err := recordedMessages(vectors)
	for _, m := range recorded {
		fromMessage(m.bytes)
	}
	return seeds, err
}
