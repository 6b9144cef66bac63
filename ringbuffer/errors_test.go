package ringbuffer

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus"
)

// TestErrors: whose fault each kind of error is, and that its text carries the
// numbers somebody needs to find out what happened.
func TestErrors(t *testing.T) {
	sentinels := []error{vmbus.ErrProtocol, vmbus.ErrState, ErrFull}
	for _, c := range []struct {
		err  error
		is   error
		text string
	}{
		{&CorruptError{InvalidDescriptorFlags, 0x28, 6, 1}, vmbus.ErrProtocol, "ringbuffer: InvalidDescriptorFlags at data offset 0x28: have 0x6, limit 0x1"},
		{&CorruptError{Kind: 99}, vmbus.ErrProtocol, "ringbuffer: CorruptKind(99) at data offset 0x0: have 0x0, limit 0x0"},
		{&TransactionError{ID: 7}, vmbus.ErrProtocol, "ringbuffer: completion of transaction 0x7, which nobody waits for"},
		{&FullError{40, 16}, ErrFull, "ringbuffer: full: packet takes 40 bytes, 16 are free"},
		{&LimitError{1024}, ErrFull, "ringbuffer: 1024 requests are waiting for their completion"},
		{&SizeError{4096, 4088}, vmbus.ErrState, "ringbuffer: packet takes 4096 bytes, the ring holds at most 4088"},
		{&HeaderError{Header{Type: GPADirect, Flags: 2, ExtBytes: 9}, 8}, vmbus.ErrState, "ringbuffer: GPADirect packet with flags 0x2, extension of 9 bytes in a head of 8 is not well-formed"},
		{&HeaderError{Header: Header{Type: 8}}, vmbus.ErrState, "ringbuffer: PacketType(8) packet with flags 0x0, extension of 0 bytes in a head of 0 is not well-formed"},
		{&BufferError{104, 103}, vmbus.ErrState, "ringbuffer: buffer of 103 bytes is too small for 104"},
		{&SequenceError{"SetWord"}, vmbus.ErrState, "ringbuffer: SetWord without a peeked packet"},
		{&GeometryError{Pages: 1}, vmbus.ErrState, "ringbuffer: 1 pages, need a control page and 1 to 262144 data pages"},
		{&GeometryError{Pages: 5, Missing: 2}, vmbus.ErrState, "ringbuffer: page 1 of 5 is missing"},
		{&RangeError{2, 0x1000, 1, 2}, vmbus.ErrState, "ringbuffer: range 2 with byte offset 0x1000 has 1 PFNs, wants 2"},
	} {
		require.Equal(t, c.text, c.err.Error())
		for _, s := range sentinels {
			require.Equal(t, s == c.is, errors.Is(c.err, s), "%v is %v", c.err, s)
		}
	}
}
