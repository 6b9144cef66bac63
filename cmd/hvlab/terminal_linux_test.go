package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// terminalChild makes this test binary the process on the terminal.
const terminalChild = "HVLAB_TEST_TERMINAL_CHILD"

// On a terminal, the guest echoes and edits lines, Ctrl-C stays ours, and
// afterwards all is as before. It takes a process whose terminal it is.
func TestConsoleTerminal(t *testing.T) {
	if os.Getenv(terminalChild) != "" {
		fmt.Fprintln(os.Stderr, localModes())
		restore := consoleTerminal(os.Stdin)
		fmt.Fprintln(os.Stderr, localModes())
		restore()
		fmt.Fprintln(os.Stderr, localModes())
		return
	}
	_, far := pseudoTerminal(t)
	child := exec.Command(os.Args[0], "-test.run=^TestConsoleTerminal$")
	child.Env = append(os.Environ(), terminalChild+"=1")
	child.Stdin, child.Stdout = far, far
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	pipe, err := child.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	var modes [3]string
	for i := range modes {
		_, err := fmt.Fscanln(pipe, &modes[i])
		require.NoError(t, err)
	}
	require.NoError(t, child.Wait())
	require.Equal(t, [3]string{"echo,lines,ctrl-c", "ctrl-c", "echo,lines,ctrl-c"}, modes)
}

// localModes names the modes of stdin that matter, "" if it is no terminal.
func localModes() string {
	m, err := unix.IoctlGetTermios(0, unix.TCGETS)
	if err != nil {
		return err.Error()
	}
	text := ""
	for _, f := range []struct {
		bit  uint32
		name string
	}{{unix.ECHO, "echo,"}, {unix.ICANON, "lines,"}, {unix.ISIG, "ctrl-c"}} {
		if m.Lflag&f.bit != 0 {
			text += f.name
		}
	}
	return text
}

// pseudoTerminal returns the two ends of a terminal; far is the program's.
func pseudoTerminal(t *testing.T) (near, far *os.File) {
	t.Helper()
	near, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo-terminals here: " + err.Error())
	}
	t.Cleanup(func() { _ = near.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(int(near.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(near.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	far, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo-terminals here: " + err.Error())
	}
	t.Cleanup(func() { _ = far.Close() })
	return near, far
}

// On a terminal, hvlab run -step goes on at any key, without Enter.
func TestStepKeys(t *testing.T) {
	near, far := pseudoTerminal(t)
	file := filepath.Join(t.TempDir(), "scenario.txt")
	require.NoError(t, os.WriteFile(file, []byte("connect\n----\n\nusage\n----\n\nunload\n----\n"), 0o600))
	child := exec.Command("hvlab", "run", "-step", file)
	child.Stdin = far
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	prompts, err := child.StderrPipe()
	require.NoError(t, err)
	var lesson bytes.Buffer
	child.Stdout = &lesson
	require.NoError(t, child.Start())
	asked := bufio.NewReader(prompts)
	for _, key := range []string{"x", "\x1b[B", "q"} { // the second is the arrow down: three bytes, one key
		_, err := asked.ReadString(')')
		require.NoError(t, err)
		_, err = near.WriteString(key)
		require.NoError(t, err)
	}
	_, err = io.Copy(io.Discard, asked)
	require.NoError(t, err)
	require.NoError(t, child.Wait())
	require.Contains(t, lesson.String(), "ids=0", "two keys, two directives")
	require.Contains(t, lesson.String(), "> unload\n")
	require.NotContains(t, lesson.String(), "Unload port", "q quits before the third")
}
