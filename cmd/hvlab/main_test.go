package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/hvlab/hvlab/cmd/hvlab/internal/demo"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"hvlab": main})
}

// TestScript runs testdata/script: what the command prints, and how it ends.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"mkfile": mkfile,
			"exits":  exits,
			"prints": prints,
			"result": result,
		},
	})
}

// mkfile NAME BYTES writes a file whose content is its name's own.
func mkfile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mkfile NAME BYTES")
	}
	bytes, err := strconv.Atoi(args[1])
	ts.Check(err)
	content := make([]byte, bytes)
	_, _ = rand.NewChaCha8(sha256.Sum256([]byte(args[0]))).Read(content) // never fails
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), content, 0o600))
}

// exits STATUS COMMAND... runs a command that must end with that exit status.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS COMMAND...")
	}
	status := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		status = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(status) != args[0] {
		ts.Fatalf("exit status %d, want %s", status, args[0])
	}
}

// prints FILE wants the SHA-256 of FILE, as sha256sum would print it, in the
// result that the last command printed.
func prints(ts *testscript.TestScript, neg bool, args []string) {
	want := "sha256  " + sumOf(ts, args) + " "
	if strings.Contains(ts.ReadFile("stdout"), want) == neg {
		ts.Fatalf("stdout has the line %q: %v", want, !neg)
	}
}

func sumOf(ts *testscript.TestScript, args []string) string {
	if len(args) != 1 {
		ts.Fatalf("usage: prints|result FILE")
	}
	sum := sha256.Sum256([]byte(ts.ReadFile(args[0])))
	return hex.EncodeToString(sum[:])
}

// result FILE wants nothing but JSON lines from the last command: messages, then
// the account, and a good result for FILE at the end.
func result(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("unsupported: ! result")
	}
	kinds := map[string]int{}
	var last demo.Line
	lines := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
	lines.DisallowUnknownFields()
	for {
		var line struct {
			demo.Line
			Message map[string]any `json:"message"`
		}
		err := lines.Decode(&line)
		if err == io.EOF {
			break
		}
		ts.Check(err)
		kinds[line.Kind]++
		last = line.Line
		if (line.Kind == "message") != (line.Message["name"] != nil) {
			ts.Fatalf("kind %q with message %v", line.Kind, line.Message)
		}
	}
	switch {
	case last.Result == nil || !last.Result.OK:
		ts.Fatalf("no good result at the end: %+v", last)
	case last.Result.SHA256 != sumOf(ts, args):
		ts.Fatalf("SHA-256 %s, want %s", last.Result.SHA256, sumOf(ts, args))
	case kinds["guest"] != 2 || kinds["connection"] != 3 || kinds["check"] == 0 || kinds["result"] != 1:
		ts.Fatalf("lines of each kind: %v", kinds)
	case kinds["message"] < 40: // two negotiations of 4, three connections of 11, two unloads of 2, less none
		ts.Fatalf("%d messages", kinds["message"])
	}
}

// TestInterrupt ends a transfer that would take minutes, in its middle.
func TestInterrupt(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("os.Process.Signal cannot send os.Interrupt on Windows")
	}
	big := filepath.Join(t.TempDir(), "big")
	require.NoError(t, os.WriteFile(big, nil, 0o600))
	require.NoError(t, os.Truncate(big, 1<<38)) // holes: takes no disk

	cmd := exec.Command("hvlab", "demo", "-v", big)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(stdout)
	for lines.Scan() && !strings.Contains(lines.Text(), "guest2: guest>host RelIDReleased") {
	}
	// guest2 has finished, so guest1 is in the middle of its file.
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	rest, err := io.ReadAll(stdout)
	require.NoError(t, err)
	var exit *exec.ExitError
	require.ErrorAs(t, cmd.Wait(), &exit)
	require.Equal(t, exitInterrupted, exit.ExitCode(), "%s", rest)
	require.Equal(t, "hvlab: interrupted\n", stderr.String())
	require.NotContains(t, string(rest), "sha256", "an interrupted transfer has no checksum")
}
