// Package hvsocktest says what every transport for Hyper-V sockets must do, as a
// list of checks that any of them can run: the simulator between its host and
// guests, the loopback of one partition, and the sockets of a real system.
//
// A [Behaviour] is one promise with the section of the specification it comes
// from. Check tries it on a [Transport] and returns what went wrong; [Run] runs
// all of them as subtests:
//
//	func TestConformance(t *testing.T) {
//		host, guest := ... // *sim.Host and *sim.Guest, for instance
//		port := uint32(20_000)
//		service := func() (bind, dial hvsock.Addr) { // one that nobody has used
//			port++
//			id := hvsock.ServiceIDFromPort(port)
//			return hvsock.Addr{VMID: hvsock.Wildcard, ServiceID: id}, hvsock.Addr{VMID: hvsock.Parent, ServiceID: id}
//		}
//		hvsocktest.Run(t, hvsocktest.Over("guest to host", host.Listen, guest.Dial, service))
//	}
//
// A transport that is known to differ says so in Transport: by the [hvsock.Profile]
// of either end, or by a deviation with its reason.
//
// A [Question] is what no system promises and each answers in its own way: its Ask
// returns the answer, for a comparison of systems such as hvlab conform.
//
// The checks use nothing but net.Conn and net.Listener with half-close and
// deadlines, so what they see is what an application would see. They do not
// depend on time, except that a deadline of some milliseconds must pass.
package hvsocktest
