package sim

import (
	"context"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/endpoint/live"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/hvlab/hvlab/vmbus/synic"
	"github.com/hvlab/hvlab/vmbus/trace"
	"github.com/stretchr/testify/require"
)

// TestCatalogue holds the rows of faults.md, section 1, that take a whole host and
// guest. internal/putback/check puts each fault back and runs its row. Time is
// virtual: a call that hangs blocks its bubble for good, which is a failure at
// once.
func TestCatalogue(t *testing.T) {
	for _, row := range []struct {
		id   string
		test func(*testing.T)
	}{
		{"GC-03", testNothingLeaks},
		{"HV-01", testGuestReleasesAfterRescind},
		{"HV-02", testRefusalEndsTheDial},
		{"HV-03", testEachDialGetsItsOwnAnswer},
		{"HV-04", testGuestNeverOpens},
		{"HV-06", testDefaultsConnect},
		{"HV-10", testSilentPeer},
		{"HV-11", testSlowReaderGetsAll},
		{"HV-14", testHalfCloseIsHalf},
		{"HV-18-replaced", testSleepAndWake},
		{"SS-03", testBindingLivesWithItsListener},
		{"SS-08", testQueuedConnectionsEnd},
		{"SS-10-older", testGuestOfAnOlderSnapshot},
	} {
		t.Run(row.id, func(t *testing.T) { synctest.Test(t, row.test) })
	}
	t.Run("HV-18-pause", TestPause) // these make their bubbles themselves
	t.Run("SS-09", TestPauseKeepingConnections)
	t.Run("SS-10-save", TestSaveAndRestore)
}

// open is one connection in each of the first two roles.
func open(t *testing.T, host *Host, guest *Guest) (dialed, accepted [2]net.Conn) {
	t.Helper()
	for i, r := range roles(host, guest)[:2] {
		dialed[i], accepted[i] = connect(t, r)
	}
	return dialed, accepted
}

// GC-03: ten thousand connections, each ended by a rescind. Pages, GPADLs and ids
// all come back, and so does the memory: the heap is what it was after ten.
func testNothingLeaks(t *testing.T) {
	host, guest := newPair(t, HostOptions{}, GuestOptions{RingPages: 2})
	role := roles(host, guest)[0]
	l, err := role.listen(role.bind)
	require.NoError(t, err)
	cycle := func() {
		c, err := role.dial(context.Background(), role.to)
		require.NoError(t, err)
		a, err := l.Accept()
		require.NoError(t, err)
		require.NoError(t, c.Close())
		require.NoError(t, a.Close())
		synctest.Wait()
		require.Zero(t, guest.Usage())
	}
	heapBytes := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // finalizers of the first
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for range 10 {
		cycle()
	}
	before := heapBytes()
	for range 10_000 - 10 {
		cycle()
	}
	const noise = 256 << 10 // 25 bytes for each connection
	require.Less(t, heapBytes(), before+noise, "bytes of heap after ten thousand connections")
	require.NoError(t, l.Close())
	require.Zero(t, host.Usage())
}

// HV-01: the guest closes while the host still has to read. It lets go of the
// channel only when the host has rescinded it, which is when the host has read all.
func testGuestReleasesAfterRescind(t *testing.T) {
	var mu sync.Mutex
	var names []string
	host, guest := newPair(t, HostOptions{Trace: func(e trace.Event) {
		mu.Lock()
		defer mu.Unlock()
		names = append(names, e.Name)
	}}, GuestOptions{})
	c, a := connect(t, roles(host, guest)[0])
	_, err := c.Write([]byte("accepted"))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	<-time.After(time.Second) // the host is slow
	got, err := io.ReadAll(a)
	require.NoError(t, err)
	require.Equal(t, "accepted", string(got))
	require.NoError(t, a.Close())
	synctest.Wait()
	mu.Lock()
	defer mu.Unlock()
	all := strings.Join(names, " ")
	require.Contains(t, all, "OpenResult RescindChannelOffer CloseChannel GPADLTeardown GPADLTorndown RelIDReleased")
}

// HV-02: nobody listens, and the host says so with TLConnectResult. The dial ends
// in the same step, not by its timeout.
func testRefusalEndsTheDial(t *testing.T) {
	_, guest := newPair(t, HostOptions{}, GuestOptions{})
	began := time.Now()
	_, err := guest.Dial(context.Background(), port(hvsock.Parent, 4711))
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.Zero(t, time.Since(began))
}

// HV-03: two dials to one service, and the answers come in the other order: the
// second is accepted, the first refused. Each caller gets its own answer.
func testEachDialGetsItsOwnAnswer(t *testing.T) {
	host, guest := newPair(t, HostOptions{}, GuestOptions{})
	requests := make(chan *hvsock.Request, 2)
	stop, err := host.HandleRequests(hvsock.Wildcard, func(r *hvsock.Request) { requests <- r })
	require.NoError(t, err)
	defer stop()
	type outcome struct {
		conn *hvsock.Conn
		err  error
	}
	var outcomes [2]chan outcome
	var asked [2]*hvsock.Request
	for i := range outcomes {
		outcomes[i] = make(chan outcome, 1)
		go func() {
			c, err := guest.Dial(context.Background(), port(hvsock.Parent, 5000))
			outcomes[i] <- outcome{c, err}
		}()
		asked[i] = <-requests
	}
	a, err := asked[1].Accept(context.Background())
	require.NoError(t, err)
	asked[0].Refuse()
	first, second := <-outcomes[0], <-outcomes[1]
	require.ErrorIs(t, first.err, syscall.ECONNREFUSED, "the first was refused")
	require.NoError(t, second.err, "the second was accepted")
	require.Equal(t, a.RemoteAddr(), second.conn.LocalAddr())
	require.NoError(t, second.conn.Close())
	require.NoError(t, a.Close())
}

// HV-04: the guest leaves the host's offer alone. After the timeout it is
// withdrawn, and nothing of the dial is left anywhere.
func testGuestNeverOpens(t *testing.T) {
	host, guest := newPair(t, HostOptions{}, GuestOptions{})
	began := time.Now()
	_, err := host.Dial(context.Background(), port(guest.ID(), 4711))
	require.ErrorIs(t, err, syscall.ETIMEDOUT)
	require.Equal(t, 2*time.Second, time.Since(began))
	synctest.Wait()
	require.Zero(t, host.Usage(), "no offer, no socket")
	require.Zero(t, guest.Usage())
}

// HV-06: a host dials a listening guest, both with default settings.
func testDefaultsConnect(t *testing.T) {
	host, guest := newPair(t, HostOptions{}, GuestOptions{})
	c, a := connect(t, roles(host, guest)[1])
	_, err := c.Write([]byte("hello"))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	got, err := io.ReadAll(a)
	require.NoError(t, err)
	require.Equal(t, "hello", string(got))
	require.NoError(t, a.Close())
}

// HV-10: one end closes, and the program at the other neither reads nor closes.
// Close returns at once; after 8 s everything local is freed.
func testSilentPeer(t *testing.T) {
	host, guest := newPair(t, HostOptions{}, GuestOptions{})
	for i, r := range roles(host, guest)[:2] {
		c, a := connect(t, r)
		_, err := c.Write([]byte("never read"))
		require.NoError(t, err)
		began := time.Now()
		require.NoError(t, c.Close())
		require.Zero(t, time.Since(began))
		<-time.After(8*time.Second + time.Millisecond)
		synctest.Wait()
		closer := []func() Usage{guest.Usage, host.Usage}[i]
		require.Zero(t, closer().Connections, "%s: the closer's socket is gone", r.name)
		require.Zero(t, guest.Usage().Pages, r.name)
		require.NoError(t, a.Close())
		synctest.Wait()
	}
}

// HV-11: everything that Write took is read, and then the end, though Close
// followed at once and the reader comes long after the closer has given up.
func testSlowReaderGetsAll(t *testing.T) {
	host, guest := newPair(t, HostOptions{}, GuestOptions{})
	dialed, accepted := open(t, host, guest)
	want := strings.Repeat("twelve bytes", 1000)
	for _, c := range dialed {
		n, err := io.WriteString(c, want)
		require.NoError(t, err)
		require.Equal(t, len(want), n)
		require.NoError(t, c.Close())
	}
	<-time.After(time.Minute)
	for _, a := range accepted {
		got, err := io.ReadAll(a)
		require.NoError(t, err)
		require.Equal(t, want, string(got))
		require.NoError(t, a.Close())
	}
}

// HV-14: one side ends its stream and goes on reading a long answer.
func testHalfCloseIsHalf(t *testing.T) {
	host, guest := newPair(t, HostOptions{}, GuestOptions{})
	dialed, accepted := open(t, host, guest)
	want := strings.Repeat("a long answer", 50_000)
	for i := range dialed {
		_, err := io.WriteString(dialed[i], "question")
		require.NoError(t, err)
		require.NoError(t, dialed[i].(*hvsock.Conn).CloseWrite())
		go func() {
			question, err := io.ReadAll(accepted[i])
			if err == nil && string(question) == "question" {
				_, _ = io.WriteString(accepted[i], want)
			}
			_ = accepted[i].Close()
		}()
		got, err := io.ReadAll(dialed[i])
		require.NoError(t, err)
		require.Equal(t, len(want), len(got))
		require.Equal(t, want, string(got))
		require.NoError(t, dialed[i].Close())
	}
}

// HV-18: the guest goes away under live connections and comes back, as a machine
// does that sleeps and wakes. The old connections end with an error on both sides,
// the host's listener lives, and new connections work.
func testSleepAndWake(t *testing.T) {
	host, err := NewHost(HostOptions{})
	require.NoError(t, err)
	defer host.Close()
	id := uuid.New()
	guest, err := host.NewGuest(GuestOptions{ID: id})
	require.NoError(t, err)
	l, err := host.Listen(port(hvsock.Wildcard, 6000))
	require.NoError(t, err)
	defer l.Close()
	dialed, accepted := open(t, host, guest)
	ends := append(dialed[:], accepted[:]...)
	errs := make(chan error, len(ends))
	for _, c := range ends {
		go func() { _, err := c.Read(make([]byte, 1)); errs <- err }()
	}
	synctest.Wait()
	require.NoError(t, guest.Close())
	for range ends {
		require.ErrorIs(t, <-errs, syscall.ECONNRESET) // or one of them waits for ever
	}
	for _, c := range ends {
		require.NoError(t, c.Close())
	}

	guest, err = host.NewGuest(GuestOptions{ID: id})
	require.NoError(t, err)
	c, err := guest.Dial(context.Background(), port(hvsock.Parent, 6000))
	require.NoError(t, err)
	a, err := l.Accept()
	require.NoError(t, err)
	require.NoError(t, c.Close())
	_, err = a.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, a.Close())
}

// SS-03: a listener is bound to one guest. The binding lives exactly as long as
// the listener: not shorter, when that guest is replaced by another of the same
// id, and not longer.
func testBindingLivesWithItsListener(t *testing.T) {
	host, err := NewHost(HostOptions{})
	require.NoError(t, err)
	defer host.Close()
	id := uuid.New()
	at := port(id, 5000)
	l, err := host.Listen(at)
	require.NoError(t, err)
	for range 2 {
		guest, err := host.NewGuest(GuestOptions{ID: id})
		require.NoError(t, err)
		_, err = host.Listen(at)
		require.ErrorIs(t, err, syscall.EADDRINUSE, "it is bound")
		c, err := guest.Dial(context.Background(), port(hvsock.Parent, 5000))
		require.NoError(t, err)
		a, err := l.Accept()
		require.NoError(t, err)
		require.NoError(t, c.Close())
		require.NoError(t, a.Close())
		require.NoError(t, guest.Close())
	}
	require.NoError(t, l.Close())
	l, err = host.Listen(at)
	require.NoError(t, err, "and free when it is closed")
	require.NoError(t, l.Close())
}

// SS-10: a guest with live connections is put back to a snapshot from before it had
// any: the same memory and virtual processors, and a bus that knows nothing. When
// it makes contact, the host ends all of them towards its applications; none
// hangs, and new ones work.
func testGuestOfAnOlderSnapshot(t *testing.T) {
	host, err := NewHost(HostOptions{})
	require.NoError(t, err)
	mem, id := guestmem.NewHeap(guestmem.HeapOptions{}), uuid.New()
	hypervisor := synic.NewPartition(mem, 1)
	attachment, err := host.Attach("guest", id, mem, hypervisor)
	require.NoError(t, err)
	boot := func() (*live.Guest, *hvsock.GuestStack) {
		sockets := hvsock.NewGuestStack(hvsock.GuestOptions{VMID: id})
		bus, err := live.NewGuest(live.GuestOptions{
			Memory: mem, Port: hypervisor, Offered: sockets.Offered, SocketRefused: sockets.Refused, Gone: sockets.Gone,
		})
		require.NoError(t, err)
		sockets.Attach(bus)
		require.NoError(t, bus.Connect(context.Background()))
		return bus, sockets
	}
	l, err := host.Listen(port(hvsock.Wildcard, 5000))
	require.NoError(t, err)
	before, sockets := boot()
	ended := make(chan error, 3)
	for range cap(ended) {
		_, err := sockets.Dial(context.Background(), port(hvsock.Parent, 5000))
		require.NoError(t, err)
		c, err := l.Accept()
		require.NoError(t, err)
		go func() {
			_, err := c.Read(make([]byte, 1))
			_ = c.Close()
			ended <- err
		}()
	}
	after, sockets := boot()
	for range cap(ended) {
		require.ErrorIs(t, <-ended, syscall.ECONNRESET) // or one waits for ever
	}
	c, err := sockets.Dial(context.Background(), port(hvsock.Parent, 5000))
	require.NoError(t, err)
	a, err := l.Accept()
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.NoError(t, a.Close())
	require.NoError(t, after.Close())
	attachment.Close()
	require.NoError(t, before.Close(), "what was put back had no future: nobody listens to it")
	require.NoError(t, l.Close())
	require.NoError(t, host.Close())
}

// SS-08: connections wait for Accept when their listener is closed. They end: the
// dialers learn of it, and nothing stays behind.
func testQueuedConnectionsEnd(t *testing.T) {
	host, guest := newPair(t, HostOptions{}, GuestOptions{})
	l, err := host.Listen(port(hvsock.Wildcard, 5000))
	require.NoError(t, err)
	var dialed []net.Conn
	for range 5 {
		c, err := guest.Dial(context.Background(), port(hvsock.Parent, 5000))
		require.NoError(t, err)
		dialed = append(dialed, c)
	}
	require.NoError(t, l.Close())
	for _, c := range dialed {
		_, err := c.Read(make([]byte, 1)) // or this waits for ever
		require.ErrorIs(t, err, io.EOF)
		require.NoError(t, c.Close())
	}
	synctest.Wait()
	require.Zero(t, host.Usage())
	require.Zero(t, guest.Usage())
}
