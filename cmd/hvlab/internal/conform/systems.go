package conform

import (
	"runtime"
	"sync/atomic"

	"github.com/google/uuid"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/hvsock/hvsocktest"
	"github.com/hvlab/hvlab/hvsock/native"
	"github.com/hvlab/hvlab/sim"
)

// A Candidate is a system that can be asked now.
type Candidate struct {
	transport hvsocktest.Transport
	about     string
}

// Reference is the name of the system that the others are compared with.
const Reference = "simulator guest to host"

// Simulated is a host and a guest in this process, in both roles, and each
// talking to itself. stop ends them.
func Simulated() (all []Candidate, stop func() error, err error) {
	host, err := sim.NewHost(sim.HostOptions{Seed: 1})
	if err != nil {
		return nil, nil, err
	}
	guest, err := host.NewGuest(sim.GuestOptions{Seed: 1})
	if err != nil {
		_ = host.Close()
		return nil, nil, err
	}
	version := "VMBus " + guest.Version().String()
	var ports portCounter
	toGuest := hvsocktest.Over("simulator host to guest", guest.Listen, host.Dial, ports.services(hvsock.Wildcard, guest.ID()))
	toGuest.NeverRefuses = true
	for _, tr := range []hvsocktest.Transport{
		hvsocktest.Over(Reference, host.Listen, guest.Dial, ports.services(hvsock.Wildcard, hvsock.Parent)),
		toGuest,
		hvsocktest.Over("simulator host loopback", host.Listen, host.Dial, ports.services(hvsock.Loopback, hvsock.Loopback)),
		hvsocktest.Over("simulator guest loopback", guest.Listen, guest.Dial, ports.services(hvsock.Loopback, hvsock.Loopback)),
	} {
		all = append(all, Candidate{tr, version})
	}
	return all, host.Close, nil
}

// A portCounter counts ports up, so that no service is used twice.
type portCounter struct{ used atomic.Uint32 }

// firstPort is above the privileged ports, and where no well-known service of a
// real machine is.
const firstPort = 0x687700

// services is the Service function of a transport with the given VM ids.
func (p *portCounter) services(bindVM, dialVM uuid.UUID) func() (bind, dial hvsock.Addr) {
	return func() (bind, dial hvsock.Addr) {
		id := hvsock.ServiceIDFromPort(firstPort + p.used.Add(1))
		return hvsock.Addr{VMID: bindVM, ServiceID: id}, hvsock.Addr{VMID: dialVM, ServiceID: id}
	}
}

// Native is the sockets of this machine's operating system, where it can connect
// to itself. The report says why there are none, or that there are.
func Native() (all []Candidate, report native.Report) {
	report = native.Probe()
	if !report.Usable(native.OfferLoopback) {
		return nil, report
	}
	var ports portCounter
	service := ports.services(hvsock.Loopback, hvsock.Loopback)
	if runtime.GOOS == "windows" {
		// Each service would have to be registered, and rows clean up behind
		// them: one service will do, the one that Probe has found to work.
		service = func() (bind, dial hvsock.Addr) {
			a := hvsock.Addr{VMID: hvsock.Loopback, ServiceID: hvsock.ServiceIDFromPort(native.ProbePort)}
			return a, a
		}
	}
	tr := hvsocktest.Over(report.Family+" loopback", native.Listen, native.Dial, service)
	return []Candidate{{tr, thisMachine()}}, report
}
