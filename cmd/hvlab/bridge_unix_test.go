//go:build unix

package main

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestBridgeScript runs testdata/bridge: hvlab bridge as programs such as socat
// see it. On Windows a test cannot interrupt another process.
func TestBridgeScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "bridge"),
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"mkfile": mkfile,
			"exits":  exits,
			"ask":    ask,
			"serve":  serve,
		},
	})
}

// patience is how long a command that has just been started may take to answer.
const patience = 20 * time.Second

// ask SOCKET FILE ANSWER connects to a Unix socket as soon as there is one, sends
// FILE, ends its half, and writes what comes back to ANSWER.
func ask(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: ask SOCKET FILE ANSWER")
	}
	var c net.Conn
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if c, err = net.Dial("unix", ts.MkAbs(args[0])); err == nil {
			break
		}
		<-time.After(10 * time.Millisecond)
	}
	ts.Check(err)
	exchange(ts, c, args[1], args[2])
}

// serve SOCKET FILE ANSWER does the same with the first that connects to SOCKET.
func serve(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: serve SOCKET FILE ANSWER")
	}
	l, err := net.Listen("unix", ts.MkAbs(args[0]))
	ts.Check(err)
	defer l.Close()
	ts.Check(l.(*net.UnixListener).SetDeadline(time.Now().Add(patience)))
	c, err := l.Accept()
	ts.Check(err)
	exchange(ts, c, args[1], args[2])
}

func exchange(ts *testscript.TestScript, c net.Conn, file, answer string) {
	defer c.Close()
	ts.Check(c.SetDeadline(time.Now().Add(patience)))
	content := ts.ReadFile(file)
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(c, content)
		if err == nil {
			err = c.(*net.UnixConn).CloseWrite()
		}
		sent <- err
	}()
	got, err := io.ReadAll(c)
	ts.Check(err)
	ts.Check(<-sent)
	ts.Check(os.WriteFile(ts.MkAbs(answer), got, 0o600))
}
