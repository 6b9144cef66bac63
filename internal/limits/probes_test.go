package limits

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/sim"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newPair is a simulated host and a guest of it.
func newPair(t *testing.T, opts sim.GuestOptions) (*sim.Host, *sim.Guest) {
	t.Helper()
	host, err := sim.NewHost(sim.HostOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, host.Close()) })
	guest, err := host.NewGuest(opts)
	require.NoError(t, err)
	return host, guest
}

func parent(port uint32) hvsock.Addr {
	return hvsock.Addr{VMID: hvsock.Parent, ServiceID: hvsock.ServiceIDFromPort(port)}
}

// 240 bytes are a message; 241 are refused and nothing is copied, either way.
func TestMessagePayload(t *testing.T) {
	p := synic.NewPartition(guestmem.NewHeap(guestmem.HeapOptions{}), 1)
	got := -1
	require.NoError(t, p.BindMessages(4, func(b []byte) synic.Status { got = len(b); return synic.StatusSuccess }))
	for n, want := range map[int]synic.Status{
		0: synic.StatusSuccess, vmbus.MaxPayloadBytes - 1: synic.StatusSuccess, vmbus.MaxPayloadBytes: synic.StatusSuccess,
		vmbus.MaxPayloadBytes + 1: synic.StatusInvalidParameter,
	} {
		got = -1
		input := make([]byte, 16+n)
		binary.LittleEndian.PutUint32(input, 4)
		binary.LittleEndian.PutUint32(input[8:], 1)
		binary.LittleEndian.PutUint32(input[12:], uint32(n))
		require.Equal(t, want, p.PostMessage(input), "%d bytes", n)
		require.Equal(t, want == synic.StatusSuccess, got == n, "%d bytes", n)
		if n > vmbus.MaxPayloadBytes {
			require.ErrorIs(t, p.Post(synic.Target{SINT: 2}, make([]byte, n)), synic.ErrState)
		}
	}
}

// A GPADL of 8190 pages fills its range buffer; one more is an error before
// anything is sent.
func TestRangeBuffer(t *testing.T) {
	announce := func(pages int) error {
		_, err := channel.Announce(1, 1, channel.Range{ByteCount: uint32(pages) * vmbus.PageBytes, PFNs: make([]uint64, pages)})
		return err
	}
	require.NoError(t, announce(channel.MaxGPADLPages-1))
	require.NoError(t, announce(channel.MaxGPADLPages))
	var size *channel.SizeError
	require.ErrorAs(t, announce(channel.MaxGPADLPages+1), &size)
}

// The page lists of one guest take 64 MiB and no more, whatever shape they have:
// many ranges of one page take more when parsed than on the wire. What is given
// back can be used again.
func TestPageListMemory(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var table channel.GPADLTable
	words := make([]uint64, 8190)
	for i := 0; i < len(words); i += 2 {
		words[i], words[i+1] = 1, uint64(i) // one byte of one page
	}
	id := vmbus.GPADLID(0)
	begin := func(words []uint64) (*channel.GPADL, error) {
		id++
		return table.Begin(vmbus.GPADLHeader{Channel: 1, GPADL: id, RangeBufLen: uint16(8 * len(words)), RangeCount: uint16(len(words) / 2)}, words)
	}
	var last *channel.GPADL
	for n := len(words); n >= 2; { // as large as fits, down to one range
		g, err := begin(words[:n])
		if err != nil {
			require.ErrorIs(t, err, vmbus.ErrProtocol)
			n = n / 4 * 2
			continue
		}
		last = g
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	grown := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	require.Less(t, grown, int64(72<<20), "64 MiB, and the table itself")
	require.Greater(t, grown, int64(48<<20), "most of it was used")
	require.Less(t, table.Len(), channel.MaxGPADLs, "it was the memory that ran out")
	for _, on := range []channel.GPADLEvent{channel.Completes, channel.DeviceAccepts, channel.GuestTearsDown, channel.DeviceLetsGo} {
		require.NoError(t, table.Move(last, on))
	}
	_, err := begin(words[:2])
	require.NoError(t, err)
}

// Rings have 2 to 4095 pages; both ends of that work.
func TestRingPages(t *testing.T) {
	host, err := sim.NewHost(sim.HostOptions{})
	require.NoError(t, err)
	defer host.Close()
	l, err := host.Listen(hvsock.Addr{VMID: hvsock.Children, ServiceID: hvsock.ServiceIDFromPort(1)})
	require.NoError(t, err)
	for pages, ok := range map[int]bool{
		channel.MinRingPages - 1: false, channel.MinRingPages: true, channel.MinRingPages + 1: true,
		channel.MaxRingPages - 1: true, channel.MaxRingPages: true, channel.MaxRingPages + 1: false,
	} {
		guest, err := host.NewGuest(sim.GuestOptions{RingPages: pages})
		if !ok {
			require.Error(t, err, "%d pages", pages)
			continue
		}
		require.NoError(t, err)
		c, err := guest.Dial(t.Context(), parent(1))
		require.NoError(t, err, "%d pages", pages)
		s, err := l.Accept()
		require.NoError(t, err)
		go c.Write(make([]byte, 10_000)) //nolint:errcheck // the read finds out
		got := 0
		for buf := make([]byte, 10_000); got < 10_000; {
			n, err := s.Read(buf)
			require.NoError(t, err)
			got += n
		}
		require.NoError(t, guest.Close())
	}
}

// What is allocated depends on the bytes that are there, never on a count that
// they declare.
func TestDeclaredCounts(t *testing.T) {
	ext := binary.LittleEndian.AppendUint32(make([]byte, 4), 0xFFFFFFFF)
	ext = append(ext, make([]byte, 64)...)
	for name, parse := range map[string]func() error{
		"GPA-direct":     func() error { _, err := ringbuffer.ParseGPADirect(ext); return err },
		"transfer pages": func() error { _, err := ringbuffer.ParseTransferPages(ext); return err },
		"GPADL":          func() error { _, err := channel.ParseRanges([]uint64{1, 1}, 0xFFFF); return err },
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := parse()
		runtime.ReadMemStats(&after)
		require.ErrorIs(t, err, vmbus.ErrProtocol, name)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<10), name)
	}
}

// A dial ends after 300 s at the latest, however patient its context is.
func TestLongestDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, err := sim.NewHost(sim.HostOptions{})
		require.NoError(t, err)
		defer host.Close()
		guest, err := host.NewGuest(sim.GuestOptions{})
		require.NoError(t, err)
		for _, c := range []struct {
			patience, want time.Duration
			err            error
		}{
			{299 * time.Second, 299 * time.Second, os.ErrDeadlineExceeded},
			{301 * time.Second, 300 * time.Second, syscall.ETIMEDOUT},
			{time.Hour, 300 * time.Second, syscall.ETIMEDOUT},
		} {
			ctx, cancel := context.WithTimeout(context.Background(), c.patience)
			start := time.Now()
			_, err := host.Dial(ctx, hvsock.Addr{VMID: guest.ID(), ServiceID: hvsock.ServiceIDFromPort(1)}) // nobody listens
			cancel()
			require.ErrorIs(t, err, c.err)
			require.Equal(t, c.want, time.Since(start))
		}
	})
}

// A listener's queue takes as many connections as it was given places; the next
// dialer of the host is refused at once.
func TestFullBacklog(t *testing.T) {
	const backlog = 3
	host, err := sim.NewHost(sim.HostOptions{Backlog: backlog})
	require.NoError(t, err)
	defer host.Close()
	l, err := host.Listen(hvsock.Addr{VMID: hvsock.Children, ServiceID: hvsock.ServiceIDFromPort(1)})
	require.NoError(t, err)
	guest, err := host.NewGuest(sim.GuestOptions{})
	require.NoError(t, err)
	for range backlog {
		_, err := guest.Dial(t.Context(), parent(1))
		require.NoError(t, err)
	}
	_, err = guest.Dial(t.Context(), parent(1))
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	_, err = l.Accept()
	require.NoError(t, err)
	_, err = guest.Dial(t.Context(), parent(1))
	require.NoError(t, err, "a place is free again")
}

// A connection takes a channel id of 2047; the dial after the last one is
// refused, and an id that comes back serves again.
func TestConnectionsPerGuest(t *testing.T) {
	host, guest := newPair(t, sim.GuestOptions{RingPages: channel.MinRingPages})
	l, err := host.Listen(hvsock.Addr{VMID: hvsock.Children, ServiceID: hvsock.ServiceIDFromPort(1)})
	require.NoError(t, err)
	var last, lastServer *hvsock.Conn
	for range vmbus.MaxChannels {
		last, err = guest.Dial(t.Context(), parent(1))
		require.NoError(t, err)
		lastServer, err = l.AcceptHVSock()
		require.NoError(t, err)
	}
	require.Equal(t, vmbus.MaxChannels, host.Usage().Channels)
	_, err = guest.Dial(t.Context(), parent(1))
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.NoError(t, last.Close())
	require.NoError(t, lastServer.Close())
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for ; ctx.Err() == nil; _, err = guest.Dial(ctx, parent(1)) { // the close ends in the background
		if !errors.Is(err, syscall.ECONNREFUSED) {
			break
		}
	}
	require.NoError(t, err)
}

// An idle connection, both ends of it, has no more than two goroutines and 1 MiB
// with its rings.
func TestIdleConnection(t *testing.T) {
	const connections = 100
	host, guest := newPair(t, sim.GuestOptions{})
	l, err := host.Listen(hvsock.Addr{VMID: hvsock.Children, ServiceID: hvsock.ServiceIDFromPort(1)})
	require.NoError(t, err)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	goroutines := runtime.NumGoroutine()
	for range connections {
		c, err := guest.Dial(t.Context(), parent(1))
		require.NoError(t, err)
		defer c.Close()
		s, err := l.Accept()
		require.NoError(t, err)
		defer s.Close()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	require.LessOrEqual(t, runtime.NumGoroutine()-goroutines, 2*connections)
	require.Less(t, int64(after.HeapAlloc)-int64(before.HeapAlloc), int64(connections<<20))
	t.Logf("%d goroutines, %d KiB for each of %d connections", (runtime.NumGoroutine()-goroutines)/connections,
		(int64(after.HeapAlloc)-int64(before.HeapAlloc))/connections>>10, connections)
}

// Ports that a guest gets without asking lie below 0x80000000, which old Linux
// kernels keep for themselves; whoever asks for one above gets it, as from Linux
// since 5.5 (hvsock.md 2.6).
func TestPorts(t *testing.T) {
	_, guest := newPair(t, sim.GuestOptions{})
	for _, port := range []uint32{0x7FFFFFFE, 0x7FFFFFFF, 0x80000000} {
		l, err := guest.Listen(parent(port))
		require.NoError(t, err)
		require.NoError(t, l.Close())
	}
	for range 100 {
		l, err := guest.Listen(hvsock.Addr{VMID: hvsock.Parent})
		require.NoError(t, err)
		port, ok := hvsock.PortFromServiceID(l.Addr().(hvsock.Addr).ServiceID)
		require.True(t, ok)
		require.LessOrEqual(t, port, uint32(0x7FFFFFFF))
		require.NoError(t, l.Close())
	}
}
