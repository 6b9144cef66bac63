package ringbuffer

import (
	"bytes"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus"
)

// FuzzRingReader reads a ring whose data area and control words are arbitrary.
// Properties: it ends; every packet lies within what was available; only the
// own index moves, by the totals of the packets; corruption is sticky; the
// layout of the pages makes no difference.
func FuzzRingReader(f *testing.F) {
	for _, s := range seeds {
		b := s.bytes(f)
		f.Add(uint16(0), uint16(len(b)), uint32(0), uint32(1), b)
		f.Add(uint16(4088), uint16(len(b)-8), uint32(100), uint32(1), b)
	}
	for _, v := range loadVectors(f) {
		for _, s := range v.Steps {
			for _, d := range s.Expect.Data {
				b := unhex(f, d.Hex)
				f.Add(uint16(d.Offset), uint16(d.Offset+len(b)), uint32(0), uint32(1), b)
			}
		}
	}
	f.Fuzz(func(t *testing.T, read, write uint16, pending, features uint32, data []byte) {
		data = data[:min(len(data), 4096)]
		type outcome struct {
			headers []Header
			bytes   []byte
			signal  bool
			err     string
		}
		var outcomes [3]outcome
		for layout := range pageLayouts {
			pages := newPages(t, layout, 1)
			poke(pages, int(read), data)
			pages[0].Store32(offReadIndex, uint32(read))
			pages[0].Store32(offWriteIndex, uint32(write))
			pages[0].Store32(offPendingSize, pending)
			pages[0].Store32(offFeatures, features)
			r, err := NewReader(pages)
			if err != nil {
				require.ErrorIs(t, err, vmbus.ErrProtocol)
				require.True(t, read >= 4096 || read%8 != 0)
				return
			}
			o := &outcomes[layout]
			for {
				h, err := r.Peek()
				if err != nil {
					o.err = err.Error()
					if errors.Is(err, ErrEmpty) {
						require.EqualValues(t, write, (int(read)+r.Uncommitted())%4096, "all was read, to the byte")
						break
					}
					requireKind(t, err, r.Err().(*CorruptError).Kind)
					requireDead(t, r, pages[0].Load32)
					break
				}
				buf := make([]byte, h.PayloadBytes)
				require.Equal(t, len(buf), r.CopyPayload(buf, 0))
				require.Equal(t, h.ExtBytes > 0 && (h.Type == GPADirect || h.Type == TransferPages), len(r.Extension()) > 0)
				o.headers = append(o.headers, h)
				o.bytes = append(append(o.bytes, r.Extension()...), buf...)
				r.Advance()
				require.Less(t, len(o.headers), 4096/OverheadBytes+1, "no packet is read twice")
			}
			o.signal = r.Commit()
		}
		require.Equal(t, outcomes[0], outcomes[1])
		require.Equal(t, outcomes[0], outcomes[2])
	})
}

// FuzzRingWriter writes arbitrary packets over arbitrary hints and read indices
// of a hostile reader. Properties: the write index only moves by published
// totals; what an honest reader gets is what was written.
func FuzzRingWriter(f *testing.F) {
	f.Add(uint16(0), uint16(6), uint16(0), uint64(0), uint8(0), []byte("hello"), uint32(0))
	f.Add(uint16(4088), uint16(9), uint16(1), uint64(5), uint8(24), make([]byte, 28), uint32(4088))
	f.Add(uint16(4072), uint16(7), uint16(1), uint64(9), uint8(8), make([]byte, 300), uint32(7))
	f.Add(uint16(64), uint16(11), uint16(0), ^uint64(0), uint8(0), make([]byte, 4064), uint32(4096))
	for _, v := range loadVectors(f) {
		for _, s := range v.Steps {
			for _, p := range s.Packets {
				if s.Op != "write" {
					continue
				}
				extra := unhex(f, p.Extra)
				f.Add(uint16(v.Initial["write_index"]), uint16(p.Type), p.Flags, p.id(f), uint8(len(extra)), append(extra, p.payload(f)...), uint32(8))
			}
		}
	}
	f.Fuzz(func(t *testing.T, start, kind, flags uint16, id uint64, extBytes uint8, body []byte, hostileRead uint32) {
		at := uint32(start) % 4096 / 8 * 8
		w, r, pages := newRing(t, int(start)%len(pageLayouts), 1, at)
		h := Header{Type: PacketType(kind), Flags: flags, ID: id, ExtBytes: int(extBytes)}
		cut := min(int(extBytes), len(body))
		if err := w.Append(h, body[:cut], body[cut:]); err != nil {
			require.ErrorIs(t, err, vmbus.ErrState, "an empty ring refuses only what is impossible")
			require.False(t, w.Commit())
			return
		}
		require.True(t, w.Commit(), "the ring was empty")
		require.EqualValues(t, (int(at)+PacketBytes(len(body)))%4096, pages[0].Load32(offWriteIndex))
		got, err := r.Peek()
		if err == nil {
			payload := make([]byte, got.PayloadBytes)
			r.CopyPayload(payload, 0)
			want := append(bytes.Clone(body), make([]byte, roundUp8(len(body))-len(body))...)
			require.True(t, bytes.Equal(want, append(bytes.Clone(r.Extension()), payload...)), "what was written, zero padding")
			require.Equal(t, id, got.ID)
		} else {
			// The Writer does not look into range lists; the Reader does.
			require.NotZero(t, h.ExtBytes, "%v", err)
		}
		pages[0].Store32(offReadIndex, hostileRead)
		_, err = w.FreeBytes()
		checkOutcome(t, err)
		if hostileRead >= 4096 || hostileRead%8 != 0 {
			requireKind(t, err, InvalidRingPointer)
		}
	})
}
