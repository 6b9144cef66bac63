package fuzz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"

	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// Ranges parses the extension of a packet with ranges: a byte that chooses the
// kind, two numbers for the part to be cut out, the extension.
func Ranges(data []byte) error {
	in := &input{data}
	transfer, skip, n := in.u8()&1 != 0, uint64(in.u32()), uint64(in.u32())
	ext := in.left
	if transfer {
		return transferPages(ext)
	}
	ranges, err := ringbuffer.ParseGPADirect(ext)
	want, ok := exactGPARanges(ext)
	if ok != (err == nil) {
		return violated("I-GPADL-PFN", "%x: %v, the reference says %v", ext, err, ok)
	}
	if err != nil {
		return corruptOnly(err)
	}
	if len(ranges) != len(want) {
		return violated("I-GPADL-PFN", "%d ranges of %d", len(ranges), len(want))
	}
	own, err := ringbuffer.AppendGPADirect(nil, ranges)
	if err != nil || len(own) > len(ext) || !bytes.Equal(own[4:], ext[4:len(own)]) { // the first word is reserved
		return violated("encode of parse", "%x became %x: %v", ext, own, err)
	}
	return checkSegments(ranges, skip, n)
}

func corruptOnly(err error) error {
	var corrupt *ringbuffer.CorruptError
	if !errors.As(err, &corrupt) || !errors.Is(err, vmbus.ErrProtocol) {
		return violated("whose fault", "%v", err)
	}
	return nil
}

// exactGPARanges reads the extension of a GPA-direct packet in 64-bit
// arithmetic, which 32-bit numbers cannot overflow, and returns the pages of
// each range. A range may be empty here, unlike in a GPADL.
func exactGPARanges(ext []byte) (pages []uint64, ok bool) {
	le := binary.LittleEndian
	if len(ext) < 8 {
		return nil, false
	}
	count, at := uint64(le.Uint32(ext[4:])), uint64(8)
	have := uint64(len(ext))
	for range min(count, have) {
		if at+8 > have {
			return nil, false
		}
		bytes, offset := uint64(le.Uint32(ext[at:])), uint64(le.Uint32(ext[at+4:]))
		n := (bytes + offset + guestmem.PageSize - 1) / guestmem.PageSize
		if at += 8 + 8*n; offset >= guestmem.PageSize || at > have {
			return nil, false
		}
		pages = append(pages, n)
	}
	return pages, count > 0 && uint64(len(pages)) == count
}

// checkSegments: a part of the list is that part of its bytes, page by page.
func checkSegments(ranges []ringbuffer.GPARange, skip, n uint64) error {
	var all uint64
	for _, r := range ranges {
		all += uint64(r.ByteCount)
	}
	want := uint64(0)
	if skip < all {
		want = min(n, all-skip)
	}
	var got uint64
	for s := range ringbuffer.GPASegments(ranges, skip, n) {
		if s.Bytes == 0 || uint64(s.Offset)+uint64(s.Bytes) > guestmem.PageSize {
			return violated("I-GPADL-PFN", "a segment of %d bytes at %d", s.Bytes, s.Offset)
		}
		if pfn, offset := locate(ranges, skip+got); s.PFN != pfn || s.Offset != offset {
			return violated("RG-12", "byte %d is at %#x+%#x, not at %#x+%#x", skip+got, pfn, offset, s.PFN, s.Offset)
		}
		got += uint64(s.Bytes)
	}
	if got != want {
		return violated("I-LEN", "%d bytes from %d of %d are %d, not %d", n, skip, all, got, want)
	}
	return nil
}

// locate finds one byte of a range list by counting.
func locate(ranges []ringbuffer.GPARange, at uint64) (pfn uint64, offset uint32) {
	for _, r := range ranges {
		if at < uint64(r.ByteCount) {
			in := uint64(r.ByteOffset) + at
			return r.PFNs[in/guestmem.PageSize], uint32(in % guestmem.PageSize)
		}
		at -= uint64(r.ByteCount)
	}
	return 0, 0
}

func transferPages(ext []byte) error {
	set, err := ringbuffer.ParseTransferPages(ext)
	fits := len(ext) >= 8 && uint64(binary.LittleEndian.Uint32(ext[4:]))*8 <= uint64(len(ext)-8)
	if fits != (err == nil) {
		return violated("I-LEN", "%x: %v", ext, err)
	}
	if err != nil {
		return corruptOnly(err)
	}
	own := ringbuffer.AppendTransferPages(nil, set)
	if len(own) > len(ext) || !bytes.Equal(own[:3], ext[:3]) || !bytes.Equal(own[4:], ext[4:len(own)]) { // the fourth byte is reserved
		return violated("encode of parse", "%x became %x", ext, own)
	}
	return nil
}

func rangeSeeds(fs.FS) ([][]byte, error) {
	var seeds [][]byte
	add := func(kind byte, skip, n uint32, ext []byte) {
		seeds = append(seeds, seed{kind}.u32(skip).u32(n).bytes(ext))
	}
	for _, line := range FaultLines("ring") {
		b := line.Parts[0]
		switch offset := 8 * int(binary.LittleEndian.Uint16(b[2:])); ringbuffer.PacketType(binary.LittleEndian.Uint16(b)) {
		case ringbuffer.GPADirect:
			add(0, 0, 100, b[16:max(offset, 16)])
		case ringbuffer.TransferPages:
			add(1, 0, 100, b[16:max(offset, 16)])
		}
	}
	list := []ringbuffer.GPARange{
		{ByteCount: 100, ByteOffset: 4000, PFNs: []uint64{7, 8}}, {ByteCount: 4096, PFNs: []uint64{9}},
		{ByteCount: 0, ByteOffset: 1, PFNs: []uint64{1}}, {ByteCount: 4098, ByteOffset: 4095, PFNs: []uint64{3, 2, 1}},
	}
	ext, err := ringbuffer.AppendGPADirect(nil, list)
	for _, part := range [][2]uint32{{0, 8293}, {96, 1}, {100, 4096}, {4196, 5}, {9000, 1}} {
		add(0, part[0], part[1], ext)
	}
	add(1, 0, 0, ringbuffer.AppendTransferPages(nil, ringbuffer.TransferPageSet{Set: 0xCAFE, TransferRanges: []ringbuffer.TransferRange{{ByteCount: 9, ByteOffset: 8}}}))
	return seeds, err
}
