//go:build !linux && !windows

package conform

import "runtime"

// thisMachine names the operating system.
func thisMachine() string { return runtime.GOOS }
