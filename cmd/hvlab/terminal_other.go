//go:build !linux

package main

import "os"

// consoleTerminal does nothing: only Linux boots guests.
func consoleTerminal(*os.File) (restore func()) { return func() {} }
