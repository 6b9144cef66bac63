package sim

import (
	"cmp"
	"context"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/hvsock/registry"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/hvlab/hvlab/vmbus/guestmem"
	"github.com/stretchr/testify/require"
)

// eachProfile runs f in a synctest bubble with a guest of every profile.
func eachProfile(t *testing.T, o GuestOptions, f func(t *testing.T, p hvsock.Profile, host *Host, guest *Guest)) {
	for _, p := range hvsock.Profiles() {
		t.Run(cmp.Or(p.Name, "best"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o.Profile = p
				echo := registry.Service{ID: hvsock.ServiceIDFromPort(5000)}
				host, guest := newPair(t, HostOptions{Services: registry.New(echo)}, o)
				f(t, p, host, guest)
			})
		})
	}
}

// hvsock.md 15, family / address, and 2.6: what a dial and a listener may name.
func TestProfileAddresses(t *testing.T) {
	odd := hvsock.Addr{VMID: hvsock.Wildcard, ServiceID: uuid.UUID{1}}
	want := map[string]struct {
		odd      error // a service that is no port
		parent   error // a listener for the host alone
		stranger error // a dial to another VM
		dgram    error
		isPort   bool // a dial's own end
		anyLocal bool
	}{
		"":                 {nil, nil, syscall.ENETUNREACH, syscall.ESOCKTNOSUPPORT, true, false},
		"Linux":            {syscall.EINVAL, syscall.EADDRNOTAVAIL, syscall.ENODEV, syscall.ENODEV, true, true},
		"FreeBSD":          {syscall.EINVAL, syscall.EADDRNOTAVAIL, syscall.ENETUNREACH, syscall.ESOCKTNOSUPPORT, true, true},
		"Windows":          {nil, nil, syscall.ENETUNREACH, syscall.ESOCKTNOSUPPORT, false, false},
		"AF_HYPERV (2016)": {nil, nil, syscall.ENETUNREACH, syscall.ESOCKTNOSUPPORT, false, false},
	}
	eachProfile(t, GuestOptions{}, func(t *testing.T, p hvsock.Profile, host *Host, guest *Guest) {
		w := want[p.Name]
		l, err := guest.Listen(odd)
		require.ErrorIs(t, err, w.odd)
		if err == nil {
			require.NoError(t, l.Close())
		}
		if w.odd != nil {
			_, err = guest.Dial(t.Context(), hvsock.Addr{VMID: hvsock.Parent, ServiceID: odd.ServiceID})
			require.ErrorIs(t, err, w.odd)
		}
		l, err = guest.Listen(port(hvsock.Parent, 5000))
		require.ErrorIs(t, err, w.parent)
		if err == nil {
			require.NoError(t, l.Close())
		}
		_, err = guest.Dial(t.Context(), port(uuid.UUID{1}, 5000))
		require.ErrorIs(t, err, w.stranger)
		_, err = guest.DialContext(t.Context(), "udp", "parent:5000")
		require.ErrorIs(t, err, w.dgram)

		dialed, _ := connect(t, roles(host, guest)[0])
		local := dialed.LocalAddr().(hvsock.Addr)
		_, isPort := hvsock.PortFromServiceID(local.ServiceID)
		require.Equal(t, w.isPort, isPort)
		require.Equal(t, w.anyLocal, local.VMID == hvsock.Wildcard)
	})
}

// hvsock.md 15, message 23 and connect timeout: what a dial that nobody serves
// gets, and when. The years stand for no timeout at all.
func TestProfileRefusalAndTimeout(t *testing.T) {
	const never = 1000 * time.Hour
	want := map[string]struct {
		err   error
		after time.Duration
	}{
		"":                 {syscall.ECONNREFUSED, 0},
		"Linux":            {syscall.ETIMEDOUT, 2 * time.Second},
		"FreeBSD":          {context.Canceled, never},
		"Windows":          {syscall.ECONNREFUSED, 0},
		"AF_HYPERV (2016)": {syscall.ETIMEDOUT, 2 * time.Second},
	}
	eachProfile(t, GuestOptions{}, func(t *testing.T, p hvsock.Profile, _ *Host, guest *Guest) {
		ctx, cancel := context.WithCancel(t.Context())
		defer time.AfterFunc(never, cancel).Stop()
		start := time.Now()
		_, err := guest.Dial(ctx, port(hvsock.Parent, 1))
		require.ErrorIs(t, err, want[p.Name].err)
		require.Equal(t, want[p.Name].after, time.Since(start))
	})
}

// hvsock.md 15, half-close and FIN mark: whether CloseWrite ends the stream for
// the host, while the other direction goes on.
func TestProfileHalfClose(t *testing.T) {
	eachProfile(t, GuestOptions{}, func(t *testing.T, p hvsock.Profile, host *Host, guest *Guest) {
		for _, r := range roles(host, guest)[:2] {
			c1, c2 := connect(t, r)
			inGuest, inHost := c1, c2
			if r.name == "host to guest" {
				inGuest, inHost = c2, c1
			}
			_, err := inGuest.Write([]byte("x"))
			require.NoError(t, err)
			require.NoError(t, inGuest.(*hvsock.Conn).CloseWrite())
			_, err = inGuest.Write([]byte("x"))
			require.ErrorIs(t, err, syscall.EPIPE, "it is over for this end in any case")
			require.NoError(t, inHost.SetReadDeadline(time.Now().Add(time.Hour)))
			_, err = inHost.Read(make([]byte, 1))
			require.NoError(t, err)
			_, err = inHost.Read(make([]byte, 1))
			if p.Name == "FreeBSD" {
				require.ErrorIs(t, err, os.ErrDeadlineExceeded, "it sends nothing before Close")
			} else {
				require.Equal(t, io.EOF, err)
			}
			require.NoError(t, inHost.SetReadDeadline(time.Time{}))
			_, err = inHost.Write([]byte("y"))
			require.NoError(t, err)
			_, err = inGuest.Read(make([]byte, 1))
			require.NoError(t, err)
			require.NoError(t, inGuest.Close())
			_, err = inHost.Read(make([]byte, 1))
			require.Equal(t, io.EOF, err)
			require.NoError(t, inHost.Close())
		}
		synctest.Wait()
		require.Zero(t, guest.Usage())
	})
}

// hvsock.md 15, read after disconnect: the host goes without a FIN.
func TestProfileCutOff(t *testing.T) {
	want := map[string]error{
		"": syscall.ECONNRESET, "Linux": io.EOF, "FreeBSD": syscall.EPIPE, "Windows": syscall.ECONNRESET, "AF_HYPERV (2016)": io.EOF,
	}
	eachProfile(t, GuestOptions{}, func(t *testing.T, p hvsock.Profile, host *Host, guest *Guest) {
		inGuest, inHost := connect(t, roles(host, guest)[0])
		_, err := inHost.Write([]byte("last words"))
		require.NoError(t, err)
		require.NoError(t, host.opts.Services.Disable(hvsock.ServiceIDFromPort(5000))) // rescinds
		synctest.Wait()
		b := make([]byte, 10)
		_, err = io.ReadFull(inGuest, b)
		require.NoError(t, err, "what has arrived stays readable")
		_, err = inGuest.Read(b)
		require.ErrorIs(t, err, want[p.Name])
		_, err = inGuest.Write(b)
		require.ErrorIs(t, err, syscall.EPIPE)
	})
}

// hvsock.md 15, close: the guest's channel lives until the host rescinds, 8 s at
// most, or ends at once. The host's program does not close its end.
func TestProfileClose(t *testing.T) {
	eachProfile(t, GuestOptions{}, func(t *testing.T, p hvsock.Profile, host *Host, guest *Guest) {
		inGuest, inHost := connect(t, roles(host, guest)[0])
		_, err := inGuest.Write([]byte("last words"))
		require.NoError(t, err)
		require.NoError(t, inGuest.Close())
		synctest.Wait()
		atOnce := p.Name == "FreeBSD" || p.Name == "Windows"
		require.Equal(t, !atOnce, guest.Usage().Connections == 1)
		got, err := io.ReadAll(inHost)
		require.NoError(t, err, "the FIN is in the ring, and the host has kept it")
		require.Equal(t, "last words", string(got))
		time.Sleep(8 * time.Second) // virtual
		synctest.Wait()
		require.Zero(t, guest.Usage().Connections)
		require.NoError(t, inHost.Close())
	})
}

// hvsock.md 15, chunk: packets for 16,384 bytes, in a ring with room for them.
func TestProfileChunk(t *testing.T) {
	eachProfile(t, GuestOptions{RingPages: 16}, func(t *testing.T, p hvsock.Profile, host *Host, guest *Guest) {
		inGuest, inHost := connect(t, roles(host, guest)[0])
		_, err := inGuest.Write(make([]byte, channel.MaxPipeBytes))
		require.NoError(t, err)
		want := uint64(5) // 4 of 4088 bytes, and 32 more
		if p.Name == "Windows" {
			want = 1
		}
		require.Equal(t, want, inGuest.(*hvsock.Conn).Stats().Out.Packets)
		_, err = io.ReadFull(inHost, make([]byte, channel.MaxPipeBytes))
		require.NoError(t, err)
	})
}

// hvsock.md 8, backlog: a full listener of a guest is silent, whatever the guest; a
// full one of the host refuses, which a guest hears or not. Accept makes room.
func TestProfileBacklog(t *testing.T) {
	eachProfile(t, GuestOptions{Backlog: 1}, func(t *testing.T, p hvsock.Profile, host *Host, guest *Guest) {
		for _, r := range roles(host, guest)[:2] {
			full := map[bool]error{false: syscall.ECONNREFUSED, true: os.ErrDeadlineExceeded}[r.name == "host to guest" || p.IgnoresRefusal]
			l, err := r.listen(r.bind)
			require.NoError(t, err)
			l.SetBacklog(1)
			for range 3 {
				waits, err := r.dial(t.Context(), r.to)
				require.NoError(t, err, "an open connection needs no Accept (5.2)")
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				_, err = r.dial(ctx, r.to)
				require.ErrorIs(t, err, full, r.name)
				cancel()
				c, err := l.Accept()
				require.NoError(t, err)
				require.NoError(t, c.Close())
				require.NoError(t, waits.Close())
			}
			require.NoError(t, l.Close())
		}
	})
}

// hvsock.md 15, remote port of an accepted socket: of the host's endpoint GUID.
func TestProfileRemotePort(t *testing.T) {
	eachProfile(t, GuestOptions{}, func(t *testing.T, p hvsock.Profile, host *Host, guest *Guest) {
		inHost, inGuest := connect(t, roles(host, guest)[1])
		endpoint, remote := inHost.LocalAddr().(hvsock.Addr).ServiceID, inGuest.RemoteAddr().(hvsock.Addr)
		require.Equal(t, hvsock.Parent, remote.VMID)
		shown, isPort := hvsock.PortFromServiceID(remote.ServiceID)
		switch p.Name {
		case "Linux":
			require.True(t, isPort)
			require.Equal(t, endpoint[:4], remote.ServiceID[:4], "Data1")
		case "FreeBSD":
			require.True(t, isPort)
			require.Equal(t, hvsock.PortAny, shown)
		default:
			require.Equal(t, endpoint, remote.ServiceID)
		}
	})
}

// ringbuffer.md 12: pages a direction, of a dial and an accept, on new hosts and
// below VMBus 5.0.
func TestProfileRings(t *testing.T) {
	want := map[string][4]int{
		//                    dialed accepted, old: dialed accepted
		"":                 {5, 5, 5, 5},
		"Linux":            {7, 52, 6, 6},
		"FreeBSD":          {6, 6, 6, 6},
		"Windows":          {5, 5, 5, 5},
		"AF_HYPERV (2016)": {5, 5, 5, 5},
	}
	for i, version := range []vmbus.Version{vmbus.Copper, vmbus.Win10RS3} {
		eachProfile(t, GuestOptions{Version: version}, func(t *testing.T, p hvsock.Profile, host *Host, guest *Guest) {
			for j, r := range roles(host, guest)[:2] {
				c, _ := connect(t, r)
				s := c.(*hvsock.Conn).Stats()
				require.Equal(t, want[p.Name][2*i+j], s.Out.RingPages, r.name)
				require.Equal(t, want[p.Name][2*i+j], s.In.RingPages, r.name)
			}
		})
	}
}

// hvsock.md 15, bind conflict: a listener that closes leaves a connection behind;
// who may listen there next? And who on the port of a dial?
func TestProfileBindConflict(t *testing.T) {
	want := map[string]struct{ accepted, dialed, other error }{
		"":                 {nil, nil, nil},
		"Linux":            {nil, syscall.EADDRINUSE, syscall.EADDRINUSE},
		"FreeBSD":          {syscall.EADDRINUSE, syscall.EADDRINUSE, syscall.EADDRNOTAVAIL}, // it has no loopback
		"Windows":          {nil, nil, nil},
		"AF_HYPERV (2016)": {nil, nil, nil},
	}
	eachProfile(t, GuestOptions{}, func(t *testing.T, p hvsock.Profile, host *Host, guest *Guest) {
		again := func(what string, addr hvsock.Addr, want error) {
			l, err := guest.Listen(addr)
			require.ErrorIs(t, err, want, what)
			if err == nil {
				require.NoError(t, l.Close())
			}
		}
		connect(t, roles(host, guest)[1])
		again("after an accept", port(hvsock.Wildcard, 5000), want[p.Name].accepted)
		dialed, _ := connect(t, roles(host, guest)[0])
		again("where a dial comes from", hvsock.Addr{ServiceID: dialed.LocalAddr().(hvsock.Addr).ServiceID}, want[p.Name].dialed)
		l, err := guest.Listen(port(hvsock.Wildcard, 5002))
		require.NoError(t, err)
		defer l.Close()
		if p.Name != "AF_HYPERV (2016)" {
			again("under another VM id", port(hvsock.Loopback, 5002), want[p.Name].other)
		}
		again("twice", port(hvsock.Wildcard, 5002), syscall.EADDRINUSE)
	})
}

// hvsock.md 2.6: automatic ports.
func TestProfileAutomaticPorts(t *testing.T) {
	eachProfile(t, GuestOptions{}, func(t *testing.T, p hvsock.Profile, host *Host, guest *Guest) {
		for _, want := range []uint32{0xFFFFFFFE, 0xFFFFFFFD} {
			l, err := guest.Listen(hvsock.Addr{})
			require.NoError(t, err)
			defer l.Close()
			n, ok := hvsock.PortFromServiceID(l.Addr().(hvsock.Addr).ServiceID)
			require.True(t, ok)
			if p.Name == "FreeBSD" {
				require.Equal(t, want, n)
			} else {
				require.Less(t, n, uint32(0x80000000))
				require.Greater(t, n, uint32(1023))
			}
		}
		l, err := guest.Listen(port(hvsock.Wildcard, hvsock.PortAny))
		require.NoError(t, err)
		defer l.Close()
		n, _ := hvsock.PortFromServiceID(l.Addr().(hvsock.Addr).ServiceID)
		require.Equal(t, p.Name != "Linux", n == hvsock.PortAny, "elsewhere it is a port like any other")
	})
}

// hvsock.md 2.6 and 1: ports below 1024 on Linux; AF_HYPERV (2016) is open to
// ordinary users.
func TestProfilePrivilegedPorts(t *testing.T) {
	eachProfile(t, GuestOptions{Unprivileged: true}, func(t *testing.T, p hvsock.Profile, host *Host, guest *Guest) {
		for n, denied := range map[uint32]bool{1023: p.Name == "Linux", 1024: false} {
			l, err := guest.Listen(port(hvsock.Wildcard, n))
			if denied {
				require.ErrorIs(t, err, syscall.EACCES)
				continue
			}
			require.NoError(t, err)
			require.NoError(t, l.Close())
		}
		c, _ := connect(t, roles(host, guest)[0])
		require.NotNil(t, c, "any user may dial")
	})
	_, guest := newPair(t, HostOptions{}, GuestOptions{Profile: hvsock.Linux})
	l, err := guest.Listen(port(hvsock.Wildcard, 22))
	require.NoError(t, err, "root may")
	require.NoError(t, l.Close())
}

// hvsock.md 6: one read of Linux returns at most one packet.
func TestProfileOnePacketReads(t *testing.T) {
	eachProfile(t, GuestOptions{}, func(t *testing.T, p hvsock.Profile, host *Host, guest *Guest) {
		inGuest, inHost := connect(t, roles(host, guest)[0])
		for _, s := range []string{"one", "two"} {
			_, err := inHost.Write([]byte(s))
			require.NoError(t, err)
		}
		b := make([]byte, 10)
		n, err := inGuest.Read(b)
		require.NoError(t, err)
		if p.Name == "Linux" {
			require.Equal(t, "one", string(b[:n]))
			n, err = inGuest.Read(b[:1])
			require.NoError(t, err)
			require.Equal(t, 1, n)
			n, err = inGuest.Read(b)
			require.NoError(t, err)
			require.Equal(t, "wo", string(b[:n]), "the rest of a packet is for the next")
		} else {
			require.Equal(t, "onetwo", string(b[:n]))
		}
		require.NoError(t, inHost.Close())
		_, err = inGuest.Read(b)
		require.Equal(t, io.EOF, err)
	})
}

// hvsock.md 7.2 and 16: after CloseRead Linux leaves what arrives in the ring.
func TestProfileCloseRead(t *testing.T) {
	eachProfile(t, GuestOptions{}, func(t *testing.T, p hvsock.Profile, host *Host, guest *Guest) {
		inGuest, inHost := connect(t, roles(host, guest)[0])
		require.NoError(t, inGuest.(*hvsock.Conn).CloseRead())
		require.NoError(t, inHost.SetWriteDeadline(time.Now().Add(time.Second)))
		_, err := inHost.Write(make([]byte, 100_000))
		if p.Name == "Linux" {
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		} else {
			require.NoError(t, err)
		}
		_, err = inGuest.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
		require.NoError(t, inGuest.Close())
		require.NoError(t, inHost.Close())
		synctest.Wait()
		require.Zero(t, guest.Usage())
	})
}

// hvsock.md 5.1, step 5: if no channel can be opened, for want of pages, Linux
// waits for its timer.
func TestProfileOpenFailure(t *testing.T) {
	eachProfile(t, GuestOptions{MemoryPages: 8, RingPages: 5}, func(t *testing.T, p hvsock.Profile, host *Host, guest *Guest) {
		l, err := host.Listen(port(hvsock.Wildcard, 5000))
		require.NoError(t, err)
		defer l.Close()
		start := time.Now()
		_, err = guest.Dial(t.Context(), port(hvsock.Parent, 5000))
		if p.Name == "Linux" {
			require.ErrorIs(t, err, syscall.ETIMEDOUT)
			require.Equal(t, 2*time.Second, time.Since(start))
		} else {
			require.ErrorIs(t, err, syscall.ENOMEM)
		}
		synctest.Wait()
		require.Zero(t, guest.Usage().Connections)
	})
}

// hvsock.md 1: AF_HYPERV (2016) has buffers only while data moves, and ENOMEM
// when there is no memory for them; then it goes on.
func TestAFHyperVBuffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, guest := newPair(t, HostOptions{}, GuestOptions{Profile: hvsock.AFHyperV2016})
		inGuest, inHost := connect(t, roles(host, guest)[0])
		idle := guest.Usage().Pages
		_, err := inHost.Write([]byte("x"))
		require.NoError(t, err)
		used := takeMemory(t, guest)
		_, err = inGuest.Write([]byte("x"))
		require.ErrorIs(t, err, syscall.ENOMEM)
		_, err = inGuest.Read(make([]byte, 1))
		require.ErrorIs(t, err, syscall.ENOMEM)
		for _, b := range used {
			require.NoError(t, guest.memory.Free(b))
		}
		_, err = inGuest.Write([]byte("x"))
		require.NoError(t, err)
		_, err = inGuest.Read(make([]byte, 1))
		require.NoError(t, err)
		require.Equal(t, idle, guest.Usage().Pages, "an idle connection holds its rings only")
		require.Equal(t, 10, idle)
	})
}

// takeMemory takes all memory of a guest.
func takeMemory(t *testing.T, guest *Guest) (all []*guestmem.Block) {
	for pages := 1 << 20; pages > 0; {
		b, err := guest.memory.Alloc(pages)
		if err != nil {
			pages /= 2
			continue
		}
		all = append(all, b)
	}
	return all
}

// Version 11 of the series had module parameters.
func TestAFHyperVVersion11(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := hvsock.AFHyperV2016
		p.Rings, p.MaxSockets = hvsock.RingSizes{SendPages: 2, RecvPages: 3}, 2
		host, guest := newPair(t, HostOptions{}, GuestOptions{Profile: p})
		for _, r := range roles(host, guest)[:2] {
			dialed, accepted := connect(t, r)
			inGuest := dialed
			if r.name == "host to guest" {
				inGuest = accepted
			}
			s := inGuest.(*hvsock.Conn).Stats()
			require.Equal(t, 2, s.Out.RingPages)
			require.Equal(t, 3, s.In.RingPages)
		}
		l, err := guest.Listen(port(hvsock.Wildcard, 5002))
		require.NoError(t, err)
		defer l.Close()
		_, err = guest.Dial(t.Context(), port(hvsock.Parent, 5000))
		require.ErrorIs(t, err, syscall.ENOMEM, "max_socket_number")
		_, err = host.Dial(t.Context(), port(guest.ID(), 5002))
		require.ErrorIs(t, err, syscall.ETIMEDOUT, "the guest has no socket for it")
	})
}

// A guest whose sockets know no containers has none.
func TestProfileContainers(t *testing.T) {
	eachProfile(t, GuestOptions{}, func(t *testing.T, p hvsock.Profile, _ *Host, guest *Guest) {
		c, err := guest.NewContainer(ContainerOptions{})
		if p.NoSilos {
			require.ErrorIs(t, err, syscall.EOPNOTSUPP)
			return
		}
		require.NoError(t, err)
		require.NoError(t, c.Close())
		require.ErrorIs(t, c.Close(), net.ErrClosed)
	})
}

// ringbuffer.md 12: a guest that was restored knows its bus's version still, and
// with it how large its rings are to be.
func TestProfileAfterRestore(t *testing.T) {
	host, guest := newPair(t, HostOptions{}, GuestOptions{Profile: hvsock.Linux})
	saved, err := guest.Save()
	require.NoError(t, err)
	copied, err := host.RestoreGuest(saved, RestoreOptions{GuestOptions: GuestOptions{ID: uuid.UUID{1}, Profile: hvsock.Linux}})
	require.NoError(t, err)
	c, accepted := connect(t, roles(host, copied)[0])
	require.Equal(t, 7, c.(*hvsock.Conn).Stats().Out.RingPages)
	require.NoError(t, c.Close())
	require.NoError(t, accepted.Close())
	require.NoError(t, copied.Close())
}
