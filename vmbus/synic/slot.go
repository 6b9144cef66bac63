package synic

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/hvlab/hvlab/internal/putback"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// Offsets in a message slot, in bytes. Source: vmbus-control.md 9.3.
const (
	slotType      = 0  // u32; zero if the slot is empty
	slotSizeFlags = 4  // u8 payload bytes, u8 flags, u16 reserved
	slotSender    = 8  // u64
	slotPayload   = 16 // MaxPayloadBytes bytes

	slotPending = 1 << 8 // in the u32 at slotSizeFlags: more messages wait
)

// slotOffset returns where the slot of a SINT starts in a message page, and its
// flags in an event-flag page, in bytes. A wrong SINT is a bug of our own code.
func slotOffset(sint uint8) int {
	if sint >= SINTs {
		panic(fmt.Sprintf("synic: SINT %d: there are %d", sint, SINTs))
	}
	return int(sint) * SlotBytes
}

// flagWord returns where the 32-bit word of a flag is, in bytes.
func flagWord(sint uint8, flag uint16) int { return slotOffset(sint) + int(flag/32)*4 }

// writeSlot writes a VMBus message into an empty slot, the type last, so that
// whoever sees the type sees the message. All 256 bytes are defined afterwards.
// It stores words, atomically, because a hostile guest may be looking.
func writeSlot(page *guestmem.Page, sint uint8, payload []byte) {
	base := slotOffset(sint)
	var padded [MaxPayloadBytes]byte
	copy(padded[:], payload)
	page.Store32(base+slotSizeFlags, uint32(len(payload))) // flags and reserved: zero
	page.Store64(base+slotSender, 0)
	for off := 0; off < MaxPayloadBytes && !(putback.On(putback.GC07) && off >= len(payload)); off += 8 {
		word := binary.LittleEndian.Uint64(padded[off:])
		if page.Load64(base+slotPayload+off) != word { // most are zero as before, and a load is cheaper
			page.Store64(base+slotPayload+off, word)
		}
	}
	page.Store32(base+slotType, MessageTypeVMBus)
}

// A Message is a copy of a message slot, private to whoever read it.
type Message struct {
	Type   uint32 // never zero; MessageTypeVMBus, or another source's type
	Sender uint64 // partition or port id; Linux and FreeBSD ignore it

	sizeBytes int
	payload   [MaxPayloadBytes]byte
}

// Payload returns the payload, at most MaxPayloadBytes bytes. It aliases m.
func (m *Message) Payload() []byte { return m.payload[:m.sizeBytes] }

// ReadSlot copies the message in a SINT's slot, if there is one. It is the guest
// half of the slot protocol: ReadSlot, FreeSlot, and an EOM if that says so.
//
// No byte is read twice, so a host that rewrites the slot meanwhile can produce
// a strange message but not one that changes after it was looked at (faults.md
// GC-06). A size above MaxPayloadBytes is cut to it.
func ReadSlot(page *guestmem.Page, sint uint8) (Message, bool) {
	base := slotOffset(sint)
	var m Message
	if m.Type = page.Load32(base + slotType); m.Type == 0 {
		return m, false
	}
	m.sizeBytes = min(int(page.Load32(base+slotSizeFlags)&0xFF), MaxPayloadBytes)
	m.Sender = page.Load64(base + slotSender)
	for off := 0; off < m.sizeBytes; off += 8 {
		binary.LittleEndian.PutUint64(m.payload[off:], page.Load64(base+slotPayload+off))
	}
	return m, true
}

// FreeSlot empties a SINT's slot and reports whether the host has more messages:
// if so, the guest must write MSREOM. Call it once for each message read.
// Source: vmbus-control.md 9.5.
func FreeSlot(page *guestmem.Page, sint uint8) (pending bool) {
	base := slotOffset(sint)
	page.Store32(base+slotType, 0) // before the look at the flag: see claim
	return page.Load32(base+slotSizeFlags)&slotPending != 0
}

// SlotFull reports whether there is a message in a SINT's slot.
func SlotFull(page *guestmem.Page, sint uint8) bool {
	return page.Load32(slotOffset(sint)+slotType) != 0
}

// ScanFlags calls fn for each event flag of a SINT that is set, in rising order,
// having cleared it. It looks at each flag once; one that is set again meanwhile
// comes with another interrupt. Source: vmbus-control.md 9.4.
func ScanFlags(page *guestmem.Page, sint uint8, fn func(flag uint16)) {
	base := slotOffset(sint)
	const lineFlags = 64 * 8
	for line := range FlagsPerSINT / lineFlags {
		if !page.LineSet(base + line*64) { // most are not, and this is cheap
			continue
		}
		for word := line * lineFlags / 32; word < (line+1)*lineFlags/32; word++ {
			if page.Load32(base+word*4) == 0 {
				continue
			}
			for set := page.And32(base+word*4, 0); set != 0; set &= set - 1 {
				fn(uint16(word*32 + bits.TrailingZeros32(set)))
			}
		}
	}
}
