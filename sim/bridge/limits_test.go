package bridge

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/sim"
	"github.com/stretchr/testify/require"
)

// At the limit clients are closed and the guest is refused; below it again, both
// are served.
func TestConnectionLimit(t *testing.T) {
	host, err := sim.NewHost(sim.HostOptions{})
	require.NoError(t, err)
	defer host.Close()
	guest, err := host.NewGuest(sim.GuestOptions{})
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "b") // short: a Unix socket's path has 107 bytes at most
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "g")
	b, err := New(Options{Path: path, VMID: guest.ID(), Dial: host.Dial, HandleRequests: host.HandleRequests})
	require.NoError(t, err)
	defer b.Close()
	server, err := net.Listen("unix", path+"_6000")
	require.NoError(t, err)
	defer server.Close()
	add := func(n int) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.open += n
	}

	add(maxConnections)
	c, err := net.Dial("unix", path)
	require.NoError(t, err)
	_, err = c.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err, "turned away before it has said a word")
	require.NoError(t, c.Close())
	to := hvsock.Addr{VMID: hvsock.Parent, ServiceID: hvsock.ServiceIDFromPort(6000)}
	_, err = guest.Dial(t.Context(), to)
	require.Error(t, err)

	add(-1)
	g, err := guest.Dial(t.Context(), to)
	require.NoError(t, err)
	require.NoError(t, g.Close())
}
