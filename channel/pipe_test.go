package channel_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
)

// Offsets in the control page; ringbuffer.md 2.
const (
	offWriteIndex  = 0x00
	offReadIndex   = 0x04
	offPendingSize = 0x0C
)

// pipePages makes the memory of an empty ring. With stride 1 the pages are
// contiguous, with 2 they are scattered. The data area is filled with a byte
// that shows what a packet does not define.
func pipePages(t testing.TB, dataPages, stride int, start uint32) []*guestmem.Page {
	t.Helper()
	region, err := guestmem.NewRegion(0, bytes.Repeat([]byte{0xEE}, stride*(1+dataPages)*guestmem.PageSize))
	require.NoError(t, err)
	pfns := make([]uint64, 1+dataPages)
	for i := range pfns {
		pfns[i] = uint64(i * stride)
	}
	pages, err := guestmem.Resolve(region, pfns)
	require.NoError(t, err)
	require.NoError(t, ringbuffer.Init(pages))
	pages[0].Store32(offWriteIndex, start)
	pages[0].Store32(offReadIndex, start)
	return pages
}

// openPipe makes both ends of a byte pipe over pages.
func openPipe(t testing.TB, pages []*guestmem.Page, options channel.PipeOptions) (*channel.PipeWriter, *channel.PipeReader) {
	t.Helper()
	w, err := ringbuffer.NewWriter(pages)
	require.NoError(t, err)
	r, err := ringbuffer.NewReader(pages)
	require.NoError(t, err)
	reader := channel.NewPipeReader(r)
	if options.Messages {
		reader = channel.NewMessageReader(r)
	}
	return channel.NewPipeWriter(w, options), reader
}

var linuxPipe = channel.PipeOptions{ReserveFIN: true}

// text makes n bytes that differ from their neighbours.
func text(n, first int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(first + i*7)
	}
	return b
}

// TestPipeBytes is example A of ringbuffer.md 14: what two writes and a FIN put
// into the ring, byte for byte, and who is signalled.
func TestPipeBytes(t *testing.T) {
	want := strings.Join(strings.Fields(`
		06 00 02 00 04 00 00 00 00 00 00 00 00 00 00 00 01 00 00 00 05 00 00 00 68 65 6c 6c 6f 00 00 00
		00 00 00 00 00 00 00 00 06 00 02 00 04 00 00 00 00 00 00 00 00 00 00 00 01 00 00 00 08 00 00 00
		68 76 5f 73 6f 63 6b 21 00 00 00 00 28 00 00 00 06 00 02 00 03 00 00 00 00 00 00 00 00 00 00 00
		01 00 00 00 00 00 00 00 00 00 00 00 50 00 00 00 ee`), "")
	pages := pipePages(t, 1, 1, 0)
	w, _ := openPipe(t, pages, linuxPipe)
	for i, s := range []string{"hello", "hv_sock!"} {
		n, signal, err := w.Write([]byte(s))
		require.NoError(t, err)
		require.Equal(t, len(s), n)
		require.Equal(t, i == 0, signal, "only the first write finds the ring empty")
	}
	signal, err := w.WriteFIN()
	require.NoError(t, err)
	require.False(t, signal)
	require.Equal(t, want, hex.EncodeToString(pages[1].Bytes()[:113]))
	require.EqualValues(t, 112, pages[0].Load32(offWriteIndex))

	signal, err = w.WriteFIN()
	require.NoError(t, err, "a second FIN does nothing")
	require.False(t, signal)
	require.EqualValues(t, 112, pages[0].Load32(offWriteIndex))
	_, _, err = w.Write([]byte("late"))
	require.ErrorIs(t, err, vmbus.ErrState)
}

// TestPipeLinuxFill is example H: what Linux' writable rule lets into a ring of
// five data pages, in one Write, and that the FIN still goes in.
func TestPipeLinuxFill(t *testing.T) {
	for _, stride := range []int{1, 2} {
		pages := pipePages(t, 5, stride, 0)
		w, r := openPipe(t, pages, linuxPipe)
		data := text(30000, 1)
		n, signal, err := w.Write(data)
		require.NoError(t, err)
		require.True(t, signal)
		require.Equal(t, 4*4088+3928, n)
		require.EqualValues(t, 20440, pages[0].Load32(offWriteIndex))

		_, _, err = w.Write(data[n:])
		require.ErrorIs(t, err, channel.ErrFull, "writable is 0")
		require.True(t, w.Wait(), "there is no room, so sleep")
		require.EqualValues(t, 4088+64, pages[0].Load32(offPendingSize),
			"more than this must be free for a chunk of 4088: then the rule allows it, and the FIN still fits")
		_, err = w.WriteFIN()
		require.NoError(t, err, "40 raw bytes are free, a FIN needs more than 32")

		got, err := drain(r, 30000)
		require.ErrorIs(t, err, io.EOF)
		require.True(t, bytes.Equal(data[:n], got))
		w.Resume()
		require.Zero(t, pages[0].Load32(offPendingSize))
	}
}

// drain reads with a buffer of n bytes until something else than data comes.
func drain(r *channel.PipeReader, n int) (got []byte, err error) {
	buf := make([]byte, n)
	for {
		n, _, err := r.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			return got, err
		}
	}
}

// TestPipeReadRegroups: one Read crosses packets, many Reads share one, and the
// end comes after the last byte, for ever (HV-12).
func TestPipeReadRegroups(t *testing.T) {
	for _, size := range []int{1, 2, 7, 8, 100, 4088, 5000, 20000} {
		w, r := openPipe(t, pipePages(t, 3, 2, 12280), linuxPipe)
		data := text(9000, size)
		for sent := 0; sent < len(data); {
			n, _, err := w.Write(data[sent:min(sent+1500, len(data))])
			require.NoError(t, err)
			sent += n
		}
		_, err := w.WriteFIN()
		require.NoError(t, err)
		n, _, err := r.Read(nil)
		require.NoError(t, err, "no bytes wanted, none given, and nothing learned")
		require.Zero(t, n)
		got, err := drain(r, size)
		require.ErrorIs(t, err, io.EOF)
		require.True(t, bytes.Equal(data, got))
		for range 2 {
			n, signal, err := r.Read(make([]byte, 8))
			require.Zero(t, n)
			require.False(t, signal)
			require.Equal(t, io.EOF, err, "bare, and for ever")
			readable, err := r.Readable()
			require.NoError(t, err)
			require.True(t, readable, "the end is something to read")
		}
	}
}

// TestPipeSeeds: S22 and S23 of faults.md 6.3 and their like, framed by hand.
func TestPipeSeeds(t *testing.T) {
	for _, c := range []struct {
		why, ring string
		data      string // delivered before the end
		fault     channel.PipeFault
	}{
		{"n = 2^32-1", "06000200 04000000 00000000 00000000 01000000 ffffffff 68656c6c 6f000000 00000000 00000000", "", channel.PipeBeyondPacket},
		{"n = 16,385", "06000200 04000000 00000000 00000000 01000000 01400000 68656c6c 6f000000 00000000 00000000", "", channel.PipeBeyondPacket},
		{"n = 9 of 8", "06000200 04000000 00000000 00000000 01000000 09000000 68656c6c 6f000000 00000000 00000000", "", channel.PipeBeyondPacket},
		{"pipe type 0", "06000200 04000000 00000000 00000000 00000000 05000000 68656c6c 6f000000 00000000 00000000", "", channel.PipeUnknownType},
		{"pipe type 3", "06000200 04000000 00000000 00000000 03000000 05000000 68656c6c 6f000000 00000000 00000000", "", channel.PipeUnknownType},
		{"pipe type 4", "06000200 04000000 00000000 00000000 04000000 05000000 68656c6c 6f000000 00000000 00000000", "", channel.PipeUnknownType},
		{"pipe type 2^32-1", "06000200 04000000 00000000 00000000 ffffffff 05000000 68656c6c 6f000000 00000000 00000000", "", channel.PipeUnknownType},
		{"5 of 5 consumed", "06000200 04000000 00000000 00000000 02000000 05000500 68656c6c 6f000000 00000000 00000000", "", channel.PipeConsumedWhole},
		{"6 of 5 consumed", "06000200 04000000 00000000 00000000 02000000 05000600 68656c6c 6f000000 00000000 00000000", "", channel.PipeConsumedWhole},
		{"0 of 0 consumed", "06000200 04000000 00000000 00000000 02000000 00000000 68656c6c 6f000000 00000000 00000000", "", channel.PipeConsumedWhole},
		{"no room for a pipe header", "06000200 02000000 00000000 00000000 00000000 00000000", "", channel.PipeNoHeader},
		{"a completion", "0b000200 04000000 00000000 00000000 01000000 05000000 68656c6c 6f000000 00000000 00000000", "", channel.PipeNotInBand},
		{"4 of 5 consumed", "06000200 04000000 00000000 00000000 02000000 05000400 68656c6c 6f000000 00000000 00000000", "o", 0},
		{"hello, then n = 9", "06000200 04000000 00000000 00000000 01000000 05000000 68656c6c 6f000000 00000000 00000000" +
			"06000200 04000000 00000000 00000000 01000000 09000000 68656c6c 6f000000 00000000 28000000", "hello", channel.PipeBeyondPacket},
		{"S23: bytes after FIN", "06000200 04000000 00000000 00000000 01000000 05000000 68656c6c 6f000000 00000000 00000000" +
			"06000200 03000000 00000000 00000000 01000000 00000000 00000000 28000000" +
			"06000200 04000000 00000000 00000000 01000000 05000000 61667465 72000000 00000000 48000000", "hello", 0},
	} {
		t.Run(c.why, func(t *testing.T) {
			ring, err := hex.DecodeString(strings.ReplaceAll(c.ring, " ", ""))
			require.NoError(t, err)
			pages := pipePages(t, 1, 1, 0)
			copy(pages[1].Bytes(), ring)
			pages[0].Store32(offWriteIndex, uint32(len(ring)))
			_, r := openPipe(t, pages, linuxPipe)
			got, err := drain(r, 3)
			require.Equal(t, c.data, string(got), "not one byte of a bad packet or behind it (HV-16)")
			var fault *channel.PipeError
			switch {
			case errors.As(err, &fault):
				require.Equal(t, c.fault, fault.Fault, "%v", err)
				require.ErrorIs(t, err, vmbus.ErrProtocol)
				clear(ring) // sticky: valid memory does not help any more
				_, _, again := r.Read(make([]byte, 8))
				require.Same(t, err, again)
				_, again = r.Readable()
				require.Same(t, err, again)
				_, again = r.Save()
				require.Same(t, err, again)
				_, ok := r.View()
				require.False(t, ok)
			case strings.HasPrefix(c.why, "S23"):
				require.Equal(t, io.EOF, err)
			default:
				require.ErrorIs(t, err, ringbuffer.ErrEmpty)
				require.Zero(t, c.fault)
			}
		})
	}
}

// TestPipeTooLong: 16,384 bytes are the limit, in a packet that holds more.
func TestPipeTooLong(t *testing.T) {
	for n, want := range map[int]error{channel.MaxPipeBytes: ringbuffer.ErrEmpty, channel.MaxPipeBytes + 1: vmbus.ErrProtocol} {
		pages := pipePages(t, 5, 1, 0)
		ring, err := ringbuffer.NewWriter(pages)
		require.NoError(t, err)
		_, r := openPipe(t, pages, linuxPipe)
		head := binary.LittleEndian.AppendUint64(nil, 1|uint64(n)<<32)
		require.NoError(t, ring.Append(ringbuffer.Header{Type: ringbuffer.InBand}, head, text(n, 0)))
		ring.Commit()
		got, err := drain(r, 1<<16)
		require.ErrorIs(t, err, want)
		if want == vmbus.ErrProtocol {
			n = 0
		}
		require.Len(t, got, n)
	}
}

// TestPipeRelease: the read index moves when half a ring was read, when the ring
// is drained, or when the writer waits; not for every packet.
func TestPipeRelease(t *testing.T) {
	pages := pipePages(t, 1, 1, 0)
	w, r := openPipe(t, pages, channel.PipeOptions{ChunkBytes: 96}) // 128 bytes of ring each
	n, _, err := w.Write(text(96*20, 0))
	require.NoError(t, err)
	require.Equal(t, 96*20, n)
	buf := make([]byte, 96)
	read := func() (signal bool) {
		n, signal, err := r.Read(buf)
		require.NoError(t, err)
		require.Equal(t, 96, n)
		return signal
	}
	for i := 1; i <= 20; i++ {
		require.False(t, read(), "nobody waits, nobody is signalled")
		want := 0
		switch {
		case i == 20:
			want = 20 * 128 // drained
		case i >= 16:
			want = 16 * 128 // half the ring
		}
		require.EqualValues(t, want, pages[0].Load32(offReadIndex), "after %d packets", i)
	}

	// The writer fills the ring and waits: every Read releases at once.
	for err == nil {
		_, _, err = w.Write(text(96, 0))
	}
	require.ErrorIs(t, err, channel.ErrFull)
	require.True(t, w.Wait())
	free := 4096 - (int(pages[0].Load32(offWriteIndex))-int(pages[0].Load32(offReadIndex))+4096)%4096
	require.LessOrEqual(t, free, 128, "one more packet of 128 bytes must leave a granule")
	require.True(t, read(), "the first packet frees what it waits for")
	require.False(t, read(), "crossed already")
	require.EqualValues(t, (20+2)*128, pages[0].Load32(offReadIndex))
	require.False(t, w.Wait(), "there is room now")
	require.Zero(t, pages[0].Load32(offPendingSize), "found room: withdrawn")
}

// TestPipeView: in-place reading shows what Read would copy.
func TestPipeView(t *testing.T) {
	for _, stride := range []int{1, 2} {
		w, r := openPipe(t, pipePages(t, 2, stride, 8000), linuxPipe)
		_, ok := r.View()
		require.False(t, ok)
		require.False(t, r.Discard(5), "nothing is there")
		data := text(6000, 3)
		n, _, err := w.Write(data)
		require.NoError(t, err)
		require.Equal(t, len(data), n)
		_, err = w.WriteFIN()
		require.NoError(t, err)
		var got []byte
		for {
			view, ok := r.View()
			if !ok {
				break
			}
			step := min(len(view), 1000)
			got = append(got, view[:step]...)
			r.Discard(step)
		}
		require.True(t, bytes.Equal(data, got))
		_, _, err = r.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err, "Read tells why there is nothing to view")
	}
}

// TestPipeMessages: message mode keeps boundaries, empty messages included.
func TestPipeMessages(t *testing.T) {
	w, r := openPipe(t, pipePages(t, 5, 1, 20472), channel.PipeOptions{Messages: true})
	require.Equal(t, channel.MaxPipeBytes, w.MaxMessageBytes())
	for _, n := range []int{5, 0, 3000} {
		sent, _, err := w.Write(text(n, n))
		require.NoError(t, err)
		require.Equal(t, n, sent)
	}
	var size *ringbuffer.SizeError
	_, _, err := w.Write(make([]byte, channel.MaxPipeBytes+1))
	require.ErrorAs(t, err, &size)
	n, _, err := w.Write(text(channel.MaxPipeBytes, 1))
	require.NoError(t, err)
	require.Equal(t, channel.MaxPipeBytes, n)
	_, _, err = w.Write(make([]byte, 3000))
	require.ErrorIs(t, err, channel.ErrFull, "whole or not at all")
	require.True(t, w.Wait())
	_, err = w.WriteFIN()
	require.ErrorIs(t, err, vmbus.ErrState, "an empty packet is a message here, not an end")

	buf := make([]byte, channel.MaxPipeBytes)
	_, _, err = r.Read(buf[:4])
	var short *ringbuffer.BufferError
	require.ErrorAs(t, err, &short)
	require.Equal(t, ringbuffer.BufferError{Need: 5, Have: 4}, *short)
	for _, want := range []int{5, 0, 3000, channel.MaxPipeBytes} {
		n, _, err := r.Read(buf)
		require.NoError(t, err)
		require.Equal(t, want, n)
	}
	_, _, err = r.Read(buf)
	require.ErrorIs(t, err, ringbuffer.ErrEmpty)

	// A small ring bounds a message by what it can ever hold.
	w, _ = openPipe(t, pipePages(t, 1, 1, 0), channel.PipeOptions{Messages: true})
	require.Equal(t, 4096-40, w.MaxMessageBytes())
	_, _, err = w.Write(make([]byte, 4096-40))
	require.NoError(t, err)
}

// TestPipeFINWithoutReserve: without the reserve a FIN may have to wait.
func TestPipeFINWithoutReserve(t *testing.T) {
	pages := pipePages(t, 1, 1, 0)
	w, r := openPipe(t, pages, channel.PipeOptions{})
	n, _, err := w.Write(make([]byte, 5000))
	require.NoError(t, err)
	require.Equal(t, 4056, n, "a packet of 4088 bytes, one granule stays free")
	_, err = w.WriteFIN()
	require.ErrorIs(t, err, channel.ErrFull)
	require.True(t, w.Wait())
	require.EqualValues(t, 32, pages[0].Load32(offPendingSize))
	_, signal, err := r.Read(make([]byte, 5000))
	require.NoError(t, err)
	require.True(t, signal, "the whole ring is free")
	w.Resume()
	_, err = w.WriteFIN()
	require.NoError(t, err)
}

// TestPipeSaveKeepsFIN: an end that was met behind data, and not yet returned,
// is still in the ring for whoever continues (hvsock.md 7.3).
func TestPipeSaveKeepsFIN(t *testing.T) {
	pages := pipePages(t, 1, 1, 0)
	w, r := openPipe(t, pages, linuxPipe)
	_, _, err := w.Write([]byte("data"))
	require.NoError(t, err)
	_, err = w.WriteFIN()
	require.NoError(t, err)
	n, _, err := r.Read(make([]byte, 100))
	require.NoError(t, err)
	require.Equal(t, 4, n)
	_, err = r.Save()
	require.NoError(t, err)
	_, r = openPipe(t, pages, linuxPipe)
	_, _, err = r.Read(make([]byte, 100))
	require.Equal(t, io.EOF, err)
}

// TestPipeErrors: whose fault, and with which numbers.
func TestPipeErrors(t *testing.T) {
	for fault := channel.PipeNotInBand; fault <= channel.PipeConsumedWhole; fault++ {
		require.NotContains(t, fault.String(), "PipeFault(", "each kind has words")
	}
	err := error(&channel.PipeError{Fault: channel.PipeBeyondPacket, Packet: ringbuffer.InBand, Type: 1, Bytes: 9, PayloadBytes: 16})
	require.ErrorIs(t, err, vmbus.ErrProtocol)
	require.Equal(t, "channel: pipe: more data than the packet holds (InBand packet with 16 bytes, pipe type 1, size 0x9)", err.Error())
	err = &channel.PipeStateError{Op: "Write", Finished: true}
	require.ErrorIs(t, err, vmbus.ErrState)
	require.Equal(t, "channel: pipe: Write after the end of the stream was sent", err.Error())
	require.Equal(t, "channel: pipe: WriteFIN does not exist in this mode", (&channel.PipeStateError{Op: "WriteFIN"}).Error())
}
