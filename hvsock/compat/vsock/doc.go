// Package vsock is github.com/mdlayher/vsock on simulated machines. A program
// that uses the original is tested without a virtual machine by replacing the
// import path; every exported name of the original is here, with the same
// signature and the same errors.
//
//	import "github.com/mdlayher/vsock"                   // before
//	import "github.com/hvlab/hvlab/hvsock/compat/vsock" // after
//
// Which machine the program runs on is the test's to say. A program that is left
// as it is gets one for the whole process; without one its calls fail as on a
// system that has no /dev/vsock:
//
//	defer vsock.Use(vsock.OnGuest(guest))()
//	program.Run()
//
// Tests that run in parallel, and programs with both ends in one process, ask a
// machine instead of the package, by the same names:
//
//	server := vsock.OnHost(host, map[uint32]uuid.UUID{3: guest.ID()})
//	l, err := server.Listen(5000, nil)
//	c, err := vsock.OnGuest(guest).Dial(vsock.Host, 5000, nil)
//
// # Context ids
//
// A guest is a Linux guest of Hyper-V, which does not know its own CID: it
// reports 4294967295, "any" (hvsock.md 2.7). It dials its host as 2 and itself
// as 1. A host is one that numbers its guests, as KVM's does: it is 2, and dials
// a guest by the CID given to OnHost; a guest without one cannot be dialled and
// shows as 4294967295 when it dials in. (A Windows host has no CIDs at all; that is
// what package winio is for.)
//
// # What differs
//
//   - Where Linux is not the best of all systems, a simulated guest is better: a
//     refused dial fails at once, a connection that was cut off reads ECONNRESET.
//     For what Linux does, down to the 2 s that a refused dial takes, give the
//     guest the profile hvsock.Linux.
//   - The descriptor that SyscallConn gives is a Unix socket's: reads, writes,
//     shutdown, poll and a copy for another process work, AF_VSOCK's own options
//     and getsockname do not. On systems other than Unix it fails with
//     errors.ErrUnsupported when it is used.
//   - FileListener fails with EINVAL, as for a file of another family: no
//     descriptor is behind a listener.
//   - An empty Read returns 0, nil; in the original it waits for data first.
package vsock
