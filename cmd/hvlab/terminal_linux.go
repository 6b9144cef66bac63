package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// consoleTerminal readies a terminal for a guest's console, which echoes and
// edits lines itself; Ctrl-C remains ours. restore undoes it. Anything but a
// terminal in the foreground is left alone: to touch it from the background
// would stop this process.
func consoleTerminal(f *os.File) (restore func()) {
	fd := int(f.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return func() {}
	}
	if group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err != nil || group != unix.Getpgrp() {
		return func() {}
	}
	guest := *old
	guest.Lflag &^= unix.ECHO | unix.ICANON
	guest.Iflag &^= unix.ICRNL // the Enter key sends CR to a serial line
	guest.Cc[unix.VMIN], guest.Cc[unix.VTIME] = 1, 0
	if unix.IoctlSetTermios(fd, unix.TCSETS, &guest) != nil {
		return func() {}
	}
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, old) }
}
