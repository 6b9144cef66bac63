package vmbus_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/hvlab/hvlab/vmbus"
)

// faultSeeds are the control messages of the fault catalogue that are one
// message each, S01..S17; what a sequence of them means is tested further up.
// "..." stands for zero bytes up to a full slot.
var faultSeeds = []string{
	// S01: VersionResponse from a guest
	"0f000000 00000000 01000000 03000500",
	// S01: every other host message, zero-filled
	"01000000 00000000...", "02000000 00000000...", "04000000 00000000...", "06000000 00000000...", "0a000000 00000000...",
	"0c000000 00000000...", "11000000 00000000...", "14000000 00000000...", "17000000 00000000...", "18000000 00000000...",
	"1a000000 00000000...", "1c000000 00000000...",
	// S02: two ranges promised, one sent
	"08000000 00000000 01000000 01000000 20000200 00100000 00000000 00010000 00000000",
	// S03: byte offset 0x1000
	"08000000 00000000 01000000 01000000 18000100 01000000 00100000 00010000 00000000 01010000 00000000",
	// S03: byte offset 0xffffffff
	"08000000 00000000 01000000 01000000 10000100 01000000 ffffffff 00010000 00000000",
	// S04: no words, no ranges
	"08000000 00000000 01000000 01000000 00000000",
	// S04: no words, one range
	"08000000 00000000 01000000 01000000 00000100",
	// S04: words nobody announced
	"08000000 00000000 01000000 01000000 00000100 00100000 00000000 00010000 00000000",
	// S04: 7 bytes of words
	"08000000 00000000 01000000 01000000 07000100 00100000 00000000",
	// S04: count + offset overflows
	"08000000 00000000 01000000 01000000 08000100 ffffffff ff0f0000",
	// S04: two PFNs needed, one there
	"08000000 00000000 01000000 01000000 10000100 00200000 00000000 00010000 00000000",
	// S04: 65,535 ranges in one word
	"08000000 00000000 01000000 01000000 0800ffff 00000000 00000000",
	// S04: PFN 2^64-1
	"08000000 00000000 01000000 01000000 10000100 00100000 00000000 ffffffff ffffffff",
	// S04: the largest GPADL
	"08000000 00000000 01000000 01000000 ffff0100 00e0ff01 00000000...",
	// S05: id never announced
	"09000000 00000000 00000000 77000000 00010000 00000000",
	// S05: 28 words
	"09000000 00000000 00000000 01000000 01010000 00000000...",
	// S06: id in progress, other channel
	"08000000 00000000 02000000 01000000 20000200 00100000 00000000 00020000 00000000",
	// S07: teardown, close, released
	"0b000000 00000000 01000000 01000000", "07000000 00000000 01000000", "0d000000 00000000 01000000",
	// S08: good GPADL
	"08000000 00000000 01000000 e2000000 28000100 00400000 00000000 00010000 00000000 01010000 00000000 02010000 00000000 03010000 00000000",
	// S08: good open
	"05000000 00000000 01000000 01000000 e2000000 00000000 02000000...",
	// S08: bad VP, bad offset
	"05000000 00000000 01000000 01000000 e2000000 ffffff7f ffffffff...",
	// S09: version 0
	"0e000000 00000000 00000000 00000000 02000000 00000000 00000000 00000000 00000000 00000000",
	// S09: version 0xffffffff
	"0e000000 00000000 ffffffff 00000000 02000000 00000000 00000000 00000000 00000000 00000000",
	// S09: client id missing
	"0e000000 00000000 00000600 00000000 02000000 ffffffff 00000000 00000000 00000000 00000000",
	// S09: one monitor page
	"0e000000 00000000 03000500 00000000 02000000 00000000 00402301 00000000 00000000 00000000",
	// S09: SINT 7
	"0e000000 00000000 03000500 00000000 07000000 00000000 00000000 00000000 00000000 00000000",
	// S10: unknown types, cut headers
	"00000000 00000000", "1e000000 00000000", "ffffffff 00000000", "", "05", "05000000 000000",
	// S11: dial
	"15000000 00000000 913a7d00 cbfae611 bd586400 6a7986d3 88130000 cbfae611 bd586400 6a7986d3",
	// S11: part of a silo
	"15000000 00000000 913a7d00 cbfae611 bd586400 6a7986d3 88130000 cbfae611 bd586400 6a7986d3 000000",
	// S11: silo form
	"15000000 00000000 913a7d00 cbfae611 bd586400 6a7986d3 88130000 cbfae611 bd586400 6a7986d3...",
	// S12: modify to a bad VP
	"16000000 00000000 01000000 ffffffff", "16000000 00000000 01000000 ffffff7f",
	// S12: modify with one page
	"19000000 00000000 00402301 00000000 00000000 00000000",
	// S12: pause, resume
	"1b000000 00000000", "1d000000 00000000",
	// S13: rescind
	"02000000 00000000 01000000", "02000000 00000000 63000000",
	// S15: refused
	"17000000 00000000 913a7d00 cbfae611 bd586400 6a7986d3 88130000 cbfae611 bd586400 6a7986d3 360200c0",
	// S15: status 0
	"17000000 00000000 913a7d00 cbfae611 bd586400 6a7986d3 88130000 cbfae611 bd586400 6a7986d3 00000000",
	// S15: strange endpoint
	"17000000 00000000 efbeadde cbfae611 bd586400 6a7986d3 88130000 cbfae611 bd586400 6a7986d3 360200c0",
	// S16: created, torn down, opened, modified: never asked for
	"0a000000 00000000 01000000 99000000 00000000", "0c000000 00000000 99000000",
	"06000000 00000000 63000000 63000000 00000000", "18000000 00000000 63000000 00000000",
	// S17: features, no features
	"0f000000 00000000 01000000 01000000 ffffffff", "0f000000 00000000 01000000 01000000",
}

func FuzzParse(f *testing.F) {
	add := func(b []byte) {
		for _, n := range []vmbus.Negotiated{{}, at(vmbus.Iron, 0), all} {
			f.Add(uint32(n.Version), uint32(n.Features), b)
		}
	}
	for _, v := range vectors(f) {
		b := v.bytes(f)
		f.Add(uint32(v.negotiated(f).Version), uint32(v.negotiated(f).Features), b)
		if v.Name == "offer_channel_hvsock_host_to_guest" { // S14: other ids
			for _, id := range []uint32{0, 0x800, 0xFFFFFFFF} {
				b := bytes.Clone(b)
				binary.LittleEndian.PutUint32(b[184:], id)
				add(b)
			}
		}
	}
	for _, seed := range faultSeeds {
		text, open := strings.CutSuffix(seed, "...")
		b := fromHex(f, text)
		if open {
			b = append(b, make([]byte, vmbus.MaxPayloadBytes-len(b))...)
		}
		add(b)
	}
	f.Fuzz(func(t *testing.T, version, features uint32, b []byte) {
		n := vmbus.Negotiated{Version: vmbus.Version(version), Features: vmbus.Features(features)}
		checkDirections(t, b, n)
		m, tail, err := vmbus.Parse(b, n)
		if err != nil {
			if !errors.Is(err, vmbus.ErrProtocol) || m != nil || tail != nil || err.Error() == "" {
				t.Fatalf("a rejected message is the peer's fault and nothing else: %v %v %v", m, tail, err)
			}
			return
		}
		own := append(vmbus.Append(nil, m), tail...)
		if want := canonical(b, m); !bytes.Equal(own, want) {
			t.Fatalf("%T loses bytes:\n%x\n%x", m, want, own)
		}
		again, _, err := vmbus.Parse(own, n)
		if err != nil || !bytes.Equal(own, append(vmbus.Append(nil, again), tail...)) {
			t.Fatalf("%T does not survive its own encoding: %v", m, err)
		}
		if words := vmbus.Words(tail); len(words) != len(tail)/8 {
			t.Fatalf("%d words in %d bytes", len(words), len(tail))
		}
		for _, f := range vmbus.Fields(m) {
			_ = f.String() // must not panic
		}
	})
}

// canonical is b with everything zero that Parse ignores: the reserved word of
// the header, and padding. All else must come back.
func canonical(b []byte, m vmbus.Message) []byte {
	b = bytes.Clone(b)
	clear(b[4:8])
	switch m.(type) {
	case *vmbus.VersionResponse3:
		clear(b[20:24])
		clear(b[10:12])
	case *vmbus.VersionResponse, *vmbus.VersionResponse2:
		clear(b[10:12])
	}
	return b
}

// checkDirections: from one side ParseFrom is Parse, from the other an error.
func checkDirections(t *testing.T, b []byte, n vmbus.Negotiated) {
	t.Helper()
	_, _, want := vmbus.Parse(b, n)
	accepted := 0
	for _, from := range []vmbus.Direction{vmbus.GuestToHost, vmbus.HostToGuest} {
		m, _, err := vmbus.ParseFrom(from, b, n)
		switch {
		case err == nil:
			accepted++
			if m.Type().Direction() != from {
				t.Fatalf("%T was taken from the wrong side", m)
			}
		case !errors.Is(err, vmbus.ErrProtocol):
			t.Fatalf("%v is nobody's fault", err)
		}
	}
	if (accepted == 1) != (want == nil) || accepted > 1 {
		t.Fatalf("Parse says %v, %d of 2 directions accept", want, accepted)
	}
}
