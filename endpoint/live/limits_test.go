package live

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
	"github.com/stretchr/testify/require"
)

// 64 guest messages wait for the host's loop; the next post is refused in a way
// that guests retry, and nothing of it is kept.
func TestIncomingLimit(t *testing.T) {
	mem := guestmem.NewHeap(guestmem.HeapOptions{})
	hypervisor := synic.NewPartition(mem, 1)
	host, err := NewHost(HostOptions{Memory: mem, Port: hypervisor})
	require.NoError(t, err)
	defer host.Close()
	busy, release := make(chan struct{}), make(chan struct{})
	host.loop.do(func() { close(busy); <-release })
	<-busy
	post := func() synic.Status {
		return hypervisor.PostMessage(synic.AppendPostMessage(nil, endpoint.MessagePort, vmbus.Append(nil, &vmbus.Unload{})))
	}
	for n := range endpoint.MaxIncomingMessages {
		require.Equal(t, synic.StatusSuccess, post(), "%d are waiting", n)
	}
	require.Equal(t, synic.StatusInsufficientBuffers, post())
	close(release)
	host.Usage() // the loop takes a message after every call
	require.Equal(t, synic.StatusSuccess, post(), "there is room again")
}

// refusingPort is short of buffers for the next posts.
type refusingPort struct {
	*synic.Partition
	refuse int
	status synic.Status
	posts  int
}

func (p *refusingPort) PostMessage(input []byte) synic.Status {
	p.posts++
	if p.refuse > 0 {
		p.refuse--
		return p.status
	}
	return p.Partition.PostMessage(input)
}

// halfPort has one processor fewer than the guest thinks.
type halfPort struct{ *synic.Partition }

func (p halfPort) WriteMSR(vp uint32, msr uint32, v uint64) error {
	if vp == 1 {
		return vmbus.ErrState
	}
	return p.Partition.WriteMSR(vp, msr, v)
}

// A guest whose SynIC cannot be set up has nothing: its pages are free, and no
// register names them any more.
func TestGuestWithoutSynIC(t *testing.T) {
	mem := guestmem.NewHeap(guestmem.HeapOptions{})
	hypervisor := synic.NewPartition(mem, 2)
	_, err := NewGuest(GuestOptions{Memory: mem, Port: halfPort{hypervisor}, VPs: 2})
	require.ErrorIs(t, err, vmbus.ErrState)
	require.Zero(t, mem.InUsePages())
	for _, msr := range []uint32{synic.MSRSCONTROL, synic.MSRSIMP, synic.MSRSIEFP} {
		v, err := hypervisor.ReadMSR(0, msr)
		require.NoError(t, err)
		require.Zero(t, v&synicEnable, "MSR %#x", msr)
	}
}

// A post is tried 100 times, then the connection is given up (faults.md 5).
func TestPostRetryLimit(t *testing.T) {
	for _, c := range []struct {
		refuse, posts int
		status        synic.Status
		fails         bool
	}{
		{0, 1, synic.StatusInsufficientBuffers, false},
		{98, 99, synic.StatusInsufficientBuffers, false},
		{99, 100, synic.StatusInsufficientBuffers, false},
		{100, 100, synic.StatusInsufficientBuffers, true},
		{99, 100, synic.StatusInvalidConnectionID, false}, // a host that is not up yet, except for a contact
		{1, 1, synic.StatusInvalidParameter, true},        // trying again cannot help
	} {
		synctest.Test(t, func(t *testing.T) {
			mem := guestmem.NewHeap(guestmem.HeapOptions{})
			port := &refusingPort{Partition: synic.NewPartition(mem, 1), status: c.status}
			host, err := NewHost(HostOptions{Memory: mem, Port: port.Partition})
			require.NoError(t, err)
			gone := make(chan error, 1)
			guest, err := NewGuest(GuestOptions{Memory: mem, Port: port, Gone: func(err error) { gone <- err }})
			require.NoError(t, err)
			require.NoError(t, guest.Connect(context.Background()))

			guest.loop.call(func() { port.refuse, port.posts = c.refuse, 0 })
			guest.RequestSocket(vmbus.GUID{1}, vmbus.GUID{2}, func(err error) { t.Error(err) })
			synctest.Wait()
			<-time.After(2 * time.Minute) // virtual: more than 100 attempts take
			posts := 0
			guest.loop.call(func() { posts = port.posts })
			if c.fails { // Unload is one more post
				require.Equal(t, c.posts+1, posts)
				require.ErrorIs(t, <-gone, c.status)
			} else {
				require.Equal(t, c.posts, posts)
			}
			require.NoError(t, guest.Close())
			host.Close()
		})
	}
}
