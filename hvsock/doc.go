// Package hvsock is Hyper-V sockets: byte streams between a virtual machine and
// its host, each over a VMBus channel of its own.
//
// An [Addr] names a partition (a VM id, or a wildcard such as [Parent]) and a
// service. Between Windows ends a service is any GUID; Linux and FreeBSD guests
// know 32-bit ports, which [ServiceIDFromPort] writes into a GUID. A [Conn] is a
// net.Conn with CloseRead and CloseWrite, a [Listener] a net.Listener with
// SetDeadline.
//
// Who does what, file by file:
//
//   - addr.go, ids.go, sockaddr.go: addresses as text, as GUIDs, as ports, and
//     as the bytes of SOCKADDR_HV and sockaddr_vm.
//   - conn*.go, deadline.go: the data path. A Conn reads and writes its rings
//     directly, under one lock per direction; no goroutine stands between, unless
//     a program insists on a file descriptor (connfile.go).
//   - backlog.go, listeners.go, ports.go: listeners, and automatic ports.
//   - reach.go: who reaches whom, as tables; guestreach.go, hostreach.go and
//     container.go: dialing and listening by them.
//   - profile.go, guestprofile.go: how kinds of guests differ.
//   - options.go, optioncalls.go: socket options; [Dialer] dials with them.
//   - machine.go: a socket's life as two transition tables, guest and host.
//   - guest.go, host.go: [GuestStack] and [HostStack] drive those tables over the
//     buses of package live.
//   - loopback.go: two sockets of one partition.
//
// A guest that dials sends TLConnectRequest, and the host's answer is the offer
// of a channel; a host that dials offers first. Either way the guest opens the
// channel over rings in its own memory, data flows, each side ends its direction
// with a FIN packet, and the host rescinds the offer. Nothing else ends a
// channel: a Linux guest waits for that rescind without any bound.
//
// A Windows host keeps a list of services, package registry, that it can be told
// to insist on (HostOptions.Services and Strict).
//
// What a peer does to a ring or a message ends at worst its own connection. What
// is in the rings when a channel ends is copied out and stays readable.
//
// # Next to other families
//
// When Hyper-V sockets came to Linux they were to be a family of their own,
// AF_HYPERV, because what AF_VSOCK had was VMCI's. Four families, and the test
// behind each cell of hv_sock:
//
//	              hv_sock           AF_HYPERV (2016)   VMCI              virtio vsock
//	endpoint      guest: CID, port  VM GUID, service   CID, port         CID, port
//	              host: two GUIDs   GUID                                 (64-bit CID on the wire)
//	              [a]
//	sockets       stream [b]        stream             stream, datagram  stream, seqpacket
//	options that  connect timeout,  none               buffer size with  buffer size with
//	mean          SO_SNDBUF and                        minimum and       minimum and
//	something     SO_RCVBUF as                         maximum, connect  maximum, connect
//	              hints [c]                            timeout, peer's   timeout
//	                                                   host VM id,
//	                                                   trusted
//	notification  space for a       as hv_sock         before and after  credit: none is
//	hooks         chunk becomes                        each send and     asked for outside
//	              free, once per                       receive, and for  the packets
//	              crossing [d]                         poll
//
//	[a] TestVSock, TestSockaddrHV and TestSockaddrVM here; TestProfileAddresses and
//	    TestProfileRemotePort in sim
//	[b] TestSocketTypes here, TestProfileAddresses in sim
//	[c] TestOptionTable, TestVSockOptions and TestOptionFamilies here;
//	    TestConnectTimeoutOption and TestBufferOptions in sim
//	[d] TestNoLostWakeup here, and in TestRaces "writer blocked, host freed space
//	    earlier"
//
// Source: hvsock.md 1 and 9; the cover letters of "introduce Hyper-V VM Sockets",
// netdev 2016, versions 9 and 10; for virtio, Linux net/vmw_vsock as a source of
// facts. Profile AFHyperV2016 is that family in a guest.
//
// Programs do not build stacks themselves: package sim wires a host and guests
// in one process, sim/kvmguest a real kernel, and hvsock/native offers the same
// functions on the system's own sockets. Package hvsocktest is the conformance
// suite they all pass. The packages below hvsock/compat stand in for the socket
// packages that programs use today.
//
// Source: hvsock.md; Microsoft's "Make your own integration services"; Linux
// net/vmw_vsock/hyperv_transport.c as a source of facts.
package hvsock
