package channel

import (
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/hvlab/hvlab/internal/fixedseed" // the same draws in every run
	"github.com/hvlab/hvlab/internal/golden"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func pages(first uint64, n int) []uint64 {
	list := make([]uint64, n)
	for i := range list {
		list[i] = first + uint64(i)
	}
	return list
}

// vmbus-control.md 4.2: 1 message up to 26 pages, then 28 pages per body.
func TestAnnounceMessageCounts(t *testing.T) {
	for _, c := range []struct{ pages, messages int }{
		{1, 1}, {11, 1}, {26, 1}, {27, 2}, {54, 2}, {55, 3}, {MaxGPADLPages, 293},
	} {
		list, err := Announce(1, 2, Range{ByteCount: uint32(c.pages) * 4096, PFNs: pages(1, c.pages)})
		require.NoError(t, err)
		require.Len(t, list, c.messages, "%d pages", c.pages)
		for _, a := range list {
			require.LessOrEqual(t, vmbus.Size(a.Message)+8*len(a.Words), vmbus.MaxPayloadBytes)
		}
	}
	_, err := Announce(1, 2, Range{ByteCount: 4096, PFNs: pages(1, MaxGPADLPages+1)})
	require.ErrorIs(t, err, vmbus.ErrState, "Linux would truncate; we refuse before sending")
}

// The 40-page vectors are what Announce produces, byte for byte.
func TestAnnounceVectors(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(golden.Root(t), "testdata", "vectors-control.json"))
	require.NoError(t, err)
	var vectors []struct{ Name, Hex string }
	require.NoError(t, json.Unmarshal(raw, &vectors))
	want := map[string]string{}
	for _, v := range vectors {
		want[v.Name] = v.Hex
	}
	list, err := Announce(1, 0xE1E12, Range{ByteCount: 40 * 4096, PFNs: pages(0x20000, 40)})
	require.NoError(t, err)
	require.Len(t, list, 2)
	for i, name := range []string{"gpadl_header_40_pages", "gpadl_body_40_pages"} {
		got := vmbus.AppendWords(vmbus.Append(nil, list[i].Message), list[i].Words)
		require.Equal(t, want[name], hexOf(got), name)
	}
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	var s []byte
	for _, c := range b {
		s = append(s, digits[c>>4], digits[c&15])
	}
	return string(s)
}

// Whatever is announced comes back, in whatever pieces it arrives.
func TestAssemblyRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var ranges []Range
		for range rapid.IntRange(1, 4).Draw(t, "ranges") {
			offset := rapid.Uint32Range(0, 4095).Draw(t, "offset")
			count := rapid.Uint32Range(1, 300_000).Draw(t, "count")
			n := int((uint64(offset) + uint64(count) + 4095) / 4096)
			ranges = append(ranges, Range{count, offset, pages(rapid.Uint64Range(0, 1<<40).Draw(t, "pfn"), n)})
		}
		words := AppendRanges(nil, ranges...)
		var table GPADLTable
		cut := rapid.IntRange(0, len(words)).Draw(t, "words in the header")
		g, err := table.Begin(vmbus.GPADLHeader{Channel: 1, GPADL: 7, RangeBufLen: uint16(8 * len(words)), RangeCount: uint16(len(ranges))}, words[:cut])
		require.NoError(t, err)
		for rest := words[cut:]; len(rest) > 0; {
			require.False(t, g.Complete(), "words are missing")
			n := rapid.IntRange(1, len(rest)).Draw(t, "words in a body")
			_, err = table.Continue(vmbus.GPADLBody{GPADL: 7}, rest[:n])
			require.NoError(t, err)
			rest = rest[n:]
		}
		require.True(t, g.Complete())
		require.Equal(t, ranges, g.Ranges)
		require.NoError(t, table.Move(g, Completes))
		require.NoError(t, table.Move(g, DeviceAccepts))
		require.NoError(t, table.Move(g, GuestTearsDown))
		require.NoError(t, table.Move(g, DeviceLetsGo))
		require.Zero(t, table.Len(), "nothing is left")
	})
}

// I-GPADL-PFN: the page count agrees with arbitrary-precision arithmetic.
func TestRangePages(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Range{ByteCount: rapid.Uint32().Draw(t, "count"), ByteOffset: rapid.Uint32().Draw(t, "offset")}
		got, err := r.Pages()
		sum := new(big.Int).Add(big.NewInt(int64(r.ByteCount)), big.NewInt(int64(r.ByteOffset)))
		sum.Add(sum, big.NewInt(4095))
		legal := r.ByteCount != 0 && r.ByteOffset <= 0xFFF && sum.BitLen() <= 32
		require.Equal(t, legal, err == nil)
		if legal {
			require.Equal(t, sum.Div(sum, big.NewInt(4096)).Int64(), int64(got))
		}
	})
}

func header(ch vmbus.ChannelID, id vmbus.GPADLID) vmbus.GPADLHeader {
	return vmbus.GPADLHeader{Channel: ch, GPADL: id, RangeBufLen: 32, RangeCount: 1}
}

// vmbus-control.md 4.2: ids in progress are unique over the connection, complete
// ones per channel.
func TestGPADLIDScope(t *testing.T) {
	var table GPADLTable
	_, err := table.Begin(header(1, 5), nil)
	require.NoError(t, err)
	_, err = table.Begin(header(2, 5), nil)
	require.ErrorIs(t, err, vmbus.ErrProtocol, "bodies carry no channel id")
	_, err = table.Continue(vmbus.GPADLBody{GPADL: 5}, []uint64{3 * 4096, 1, 2, 3})
	require.NoError(t, err)
	_, err = table.Begin(header(2, 5), nil)
	require.NoError(t, err, "the first one is complete")
	_, err = table.Begin(header(1, 5), nil)
	require.ErrorIs(t, err, vmbus.ErrProtocol, "a duplicate on the same channel")
	_, err = table.Continue(vmbus.GPADLBody{GPADL: 6}, nil)
	require.ErrorIs(t, err, vmbus.ErrProtocol, "S05: nobody announced 6")
	require.NotNil(t, table.Lookup(1, 5))
	require.Len(t, table.OfChannel(2), 1)
}

// faults.md 5: at the limit, and one above.
func TestGPADLLimits(t *testing.T) {
	var table GPADLTable
	for i := range vmbus.GPADLID(MaxIncompleteGPADLs) {
		_, err := table.Begin(header(1, i), nil)
		require.NoError(t, err)
	}
	_, err := table.Begin(header(1, 9999), nil)
	require.ErrorIs(t, err, vmbus.ErrProtocol, "one incomplete GPADL too many")

	table = GPADLTable{}
	onePage := []uint64{4096, 1}
	for i := range vmbus.GPADLID(MaxGPADLs) {
		_, err := table.Begin(vmbus.GPADLHeader{Channel: 1, GPADL: i, RangeBufLen: 16, RangeCount: 1}, onePage)
		require.NoError(t, err)
	}
	_, err = table.Begin(vmbus.GPADLHeader{Channel: 1, GPADL: 9999, RangeBufLen: 16, RangeCount: 1}, onePage)
	require.ErrorIs(t, err, vmbus.ErrProtocol, "one complete GPADL too many")
	require.Equal(t, MaxGPADLs, table.Len())
}

// The memory a guest may share is bounded: the last GPADL over the limit is
// refused and leaves the count as it was.
func TestSharedMemoryLimit(t *testing.T) {
	var table GPADLTable
	words := AppendRanges(nil, Range{ByteCount: 8000 * 4096, PFNs: pages(1, 8000)})
	h := vmbus.GPADLHeader{Channel: 1, RangeBufLen: uint16(8 * len(words)), RangeCount: 1}
	fits := MaxSharedBytes / (8000 * 4096)
	for range fits {
		h.GPADL++
		_, err := table.Begin(h, words)
		require.NoError(t, err)
	}
	h.GPADL++
	_, err := table.Begin(h, words)
	require.ErrorIs(t, err, vmbus.ErrProtocol)
	require.Equal(t, fits, table.Len())
}

// ringbuffer.md 11: what a ring GPADL must look like.
func TestSplitRings(t *testing.T) {
	good := Range{ByteCount: 7 * 4096, PFNs: pages(10, 7)}
	toHost, toGuest, err := SplitRings([]Range{good}, 3)
	require.NoError(t, err)
	require.Equal(t, pages(10, 3), toHost, "the guest-to-host ring comes first")
	require.Equal(t, pages(13, 4), toGuest)
	for name, c := range map[string]struct {
		ranges []Range
		offset uint32
	}{
		"no range":               {nil, 3},
		"two ranges":             {[]Range{good, good}, 3},
		"offset in page":         {[]Range{{ByteCount: 4096, ByteOffset: 8, PFNs: pages(1, 2)}}, 1},
		"half a page":            {[]Range{{ByteCount: 2048, PFNs: pages(1, 1)}}, 1},
		"no guest-to-host ring":  {[]Range{good}, 0},
		"control page only":      {[]Range{good}, 1},
		"host ring control only": {[]Range{good}, 6},
		"at the end":             {[]Range{good}, 7},
		"past the end":           {[]Range{good}, 8},
		"far past the end":       {[]Range{good}, 0xFFFFFFFF},
	} {
		_, _, err := SplitRings(c.ranges, c.offset)
		require.ErrorIs(t, err, vmbus.ErrProtocol, name)
	}
}

// faults.md 5: page lists take at most 64 MiB of the host, parsed ranges included;
// the GPADL that would take more is refused, and leaves room for others.
func TestPageListLimit(t *testing.T) {
	var table GPADLTable
	onePage := AppendRanges(nil, Range{ByteCount: 1, PFNs: []uint64{1}})
	var words []uint64
	for range MaxRangeBufferBytes / 16 {
		words = append(words, onePage...)
	}
	h := vmbus.GPADLHeader{Channel: 1, RangeBufLen: uint16(8 * len(words)), RangeCount: uint16(len(words) / 2)}
	each := len(words) + len(words)/2*rangeWords
	for range MaxGPADLWords / each {
		h.GPADL++
		_, err := table.Begin(h, words)
		require.NoError(t, err)
	}
	h.GPADL++
	g, err := table.Begin(h, words)
	require.ErrorIs(t, err, vmbus.ErrProtocol)
	require.ErrorContains(t, err, "take too much memory")
	require.Nil(t, table.Lookup(1, h.GPADL), "%v is gone", g)
	_, err = table.Begin(vmbus.GPADLHeader{Channel: 1, GPADL: h.GPADL, RangeBufLen: 16, RangeCount: 1}, onePage)
	require.NoError(t, err, "a small one still fits")

	for left := MaxGPADLWords - table.words; left > 0; left = MaxGPADLWords - table.words { // incomplete: words that nobody has parsed
		h.GPADL++
		n := min(left, MaxRangeBufferBytes/8-1)
		_, err = table.Begin(vmbus.GPADLHeader{Channel: 2, GPADL: h.GPADL, RangeBufLen: uint16(8 * (n + 1)), RangeCount: 1}, make([]uint64, n))
		require.NoError(t, err)
	}
	_, err = table.Continue(vmbus.GPADLBody{GPADL: h.GPADL}, []uint64{1})
	require.ErrorContains(t, err, "take too much memory", "not one word more")
}

// The table answers by channel in the order of ids, and for all channels at once.
func TestGPADLLookups(t *testing.T) {
	var table GPADLTable
	require.Empty(t, table.OfChannel(1))
	require.False(t, table.InUse(5))
	var all []*GPADL
	for _, id := range []vmbus.GPADLID{5, 3, 4} {
		g, err := table.Begin(header(1, id), nil)
		require.NoError(t, err)
		require.Equal(t, InProgress, g.State())
		all = append(all, g)
	}
	require.Equal(t, []*GPADL{all[1], all[2], all[0]}, table.OfChannel(1))
	require.True(t, table.InUse(5))
	require.ErrorIs(t, table.Move(all[0], DeviceAccepts), vmbus.ErrState, "no device was asked")
	require.Equal(t, InProgress, all[0].State(), "an illegal event changes nothing")
}

// vmbus-control.md 4.1: what makes a creation fail, each with the place and the
// reason; words beyond the last range are ignored.
func TestParseRangesRefusals(t *testing.T) {
	for _, c := range []struct {
		words  []uint64
		count  int
		reason string
	}{
		{nil, 0, "range 0 at word 0: there are no ranges"},
		{[]uint64{4096, 1}, 2, "range 1 at word 2: the buffer ends, 2 ranges were promised"},
		{[]uint64{8192, 1}, 1, "range 0 at word 0: needs 2 page numbers, 1 words are left"},
		{[]uint64{4096, 1, 0, 2}, 2, "range 1 at word 2: byte count is 0"},
		{[]uint64{0x1000<<32 | 1, 1}, 1, "range 0 at word 0: byte offset 0x1000 is above 0xfff"},
		{[]uint64{1<<32 - 1, 1}, 1, "range 0 at word 0: 0xffffffff bytes at offset 0x0 overflow 32 bits"},
	} {
		_, err := ParseRanges(c.words, c.count)
		require.EqualError(t, err, "channel: GPADL "+c.reason)
		require.ErrorIs(t, err, vmbus.ErrProtocol)
	}
	ranges, err := ParseRanges([]uint64{4096, 1, 99}, 1)
	require.NoError(t, err)
	require.Equal(t, []Range{{ByteCount: 4096, PFNs: []uint64{1}}}, ranges)
}

// A body names no channel, so neither does the error about one that nobody waits
// for; any other error names it.
func TestGPADLErrorText(t *testing.T) {
	var table GPADLTable
	_, err := table.Continue(vmbus.GPADLBody{GPADL: 6}, nil)
	require.EqualError(t, err, "channel: GPADL 0x6: a body arrived for an id that is not in progress")
	_, err = table.Begin(header(3, 6), nil)
	require.NoError(t, err)
	_, err = table.Begin(header(3, 6), nil)
	require.EqualError(t, err, "channel: GPADL 0x6 of channel 3: the id is in use on this channel")
	_, err = Announce(1, 2, Range{ByteCount: 4096, PFNs: pages(1, MaxGPADLPages+1)})
	require.EqualError(t, err, "channel: a GPADL of 65536 range buffer bytes does not fit, the limit is 65535")
}

// Every state and event of the tables has a name of its own, which traces and
// diagrams print.
func TestTableNames(t *testing.T) {
	names := func(table string, list ...string) {
		seen := map[string]bool{}
		for _, n := range list {
			require.NotEmpty(t, n, table)
			require.False(t, seen[n], "%s: %s", table, n)
			seen[n] = true
		}
	}
	names("open states", text(OpenTransitions.States)...)
	names("open events", text(OpenTransitions.Events)...)
	names("GPADL states", text(GPADLTransitions.States)...)
	names("GPADL events", text(GPADLTransitions.Events)...)
	names("guest states", text(GuestTransitions.States)...)
	names("guest events", text(GuestTransitions.Events)...)
	for _, s := range OpenTransitions.States {
		require.Equal(t, strings.HasSuffix(s.String(), "Reserved"), s.Reserved(), "%v", s)
	}
}

func text[T fmt.Stringer](list []T) (names []string) {
	for _, s := range list {
		names = append(names, s.String())
	}
	return names
}
