package conform

import "golang.org/x/sys/unix"

// thisMachine names the operating system and its version.
func thisMachine() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "Linux"
	}
	return "Linux " + unix.ByteSliceToString(u.Release[:])
}
