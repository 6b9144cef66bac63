// Package bridge shows the Hyper-V sockets of one guest as Unix sockets, so that
// programs in any language, socat among them, talk to it.
//
// It keeps the convention of "hybrid vsock", which Firecracker began and OpenVMM
// extended to service GUIDs. Bound to PATH:
//
//   - To reach a guest, a program connects to PATH and writes one line, CONNECT
//     and a port or service GUID. It reads OK and the number (or GUID) of the
//     host's end, and from then on the connection is the guest's. If the guest
//     does not accept, the connection is closed.
//   - To be reached by a guest, a program listens on PATH_P, where P is the port
//     that the guest will dial on its host, or on PATH_G, where G is the service
//     GUID in lower case. A port without such a socket is refused.
//
// For example, with a guest that listens on port 5000 and dials port 6000:
//
//	(echo CONNECT 5000; cat) | socat - UNIX-CONNECT:/tmp/guest
//	socat UNIX-LISTEN:/tmp/guest_6000 -
//
// Each direction ends by itself: a half-close travels through. A client that
// breaks the rules, or says nothing for 5 s, loses its own connection and
// nothing else happens. Whoever may open the Unix socket may talk to the guest:
// its folder's permissions decide.
//
// A Bridge needs two functions, which *sim.Host has:
//
//	b, err := bridge.New(bridge.Options{
//		Path: "/tmp/guest", VMID: guest.ID(), Dial: host.Dial, HandleRequests: host.HandleRequests,
//	})
//
// Read handshake.go for the line, relay.go for the bytes, bridge.go for the rest.
//
// Source: OpenVMM, the Unix-socket front end of its vmbus relay for hv_sock
// (spec/hvsock.md 5.3); Firecracker docs/vsock.md.
package bridge
