package decode

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/internal/golden"
	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// A ringVector is one entry of testdata/vectors-ring.json (ringbuffer.md 16), as
// far as the memory it leaves is concerned.
type ringVector struct {
	Name     string
	DataSize int `json:"data_size"`
	Initial  map[string]uint32
	Steps    []struct {
		Op         string
		Packets    []ringPacket
		Count      int
		MaxPackets int `json:"max_packets"`
		Field      string
		Value      uint32
		Offset     int
		Hex        string
		Expect     struct{ Error string }
	}
	SHA256 string `json:"final_data_sha256"`
}

type ringPacket struct {
	Type    ringbuffer.PacketType
	Flags   uint16
	ID      string  `json:"transaction_id"`
	Extra   string  `json:"descriptor_extra_hex"`
	Payload *string `json:"payload_hex"`
	Bytes   int     `json:"payload_len"`
	Gen     string  `json:"payload_gen"`
	SHA256  string  `json:"payload_sha256"`
}

// append writes the packet; false if the ring is full.
func (p ringPacket) append(t *testing.T, w *ringbuffer.Writer) bool {
	t.Helper()
	id, err := strconv.ParseUint(p.ID, 0, 64)
	require.NoError(t, err)
	extra := unhex(t, p.Extra)
	h := ringbuffer.Header{Type: p.Type, Flags: p.Flags, ID: id, ExtBytes: len(extra)}
	return w.Append(h, extra, p.payload(t)) == nil
}

func snapshot(block *guestmem.Block) (all []byte) {
	for _, p := range block.Pages {
		all = append(all, p.Bytes()...)
	}
	return all
}

// controlOffsets are those of ringbuffer.md 2.
var controlOffsets = map[string]int{"write_index": 0, "read_index": 4, "interrupt_mask": 8, "pending_send_sz": 12, "feature_bits": 64}

// memory plays a vector with the real ends of a ring up to its first error, and
// returns the ring's memory when the most packets were in it, and the error.
func (v ringVector) memory(t *testing.T) (b []byte, wrong string) {
	t.Helper()
	block, err := guestmem.NewHeap(guestmem.HeapOptions{}).Alloc(1 + v.DataSize/guestmem.PageSize)
	require.NoError(t, err)
	for _, p := range block.Pages[1:] {
		for i := range p.Bytes() {
			p.Bytes()[i] = 0xEE
		}
	}
	for name, value := range v.Initial {
		block.Pages[0].Store32(controlOffsets[name], value)
	}
	var w *ringbuffer.Writer
	for _, s := range v.Steps {
		switch s.Op {
		case "write":
			if w == nil {
				w, err = ringbuffer.NewWriter(block.Pages)
				require.NoError(t, err)
			}
			for _, p := range s.Packets {
				if !p.append(t, w) {
					w.Revert()
					break
				}
			}
			w.Commit()
		case "write_repeat":
			w, err = ringbuffer.NewWriter(block.Pages)
			require.NoError(t, err)
			for i := range s.Count {
				require.NoError(t, w.Append(ringbuffer.Header{Type: ringbuffer.InBand}, []byte{1, 0, 0, 0, 1, 0, 0, 0}, []byte{byte(i)}))
				w.Commit()
			}
		case "set_control":
			block.Pages[0].Store32(controlOffsets[s.Field], s.Value)
		case "poke_data":
			for i, x := range unhex(t, s.Hex) {
				at := (s.Offset + i) % v.DataSize
				block.Pages[1+at/guestmem.PageSize].Bytes()[at%guestmem.PageSize] = x
			}
		case "read":
			if b == nil { // before the first packets are gone
				b = snapshot(block)
			}
			if s.Expect.Error != "" {
				return b, s.Expect.Error
			}
			r, err := ringbuffer.NewReader(block.Pages)
			require.NoError(t, err)
			for range s.MaxPackets {
				_, _ = r.Peek() // empty at last
				r.Advance()
			}
			r.Commit()
		}
	}
	all := snapshot(block)
	if b == nil {
		b = all
	}
	sum := sha256.Sum256(all[guestmem.PageSize:])
	require.Equal(t, v.SHA256, hex.EncodeToString(sum[:]), "the memory is not the vector's")
	return b, ""
}

// payload makes the bytes of a packet; payload_gen says how.
func (p ringPacket) payload(t *testing.T) []byte {
	t.Helper()
	if p.Payload != nil {
		return unhex(t, *p.Payload)
	}
	var b []byte
	n := p.Bytes
	gen, isPipe := strings.CutPrefix(p.Gen, "pipe header then ")
	if isPipe {
		n -= 8
		b = le.AppendUint32(le.AppendUint32(nil, 1), uint32(n))
	}
	first := 0
	if gen != "byte[i]=i&255" {
		_, err := fmt.Sscanf(gen, "byte[i]=(%d+i)&255", &first)
		require.NoError(t, err, gen)
	}
	for i := range n {
		b = append(b, byte(first+i))
	}
	h := sha256.Sum256(b)
	require.Equal(t, p.SHA256, hex.EncodeToString(h[:]))
	return b
}

// TestRingVectors: the memory of every ring vector, and the same verdict on it.
func TestRingVectors(t *testing.T) {
	file, err := os.ReadFile(golden.Root(t) + "/testdata/vectors-ring.json")
	require.NoError(t, err)
	var vs []ringVector
	require.NoError(t, json.Unmarshal(file, &vs))
	var all strings.Builder
	for _, v := range vs {
		t.Run(v.Name, func(t *testing.T) {
			b, wrong := v.memory(t)
			r := explain(t, b, Options{})
			require.Equal(t, Ring, r.Kind)
			if wrong == "" {
				require.Nil(t, r.Problem)
			} else {
				require.NotNil(t, r.Problem)
				require.Contains(t, r.Problem.Reason, "("+wrong+")")
			}
			fmt.Fprintf(&all, "== %s\n%s\n", v.Name, shortened(text(t, r)))
		})
	}
	golden.Check(t, "decode/ring.txt", all.String())
}

// shortened leaves out all but titles from packet 5 on: some vectors fill a ring.
func shortened(s string) string {
	var out strings.Builder
	skip := false
	for _, line := range strings.SplitAfter(s, "\n") {
		title := strings.TrimLeft(line, " !") == line && line != "\n"
		if title {
			n, isPacket := 0, strings.HasPrefix(line, "packet ")
			if isPacket {
				_, err := fmt.Sscanf(line, "packet %d", &n)
				if err != nil {
					panic(err)
				}
			}
			skip = n > 4
		}
		if !skip || title {
			out.WriteString(line)
		}
	}
	return out.String()
}

// ringMemory is one data page with packets at data offset at.
func ringMemory(at, bytes int, packets []byte) []byte {
	b := make([]byte, 2*guestmem.PageSize)
	le.PutUint32(b, uint32((at+bytes)%guestmem.PageSize))
	le.PutUint32(b[4:], uint32(at))
	for i, x := range packets {
		b[guestmem.PageSize+(at+i)%guestmem.PageSize] = x
	}
	return b
}

// TestPipeProblems: the framing of a pipe, where it breaks.
func TestPipeProblems(t *testing.T) {
	const descriptor = "0600 0200 0400 0000 0000000000000000" // 16 bytes of payload
	const footer = "0000000000000000"
	for _, c := range []struct {
		name, packet string
		framing      Framing
		offset       int // of the data area; -1 for none
		reason       string
	}{
		{"data", descriptor + "01000000 08000000 6162636465666768" + footer, "", -1, ""},
		{"partial", descriptor + "02000000 08000300 6162636465666768" + footer, "", -1, ""},
		{"not a pipe", descriptor + "05000000 08000000 6162636465666768" + footer, "", -1, ""},
		{"unknown type", descriptor + "05000000 08000000 6162636465666768" + footer, Pipe, 16, "unknown pipe packet type"},
		{"too much", descriptor + "01000000 09000000 6162636465666768" + footer, Pipe, 20, "more data than the packet holds"},
		{"all consumed", descriptor + "02000000 08000800 6162636465666768" + footer, Pipe, 20, "nothing left"},
		{"no header", "0600 0200 0200 0000 0000000000000000" + footer, Pipe, 16, "no room for the pipe header"},
		{"no pipe packet", "0b00 0200 0400 0000 0000000000000000 01000000 08000000 6162636465666768" + footer, Pipe, 16, "not in-band"},
	} {
		t.Run(c.name, func(t *testing.T) {
			packet := unhex(t, c.packet)
			for _, at := range []int{0, guestmem.PageSize - 8, guestmem.PageSize - 24} { // and over the end of the ring
				r := explain(t, ringMemory(at, len(packet), packet), Options{Framing: c.framing})
				if c.offset < 0 {
					require.Nil(t, r.Problem)
					continue
				}
				require.NotNil(t, r.Problem)
				require.Equal(t, guestmem.PageSize+(at+c.offset)%guestmem.PageSize, r.Problem.Offset)
				require.Contains(t, r.Problem.Reason, c.reason)
			}
		})
	}
}
