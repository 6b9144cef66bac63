package channel_test

import (
	"testing"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/stretchr/testify/require"
)

// ringPair is a guest's memory with rings of 2 pages to the host and 3 to the
// guest, on scattered pages, and the guest's end of them.
func ringPair(t *testing.T) (mem guestmem.Memory, pages []*guestmem.Page, guest *channel.Rings) {
	t.Helper()
	mem, err := guestmem.NewRegion(0, make([]byte, 16*guestmem.PageSize))
	require.NoError(t, err)
	pages, err = guestmem.Resolve(mem, []uint64{9, 2, 5, 7, 3})
	require.NoError(t, err)
	guest, err = channel.NewGuestRings(pages, 2)
	require.NoError(t, err)
	return mem, pages, guest
}

// pass writes in one end and reads at the other.
func pass(t *testing.T, w *ringbuffer.Writer, r *ringbuffer.Reader, text string) {
	t.Helper()
	out := channel.NewPipeWriter(w, channel.PipeOptions{})
	before := out.Stats().Packets
	n, signal, err := out.Write([]byte(text))
	require.NoError(t, err)
	require.Equal(t, len(text), n)
	require.True(t, signal, "the ring was empty (ringbuffer.md 9, W6)")
	in, b := channel.NewPipeReader(r), make([]byte, 100)
	n, _, err = in.Read(b)
	require.NoError(t, err)
	require.Equal(t, text, string(b[:n]))
	require.EqualValues(t, 1, out.Stats().Packets-before, "one write is one packet")
	require.NotZero(t, in.Stats().Bytes)
}

// vmbus-control.md 4.4: the first pages are the guest-to-host ring, the rest the
// other; what one side writes is what the other reads, and nothing crosses over.
func TestRingsMeet(t *testing.T) {
	mem, pages, guest := ringPair(t)
	host, err := channel.MapHostRings(mem, []uint64{9, 2}, []uint64{5, 7, 3})
	require.NoError(t, err)
	require.Equal(t, []int{2, 3, 3, 2}, []int{host.InPages, host.OutPages, guest.InPages, guest.OutPages}, "one side's way in is the other's way out")
	require.Equal(t, guestmem.PageSize, host.In.DataBytes(), "the control page holds no data")
	require.Equal(t, 2*guestmem.PageSize, host.Out.DataBytes())
	pass(t, guest.Out, host.In, "to the host")
	pass(t, host.Out, guest.In, "to the guest")

	again, err := channel.MapGuestRings(pages, 2)
	require.NoError(t, err, "a restored guest maps what is in use")
	pass(t, again.Out, host.In, "later")
}

// A guest may name pages it does not have, and leave any index in memory that it
// shares; the host refuses both before it touches data.
func TestMapRingsRefusals(t *testing.T) {
	mem, pages, _ := ringPair(t)
	_, err := channel.MapHostRings(mem, []uint64{9, 99}, []uint64{5, 7, 3})
	require.ErrorIs(t, err, guestmem.ErrNoPage, "vmbus-control.md 4.1: the device fails when it maps a page that is not there")
	require.ErrorContains(t, err, "guest-to-host ring")
	_, err = channel.MapHostRings(mem, []uint64{9, 2}, []uint64{5, 7, 1 << 52})
	require.ErrorIs(t, err, guestmem.ErrNoPage)
	require.ErrorContains(t, err, "host-to-guest ring")

	for _, c := range []struct{ controlPage, index int }{{0, offReadIndex}, {0, offWriteIndex}, {2, offReadIndex}, {2, offWriteIndex}} {
		pages[c.controlPage].Store32(c.index, 4) // ringbuffer.md 2: a multiple of 8, below the data size
		host, err := channel.MapHostRings(mem, []uint64{9, 2}, []uint64{5, 7, 3})
		require.ErrorIs(t, orPeek(host, err), vmbus.ErrProtocol)
		guest, err := channel.MapGuestRings(pages, 2)
		require.ErrorIs(t, orPeek(guest, err), vmbus.ErrProtocol)
		pages[c.controlPage].Store32(c.index, 0)
	}
}

// orPeek is err, or what the first look for a packet gives: only then does a reader
// load the index that is not its own.
func orPeek(rings *channel.Rings, err error) error {
	if err == nil {
		_, err = rings.In.Peek()
	}
	return err
}

// A ring without a data page is no ring; asking for one is the guest driver's own
// mistake, finding one in a saved guest is not.
func TestRingsNeedDataPages(t *testing.T) {
	_, pages, _ := ringPair(t)
	for _, out := range []int{-1, 0, 1, 4, 5, 6} {
		_, err := channel.NewGuestRings(pages, out)
		require.ErrorIs(t, err, vmbus.ErrState)
		_, err = channel.MapGuestRings(pages, out)
		require.ErrorIs(t, err, vmbus.ErrProtocol)
		require.ErrorContains(t, err, "channel: the ring GPADL has rings of")
	}
}

// hvsock.md 6: one recv of Linux ends with the packet, also if more would fit; a
// rest is for the next one, and the end of the stream is an error of its own.
func TestReadPacket(t *testing.T) {
	w, r := openPipe(t, pipePages(t, 1, 1, 0), linuxPipe)
	for _, s := range []string{"hello", "world"} {
		_, _, err := w.Write([]byte(s))
		require.NoError(t, err)
	}
	_, err := w.WriteFIN()
	require.NoError(t, err)
	read := func(n int) (string, error) {
		b := make([]byte, n)
		n, _, err := r.ReadPacket(b)
		return string(b[:n]), err
	}
	for _, c := range []struct {
		room int
		want string
	}{{0, ""}, {100, "hello"}, {2, "wo"}, {100, "rld"}} {
		got, err := read(c.room)
		require.NoError(t, err)
		require.Equal(t, c.want, got)
	}
	for range 2 {
		got, err := read(100)
		require.ErrorContains(t, err, "EOF", "for ever")
		require.Empty(t, got)
	}
}

// A peer that breaks its index while a pipe is in use ends it, in every call and
// for good (I-CORRUPT-STICKY).
func TestPipeOverBrokenIndices(t *testing.T) {
	for _, messages := range []bool{false, true} {
		pages := pipePages(t, 1, 1, 0)
		w, r := openPipe(t, pages, channel.PipeOptions{Messages: messages})
		pages[0].Store32(offReadIndex, 4)
		pages[0].Store32(offWriteIndex, 4)
		for range 2 {
			_, _, err := w.Write(make([]byte, 5000)) // more than is known to be free, so it looks
			if messages {
				_, _, err = w.Write(make([]byte, 8))
			}
			require.ErrorIs(t, err, vmbus.ErrProtocol)
			require.False(t, w.Wait(), "nobody would wake it: the next Write returns the error")
			_, _, err = r.Read(make([]byte, 10))
			require.ErrorIs(t, err, vmbus.ErrProtocol)
			_, _, err = r.ReadPacket(make([]byte, 10))
			require.ErrorIs(t, err, vmbus.ErrProtocol)
			_, err = r.Save()
			require.ErrorIs(t, err, vmbus.ErrProtocol, "there is nothing to go on from")
			pages[0].Store32(offReadIndex, 0) // repairing the memory helps nobody
			pages[0].Store32(offWriteIndex, 0)
		}
	}
}

// A kind of fault that has no name yet still prints.
func TestPipeFaultNames(t *testing.T) {
	seen := map[string]bool{}
	for f := channel.PipeNotInBand; f <= channel.PipeConsumedWhole; f++ {
		require.NotContains(t, f.String(), "PipeFault(", "fault %d", uint8(f))
		require.False(t, seen[f.String()], f.String())
		seen[f.String()] = true
	}
	require.Equal(t, "PipeFault(99)", channel.PipeFault(99).String())
}
