package ringbuffer

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// The vectors of ringbuffer.md, section 16.
type vector struct {
	Name     string
	DataSize int               `json:"data_size"`
	FillByte string            `json:"fill_byte"`
	Initial  map[string]uint32 // control words by field name
	Steps    []vectorStep
	SHA256   string `json:"final_data_sha256"`
}

type vectorStep struct {
	Op            string
	Packets       []vectorPacket
	Totals        json.RawMessage `json:"packet_total_bytes"`
	Count         int             // write_repeat
	MaxPackets    int             `json:"max_packets"`
	Field         string          // set_control
	Value         uint32
	Offset        int // poke_data
	Hex           string
	WritableBytes *int `json:"linux_writable_bytes"`
	Expect        vectorExpect
}

type vectorExpect struct {
	Result       string
	Error        string
	SignalReader *bool `json:"signal_reader"`
	SignalWriter *bool `json:"signal_writer"`
	Packets      []vectorPacket
	WriteIndex   *uint32 `json:"write_index"`
	ReadIndex    *uint32 `json:"read_index"`
	ToRead       *int    `json:"bytes_to_read"`
	ToWriteRaw   *int    `json:"bytes_to_write_raw"`
	MaxPacketNow *int    `json:"max_packet_now"`
	Recheck      *int    `json:"recheck_bytes_to_read"`
	Data         []struct {
		Offset int
		Hex    string
	}
}

type vectorPacket struct {
	Type       PacketType
	Flags      uint16
	ID         string  `json:"transaction_id"`
	Extra      string  `json:"descriptor_extra_hex"`
	PayloadHex *string `json:"payload_hex"`
	PayloadLen int     `json:"payload_len"`
	PayloadSHA string  `json:"payload_sha256"`
	PayloadGen string  `json:"payload_gen"`
}

func loadVectors(t testing.TB) []vector {
	t.Helper()
	b, err := os.ReadFile("../testdata/vectors-ring.json")
	require.NoError(t, err)
	var vectors []vector
	require.NoError(t, json.Unmarshal(b, &vectors))
	return vectors
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

func (p vectorPacket) id(t testing.TB) uint64 {
	t.Helper()
	id, err := strconv.ParseUint(strings.TrimPrefix(p.ID, "0x"), 16, 64)
	require.NoError(t, err)
	return id
}

// payload makes the bytes of a packet to be written; payload_gen says how.
func (p vectorPacket) payload(t testing.TB) []byte {
	t.Helper()
	if p.PayloadHex != nil {
		return unhex(t, *p.PayloadHex)
	}
	var b []byte
	gen, isPipe := strings.CutPrefix(p.PayloadGen, "pipe header then ")
	n := p.PayloadLen
	if isPipe {
		n -= 8
		b = le.AppendUint32(le.AppendUint32(nil, 1), uint32(n))
	}
	var first int
	if gen != "byte[i]=i&255" {
		_, err := fmt.Sscanf(gen, "byte[i]=(%d+i)&255", &first)
		require.NoError(t, err, gen)
	}
	for i := range n {
		b = append(b, byte(first+i))
	}
	require.Equal(t, p.PayloadSHA, sum(b), "the generator made other bytes than the vector means")
	return b
}

// vectorRing runs one vector on one page layout.
type vectorRing struct {
	t     *testing.T
	pages []*guestmem.Page
	w     *Writer
	r     *Reader
	size  int
	pipe  bool // write what a pipe would write as a pipe does
}

// append writes a packet, by AppendGranule if that can make it.
func (x *vectorRing) append(h Header, head, body []byte) error {
	if x.pipe && h == (Header{Type: InBand}) && len(head)+len(body) >= granuleBytes {
		all := append(slices.Clone(head), body...)
		return x.w.AppendGranule(le.Uint64(all), all[granuleBytes:])
	}
	return x.w.Append(h, head, body)
}

func newVectorRing(t *testing.T, v vector, layout int) *vectorRing {
	x := &vectorRing{t: t, size: v.DataSize, pages: newPages(t, layout, v.DataSize/guestmem.PageSize)}
	for _, p := range x.pages[1:] {
		for i := range p.Bytes() {
			p.Bytes()[i] = unhex(t, v.FillByte)[0]
		}
	}
	for field, value := range v.Initial {
		x.set(field, value)
	}
	var err error
	x.w, err = NewWriter(x.pages)
	if own := v.Initial["write_index"]; own >= uint32(v.DataSize) || own%8 != 0 {
		requireKind(t, err, InvalidRingPointer) // a writer does not start there either
	} else {
		require.NoError(t, err)
	}
	x.r, err = NewReader(x.pages)
	require.NoError(t, err)
	// The constructors set the words they own; the vectors want their own values.
	for _, field := range []string{"interrupt_mask", "pending_send_sz", "feature_bits"} {
		x.set(field, v.Initial[field])
	}
	return x
}

func (x *vectorRing) set(field string, value uint32) {
	control := x.pages[0]
	switch field {
	case "write_index":
		control.Store32(offWriteIndex, value)
	case "read_index":
		control.Store32(offReadIndex, value)
	case "interrupt_mask":
		control.Store32(offMask, value)
	case "pending_send_sz":
		control.Store32(offPendingSize, value)
	case "feature_bits":
		control.Store32(offFeatures, value)
	default:
		x.t.Fatalf("unknown control word %q", field)
	}
}

func (x *vectorRing) step(s vectorStep) {
	t := x.t
	switch s.Op {
	case "write":
		x.write(s)
	case "write_repeat":
		var total int
		require.NoError(t, json.Unmarshal(s.Totals, &total))
		for i := range s.Count {
			before := x.pages[0].Load32(offWriteIndex)
			require.NoError(t, x.append(Header{Type: InBand}, []byte{1, 0, 0, 0, 1, 0, 0, 0}, []byte{byte(i)}))
			require.Equal(t, i == 0 && before == x.pages[0].Load32(offReadIndex), x.w.Commit())
			require.EqualValues(t, total, x.pages[0].Load32(offWriteIndex)-before)
		}
	case "read":
		x.read(s)
	case "set_control":
		if s.Field == "interrupt_mask" && s.Value == 0 {
			require.Equal(t, s.Expect.Recheck != nil && *s.Expect.Recheck > 0, x.r.Unmask())
			break
		}
		x.set(s.Field, s.Value)
	case "poke_data":
		poke(x.pages, s.Offset, unhex(t, s.Hex))
	case "check":
		raw, err := x.w.FreeBytes()
		require.NoError(t, err)
		require.Equal(t, *s.WritableBytes, max(0, raw-72)&^7, "ringbuffer.md 12, Linux rule")
	default:
		t.Fatalf("unknown op %q", s.Op)
	}
	x.indices(s.Expect)
}

func (x *vectorRing) write(s vectorStep) {
	t := x.t
	var totals []int
	require.NoError(t, json.Unmarshal(s.Totals, &totals))
	result := "ok"
	for i, p := range s.Packets {
		extra, payload := unhex(t, p.Extra), p.payload(t)
		require.Equal(t, totals[i], PacketBytes(len(extra)+len(payload)))
		// Once with everything in the head, once split, must be the same.
		h := Header{Type: p.Type, Flags: p.Flags, ID: p.id(t), ExtBytes: len(extra)}
		head, body := extra, payload
		if i%2 == 1 {
			head, body = append(extra, payload...), nil
		}
		if err := x.append(h, head, body); err != nil {
			var size *SizeError
			if !errors.As(err, &size) {
				require.ErrorIs(t, err, ErrFull)
			}
			x.w.Revert() // a batch goes whole or not at all
			result = "full"
			break
		}
	}
	signal := x.w.Commit()
	require.Equal(t, s.Expect.Result, result)
	require.Equal(t, *s.Expect.SignalReader, signal, "signal to the reader")
}

func (x *vectorRing) read(s vectorStep) {
	t := x.t
	var got []vectorPacket
	var err error
	for len(got) < s.MaxPackets {
		var h Header
		if h, err = x.r.Peek(); err != nil {
			break
		}
		payload := make([]byte, h.PayloadBytes)
		require.Equal(t, len(payload), x.r.CopyPayload(payload, 0))
		extra := hex.EncodeToString(x.r.Extension())
		x.r.Advance()
		p := vectorPacket{Type: h.Type, Flags: h.Flags, ID: fmt.Sprintf("%#x", h.ID), Extra: extra}
		if i := len(got); i < len(s.Expect.Packets) && s.Expect.Packets[i].PayloadHex == nil {
			p.PayloadLen, p.PayloadSHA = len(payload), sum(payload)
		} else {
			text := hex.EncodeToString(payload)
			p.PayloadHex = &text
		}
		got = append(got, p)
	}
	signal := x.r.Commit()
	if s.Expect.Result == "error" {
		var corrupt *CorruptError
		require.ErrorAs(t, err, &corrupt)
		require.Equal(t, s.Expect.Error, corrupt.Kind.String())
		require.ErrorIs(t, err, vmbus.ErrProtocol)
		_, again := x.r.Peek()
		require.Same(t, err, again, "corruption is sticky")
	} else if s.Expect.Result == "empty" {
		require.ErrorIs(t, err, ErrEmpty)
	}
	require.Equal(t, len(s.Expect.Packets), len(got))
	for i := range got {
		require.Equal(t, s.Expect.Packets[i], got[i])
	}
	require.Equal(t, *s.Expect.SignalWriter, signal, "signal to the writer")
}

// indices compares the control words and the space derived from them.
func (x *vectorRing) indices(e vectorExpect) {
	t := x.t
	write, read := x.pages[0].Load32(offWriteIndex), x.pages[0].Load32(offReadIndex)
	if e.WriteIndex != nil {
		require.Equal(t, *e.WriteIndex, write)
		require.Equal(t, *e.ReadIndex, read)
		raw, err := x.w.FreeBytes()
		require.NoError(t, err)
		require.Equal(t, *e.ToWriteRaw, raw)
		require.Equal(t, *e.ToRead, x.size-raw)
		require.Equal(t, *e.MaxPacketNow, raw-8)
	}
	data := dataOf(x.pages)
	for _, d := range e.Data {
		want := unhex(t, d.Hex)
		for i := range want {
			require.Equalf(t, want[i], data[(d.Offset+i)%x.size], "data offset %#x", (d.Offset+i)%x.size)
		}
	}
}

// TestVectors: the bytes, indices and signals of every vector, on every layout
// of pages, down to the hash of the whole data area; once written packet by
// packet, once with the packets of pipes written as the data path writes them.
func TestVectors(t *testing.T) {
	for _, v := range loadVectors(t) {
		for layout := range pageLayouts {
			for _, pipe := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/pipe=%t", v.Name, pageLayouts[layout].name, pipe), func(t *testing.T) {
					x := newVectorRing(t, v, layout)
					x.pipe = pipe
					for i, s := range v.Steps {
						t.Logf("step %d: %s", i, s.Op)
						x.step(s)
					}
					require.Equal(t, v.SHA256, sum(dataOf(x.pages)))
				})
			}
		}
	}
}
