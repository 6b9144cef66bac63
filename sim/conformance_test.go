package sim

import (
	"testing"

	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/hvsock/hvsocktest"
	"github.com/hvlab/hvlab/vmbus"
)

// TestConformance runs the suite that real sockets run too, in every role, at
// the oldest and the newest version that has sockets.
func TestConformance(t *testing.T) {
	for _, version := range []vmbus.Version{vmbus.Win10RS3, vmbus.Copper} {
		host, guest := newPair(t, HostOptions{}, GuestOptions{Version: version})
		for _, r := range roles(host, guest) {
			next := uint32(20_000)
			fresh := func() (bind, dial hvsock.Addr) {
				next++
				id := hvsock.ServiceIDFromPort(next)
				return hvsock.Addr{VMID: r.bind.VMID, ServiceID: id}, hvsock.Addr{VMID: r.to.VMID, ServiceID: id}
			}
			tr := hvsocktest.Over(r.name, r.listen, r.dial, fresh)
			tr.NeverRefuses = r.name == "host to guest" // hvsock.md 5.2
			t.Run(version.String()+"/"+r.name, func(t *testing.T) { hvsocktest.Run(t, tr) })
		}
	}
}
