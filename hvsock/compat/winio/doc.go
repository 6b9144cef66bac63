// Package winio is the Hyper-V sockets of github.com/Microsoft/go-winio on
// simulated machines, on any operating system. A program that uses the original
// is tested without Windows and without a virtual machine by replacing the import
// path; every exported name of the original's hvsock.go is here, with the same
// signature and the same errors.
//
//	import "github.com/Microsoft/go-winio"               // before
//	import "github.com/hvlab/hvlab/hvsock/compat/winio" // after
//
// That is the only path to replace: GUIDs are of the original's own package
// github.com/Microsoft/go-winio/pkg/guid, which builds everywhere. (Named pipes,
// files, privileges and the rest of the original are not here.)
//
// Which machine the program runs on is the test's to say. A program that is left
// as it is gets one for the whole process; without one its calls fail with
// WSAEAFNOSUPPORT:
//
//	defer winio.Use(winio.On(host))()
//	program.Run()
//
// Tests that run in parallel, and programs with both ends in one process, ask a
// machine instead of the package, by the same names:
//
//	l, err := winio.On(host).ListenHvsock(&winio.HvsockAddr{VMID: winio.HvsockGUIDChildren(), ServiceID: service})
//	c, err := winio.On(guest).Dial(ctx, &winio.HvsockAddr{VMID: winio.HvsockGUIDParent(), ServiceID: service})
//
// # Errors
//
// Where the original has a number of Windows, an error here is a *WinsockError: it
// matches that number (10061), and also the constant of package syscall that
// means the same (ECONNREFUSED), on every system.
//
// # What differs
//
// The original does nothing better in any of these, and some are its bugs:
//
//   - An empty Read returns 0, nil; the original panics.
//   - A Read or Write whose deadline has passed fails, even if data or room is
//     there; the original looks at the deadline only when it has to wait.
//   - A context ends a dial at once; the original looks at it before and after.
//   - Accept of a closed listener also matches net.ErrClosed, not os.ErrClosed
//     alone.
//   - CloseRead and CloseWrite of a connection that the other end has reset
//     succeed; in the original they fail with net.ErrClosed.
//   - A listener for the zero service id gets a free port, which Addr shows.
package winio
