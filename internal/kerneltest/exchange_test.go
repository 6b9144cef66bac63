package kerneltest

import (
	"bytes"
	"net"
	"testing"

	_ "github.com/hvlab/hvlab/internal/fixedseed" // the same draws in every run
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestPattern: the stream does not depend on how it is cut into reads.
func TestPattern(t *testing.T) {
	whole := make([]byte, 1000)
	_, _ = NewPattern(7).Read(whole)
	rapid.Check(t, func(t *rapid.T) {
		p := NewPattern(7)
		var got []byte
		for len(got) < len(whole) {
			b := make([]byte, min(rapid.IntRange(1, 40).Draw(t, "n"), len(whole)-len(got)))
			_, _ = p.Read(b)
			got = append(got, b...)
		}
		if !bytes.Equal(got, whole) || p.At != int64(len(whole)) {
			t.Fatal("the stream depends on the reads")
		}
	})
	require.NoError(t, NewPattern(7).Check(whole))
	whole[700] ^= 1
	var bad *MismatchError
	require.ErrorAs(t, NewPattern(7).Check(whole), &bad)
	require.Equal(t, int64(700), bad.Offset, "the first byte that differs")
}

// pair is a TCP connection to ourselves: two streams that can be half-closed.
func pair(t *testing.T) (client, server Stream) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	s, err := l.Accept()
	require.NoError(t, err)
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// TestServicesAndExchanges: every exchange succeeds against its service.
func TestServicesAndExchanges(t *testing.T) {
	for _, service := range []Service{Echo, Sum, Source, Discard} {
		for _, n := range []int64{0, 1, 300_000} { // more than the buffers of both ends hold
			client, server := pair(t)
			job := Job{Bytes: n, Seed: 3}
			served := make(chan error, 1)
			go func() { served <- Serve(server, service, job) }()
			r, err := Exchange(client, service, job)
			require.NoError(t, err, "%s of %d bytes", service, n)
			require.NoError(t, <-served)
			if service == Echo {
				require.Equal(t, n, r.Received)
			}
		}
	}
}

// TestExchangeSeesFaults: data that is changed, cut or too long is an error.
func TestExchangeSeesFaults(t *testing.T) {
	for name, served := range map[string]Job{
		"other data": {Bytes: 1000, Seed: 4},
		"cut":        {Bytes: 999, Seed: 3},
		"too long":   {Bytes: 1001, Seed: 3},
	} {
		client, server := pair(t)
		done := make(chan error, 1)
		go func() { done <- Serve(server, Source, served) }()
		_, err := Exchange(client, Source, Job{Bytes: 1000, Seed: 3})
		require.Error(t, err, name)
		<-done
	}
}
