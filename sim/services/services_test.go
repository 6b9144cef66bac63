package services

import (
	"context"
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/ringbuffer"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fakeUtil answers as Linux's hv_util.c does: it takes the first version of
// each list, adds one to heartbeats and agrees to everything else.
type fakeUtil struct {
	kinds chan kind

	mu      sync.Mutex
	channel *live.GuestChannel
	status  uint32
}

func (f *fakeUtil) Opened(c *live.GuestChannel) {
	f.mu.Lock()
	f.channel = c
	f.mu.Unlock()
	f.Doorbell() // what came before the open was finished
}

func (f *fakeUtil) OpenFailed(err error) { panic(err) }

func (f *fakeUtil) Rescinded() {
	f.mu.Lock()
	f.channel = nil
	f.mu.Unlock()
}

func (f *fakeUtil) Doorbell() {
	f.mu.Lock()
	c := f.channel
	signal := false
	for c != nil {
		var buf [4096]byte
		h, n, err := c.In.Next(buf[:])
		if err != nil {
			break
		}
		c.In.Commit()
		signal = f.respond(c, h.ID, buf[:n]) || signal
	}
	f.mu.Unlock()
	if signal {
		c.Signal()
	}
}

func (f *fakeUtil) respond(c *live.GuestChannel, id uint64, b []byte) (signal bool) {
	h, body, err := decode(b)
	if err != nil {
		panic(err)
	}
	switch h.Kind {
	case kindNegotiate:
		first := binary.LittleEndian.Uint16(body)
		message := body[8+4*int(first):]
		copy(body[12:16], message[:4])
		binary.LittleEndian.PutUint16(body, 1)
		binary.LittleEndian.PutUint16(body[2:], 1)
	case kindHeartbeat:
		binary.LittleEndian.PutUint64(body, u64(body, 0)+1)
	}
	b[25] = flagTransaction | flagResponse
	binary.LittleEndian.PutUint32(b[20:], f.status)
	if err := c.Out.Append(ringbuffer.Header{Type: ringbuffer.InBand, ID: id}, b[:headerBytes+len(body)], nil); err != nil {
		panic(err)
	}
	f.kinds <- h.Kind
	return c.Out.Commit()
}

// start attaches s to a guest whose driver is a fakeUtil and waits until both
// have agreed on a version.
func start(t *testing.T, s *Service) *fakeUtil {
	t.Helper()
	mem := guestmem.NewHeap(guestmem.HeapOptions{})
	hypervisor := synic.NewPartition(mem, 1)
	host, err := live.NewHost(live.HostOptions{Memory: mem, Port: hypervisor})
	require.NoError(t, err)
	f := &fakeUtil{kinds: make(chan kind, 100)}
	offered := make(chan vmbus.OfferChannel, 1)
	guest, err := live.NewGuest(live.GuestOptions{Memory: mem, Port: hypervisor, Offered: func(o vmbus.OfferChannel) { offered <- o }})
	require.NoError(t, err)
	ready := s.Ready()
	s.Attach(host)
	require.NoError(t, guest.Connect(context.Background()))
	guest.Open((<-offered).Channel, live.RingOptions{ToHostPages: 4, ToGuestPages: 4}, f)
	t.Cleanup(func() {
		require.NoError(t, guest.Close())
		host.Close()
		require.Zero(t, mem.InUsePages())
	})
	<-ready
	require.Equal(t, kindNegotiate, <-f.kinds)
	return f
}

func TestHeartbeat(t *testing.T) {
	h := NewHeartbeat()
	_, err := h.Beat(context.Background())
	require.ErrorIs(t, err, ErrNotReady, "no guest yet")
	start(t, h.Service)
	require.Equal(t, Version{3, 0}, h.Version())
	for want := uint64(1); want < 6; want += 2 { // the guest adds one, the host goes on from there
		got, err := h.Beat(context.Background())
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

func TestShutdown(t *testing.T) {
	s := NewShutdown()
	f := start(t, s.Service)
	require.Equal(t, Version{3, 2}, s.Version())
	require.NoError(t, s.PowerOff(context.Background()))
	require.Equal(t, kindShutdown, <-f.kinds)
	f.mu.Lock()
	f.status = 0x80004005
	f.mu.Unlock()
	require.ErrorIs(t, s.PowerOff(context.Background()), vmbus.ErrProtocol, "the guest refuses")
}

func TestTimeSync(t *testing.T) {
	s := NewTimeSync()
	f := start(t, s.Service)
	require.NoError(t, s.Set(context.Background(), time.Unix(0, 0), 7))
	require.Equal(t, kindTimeSync, <-f.kinds)
	require.EqualValues(t, 116444736000000000, fileTime(time.Unix(0, 0)), "1970 in 100 ns units since 1601")
	require.Len(t, timeBody(Version{4, 0}, time.Now(), 0), 22, "struct ictimesync_ref_data")
	require.Len(t, timeBody(Version{3, 0}, time.Now(), 0), 25, "struct ictimesync_data")
}

// A response that lies about itself is dropped; nothing is read past its end.
func TestDecode(t *testing.T) {
	for n := range headerBytes {
		_, _, err := decode(make([]byte, n))
		require.ErrorIs(t, err, vmbus.ErrProtocol, "%d bytes", n)
	}
	b := encode(kindHeartbeat, Version{3, 0}, Version{3, 0}, 1, make([]byte, 8))
	_, _, err := decode(b[:len(b)-1])
	require.ErrorIs(t, err, vmbus.ErrProtocol, "claims more body than it has")
	_, _, err = chosenVersions(make([]byte, 15))
	require.ErrorIs(t, err, vmbus.ErrProtocol)
	_, _, err = chosenVersions(make([]byte, 16))
	require.ErrorIs(t, err, vmbus.ErrProtocol, "no version in common")
}
