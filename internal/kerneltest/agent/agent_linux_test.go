package main

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/hvlab/hvlab/internal/kerneltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// unixFamily has Unix sockets in dir instead of ports, so that the agent can be
// tested on any Linux.
func unixFamily(dir string) family {
	address := func(port uint32) unix.Sockaddr {
		return &unix.SockaddrUnix{Name: filepath.Join(dir, fmt.Sprint(port))}
	}
	return family{
		domain: unix.AF_UNIX, listen: address,
		dial: func(_, port uint32) unix.Sockaddr { return address(port) },
	}
}

// connected is an agent that dialled its control connection, and the client
// that drives it.
func connected(t *testing.T) (*kerneltest.Client, string) {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "9000"))
	require.NoError(t, err)
	s := newServer(unixFamily(dir))
	ended := make(chan error, 1)
	go func() {
		c, err := s.controlConnection(role{name: "control-dial", port: 9000})
		if err == nil {
			err = s.obey(c)
		}
		s.close()
		ended <- err
	}()
	c, err := l.Accept()
	require.NoError(t, err)
	require.NoError(t, l.Close())
	client := kerneltest.NewClient(c)
	t.Cleanup(func() {
		_ = client.Close()
		require.NoError(t, <-ended, "the agent ends when the host hangs up")
	})
	return client, dir
}

func dialUnix(t *testing.T, dir string, port int) *net.UnixConn {
	t.Helper()
	c, err := net.Dial("unix", filepath.Join(dir, fmt.Sprint(port)))
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.UnixConn)
}

func TestAgentServes(t *testing.T) {
	c, dir := connected(t)
	job := kerneltest.Job{Bytes: 100_000, Seed: 1}
	for i, service := range []kerneltest.Service{kerneltest.Echo, kerneltest.Sum, kerneltest.Source} {
		require.NoError(t, c.Serve(t.Context(), uint32(5000+i), service, job))
		_, err := kerneltest.Exchange(dialUnix(t, dir, 5000+i), service, job)
		require.NoError(t, err, service)
	}
	require.NoError(t, c.Unlisten(t.Context(), 5000))
	_, err := net.Dial("unix", filepath.Join(dir, "5000"))
	require.ErrorIs(t, err, unix.ECONNREFUSED)
}

func TestAgentRunsExchanges(t *testing.T) {
	c, dir := connected(t)
	l, err := net.Listen("unix", filepath.Join(dir, "6000"))
	require.NoError(t, err)
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _ = kerneltest.Serve(conn.(*net.UnixConn), kerneltest.Echo, kerneltest.Job{}) }()
		}
	}()
	_, err = c.Run(t.Context(), 6000, kerneltest.Echo, kerneltest.Job{Bytes: 5000, Seed: 9}, 20, 4)
	require.NoError(t, err)

	r, err := c.Do(t.Context(), kerneltest.Request{Op: kerneltest.OpRun, Port: 6001, Service: kerneltest.Hold, Count: 3})
	var remote *kerneltest.RemoteError
	require.ErrorAs(t, err, &remote)
	require.Equal(t, "ENOENT", remote.Errno, "a Unix socket that does not exist; AF_VSOCK says ECONNREFUSED or ECONNRESET")
	require.Zero(t, r.Done)
	require.Equal(t, map[string]int{"connect: no such file or directory": 3}, r.Failed)
}

// TestAgentSockets goes step by step: accept, write, half-close, read to EOF.
func TestAgentSockets(t *testing.T) {
	c, dir := connected(t)
	ctx := t.Context()
	require.NoError(t, c.Listen(ctx, 5000))
	conn := dialUnix(t, dir, 5000)
	remote, err := c.Accept(ctx, 5000, time.Minute)
	require.NoError(t, err)
	job := kerneltest.Job{Bytes: 1000, Seed: 5}
	n, err := remote.Write(ctx, job)
	require.NoError(t, err)
	require.Equal(t, job.Bytes, n)
	require.NoError(t, remote.Shutdown(ctx, "write"))
	got := make([]byte, 2000)
	m, err := conn.Read(got)
	require.NoError(t, err)
	require.NoError(t, kerneltest.NewPattern(5).Check(got[:m]))

	_, _, err = remote.Read(ctx, job, time.Millisecond)
	var timeout *kerneltest.RemoteError
	require.ErrorAs(t, err, &timeout)
	require.Equal(t, "ETIMEDOUT", timeout.Errno, "nothing was sent yet")
	_, err = kerneltest.Send(conn, kerneltest.Job{Bytes: 10, Seed: 5})
	require.NoError(t, err)
	require.NoError(t, conn.CloseWrite())
	n, eof, err := remote.Read(ctx, job, time.Minute)
	require.NoError(t, err)
	require.Equal(t, int64(10), n)
	require.True(t, eof)
	require.NoError(t, remote.Close(ctx))
	require.Error(t, remote.Close(ctx), "the handle is gone")
}

func TestAgentOther(t *testing.T) {
	c, _ := connected(t)
	r, err := c.Do(t.Context(), kerneltest.Request{Op: kerneltest.OpInfo})
	require.NoError(t, err)
	require.NotEmpty(t, r.Output, "the release of the kernel")
	out, status, err := c.Exec(t.Context(), "sh", "-c", "echo out; echo err >&2; exit 3")
	require.NoError(t, err)
	require.Equal(t, 3, status)
	require.Equal(t, "out\nerr\n", out)
	_, err = c.Do(t.Context(), kerneltest.Request{Op: "dance"})
	require.ErrorContains(t, err, `unknown operation "dance"`)
	require.NoError(t, c.Quit(t.Context()))
	_, err = c.Do(t.Context(), kerneltest.Request{Op: kerneltest.OpInfo})
	require.Error(t, err, "after quit the connection ends")
}

// TestClientGivesUp: a request that is not answered ends with its context, and
// its late answer is dropped.
func TestClientGivesUp(t *testing.T) {
	c, _ := connected(t)
	require.NoError(t, c.Listen(t.Context(), 5000))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := c.Accept(ctx, 5000, 0)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, c.Unlisten(t.Context(), 5000), "ends the accept in the guest")
}

func TestParseRole(t *testing.T) {
	r, err := parseRole("source:5002:4096")
	require.NoError(t, err)
	require.Equal(t, role{"source", 5002, 4096}, r)
	for _, bad := range []string{"", "echo", "echo:x", "echo:1:x", "a:1:2:3"} {
		_, err := parseRole(bad)
		require.Error(t, err, bad)
	}
}
