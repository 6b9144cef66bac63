package synic_test

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// unhex decodes a dump of bytes and pads it with zeros to n bytes.
func unhex(t testing.TB, n int, dump string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(dump), ""))
	require.NoError(t, err)
	require.LessOrEqual(t, len(b), n)
	return append(b, make([]byte, n-len(b))...)
}

// The payloads of the examples in vmbus-control.md 11.3.
func initiateContact53(t testing.TB) []byte {
	return unhex(t, 40, `0e000000 00000000 03000500 00000000 02000000 00000000
		00402301 00000000 00502301 00000000`)
}

func versionResponse53OK(t testing.TB) []byte {
	return unhex(t, 16, `0f000000 00000000 01000000 01000000`)
}

// 11.3: the HvCallPostMessage block that carries initiate_contact_5_3.
func TestPostBlockBytes(t *testing.T) {
	want := unhex(t, 256, `
		04 00 00 00 00 00 00 00  01 00 00 00 28 00 00 00  0e 00 00 00 00 00 00 00  03 00 05 00 00 00 00 00
		02 00 00 00 00 00 00 00  00 40 23 01 00 00 00 00  00 50 23 01 00 00 00 00`)
	require.Equal(t, want, synic.AppendPostMessage(nil, 4, initiateContact53(t)))

	dirty := bytes.Repeat([]byte{0xEE}, 600)[:3]
	require.Equal(t, want, synic.AppendPostMessage(dirty, 4, initiateContact53(t))[3:],
		"nothing of the buffer's old content may leave (GC-07)")

	m, status := synic.ParsePostMessage(want)
	require.Equal(t, synic.StatusSuccess, status)
	require.Equal(t, synic.Post{Connection: 4, Type: synic.MessageTypeVMBus, Payload: initiateContact53(t)}, m)
}

// 11.3: SIM slot 2 with version_response_5_3_ok, whatever the slot held before.
func TestSlotBytes(t *testing.T) {
	want := unhex(t, 256, `
		01 00 00 00 10 00 00 00  00 00 00 00 00 00 00 00  0f 00 00 00 00 00 00 00  01 00 00 00 01 00 00 00`)
	g := newGuest(t, 1)
	page := g.messages[0].Bytes()
	slot := page[2*256 : 3*256]
	for i := range page {
		page[i] = 0xEE
	}
	copy(slot, make([]byte, 4)) // an empty slot, whose other bytes do not matter

	require.NoError(t, g.p.Post(vmbusTarget, versionResponse53OK(t)))
	require.Equal(t, want, slot, "padding, reserved bytes and tail are zero (GC-07)")
	require.Equal(t, bytes.Repeat([]byte{0xEE}, 2*256), page[:2*256], "slots 0 and 1 are others'")
	require.Equal(t, bytes.Repeat([]byte{0xEE}, 13*256), page[3*256:], "and so are slots 3 to 15")
}

func TestReadSlot(t *testing.T) {
	full := bytes.Repeat([]byte{0xAB}, synic.MaxPayloadBytes)
	for _, tc := range []struct {
		name        string
		header      string
		wantType    uint32
		wantSender  uint64
		wantPayload []byte
	}{
		{"a VMBus message", "01000000 03 00 0000 0000000000000000", 1, 0, full[:3]},
		{"an empty payload", "01000000 00 00 0000 0000000000000000", 1, 0, []byte{}},
		{"the longest payload", "01000000 f0 01 0000 0000000000000000", 1, 0, full},
		{"a sender and reserved bits", "01000000 08 ff ffff 0102030405060708", 1, 0x0807060504030201, full[:8]},
		{"a timer", "10000080 18 00 0000 0000000000000000", 0x80000010, 0, full[:24]},
		{"a size that lies is cut", "01000000 f1 00 0000 0000000000000000", 1, 0, full},
		{"the largest lie", "01000000 ff 00 0000 0000000000000000", 1, 0, full},
	} {
		t.Run(tc.name, func(t *testing.T) {
			page := newGuest(t, 1).messages[0]
			slot := page.Bytes()[5*256 : 6*256]
			copy(slot[16:], full)
			copy(slot, unhex(t, 16, tc.header))
			require.True(t, synic.SlotFull(page, 5))
			m, ok := synic.ReadSlot(page, 5)
			require.True(t, ok)
			require.Equal(t, tc.wantType, m.Type)
			require.Equal(t, tc.wantSender, m.Sender)
			require.Equal(t, tc.wantPayload, m.Payload())

			_, ok = synic.ReadSlot(page, 4)
			require.False(t, ok, "the slot before is empty")
			require.False(t, synic.SlotFull(page, 6), "the slot behind is empty")
		})
	}
}

// GC-06: the host rewrites the slot after the guest has looked at it. The guest
// works on its copy, and frees the slot once, whatever is in it now.
func TestSlotIsCopiedOnce(t *testing.T) {
	g := newGuest(t, 1)
	require.NoError(t, g.p.Post(vmbusTarget, versionResponse53OK(t)))
	m, ok := synic.ReadSlot(g.messages[0], 2)
	require.True(t, ok)

	for i := range g.messages[0].Bytes() { // type, size and body
		g.messages[0].Bytes()[i] = 0xFF
	}
	require.Equal(t, uint32(synic.MessageTypeVMBus), m.Type)
	require.Equal(t, versionResponse53OK(t), m.Payload())
	require.True(t, synic.FreeSlot(g.messages[0], 2), "the scribble has the pending flag set")
	require.False(t, synic.SlotFull(g.messages[0], 2))
	require.True(t, synic.SlotFull(g.messages[0], 3), "other slots are left alone")
}

func TestScanFlags(t *testing.T) {
	g := newGuest(t, 1)
	page := g.events[0]
	want := []uint16{0, 1, 31, 32, 63, 64, 1000, 2046, 2047}
	for _, flag := range want {
		page.Bytes()[3*256+int(flag)/8] |= 1 << (flag % 8) // 9.4: bit n%8 of byte n/8
	}
	page.Bytes()[3*256-1], page.Bytes()[4*256] = 0x80, 1 // of SINT 2 and 4
	var got []uint16
	synic.ScanFlags(page, 3, func(flag uint16) {
		require.Zero(t, page.Bytes()[3*256+int(flag)/8]&(1<<(flag%8)), "cleared before it is handled")
		got = append(got, flag)
	})
	require.Equal(t, want, got)
	synic.ScanFlags(page, 3, func(flag uint16) { t.Errorf("flag %d was cleared before", flag) })
	require.Equal(t, []byte{0x80, 1}, []byte{page.Bytes()[3*256-1], page.Bytes()[4*256]}, "other SINTs' flags stay")
}

// A host that sets a flag again while it is handled must not keep the guest in
// the scan: the flag comes with the next interrupt.
func TestScanFlagsLooksOnce(t *testing.T) {
	page := newGuest(t, 1).events[0]
	page.Or32(0, 1<<7)
	calls := 0
	synic.ScanFlags(page, 0, func(uint16) { calls++; page.Or32(0, 1<<7) })
	require.Equal(t, 1, calls)
}

// A SINT is chosen by our own code, so one that does not exist is a bug of ours.
func TestGuestHalfPanicsForNoSuchSINT(t *testing.T) {
	page := newGuest(t, 1).messages[0]
	for name, op := range map[string]func(){
		"ReadSlot":  func() { synic.ReadSlot(page, 16) },
		"FreeSlot":  func() { synic.FreeSlot(page, 255) },
		"SlotFull":  func() { synic.SlotFull(page, 16) },
		"ScanFlags": func() { synic.ScanFlags(page, 16, func(uint16) {}) },
	} {
		require.Panics(t, op, name)
	}
	require.Equal(t, guestmem.PageSize, synic.SINTs*synic.SlotBytes)
}
