// Package native is the sockets of package sim on the real operating system:
// the same three functions, the same kinds of connection, the same errors.
//
//	Linux    AF_VSOCK    a guest of Hyper-V, of QEMU, ..., and loopback
//	Windows  AF_HYPERV   the host, a guest, and loopback
//	others   every call fails with an *UnsupportedError
//
// So a program, or the conformance suite, runs on a simulated guest and on a
// real one by exchanging two functions:
//
//	l, err := native.Listen(hvsock.Addr{VMID: hvsock.Loopback})         // any free port
//	c, err := native.Dial(ctx, hvsock.Addr{VMID: hvsock.Parent, ServiceID: hvsock.ServiceIDFromPort(5000)})
//
// [Probe] says what of this works here, and how to get what does not.
//
// # How it is built
//
// The socket calls are those of mdlayher/vsock and Microsoft/go-winio. Between
// them and the caller there is a layer that is the same everywhere: conn.go,
// listen.go and dial.go turn what the libraries do into what package hvsock
// promises. A [system] is a table of functions; vsock.go and hyperv.go fill it
// for either address family from a smaller table of socket calls, and
// calls_linux.go and calls_windows.go are those calls. Everything but the last
// two is tested on any machine, with calls that misbehave as the real ones do.
//
// # Addresses of AF_VSOCK
//
// VM ids are CIDs and service ids are ports there (hvsock.md 2.5 to 2.7):
//
//	VM id      Dial              Listen
//	Parent     CID 2, the host   any CID, and only the host gets in
//	Loopback   CID 1             CID 1
//	Wildcard   ENETUNREACH       any CID
//	Children   ENETUNREACH       CID 2, which takes a host
//	others     ENETUNREACH       EADDRNOTAVAIL
//
// A service id that is no port is EADDRNOTAVAIL. The error says so in words, in
// an *AddressError. An address of a CID without a VM id (a guest's own, a QEMU
// guest seen from its host) is shown as a hvsock.VSockAddr.
//
// Address family 43 is never opened: it is hv_sock in old out-of-tree Linux
// kernels and in FreeBSD, with different address layouts, and something else in
// others (faults.md GO-07).
package native
