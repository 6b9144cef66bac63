package hvsock

import "syscall"

// A Profile is how one kind of guest behaves where systems differ. The zero
// value is the best behaviour, that of hvsock.md 16; each field is a deviation
// from it.
type Profile struct {
	// Name is how reports call it; "" is hvlab's own.
	Name string
	// DatagramErrno is what socket() says to SOCK_DGRAM; 0 means
	// ESOCKTNOSUPPORT (section 10).
	DatagramErrno syscall.Errno
}
