package channel

import (
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
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
