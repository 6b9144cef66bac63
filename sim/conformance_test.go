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
		t.Run(version.String(), func(t *testing.T) { conform(t, GuestOptions{Version: version}, 4) })
	}
}

// TestConformanceOfProfiles runs it with guests that exist. Each promise is as
// the profile keeps it; a guest's loopback has no profile.
func TestConformanceOfProfiles(t *testing.T) {
	for _, p := range hvsock.Profiles()[1:] {
		t.Run(p.Name, func(t *testing.T) { conform(t, GuestOptions{Profile: p}, 2) })
	}
}

// TestConformanceOfContainers runs it with containers; those that stay on their
// machine are like its loopback.
func TestConformanceOfContainers(t *testing.T) {
	host, guest := newPair(t, HostOptions{}, GuestOptions{})
	conformRoles(t, GuestOptions{}, containerRoles(t, host, guest)[:3])
}

func conform(t *testing.T, o GuestOptions, atMost int) {
	host, guest := newPair(t, HostOptions{}, o)
	conformRoles(t, o, roles(host, guest)[:atMost])
}

func conformRoles(t *testing.T, o GuestOptions, list []role) {
	for _, r := range list {
		next := uint32(20_000)
		fresh := func() (bind, dial hvsock.Addr) {
			next++
			id := hvsock.ServiceIDFromPort(next)
			return hvsock.Addr{VMID: r.bind.VMID, ServiceID: id}, hvsock.Addr{VMID: r.to.VMID, ServiceID: id}
		}
		tr := hvsocktest.Over(r.name, r.listen, r.dial, fresh)
		switch r.name {
		case "host to guest", "host to container":
			tr.Acceptor, tr.NeverRefuses = o.Profile, true // hvsock.md 5.2
		case "guest to host":
			tr.Dialer, tr.NeverRefuses = o.Profile, o.Profile.IgnoresRefusal
		}
		t.Run(r.name, func(t *testing.T) { hvsocktest.Run(t, tr) })
	}
}
