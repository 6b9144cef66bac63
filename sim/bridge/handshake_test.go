package bridge

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const portOne = "00000001-facb-11e6-bd58-64006a7986d3" // the service GUID of port 1

// seedsS25 are the inputs of faults.md S25 and what must become of them.
var seedsS25 = []struct {
	in   string
	want string // the service, or "" for an error
	rest string
}{
	{in: "CONNECT 1"}, // SS-12: the end of the stream before that of the line
	{in: ""},
	{in: "connect 1\n", want: portOne},
	{in: "CONNECT 4294967295\n", want: hvsock.ServiceIDFromPort(0xFFFFFFFF).String()},
	{in: "CONNECT 4294967296\n"},
	{in: "CONNECT -1\n"},
	{in: "CONNECT +1\n"},
	{in: "CONNECT 1_0\n"},
	{in: "CONNECT \n"},
	{in: "CONNECT\n"},
	{in: "\n"},
	{in: "CONNECT 1\r\n"},
	{in: "CONNECT  1\n"},
	{in: "CONNECT " + portOne + "\n", want: portOne}, // exactly 45 bytes
	{in: "CONNECT " + strings.ToUpper(portOne) + "\n", want: portOne},
	{in: "CONNECT " + portOne + "0\n"}, // one byte more
	{in: "CONNECT " + portOne[:35] + "\n"},
	{in: "CONNECT {" + portOne[1:35] + "}\n"}, // 36 characters, another form
	{in: "CONNECT 1\nhello\n", want: portOne, rest: "hello\n"},
	{in: strings.Repeat("A", 1<<20)},
}

// faults.md SS-12 and S25.
func TestHandshake(t *testing.T) {
	for _, s := range seedsS25 {
		line, rest, err := readLine(strings.NewReader(s.in))
		var want wanted
		if err == nil {
			want, err = parseLine(line)
		}
		name := s.in[:min(len(s.in), 50)]
		if s.want == "" {
			var bad *HandshakeError
			require.ErrorAs(t, err, &bad, name)
			require.ErrorIs(t, err, vmbus.ErrProtocol, "the client is at fault")
			require.LessOrEqual(t, len(bad.Line), maxLineBytes)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, s.want, want.service.String(), name)
		require.Equal(t, s.rest, string(rest), "what follows the line is the guest's")
	}
}

// hvsock.md 5.3: the answer is of the same kind as the question.
func TestAnswer(t *testing.T) {
	id := uuid.MustParse("01020304-0506-4708-890a-0b0c0d0e0f10")
	require.Equal(t, "OK 16909060\n", wanted{byPort: true}.answer(id), "Data1, 0x01020304, in decimal")
	require.Equal(t, "OK 01020304-0506-4708-890a-0b0c0d0e0f10\n", wanted{}.answer(id))
}

// A pipe end that can be half-closed as far as the handshake is concerned.
type pipeStream struct{ net.Conn }

func (pipeStream) CloseRead() error  { return nil }
func (pipeStream) CloseWrite() error { return nil }

// faults.md SS-12: 5 s for the line, however busy the client seems, and 45 bytes.
func TestHandshakeIsBounded(t *testing.T) {
	for name, client := range map[string]func(net.Conn){
		"silent":              func(c net.Conn) { _, _ = io.ReadAll(c) },
		"one byte per second": func(c net.Conn) { drip(c, "CONNECT 4294967295\n") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				var other sync.WaitGroup
				other.Go(func() { client(far) })
				defer other.Wait()
				began := time.Now()
				logged := ""
				b := &Bridge{ctx: context.Background(), opts: Options{Log: func(s string) { logged = s }}}
				b.serveClient(pipeStream{near})
				require.Equal(t, handshakeTimeout, time.Since(began))
				require.Contains(t, logged, "no complete line within 5s")
			})
		})
	}
}

func drip(c net.Conn, text string) {
	for i := range text {
		if _, err := c.Write([]byte{text[i]}); err != nil {
			return
		}
		<-time.After(time.Second)
	}
}

// A chunked reader gives the bytes in pieces of n and counts them.
type chunked struct {
	data []byte
	n    int
	read int
}

func (c *chunked) Read(p []byte) (int, error) {
	n := copy(p[:min(len(p), c.n)], c.data[c.read:])
	c.read += n
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// FuzzHandshake: at most 45 bytes are read before the line ends, nothing is
// lost, and whatever is accepted is one of the two spellings there are.
func FuzzHandshake(f *testing.F) {
	for _, s := range seedsS25 {
		f.Add([]byte(s.in), byte(7))
		f.Add([]byte(s.in), byte(255))
	}
	f.Fuzz(func(t *testing.T, in []byte, chunkBytes byte) {
		r := &chunked{data: in, n: int(chunkBytes) + 1}
		line, rest, err := readLine(r)
		if r.read > maxLineBytes {
			t.Fatalf("%d bytes read", r.read)
		}
		var bad *HandshakeError
		if err != nil {
			if !errors.As(err, &bad) || bytes.IndexByte(in[:min(len(in), maxLineBytes)], '\n') >= 0 {
				t.Fatalf("%q: %v", in, err)
			}
			return
		}
		if own := string(line) + "\n" + string(rest); own != string(in[:r.read]) {
			t.Fatalf("%q became %q", in[:r.read], own)
		}
		want, err := parseLine(line)
		if err != nil {
			if !errors.As(err, &bad) {
				t.Fatalf("%T", err)
			}
			return
		}
		text := strings.ToLower(string(line[len("CONNECT "):]))
		if port, ok := hvsock.PortFromServiceID(want.service); want.byPort {
			text = strings.TrimLeft(text, "0")
			if own := (hvsock.VSockAddr{CID: 2, Port: port}).String(); !ok || own != "host(2):"+text && text != "" {
				t.Fatalf("%q is %v", line, want.service)
			}
		} else if want.service.String() != text {
			t.Fatalf("%q is %v", line, want.service)
		}
	})
}
