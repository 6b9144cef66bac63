package bridge_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/sim"
	"github.com/hvlab/hvlab/sim/bridge"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
)

// A stage is a bridged guest.
type stage struct {
	t     *testing.T
	path  string
	host  *sim.Host
	guest *sim.Guest

	mu  sync.Mutex
	log []string
}

func newStage(t *testing.T) *stage {
	t.Helper()
	host, err := sim.NewHost(sim.HostOptions{})
	require.NoError(t, err)
	guest, err := host.NewGuest(sim.GuestOptions{})
	require.NoError(t, err)
	// t.TempDir is longer than the 107 bytes a Unix socket's path may have.
	dir, err := os.MkdirTemp("", "b")
	require.NoError(t, err)
	s := &stage{t: t, path: filepath.Join(dir, "g"), host: host, guest: guest}
	b, err := bridge.New(s.options())
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, b.Close())
		require.ErrorIs(t, b.Close(), net.ErrClosed)
		_, err := os.Lstat(s.path)
		require.ErrorIs(t, err, os.ErrNotExist, "the socket goes with the bridge")
		require.NoError(t, host.Close())
		require.Zero(t, guest.Usage())
		require.NoError(t, os.RemoveAll(dir))
	})
	return s
}

func (s *stage) options() bridge.Options {
	return bridge.Options{
		Path: s.path, VMID: s.guest.ID(), Dial: s.host.Dial, DialTimeout: time.Second, HandleRequests: s.host.HandleRequests,
		Log: func(line string) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.log = append(s.log, line)
		},
	}
}

// connect is a program that connects to the bridge and sends text.
func (s *stage) connect(text string) *net.UnixConn {
	s.t.Helper()
	c, err := net.Dial("unix", s.path)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = c.Close() })
	_, err = io.WriteString(c, text)
	require.NoError(s.t, err)
	return c.(*net.UnixConn)
}

// listen makes the guest listen on a port.
func (s *stage) listen(port uint32) *hvsock.Listener {
	s.t.Helper()
	l, err := s.guest.Listen(hvsock.Addr{VMID: hvsock.Wildcard, ServiceID: hvsock.ServiceIDFromPort(port)})
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = l.Close() })
	return l
}

// dial makes the guest dial a service of its host.
func (s *stage) dial(addr hvsock.Addr) (*hvsock.Conn, error) {
	addr.VMID = hvsock.Parent
	c, err := s.guest.Dial(s.t.Context(), addr)
	if err == nil {
		s.t.Cleanup(func() { _ = c.Close() })
	}
	return c, err
}

func port(n uint32) hvsock.Addr { return hvsock.Addr{ServiceID: hvsock.ServiceIDFromPort(n)} }

// hvsock.md 5.3: by port or GUID; what is sent with the line is not lost.
func TestConnect(t *testing.T) {
	s := newStage(t)
	l := s.listen(5000)
	for _, c := range []struct{ line, answer string }{
		{"CONNECT 5000\n", `^OK [0-9]+\n$`},
		{"connect 00001388-FACB-11e6-bd58-64006a7986d3\n", `^OK [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\n$`},
	} {
		client := s.connect(c.line + "early ")
		far, err := l.AcceptHVSock()
		require.NoError(t, err)
		in := bufio.NewReader(client)
		answer, err := in.ReadString('\n')
		require.NoError(t, err)
		require.Regexp(t, c.answer, answer)
		endpoint := far.RemoteAddr().(hvsock.Addr).ServiceID
		if strings.Contains(answer, "-") {
			require.Equal(t, "OK "+endpoint.String()+"\n", answer)
		} else {
			number := uint32(endpoint[0])<<24 | uint32(endpoint[1])<<16 | uint32(endpoint[2])<<8 | uint32(endpoint[3])
			require.Equal(t, fmt.Sprintf("OK %d\n", number), answer)
		}
		_, err = io.WriteString(client, "and late")
		require.NoError(t, err)
		require.NoError(t, client.CloseWrite())
		got, err := io.ReadAll(far)
		require.NoError(t, err)
		require.Equal(t, "early and late", string(got))

		// faults.md SS-11: the other direction is untouched by the end of this one.
		_, err = io.WriteString(far, "answer")
		require.NoError(t, err)
		require.NoError(t, far.CloseWrite())
		got, err = io.ReadAll(in)
		require.NoError(t, err)
		require.Equal(t, "answer", string(got))
		require.NoError(t, far.Close())
	}
}

// SS-11 the other way round: the guest ends first and still reads.
func TestGuestEndsFirst(t *testing.T) {
	s := newStage(t)
	l := s.listen(5000)
	client := s.connect("CONNECT 5000\n")
	far, err := l.AcceptHVSock()
	require.NoError(t, err)
	require.NoError(t, far.CloseWrite())
	got, err := io.ReadAll(client)
	require.NoError(t, err)
	require.Regexp(t, `^OK [0-9]+\n$`, string(got), "then the end of the guest's stream")
	const bytesTotal = 1 << 20
	go func() {
		_, err := client.Write(make([]byte, bytesTotal))
		if err = errors.Join(err, client.CloseWrite()); err != nil {
			t.Error(err)
		}
	}()
	n, err := io.Copy(io.Discard, far)
	require.NoError(t, err)
	require.EqualValues(t, bytesTotal, n)
	require.NoError(t, far.Close())
}

// Whatever a client does wrong closes its own connection only.
func TestMisbehaviour(t *testing.T) {
	s := newStage(t)
	l := s.listen(5000)
	good := s.connect("CONNECT 5000\n")
	far, err := l.AcceptHVSock()
	require.NoError(t, err)
	defer far.Close()
	for _, line := range []string{
		"hello\n", "CONNECT -1\n", "CONNECT 4444\n", // 4444: nobody listens
		"CONNECT " + strings.Repeat("1", 45-len("CONNECT ")), // 45 bytes and no newline
	} {
		c := s.connect(line)
		got, err := io.ReadAll(c)
		require.NoError(t, err, line)
		require.Empty(t, got, "a refused client is just closed: %q", line)
	}
	// The end of the stream in the middle of the line (SS-12).
	c := s.connect("CONNECT 1234")
	require.NoError(t, c.CloseWrite())
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Empty(t, got)

	_, err = io.WriteString(far, "still here")
	require.NoError(t, err)
	require.NoError(t, far.CloseWrite())
	got, err = io.ReadAll(good)
	require.NoError(t, err)
	require.Contains(t, string(got), "still here")
	s.mu.Lock()
	defer s.mu.Unlock()
	require.Len(t, s.log, 5, "one line for each: %q", s.log)
}

// A client that goes away while the guest sends: the guest is not held up, and
// the connection ends.
func TestClientVanishes(t *testing.T) {
	s := newStage(t)
	l := s.listen(5000)
	client := s.connect("CONNECT 5000\n")
	far, err := l.AcceptHVSock()
	require.NoError(t, err)
	_, err = client.Read(make([]byte, 64))
	require.NoError(t, err)
	require.NoError(t, client.Close())
	_ = far.SetDeadline(time.Now().Add(10 * time.Second))
	for err == nil {
		_, err = far.Write(make([]byte, 10_000))
		if _, readErr := far.Read(make([]byte, 10)); readErr != nil {
			break // the client's end has come through
		}
	}
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, far.Close())
	require.Eventually(t, func() bool { return s.guest.Usage().Connections == 0 }, 5*time.Second, time.Millisecond)
}

// hvsock.md 5.3: guest-initiated connections go to PATH_P, or PATH_<guid>.
func TestGuestConnects(t *testing.T) {
	s := newStage(t)
	custom, err := hvsock.ParseAddr("parent:A49FCE2A-7B3F-4E4B-8C0E-AD00F7D6A7F1")
	require.NoError(t, err)
	for _, c := range []struct {
		name string
		addr hvsock.Addr
	}{
		{"_6000", port(6000)},
		{"_00001771-facb-11e6-bd58-64006a7986d3", port(6001)},
		{"_a49fce2a-7b3f-4e4b-8c0e-ad00f7d6a7f1", custom},
	} {
		_, err := s.dial(c.addr)
		require.ErrorIs(t, err, syscall.ECONNREFUSED, "there is no %s yet", c.name)
		l, err := net.Listen("unix", s.path+c.name)
		require.NoError(t, err)
		near, err := s.dial(c.addr)
		require.NoError(t, err)
		server, err := l.Accept()
		require.NoError(t, err)
		_, err = io.WriteString(near, "ping")
		require.NoError(t, err)
		require.NoError(t, near.CloseWrite())
		got, err := io.ReadAll(server)
		require.NoError(t, err)
		require.Equal(t, "ping", string(got))
		_, err = io.WriteString(server, "pong")
		require.NoError(t, err)
		require.NoError(t, server.Close())
		got, err = io.ReadAll(near)
		require.NoError(t, err)
		require.Equal(t, "pong", string(got))
		require.NoError(t, l.Close())
		_, err = s.dial(c.addr)
		require.ErrorIs(t, err, syscall.ECONNREFUSED, "%s is gone", c.name)
	}
	// A file that is no socket is nobody's service.
	require.NoError(t, os.WriteFile(s.path+"_6000", nil, 0o600))
	_, err = s.dial(port(6000))
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}

// Close ends what is going on, and does not wait for anybody.
func TestCloseWhileBusy(t *testing.T) {
	s := newStage(t)
	l := s.listen(5000)
	client := s.connect("CONNECT 5000\n")
	far, err := l.AcceptHVSock()
	require.NoError(t, err)
	defer far.Close()
	_ = s.connect("CONN") // a handshake that never ends
	_, err = io.ReadFull(client, make([]byte, 3))
	require.NoError(t, err)
	// The rest is newStage's cleanup: Close returns, and goleak finds nothing.
}

// Data arrives unchanged, both ways at once, from several clients.
func TestEchoParallel(t *testing.T) {
	s := newStage(t)
	l := s.listen(5000)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			far, err := l.AcceptHVSock()
			if err != nil {
				t.Error(err)
				return
			}
			_, err = io.Copy(far, far)
			if err = errors.Join(err, far.CloseWrite(), far.Close()); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			want := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
			c, err := net.Dial("unix", s.path)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			go func() {
				_, _ = c.Write(append([]byte("CONNECT 5000\n"), want...))
				_ = c.(*net.UnixConn).CloseWrite()
			}()
			got, err := io.ReadAll(c)
			_, got, _ = bytes.Cut(got, []byte("\n"))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes came back, %v", len(got), err)
			}
		})
	}
	all.Wait()
}

// A path that cannot be bound says why; a socket left behind is replaced.
func TestPath(t *testing.T) {
	s := newStage(t)
	o := s.options()
	o.HandleRequests = nil
	for _, c := range []struct{ path, reason string }{
		{s.path, "another process serves this socket"},
		{filepath.Join(filepath.Dir(s.path), strings.Repeat("x", 200)), "too long"},
		{filepath.Join(s.path+"no", "g"), "no such folder"},
		{filepath.Dir(s.path), "a file is in the way"},
	} {
		o.Path = c.path
		_, err := bridge.New(o)
		var bad *bridge.PathError
		require.ErrorAs(t, err, &bad, c.reason)
		require.ErrorIs(t, err, vmbus.ErrState)
		require.Contains(t, err.Error(), c.reason)
	}
	o.Path = s.path + "2"
	stale, err := net.Listen("unix", o.Path)
	require.NoError(t, err)
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, stale.Close())
	b, err := bridge.New(o)
	require.NoError(t, err, "nobody serves it any more")
	require.NoError(t, b.Close())

	o.HandleRequests = s.host.HandleRequests
	_, err = bridge.New(o)
	require.ErrorIs(t, err, syscall.EADDRINUSE, "the guest is bridged already")
	_, err = os.Lstat(o.Path)
	require.ErrorIs(t, err, os.ErrNotExist, "a bridge that fails leaves nothing behind")
}

// The guest may dial while the bridge closes: it is refused or cut off, never hung.
func TestGuestConnectsDuringClose(t *testing.T) {
	s := newStage(t)
	o := s.options()
	o.Path += "2"
	var handler func(*hvsock.Request)
	o.HandleRequests = func(_ uuid.UUID, fn func(*hvsock.Request)) (func(), error) {
		handler = fn
		return func() {}, nil
	}
	b, err := bridge.New(o)
	require.NoError(t, err)
	require.NoError(t, b.Close())
	other, err := s.host.NewGuest(sim.GuestOptions{})
	require.NoError(t, err)
	stop, err := s.host.HandleRequests(other.ID(), handler)
	require.NoError(t, err)
	defer stop()
	_, err = other.Dial(context.Background(), hvsock.Addr{VMID: hvsock.Parent, ServiceID: port(1).ServiceID})
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}
