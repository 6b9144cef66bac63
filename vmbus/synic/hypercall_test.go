package synic_test

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

// postBlock is an input block with any head.
func postBlock(id, reserved, messageType, payloadBytes uint32) []byte {
	b := make([]byte, 256)
	for i, v := range []uint32{id, reserved, messageType, payloadBytes} {
		binary.LittleEndian.PutUint32(b[4*i:], v)
	}
	return b
}

// The statuses of HvCallPostMessage, vmbus-control.md 9.6 and 1.3.
func TestPostMessageStatuses(t *testing.T) {
	p := newPartition()
	var got []byte
	result := synic.StatusSuccess
	require.NoError(t, p.BindMessages(4, func(payload []byte) synic.Status {
		got = append([]byte{}, payload...)
		return result
	}))
	require.NoError(t, p.BindEvents(0x2003, func(uint16) { t.Error("a message is no event") }))

	for _, tc := range []struct {
		name  string
		input []byte
		want  synic.Status
	}{
		{"the longest payload", postBlock(4, 0, 1, 240), synic.StatusSuccess},
		{"an empty payload", postBlock(4, 0, 1, 0), synic.StatusSuccess},
		{"a block that ends with the payload", postBlock(4, 0, 1, 8)[:24], synic.StatusSuccess},
		{"a payload too long", postBlock(4, 0, 1, 241), synic.StatusInvalidParameter},
		{"a payload far too long", postBlock(4, 0, 1, 0xFFFFFFFF), synic.StatusInvalidParameter},
		{"an unknown id", postBlock(1, 0, 1, 8), synic.StatusInvalidConnectionID},
		{"an event's id", postBlock(0x2003, 0, 1, 8), synic.StatusInvalidPortID},
		{"reserved bits of the id", postBlock(1<<24|4, 0, 1, 8), synic.StatusInvalidHypercallInput},
		{"the reserved word", postBlock(4, 1, 1, 8), synic.StatusInvalidHypercallInput},
		{"message type zero: an empty slot's", postBlock(4, 0, 0, 8), synic.StatusInvalidParameter},
		{"the hypervisor's message types", postBlock(4, 0, 0x80000010, 8), synic.StatusInvalidParameter},
		{"a type that is not VMBus", postBlock(4, 0, 2, 8), synic.StatusInvalidParameter},
		{"no block", nil, synic.StatusInvalidHypercallInput},
		{"part of a head", postBlock(4, 0, 1, 0)[:15], synic.StatusInvalidHypercallInput},
		{"part of a payload", postBlock(4, 0, 1, 9)[:24], synic.StatusInvalidHypercallInput},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got = nil
			require.Equal(t, tc.want, p.PostMessage(tc.input))
			if tc.want == synic.StatusSuccess {
				require.Len(t, got, int(binary.LittleEndian.Uint32(tc.input[12:])))
			} else {
				require.Nil(t, got, "a refused message is not delivered")
			}
		})
	}

	for _, result = range []synic.Status{synic.StatusInsufficientBuffers, synic.StatusInsufficientMemory} {
		require.Equal(t, result, p.PostMessage(postBlock(4, 0, 1, 8)), "the host's answer is the guest's")
	}
	tooLong := synic.AppendPostMessage(nil, 4, make([]byte, 241))
	require.Len(t, tooLong, 16+241)
	require.Equal(t, synic.StatusInvalidParameter, p.PostMessage(tooLong))
}

// The statuses of HvCallSignalEvent in its fast form.
func TestSignalEventStatuses(t *testing.T) {
	p := newPartition()
	var got []uint16
	require.NoError(t, p.BindEvents(0x2002, func(flag uint16) { got = append(got, flag) }))
	require.NoError(t, p.BindMessages(4, func([]byte) synic.Status { t.Error("an event is no message"); return 0 }))
	for _, tc := range []struct {
		name  string
		param uint64
		want  synic.Status
	}{
		{"11.3: flag 0 of connection 0x2002", 0x0000000000002002, synic.StatusSuccess},
		{"the last flag", 2047<<32 | 0x2002, synic.StatusSuccess},
		{"a flag out of range", 2048<<32 | 0x2002, synic.StatusInvalidParameter},
		{"the largest flag", 0xFFFF<<32 | 0x2002, synic.StatusInvalidParameter},
		{"reserved bits after the flag", 1<<48 | 0x2002, synic.StatusInvalidHypercallInput},
		{"reserved bits of the id", 1<<31 | 0x2002, synic.StatusInvalidHypercallInput},
		{"an unknown id", 0x2001, synic.StatusInvalidConnectionID},
		{"a message connection", 4, synic.StatusInvalidPortID},
	} {
		require.Equal(t, tc.want, p.SignalEvent(tc.param), tc.name)
	}
	require.Equal(t, []uint16{0, 2047}, got)
}

// The decoding of RCX and RDX, 9.6.
func TestHypercall(t *testing.T) {
	const (
		post   = 0x5C
		signal = 0x5D
		fast   = 1 << 16
	)
	heap := guestmem.NewHeap(guestmem.HeapOptions{})
	p := synic.NewPartition(heap, 1)
	block, err := heap.Alloc(1)
	require.NoError(t, err)
	gpa := block.PFNs[0] << 12
	bytes := block.Pages[0].Bytes()
	copy(bytes, synic.AppendPostMessage(nil, 4, initiateContact53(t)))
	copy(bytes[0xF00:], synic.AppendPostMessage(nil, 4, nil))
	binary.LittleEndian.PutUint64(bytes[0x800:], 0x2002)       // 11.3
	binary.LittleEndian.PutUint64(bytes[0xFF8:], 3<<32|0x2002) // the last that fits

	messages, events := 0, 0
	require.NoError(t, p.BindMessages(4, func([]byte) synic.Status { messages++; return synic.StatusSuccess }))
	require.NoError(t, p.BindEvents(0x2002, func(uint16) { events++ }))

	for _, tc := range []struct {
		name             string
		control, input   uint64
		want             synic.Status
		messages, events int
	}{
		{"post", post, gpa, synic.StatusSuccess, 1, 0},
		{"post at the end of a page", post, gpa + 0xF00, synic.StatusSuccess, 1, 0},
		{"signal, fast: Linux", signal | fast, 0x2002, synic.StatusSuccess, 0, 1},
		{"signal from memory: FreeBSD", signal, gpa + 0x800, synic.StatusSuccess, 0, 1},
		{"signal at the end of a page", signal, gpa + 0xFF8, synic.StatusSuccess, 0, 1},
		{"post, fast", post | fast, gpa, synic.StatusInvalidHypercallCode, 0, 0},
		{"an unknown call", 0x5E, gpa, synic.StatusInvalidHypercallCode, 0, 0},
		{"call zero", 0, 0, synic.StatusInvalidHypercallCode, 0, 0},
		{"an unknown call with reserved bits", 0x5E | 1<<63, gpa, synic.StatusInvalidHypercallCode, 0, 0},
		{"post, misaligned", post, gpa + 4, synic.StatusInvalidAlignment, 0, 0},
		{"signal, misaligned", signal, gpa + 0x801, synic.StatusInvalidAlignment, 0, 0},
		{"post across two pages", post, gpa + 0xF08, synic.StatusInvalidAlignment, 0, 0},
		{"post from no memory", post, 0x1000, synic.StatusInvalidParameter, 0, 0},
		{"signal from no memory", signal, 1 << 63, synic.StatusInvalidParameter, 0, 0},
		{"a variable header", post | 1<<17, gpa, synic.StatusInvalidHypercallInput, 0, 0},
		{"reserved control bits", signal | fast | 1<<27, 0x2002, synic.StatusInvalidHypercallInput, 0, 0},
		{"nested", signal | fast | 1<<31, 0x2002, synic.StatusInvalidHypercallInput, 0, 0},
		{"a rep count for a simple call", signal | fast | 1<<32, 0x2002, synic.StatusInvalidHypercallInput, 0, 0},
		{"a rep start", signal | fast | 1<<48, 0x2002, synic.StatusInvalidHypercallInput, 0, 0},
		{"the top bit", post | 1<<63, gpa, synic.StatusInvalidHypercallInput, 0, 0},
		{"an unknown connection", signal | fast, 0x2001, synic.StatusInvalidConnectionID, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			messages, events = 0, 0
			require.Equal(t, uint64(tc.want), p.Hypercall(tc.control, tc.input), "no reps: bits 32 to 43 stay zero")
			require.Equal(t, tc.messages, messages)
			require.Equal(t, tc.events, events)
		})
	}
}

// The payload the host sees is a copy: the guest can no longer change it.
func TestHypercallCopiesItsInput(t *testing.T) {
	heap := guestmem.NewHeap(guestmem.HeapOptions{})
	p := synic.NewPartition(heap, 1)
	block, err := heap.Alloc(1)
	require.NoError(t, err)
	copy(block.Pages[0].Bytes(), synic.AppendPostMessage(nil, 4, []byte("honest")))
	require.NoError(t, p.BindMessages(4, func(payload []byte) synic.Status {
		copy(block.Pages[0].Bytes()[16:], "forged")
		require.Equal(t, "honest", string(payload))
		return synic.StatusSuccess
	}))
	require.Zero(t, p.Hypercall(synic.CallPostMessage, block.PFNs[0]<<12))
}
