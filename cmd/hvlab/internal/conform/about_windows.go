package conform

import (
	"fmt"

	"golang.org/x/sys/windows"
)

// thisMachine names the operating system and its version.
func thisMachine() string {
	v := windows.RtlGetVersion()
	return fmt.Sprintf("Windows %d.%d.%d", v.MajorVersion, v.MinorVersion, v.BuildNumber)
}
