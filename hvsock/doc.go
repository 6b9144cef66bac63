// Package hvsock is Hyper-V sockets: byte streams between a virtual machine and
// its host, one VMBus channel each.
//
// A connection goes through three stages, and the package has a part for each:
//
//	naming      Addr, ParseAddr, ServiceIDFromPort      addr.go, ids.go, sockaddr.go
//	connecting  GuestStack and HostStack: dial, listen   guest.go, host.go, machine.go,
//	            and the socket machines of both sides    registry.go, dial.go, loopback.go
//	streaming   Conn and Listener                        conn*.go, backlog.go, deadline.go
//
// # Naming
//
// An address is a VM id and a service id, both GUIDs. The VM id says who: Parent
// is the host, seen from its guest; a virtual machine's own id is that guest,
// seen from its host; Wildcard, to a listener, is everybody. The service id says
// what. Linux guests have port numbers instead, which are embedded in service
// ids of one pattern: see ServiceIDFromPort. VSockAddr is the same address as
// Linux prints it.
//
// # Connecting
//
// A guest that dials asks the host for a channel, which the host offers if
// somebody listens and refuses otherwise. A host that dials offers the channel
// unasked; a guest where nobody listens leaves it alone, so such a dial times
// out. Either way the guest provides the rings and opens the channel, and the
// connection exists.
//
// # Streaming
//
// A Conn reads and writes the two rings itself. Nothing runs in between: what
// Write puts into the ring, the peer's Read copies out of it, and the two only
// signal each other when one of them sleeps. Reading connwait.go first helps:
// it is where a call waits, and where every reason to stop waiting ends up.
//
// The end of a stream is in band, the FIN: an empty packet, behind all data. The
// end of a channel is not: the host rescinds it, or the guest closes it, and the
// Conn is detached from its rings; what had arrived is kept and can still be
// read.
//
// Source: hvsock.md, section by section; errors and their mapping to Go are in
// its section 16. Package hvsocktest has the promises as checks.
package hvsock
